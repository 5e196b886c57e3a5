//! The command `tensorhold`.

fn main() {}
