//! The message packs of Flax.
