//! What is wanted, as pure data: which bytes of which file go to which place.
//!
//! A [`LoadPlan`] is made from headers alone. It can be counted, printed and tested without a disk;
//! [`LoadPlan::tasks`] cuts it into the reads that carry it out. A [`SavePlan`] is the same for a file that is to be written.

mod display;
mod load;
mod pack;
mod save;
mod tasks;

pub use load::{LoadPlan, Place, Request};
pub use pack::{Packer, Packing};
pub use save::{Origin, SavePart, SavePlan};
pub use tasks::{Cut, Piece, Task, Tasks};
