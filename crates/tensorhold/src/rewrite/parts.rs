//! The tensors that hold a quantized weight, in the layouts that are written.

use tensorhold_core::{Dtype, Result};
use tensorhold_quant::codec::BitOrder;

/// A part of a quantized weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Codes,
    Scales,
    Zeros,
    /// The second scale.
    Global,
    /// Outputs and inputs.
    Shape,
    /// The group of each input.
    Index,
    /// The scale of inputs.
    Input,
}

/// A tensor that holds a part.
pub(crate) struct PartSpec {
    pub part: Part,
    /// What its name ends in.
    pub suffix: &'static str,
    pub dtype: Dtype,
    pub shape: Vec<u64>,
}

impl PartSpec {
    pub fn new(part: Part, suffix: &'static str, dtype: Dtype, shape: &[u64]) -> PartSpec {
        PartSpec {
            part,
            suffix,
            dtype,
            shape: shape.to_vec(),
        }
    }
}

/// The words that so many codes take.
fn words(bits: u32, n_codes: u64) -> Result<u64> {
    Ok(BitOrder::lsb_words(bits)?.size_bytes(n_codes)? / 4)
}

/// The parts of a weight in GPTQ, `n_groups` groups of inputs.
pub(crate) fn gptq_parts(
    bits: u32,
    [rows, columns]: [u64; 2],
    n_groups: u64,
    scales: Dtype,
) -> Result<Vec<PartSpec>> {
    let (codes, zeros) = (
        [words(bits, columns)?, rows],
        [n_groups, words(bits, rows)?],
    );
    Ok(vec![
        PartSpec::new(Part::Codes, "qweight", Dtype::I32, &codes),
        PartSpec::new(Part::Zeros, "qzeros", Dtype::I32, &zeros),
        PartSpec::new(Part::Scales, "scales", scales, &[n_groups, rows]),
        PartSpec::new(Part::Index, "g_idx", Dtype::I32, &[columns]),
    ])
}

/// The codes that fill GPTQ's words, which rows and columns must be whole of.
pub(crate) fn gptq_unit(bits: u32) -> u64 {
    if bits == 3 { 32 } else { (32 / bits).into() }
}

/// The parts of a weight in `pack-quantized` of compressed-tensors; zeros where it is not `symmetric`.
pub(crate) fn packed_parts(
    bits: u32,
    [rows, columns]: [u64; 2],
    n_groups: u64,
    scales: Dtype,
    symmetric: bool,
) -> Result<Vec<PartSpec>> {
    let packed = [rows, words(bits, columns)?];
    let zeros = [words(bits, rows)?, n_groups];
    let zeros = PartSpec::new(Part::Zeros, "weight_zero_point", Dtype::I32, &zeros);
    let mut parts = vec![
        PartSpec::new(Part::Codes, "weight_packed", Dtype::I32, &packed),
        PartSpec::new(Part::Scales, "weight_scale", scales, &[rows, n_groups]),
        PartSpec::new(Part::Shape, "weight_shape", Dtype::I64, &[2]),
    ];
    parts.extend((!symmetric).then_some(zeros));
    Ok(parts)
}

/// The parts of a weight in NVFP4, by the names of codes and second scale and the shape of the latter.
pub(crate) fn nvfp4_parts(
    [rows, columns]: [u64; 2],
    [codes, global]: [&'static str; 2],
    scalar: &[u64],
) -> Vec<PartSpec> {
    let (halves, grid) = ([rows, columns.div_ceil(2)], [rows, columns.div_ceil(16)]);
    vec![
        PartSpec::new(Part::Codes, codes, Dtype::U8, &halves),
        PartSpec::new(Part::Scales, "weight_scale", Dtype::F8_E4M3, &grid),
        PartSpec::new(Part::Global, global, Dtype::F32, scalar),
    ]
}
