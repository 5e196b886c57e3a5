//! Pickles, followed without running anything.

mod build;
mod calls;
mod constants;
pub(crate) mod globals;
mod import;
mod machine;
mod numbers;
pub(crate) mod opcodes;
mod read;
mod stream;

pub(crate) use build::attach;
pub(crate) use calls::{Refusal, elements, understand};
pub use import::first_import;
pub(crate) use machine::{Machine, Persistent};
pub(crate) use read::{NoPersistent, follow_rest, may_begin, read};
pub(crate) use stream::Stream;
