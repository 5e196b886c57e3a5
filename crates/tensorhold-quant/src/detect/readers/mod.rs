//! What the parts of each family of schemes are: one file for each, as in [`scheme`](crate::scheme).

pub(super) mod bitsandbytes;
pub(super) mod bytes;
pub(super) mod comfy;
pub(super) mod compressed;
pub(super) mod fp8;
pub(super) mod grouped;
mod groups;
pub(super) mod hqq;
pub(super) mod kernels;
pub(super) mod microscaling;
pub(super) mod mlx;
pub(super) mod quanto;
pub(super) mod sparse;
pub(super) mod torchao;
mod zeros;
