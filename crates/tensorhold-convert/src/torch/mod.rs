//! What PyTorch writes: archives and streams of a pickle and the storages that it names.

pub(crate) mod archive;
pub(crate) mod legacy;
pub(crate) mod rebuild;
pub(crate) mod storages;
pub(crate) mod tar;
