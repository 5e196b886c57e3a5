//! What the ways to write a quantized weight are called.

use core::fmt;

/// A way to write a quantized weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SchemeName {
    /// Floats of 8 bits with scales of a tensor, of rows or of blocks.
    Fp8,
    /// GPTQ.
    Gptq,
    /// AWQ, in whatever layout.
    Awq,
    /// `pack-quantized` of compressed-tensors.
    PackQuantized,
    /// `int-quantized` of compressed-tensors.
    IntQuantized,
    /// `W4A16_AWQ` of modelopt.
    ModeloptInt4,
    /// Microscaling, floats of 4 bits.
    Mxfp4,
    /// Microscaling, floats of 6 bits.
    Mxfp6,
    /// Microscaling, floats of 8 bits.
    Mxfp8,
    /// NVFP4.
    Nvfp4,
    /// NF4 of bitsandbytes.
    Nf4,
    /// FP4 of bitsandbytes.
    BnbFp4,
    /// `LLM.int8()` of bitsandbytes.
    BnbInt8,
    /// MLX, affine; its other modes are named by their floats.
    Mlx,
    /// A tensor subclass of torchao that is none of the above.
    Torchao,
    /// optimum-quanto.
    Quanto,
    /// HQQ.
    Hqq,
    /// BitNet.
    BitNet,
    /// A format of ComfyUI that is none of the above.
    ComfyUi,
    /// `sparse-bitmask` of compressed-tensors.
    SparseBitmask,
    /// `sparse-24-bitmask` of compressed-tensors.
    Sparse24Bitmask,
    /// The order of the Marlin kernels.
    Marlin,
    /// EXL3.
    Exl3,
    /// It is quantized; in what is not known.
    Unknown,
}

impl SchemeName {
    /// The name that the field uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            SchemeName::Fp8 => "fp8",
            SchemeName::Gptq => "gptq",
            SchemeName::Awq => "awq",
            SchemeName::PackQuantized => "pack-quantized",
            SchemeName::IntQuantized => "int-quantized",
            SchemeName::ModeloptInt4 => "w4a16_awq",
            SchemeName::Mxfp4 => "mxfp4",
            SchemeName::Mxfp6 => "mxfp6",
            SchemeName::Mxfp8 => "mxfp8",
            SchemeName::Nvfp4 => "nvfp4",
            SchemeName::Nf4 => "bnb-nf4",
            SchemeName::BnbFp4 => "bnb-fp4",
            SchemeName::BnbInt8 => "bnb-int8",
            SchemeName::Mlx => "mlx",
            SchemeName::Torchao => "torchao",
            SchemeName::Quanto => "quanto",
            SchemeName::Hqq => "hqq",
            SchemeName::BitNet => "bitnet",
            SchemeName::ComfyUi => "comfyui",
            SchemeName::SparseBitmask => "sparse-bitmask",
            SchemeName::Sparse24Bitmask => "sparse-24-bitmask",
            SchemeName::Marlin => "marlin",
            SchemeName::Exl3 => "exl3",
            SchemeName::Unknown => "unknown",
        }
    }
}

impl fmt::Display for SchemeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
