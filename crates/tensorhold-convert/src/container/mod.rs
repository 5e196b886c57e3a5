//! The archives that checkpoints come in.
