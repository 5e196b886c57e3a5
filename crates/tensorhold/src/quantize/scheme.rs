//! What weights can become, and the tensors that then hold one.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};
use tensorhold_quant::codec::FloatCode;
use tensorhold_quant::encode::{Code, Coding};
use tensorhold_quant::scheme::Groups;

use crate::rewrite::{Part, PartSpec, gptq_parts, gptq_unit, nvfp4_parts, packed_parts};

/// What weights are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuantizeScheme {
    /// Floats of 8 bits, with one scale for a weight: `float-quantized` of compressed-tensors.
    Fp8Tensor,
    /// Floats of 8 bits, with a scale for each output: `float-quantized`.
    Fp8Channel,
    /// Floats of 8 bits, with a scale for each block, fewer rows and columns at the edges: `float-quantized`.
    Fp8Block {
        /// Outputs of a block.
        rows: u64,
        /// Inputs of a block.
        columns: u64,
    },
    /// Floats of 8 bits with an F32 for each block, as DeepSeek and Qwen publish them: `fp8` of Transformers, vLLM and SGLang. The weights
    /// of several experts in one tensor can be so, too.
    Fp8Finegrained {
        /// Outputs of a block.
        rows: u64,
        /// Inputs of a block.
        columns: u64,
    },
    /// Integers.
    Int {
        /// The width of a code, 2 to 8; 2, 3, 4 or 8 for GPTQ.
        bits: u32,
        /// Whether codes are counted from the middle, and not from a zero of each group.
        symmetric: bool,
        /// Inputs that share a scale, all where `None`.
        group_size: Option<u64>,
        /// How they are stored.
        layout: IntLayout,
    },
    /// Microscaling: floats of 4 bits, `mxfp4-pack-quantized` of compressed-tensors.
    Mxfp4,
    /// Microscaling: floats of 8 bits, `mxfp8-quantized`.
    Mxfp8,
    /// NVFP4: `nvfp4-pack-quantized`.
    Nvfp4,
}

/// How integers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IntLayout {
    /// In words along the inputs: `pack-quantized` of compressed-tensors.
    Packed,
    /// In bytes, 8 bits with a scale for each output: `int-quantized`.
    Bytes,
    /// GPTQ, version 2.
    Gptq,
}

const NAMES: &[&str] = &[
    "fp8-tensor",
    "fp8-channel",
    "fp8-block",
    "fp8-finegrained",
    "int8-channel",
    "int4",
    "int4-asym",
    "int8",
    "int8-asym",
    "mxfp4",
    "mxfp8",
    "nvfp4",
    "gptq-int4",
    "gptq-int4-asym",
    "gptq-int8",
    "gptq-int8-asym",
];

impl QuantizeScheme {
    /// The scheme that is called so, such as `fp8-block`, `int4`, `int4-asym`, `gptq-int4` or `nvfp4`, with so many inputs in a
    /// group (all where 0, 128 where not said) and blocks of such a size (128 x 128 where not said).
    ///
    /// # Errors
    /// `InvalidArgument` for another name, with the names that there are, and for sizes that the scheme does not have.
    pub fn named(name: &str, group_size: Option<u64>, block: Option<[u64; 2]>) -> Result<Self> {
        let (layout, rest) = match name.strip_prefix("gptq-") {
            Some(rest) => (IntLayout::Gptq, rest),
            None => (IntLayout::Packed, name),
        };
        refuse_sizes(name, group_size, block)?;
        let [rows, columns] = block.unwrap_or([128, 128]);
        let scheme = match name {
            "fp8-tensor" => QuantizeScheme::Fp8Tensor,
            "fp8-channel" => QuantizeScheme::Fp8Channel,
            "fp8-block" => QuantizeScheme::Fp8Block { rows, columns },
            "fp8-finegrained" => QuantizeScheme::Fp8Finegrained { rows, columns },
            "mxfp4" => QuantizeScheme::Mxfp4,
            "mxfp8" => QuantizeScheme::Mxfp8,
            "nvfp4" => QuantizeScheme::Nvfp4,
            "int8-channel" => QuantizeScheme::Int {
                bits: 8,
                symmetric: true,
                group_size: None,
                layout: IntLayout::Bytes,
            },
            _ => integers(rest, layout, group_size).ok_or_else(|| {
                invalid(format!("there is no scheme `{name}`"))
                    .with_hint(format!("there are {}", NAMES.join(", ")))
            })?,
        };
        scheme.checked()
    }

    /// The name of its format in the configuration.
    #[must_use]
    pub fn format(self) -> &'static str {
        use QuantizeScheme::*;
        match self {
            Fp8Tensor | Fp8Channel | Fp8Block { .. } => "float-quantized",
            Fp8Finegrained { .. } => "fp8",
            Mxfp4 => "mxfp4-pack-quantized",
            Mxfp8 => "mxfp8-quantized",
            Nvfp4 => "nvfp4-pack-quantized",
            Int { layout, .. } => match layout {
                IntLayout::Packed => "pack-quantized",
                IntLayout::Bytes => "int-quantized",
                IntLayout::Gptq => "gptq_v2",
            },
        }
    }

    pub(super) fn is_gptq(self) -> bool {
        matches!(
            self,
            QuantizeScheme::Int {
                layout: IntLayout::Gptq,
                ..
            }
        )
    }

    pub(super) fn checked(self) -> Result<Self> {
        match self {
            QuantizeScheme::Fp8Block { rows: 0, .. }
            | QuantizeScheme::Fp8Block { columns: 0, .. }
            | QuantizeScheme::Fp8Finegrained { rows: 0, .. }
            | QuantizeScheme::Fp8Finegrained { columns: 0, .. } => Err(invalid(
                "blocks of 0 rows or columns hold nothing".to_owned(),
            )),
            QuantizeScheme::Int {
                bits,
                layout,
                symmetric,
                group_size,
            } => {
                let is_fine = match layout {
                    IntLayout::Packed => matches!(bits, 2..=8),
                    IntLayout::Bytes => bits == 8 && symmetric && group_size.is_none(),
                    IntLayout::Gptq => matches!(bits, 2 | 3 | 4 | 8),
                };
                match is_fine && group_size != Some(0) {
                    true => Ok(self),
                    false => Err(invalid(format!(
                        "`{}` has no integers of {bits} bits in such groups",
                        self.format()
                    ))),
                }
            }
            _ => Ok(self),
        }
    }

    /// What codes are, and what is computed in `scales`.
    pub(super) fn coding(self, scales: Dtype) -> Result<Coding> {
        use QuantizeScheme::*;
        let code = match self {
            Fp8Tensor | Fp8Channel | Fp8Block { .. } | Fp8Finegrained { .. } => {
                Code::Float(FloatCode::E4m3)
            }
            Int {
                bits, symmetric, ..
            } => Code::Int { bits, symmetric },
            Mxfp4 => Code::Power(FloatCode::E2m1),
            Mxfp8 => Code::Power(FloatCode::E4m3),
            Nvfp4 => Code::Nvfp4,
        };
        Coding::new(code, scales)
    }

    /// Which weights of so many inputs share a scale.
    pub(super) fn groups(self, columns: u64) -> Groups {
        use QuantizeScheme::*;
        let (rows, columns) = match self {
            Fp8Tensor => (u64::MAX, u64::MAX),
            Fp8Channel => (1, columns),
            Fp8Block { rows, columns } | Fp8Finegrained { rows, columns } => (rows, columns),
            Int { group_size, .. } => (1, group_size.unwrap_or(columns)),
            Mxfp4 | Mxfp8 => (1, 32),
            Nvfp4 => (1, 16),
        };
        Groups {
            rows,
            columns: columns.max(1),
        }
    }

    /// Refuses weights of a shape that it has no groups or words for.
    pub(super) fn check_shape(self, [rows, columns]: [u64; 2]) -> Result<()> {
        let group = self.groups(columns).columns;
        let is_cut = !matches!(
            self,
            QuantizeScheme::Fp8Tensor
                | QuantizeScheme::Fp8Block { .. }
                | QuantizeScheme::Fp8Finegrained { .. }
        );
        if is_cut && !columns.is_multiple_of(group) {
            let fitting: Vec<String> = [256, 128, 64, 32, 16, 8]
                .iter()
                .filter(|size| columns.is_multiple_of(**size))
                .map(u64::to_string)
                .collect();
            let hint = match (self, &fitting[..]) {
                (QuantizeScheme::Int { .. }, [_, ..]) => format!(
                    "groups of {} divide them, and one group of all (0) does; or leave the weight out with `ignore`",
                    fitting.join(", ")
                ),
                _ => "leave the weight out with `ignore`".to_owned(),
            };
            let message = format!("{columns} inputs are no whole groups of {group}");
            return Err(invalid(message).with_hint(hint));
        }
        match self {
            QuantizeScheme::Int {
                bits,
                layout: IntLayout::Gptq,
                ..
            } => check_words(bits, [rows, columns]),
            _ => Ok(()),
        }
    }

    /// The tensors of a weight of this shape.
    pub(super) fn parts(self, shape: [u64; 2], scales: Dtype) -> Result<Vec<PartSpec>> {
        use QuantizeScheme::*;
        let [rows, columns] = shape;
        let groups = self.groups(columns);
        let grid = [rows, columns.div_ceil(groups.columns)];
        let blocks = [rows.div_ceil(groups.rows), grid[1]];
        let halves = [rows, columns.div_ceil(2)];
        let floats = || PartSpec::new(Part::Codes, "weight", Dtype::F8_E4M3, &shape);
        let nibbles = || PartSpec::new(Part::Codes, "weight_packed", Dtype::U8, &halves);
        let scale =
            |dtype, shape: &[u64]| PartSpec::new(Part::Scales, "weight_scale", dtype, shape);
        Ok(match self {
            Fp8Tensor => vec![floats(), scale(scales, &[1])],
            Fp8Channel => vec![floats(), scale(scales, &grid)],
            Fp8Block { .. } => vec![floats(), scale(scales, &blocks)],
            Fp8Finegrained { .. } => {
                let suffix = "weight_scale_inv";
                let scales = PartSpec::new(Part::Scales, suffix, scales, &blocks);
                vec![floats(), scales]
            }
            Mxfp4 => vec![nibbles(), scale(Dtype::U8, &grid)],
            Mxfp8 => vec![floats(), scale(Dtype::U8, &grid)],
            Nvfp4 => nvfp4_parts(shape, ["weight_packed", "weight_global_scale"], &[1]),
            Int {
                bits,
                symmetric,
                layout,
                ..
            } => match layout {
                IntLayout::Bytes => {
                    let codes = PartSpec::new(Part::Codes, "weight", Dtype::I8, &shape);
                    vec![codes, scale(scales, &grid)]
                }
                IntLayout::Packed => packed_parts(bits, shape, grid[1], scales, symmetric)?,
                IntLayout::Gptq => gptq_parts(bits, shape, grid[1], scales)?,
            },
        })
    }
}

impl QuantizeScheme {
    /// The tensors of the weights of so many experts, whose blocks end where an expert's rows do.
    pub(super) fn parts_of_experts(self, shape: [u64; 3], scales: Dtype) -> Vec<PartSpec> {
        let [experts, rows, columns] = shape;
        let groups = self.groups(columns);
        let blocks = [
            experts,
            rows.div_ceil(groups.rows),
            columns.div_ceil(groups.columns),
        ];
        vec![
            PartSpec::new(Part::Codes, "", Dtype::F8_E4M3, &shape),
            PartSpec::new(Part::Scales, "_scale_inv", scales, &blocks),
        ]
    }
}

/// Refuses weights that do not fill the words of GPTQ.
fn check_words(bits: u32, [rows, columns]: [u64; 2]) -> Result<()> {
    let unit = gptq_unit(bits);
    if rows.is_multiple_of(unit) && columns.is_multiple_of(unit) {
        return Ok(());
    }
    let message = format!(
        "{rows} outputs and {columns} inputs do not fill the words of GPTQ, which hold {unit} codes"
    );
    Err(invalid(message).with_hint("leave the weight out with `ignore`"))
}

/// Refuses a size that a scheme of this name does not have.
fn refuse_sizes(name: &str, group_size: Option<u64>, block: Option<[u64; 2]>) -> Result<()> {
    let rest = name.strip_prefix("gptq-").unwrap_or(name);
    let has_groups = rest.starts_with("int") && name != "int8-channel";
    let what = match (group_size, block) {
        (Some(_), _) if !has_groups => "groups",
        (_, Some(_)) if !matches!(name, "fp8-block" | "fp8-finegrained") => "blocks",
        _ => return Ok(()),
    };
    let message = format!("`{name}` has no {what} of a size to choose");
    Err(invalid(message))
}

/// `int4`, `int8-asym` and the like.
fn integers(name: &str, layout: IntLayout, group_size: Option<u64>) -> Option<QuantizeScheme> {
    let rest = name.strip_prefix("int")?;
    let (bits, symmetric) = match rest.strip_suffix("-asym") {
        Some(bits) => (bits, false),
        None => (rest, true),
    };
    Some(QuantizeScheme::Int {
        bits: bits.parse().ok()?,
        symmetric,
        group_size: Some(group_size.unwrap_or(128)).filter(|size| *size > 0),
        layout,
    })
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}
