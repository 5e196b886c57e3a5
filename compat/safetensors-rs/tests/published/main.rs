//! The published crate 0.8.0 and this one give the same bytes, verdicts and slices.
#![allow(clippy::unwrap_used)]

mod bytes;
#[path = "../common/mod.rs"]
mod common;
mod generator;
mod slices;
mod verdicts;
