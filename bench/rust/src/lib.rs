//! What the programs of the benchmark share: the clock.

pub mod clock;
