//! The signatures by which schemes are recognised: a scheme is one line of a table.
//!
//! A tensor whose name ends in an anchor, and beside which one of the parts in `with` lies, has a candidate; of several the
//! first in the table counts, so that what is special stands before what is general.

use tensorhold_core::Dtype;

use super::module::Module;
use super::readers::{
    bitsandbytes, bytes, comfy, compressed, fp8, grouped, hqq, kernels, microscaling, mlx, quanto,
    sparse, torchao,
};
use super::reading::Reading;

/// How the parts of a weight in a scheme are recognised.
pub(super) struct Signature {
    /// What the name of one tensor ends in; what is before it is the name of the module.
    pub anchor: &'static str,
    /// What stands between the name of the module and those of the parts.
    pub joint: &'static str,
    /// The types of that tensor; any where there are none.
    pub dtypes: &'static [Dtype],
    /// Parts of which one must be there; none where there are none.
    pub with: &'static [&'static str],
    /// Says what the parts are, or that they are something else.
    pub read: fn(&Module<'_>) -> Option<Reading>,
}

use Dtype::{
    F4, F6_E2M3, F6_E3M2, F8_E4M3, F8_E4M3FNUZ, F8_E5M2, F8_E5M2FNUZ, I8, I16, I32, U8, U16, U32,
};

const SMALL: &[Dtype] = &[U8, I8, F4, F8_E4M3, F8_E5M2];
const INTEGERS: &[Dtype] = &[U8, I8, I16, U16, I32, U32];
const FLOATS: &[Dtype] = &[F8_E4M3, F8_E5M2, F8_E4M3FNUZ, F8_E5M2FNUZ];

const fn entry(
    anchor: &'static str,
    dtypes: &'static [Dtype],
    with: &'static [&'static str],
    read: fn(&Module<'_>) -> Option<Reading>,
) -> Signature {
    Signature {
        anchor,
        joint: ".",
        dtypes,
        with,
        read,
    }
}

/// A scheme whose parts' names follow without a dot.
const fn fused(
    anchor: &'static str,
    with: &'static [&'static str],
    read: fn(&Module<'_>) -> Option<Reading>,
) -> Signature {
    Signature {
        anchor,
        joint: "",
        dtypes: &[],
        with,
        read,
    }
}

/// All signatures, the special ones first.
pub(super) const SIGNATURES: &[Signature] = &[
    entry(".weight", SMALL, &[], comfy::read),
    entry(
        ".weight.quant_state.bitsandbytes__nf4",
        &[],
        &["weight"],
        bitsandbytes::four_bits,
    ),
    entry(
        ".weight.quant_state.bitsandbytes__fp4",
        &[],
        &["weight"],
        bitsandbytes::four_bits,
    ),
    entry(".weight._data._data", &[], &["weight._scale"], quanto::bits),
    entry(".weight._data", &[], &["weight._scale"], quanto::bytes),
    entry(".W_q", &[], &["scale"], hqq::read),
    Signature {
        anchor: "_qdata",
        joint: "_",
        dtypes: &[],
        with: &["scale"],
        read: torchao::read,
    },
    entry(".qweight", &[], &["scales"], grouped::read),
    entry(".weight_packed", &[], &["scale_packed"], kernels::marlin_24),
    entry(
        ".weight_packed",
        &[],
        &["weight_global_scale"],
        microscaling::nvfp4_packed,
    ),
    entry(
        ".weight_packed",
        &[U8],
        &["weight_scale"],
        microscaling::mx_packed,
    ),
    entry(
        ".weight_packed",
        &[],
        &["weight_scale", "weight_shape"],
        compressed::packed,
    ),
    entry(".weight", FLOATS, fp8::SCALES, fp8::read),
    entry(
        ".weight",
        &[U8, F4],
        &["weight_scale_2"],
        microscaling::nvfp4,
    ),
    entry(
        ".weight",
        &[U8, F4, F6_E2M3, F6_E3M2],
        &["weight_scale"],
        microscaling::mx,
    ),
    entry(".weight", &[I8, U8], &["scale"], microscaling::deepseek),
    entry(".weight", &[I8], &["weight_scale"], compressed::integers),
    entry(".weight", &[U32], &["scales"], mlx::read),
    entry(
        ".weight",
        &[I8],
        &["SCB", "weight_scb"],
        bitsandbytes::eight_bits,
    ),
    entry(
        ".weight",
        &[],
        &["weight_absmax", "weight_quant_state"],
        bitsandbytes::of_gptqmodel,
    ),
    entry(".weight", &[U8], &["weight_scale"], bytes::read),
    entry(".compressed", &[], &["bitmask"], sparse::read),
    fused("_scale_inv", &[""], fp8::fused),
    fused("_blocks", &["_scales"], microscaling::gpt_oss),
    entry(".B", &[], &["s"], kernels::marlin),
    entry(".trellis", &[], &["suh", "svh", "sv", "su"], kernels::exl3),
    entry(".weight", FLOATS, &[], fp8::without_scale),
    entry(
        ".weight",
        INTEGERS,
        &["weight_scale", "scales"],
        kernels::unknown,
    ),
];

impl Signature {
    /// The name of the module of a tensor, if the tensor may be the anchor.
    pub fn module_of<'a>(&self, name: &'a str, dtype: Dtype) -> Option<&'a str> {
        let prefix = name.strip_suffix(self.anchor)?;
        (self.dtypes.is_empty() || self.dtypes.contains(&dtype)).then_some(prefix)
    }

    /// Whether one of the other parts is there.
    pub fn has_partner(&self, module: &Module<'_>) -> bool {
        self.with.is_empty() || self.with.iter().any(|part| module.has(part))
    }
}
