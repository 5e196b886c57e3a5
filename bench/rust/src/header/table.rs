//! The digest of a header's table, the same whichever crate made it.

use std::hash::{DefaultHasher, Hash, Hasher};

/// A digest that grows tensor by tensor, in the order of the file.
#[derive(Default)]
pub struct Table(DefaultHasher);

impl Table {
    /// Takes the next tensor.
    pub fn add(&mut self, name: &str, dtype: &str, shape: impl Iterator<Item = u64>, end: u64) {
        (name, dtype, end).hash(&mut self.0);
        shape.for_each(|dim| dim.hash(&mut self.0));
    }

    /// The digest of all that were taken.
    pub fn digest(&self) -> u64 {
        self.0.finish()
    }
}
