//! The command `tensorhold`.
