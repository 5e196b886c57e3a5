//! Keeps model weights.
