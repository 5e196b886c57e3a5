//! What weights can be repacked to, and the tensors that then hold one.

use serde_json::{Value as Json, json};
use tensorhold_core::{Dtype, Error, ErrorKind, Result};
use tensorhold_quant::scheme::Effect;

use super::source::{Kind, Origin};
use crate::quantize::{IntLayout, QuantizeScheme, quantization_config};
use crate::rewrite::{Part, PartSpec, gptq_parts, gptq_unit, nvfp4_parts, packed_parts};

/// What weights are repacked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RepackLayout {
    /// GPTQ, version 2.
    Gptq,
    /// AWQ for its GEMM kernels.
    Awq,
    /// `pack-quantized` of compressed-tensors.
    PackQuantized,
    /// `nvfp4-pack-quantized` of compressed-tensors.
    Nvfp4,
    /// NVFP4 of modelopt.
    ModeloptNvfp4,
}

use RepackLayout::*;

const ALL: [RepackLayout; 5] = [Gptq, Awq, PackQuantized, Nvfp4, ModeloptNvfp4];

impl RepackLayout {
    /// The layout that is called so: `gptq`, `awq`, `pack-quantized`, `nvfp4-pack-quantized` or `modelopt-nvfp4`.
    ///
    /// # Errors
    /// `InvalidArgument` for another name, with the names that there are.
    pub fn named(name: &str) -> Result<RepackLayout> {
        ALL.into_iter()
            .find(|layout| layout.name() == name)
            .ok_or_else(|| {
                let names = ALL.map(RepackLayout::name).join(", ");
                Error::new(
                    ErrorKind::InvalidArgument,
                    format!("weights are not repacked to `{name}`"),
                )
                .with_hint(format!("there are {names}"))
            })
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Gptq => "gptq",
            Awq => "awq",
            PackQuantized => "pack-quantized",
            Nvfp4 => "nvfp4-pack-quantized",
            ModeloptNvfp4 => "modelopt-nvfp4",
        }
    }

    /// Whether its words go down the inputs, so that it is written a few inputs at a time.
    pub(super) fn is_by_columns(self) -> bool {
        matches!(self, Gptq | Awq)
    }

    /// What the second scale does in it.
    pub(super) fn effect(self) -> Effect {
        match self {
            Nvfp4 => Effect::Divides,
            _ => Effect::Multiplies,
        }
    }

    /// Refuses a weight that it cannot hold.
    pub(super) fn check(self, origin: &Origin<'_>) -> Result<()> {
        let why = match (self, origin.kind) {
            (Nvfp4 | ModeloptNvfp4, Kind::Nvfp4 { .. }) => None,
            (Nvfp4 | ModeloptNvfp4, Kind::Int { .. }) => Some("integers".to_owned()),
            (_, Kind::Nvfp4 { .. }) => Some("NVFP4".to_owned()),
            (
                _,
                Kind::Int {
                    bits, group_size, ..
                },
            ) => self.lacks(origin, bits, group_size),
        };
        match why {
            None => Ok(()),
            Some(why) => {
                let message = format!("{} cannot hold {why}", self.name());
                Err(Error::new(ErrorKind::Unsupported, message))
            }
        }
    }

    /// What of a weight of integers it cannot hold.
    fn lacks(self, origin: &Origin<'_>, bits: u32, group_size: u64) -> Option<String> {
        let [rows, columns] = origin.shape;
        let unit = |codes: u64| !rows.is_multiple_of(codes) || !columns.is_multiple_of(codes);
        let why = match self {
            Gptq if !matches!(bits, 2 | 3 | 4 | 8) => {
                format!("integers of {bits} bits in its version 2")
            }
            Gptq if unit(gptq_unit(bits)) => {
                format!("{rows} outputs and {columns} inputs, which do not fill its words")
            }
            Awq if bits != 4 => format!("integers of {bits} bits, only of 4"),
            Awq if !rows.is_multiple_of(8) => {
                format!("{rows} outputs, which do not fill its words")
            }
            Awq | PackQuantized if origin.index.is_some() => {
                "groups of inputs that do not follow one another (`desc_act`)".to_owned()
            }
            Awq | PackQuantized if !columns.is_multiple_of(group_size) => {
                format!("{columns} inputs in groups of {group_size}, the last of which is not full")
            }
            _ => return None,
        };
        Some(why)
    }

    /// The tensors of a weight. `symmetric` is whether no weight of the checkpoint has zeros of its own.
    pub(super) fn parts(self, origin: &Origin<'_>, symmetric: bool) -> Result<Vec<PartSpec>> {
        let [rows, columns] = origin.shape;
        let Kind::Int {
            bits,
            group_size,
            scales,
            ..
        } = origin.kind
        else {
            return Ok(self.float_parts(origin.shape, origin.has_input()));
        };
        let n_groups = columns.div_ceil(group_size.max(1));
        match self {
            Gptq => gptq_parts(bits, origin.shape, n_groups, scales),
            Awq => {
                let int =
                    |part, suffix, shape: &[u64]| PartSpec::new(part, suffix, Dtype::I32, shape);
                Ok(vec![
                    int(Part::Codes, "qweight", &[columns, rows / 8]),
                    int(Part::Zeros, "qzeros", &[n_groups, rows / 8]),
                    PartSpec::new(Part::Scales, "scales", scales, &[n_groups, rows]),
                ])
            }
            _ => packed_parts(bits, origin.shape, n_groups, scales, symmetric),
        }
    }

    fn float_parts(self, shape: [u64; 2], has_input: bool) -> Vec<PartSpec> {
        let (names, input, scalar): (_, _, &[u64]) = match self {
            Nvfp4 => (
                ["weight_packed", "weight_global_scale"],
                "input_global_scale",
                &[1],
            ),
            _ => (["weight", "weight_scale_2"], "input_scale", &[]),
        };
        let mut parts = nvfp4_parts(shape, names, scalar);
        parts.extend(has_input.then(|| PartSpec::new(Part::Input, input, Dtype::F32, scalar)));
        parts
    }

    /// What engines read under `quantization_config`.
    pub(super) fn config(self, all: &Common, ignored: &[String]) -> Json {
        let group_size = all.group_size.map_or(json!(-1), |size| json!(size));
        let int = |layout| QuantizeScheme::Int {
            bits: all.bits,
            symmetric: all.symmetric,
            group_size: all.group_size,
            layout,
        };
        match self {
            Gptq => {
                let mut config = quantization_config(int(IntLayout::Gptq), ignored);
                config["desc_act"] = all.has_index.into();
                config
            }
            PackQuantized => quantization_config(int(IntLayout::Packed), ignored),
            Awq => json!({
                "quant_method": "awq", "version": "gemm", "bits": 4, "group_size": group_size, "zero_point": true,
                "modules_to_not_convert": ignored,
            }),
            Nvfp4 => {
                let mut config = quantization_config(QuantizeScheme::Nvfp4, ignored);
                if all.has_inputs {
                    let group = &mut config["config_groups"]["group_0"];
                    group["input_activations"] = group["weights"].clone();
                    group["input_activations"]["dynamic"] = "local".into();
                    group["input_activations"]["observer"] = "static_minmax".into();
                }
                config
            }
            ModeloptNvfp4 => modelopt(all, ignored),
        }
    }
}

/// What modelopt says of NVFP4.
fn modelopt(all: &Common, ignored: &[String]) -> Json {
    let floats = json!({ "num_bits": 4, "type": "float", "dynamic": false, "group_size": 16 });
    let mut group = json!({ "targets": ["Linear"], "weights": floats });
    if all.has_inputs {
        group["input_activations"] = floats;
    }
    json!({
        "quant_method": "modelopt", "quant_algo": "NVFP4", "config_groups": { "group_0": group }, "ignore": ignored,
    })
}

/// What all weights of a checkpoint have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Common {
    pub bits: u32,
    /// Inputs of a group; all where `None`.
    pub group_size: Option<u64>,
    pub symmetric: bool,
    pub has_index: bool,
    pub has_inputs: bool,
}

impl Common {
    /// Refuses weights that one configuration cannot be of.
    pub(super) fn of(origins: &[Origin<'_>]) -> Result<Common> {
        let Some(first) = origins.first() else {
            let message = "no weight of the checkpoint is quantized";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        };
        let cut = |origin: &&Origin<'_>| origin.group_size() < origin.shape[1];
        let group_size = origins.iter().find(cut).map(Origin::group_size);
        let fits = |origin: &Origin<'_>| match group_size {
            // Where all inputs are one group, larger groups are the same.
            Some(size) => origin.group_size() == size || !cut(&origin) && origin.shape[1] <= size,
            None => true,
        };
        let same = |origin: &&Origin<'_>| {
            fits(origin) && origin.bits() == first.bits() && origin.has_input() == first.has_input()
        };
        if let Some(other) = origins.iter().find(|origin| !same(origin)) {
            let like = origins.iter().find(cut).unwrap_or(first);
            return Err(differ(if fits(other) { first } else { like }, other));
        }
        Ok(Common {
            bits: first.bits(),
            group_size,
            symmetric: origins.iter().all(Origin::is_symmetric),
            has_index: origins.iter().any(|origin| origin.index.is_some()),
            has_inputs: first.has_input(),
        })
    }
}

fn differ(one: &Origin<'_>, other: &Origin<'_>) -> Error {
    let words = |origin: &Origin<'_>| {
        let inputs = if origin.has_input() {
            " and a scale of inputs"
        } else {
            ""
        };
        format!(
            "`{}` has {} bits, groups of {}{inputs}",
            origin.name,
            origin.bits(),
            origin.group_size()
        )
    };
    let message = format!(
        "{}, {}: one configuration is written for all",
        words(one),
        words(other)
    );
    Error::new(ErrorKind::Unsupported, message)
}
