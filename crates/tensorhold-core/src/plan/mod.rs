//! What is wanted, as pure data: which bytes of which file go to which place.
//!
//! A [`LoadPlan`] is made from headers alone. It can be counted, printed and tested without a disk;
//! [`LoadPlan::tasks`] cuts it into the reads that carry it out.

mod display;
mod load;
mod tasks;

pub use load::{LoadPlan, Place, Request};
pub use tasks::{Cut, Piece, Task, Tasks};
