//! What the parts of each family of schemes are: one file for each, as in [`scheme`](crate::scheme).

pub(super) mod comfy;
pub(super) mod compressed;
pub(super) mod fp8;
pub(super) mod grouped;
mod groups;
pub(super) mod kernels;
pub(super) mod microscaling;
mod zeros;
