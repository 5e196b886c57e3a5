//! Which weights are found in the tensors and configurations of checkpoints, and what is told of those that are not right.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod checkpoint;
mod configs;
mod damage;
mod packages;
mod schemes;
