//! Which tensors of a checkpoint are parts of quantized weights, and what they mean.
//!
//! [`detect`] is given what headers and configurations say. It looks for the tensors by which a scheme is recognised
//! (`registry.rs`), has a reader of that scheme (`readers/`) hold them to the configuration, and answers with a
//! [`Quantization`]: each weight by the name that it has unquantized, with a recipe or the reason why there is none.
//!
//! ```
//! use tensorhold_core::{ByteRange, Dtype, TensorInfo};
//! use tensorhold_quant::detect::{ConfigText, Evidence, SchemeName, detect};
//!
//! let tensor = |name, dtype, shape: &'static [u64]| TensorInfo {
//!     name,
//!     dtype,
//!     shape,
//!     offsets: ByteRange::new(0, tensorhold_core::shape_size_bytes(dtype, shape).unwrap()),
//! };
//! let found = detect(&Evidence {
//!     tensors: vec![
//!         tensor("up.weight", Dtype::F8_E4M3, &[200, 300]),
//!         tensor("up.weight_scale_inv", Dtype::F32, &[2, 3]),
//!     ],
//!     metadata: Vec::new(),
//!     configs: vec![ConfigText {
//!         file: Some("config.json"),
//!         text: Ok(r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}"#),
//!     }],
//!     read: &|_, _| unreachable!("nothing has to be read for this scheme"),
//! })?;
//! let weight = found.find("up.weight").unwrap();
//! assert_eq!((weight.scheme, weight.shape()), (SchemeName::Fp8, Some(&[200, 300][..])));
//! # Ok::<(), tensorhold_core::Error>(())
//! ```
//!
//! Where two readings are possible, none is taken: the weight is [`Layout::Broken`] by an error that names both and says how to choose.
//! Nothing is run, no tensor longer than 64 KiB is read whole, and JSON is bounded in size and depth.

mod config;
mod evidence;
mod json;
mod module;
mod name;
mod orphans;
mod pattern;
mod readers;
mod reading;
mod registry;
mod settings;
mod weight;

pub use evidence::{ConfigText, Evidence};
pub use json::MAX_CONFIG_BYTES;
pub use name::SchemeName;
pub use weight::{
    DtypeFrom, Layout, QuantFinding, QuantFindingKind, Quantization, QuantizedWeight,
};

use std::cell::OnceCell;
use std::collections::HashSet;

use tensorhold_core::{Dtype, Error, ErrorKind, Result, TensorInfo};

use config::Config;
use module::{Module, Scene};
use reading::{Reading, conflict};
use registry::SIGNATURES;
use settings::Listed;

/// What of a checkpoint is quantized.
///
/// # Errors
/// `InvalidConfig` for a configuration that cannot be read, where a tensor is quantized; what `evidence.read` fails with.
pub fn detect(evidence: &Evidence<'_>) -> Result<Quantization> {
    let (config, failed) = match Config::load(evidence) {
        Ok(config) => (config, None),
        Err(error) => (Config::default(), Some(error)),
    };
    let scene = Scene::new(evidence, &config);
    let mut found = Found::default();
    for info in &evidence.tensors {
        if let Some((module, reading)) = candidate(&scene, info) {
            found.add(&module, reading);
        }
    }
    match failed {
        Some(error) if !found.weights.is_empty() => Err(error),
        Some(error) => Ok(Quantization {
            findings: vec![QuantFinding::new(
                QuantFindingKind::UnknownConfig,
                error.to_string(),
            )],
            ..Quantization::default()
        }),
        None => Ok(found.finish(&scene)),
    }
}

/// The first scheme whose signature `info` has, and what its reader says.
fn candidate<'a>(scene: &'a Scene<'a>, info: &TensorInfo<'a>) -> Option<(Module<'a>, Reading)> {
    SIGNATURES.iter().find_map(|signature| {
        let prefix = signature.module_of(info.name, info.dtype)?;
        let module = Module {
            scene,
            prefix,
            joint: signature.joint,
            anchor: *info,
            settings: OnceCell::new(),
        };
        let reading = signature
            .has_partner(&module)
            .then(|| (signature.read)(&module))??;
        Some((module, reading))
    })
}

/// The weights found so far.
#[derive(Default)]
struct Found {
    weights: Vec<QuantizedWeight>,
    taken: HashSet<String>,
}

impl Found {
    fn add(&mut self, module: &Module<'_>, reading: Reading) {
        let parts = reading.parts.iter().chain(orphans::BESIDE_WEIGHTS);
        let parts =
            parts.filter_map(|part| Some(((*part).to_owned(), module.find(part)?.name.to_owned())));
        let (dtype, dtype_from) = dtype(module, &reading);
        let mut weight = QuantizedWeight {
            name: match reading.name {
                Some(name) => name,
                None => format!("{}{}", module.prefix, reading.suffix),
            },
            scheme: reading.scheme,
            dtype,
            dtype_from,
            layout: reading.layout,
            parts: parts.collect(),
            findings: reading.findings,
        };
        if module.settings().listed == Listed::Ignored && weight.is_quantized() {
            let message = "the configuration says that it is not quantized, but its tensors are";
            weight.findings.push(conflict(message.to_owned()));
        }
        weight.findings.extend(orphans::told(module));
        self.taken.extend(weight.parts.values().cloned());
        self.weights.push(weight);
    }

    /// All weights in order, each name once, and what is left over.
    fn finish(mut self, scene: &Scene<'_>) -> Quantization {
        for weight in &mut self.weights {
            if !self.taken.contains(&weight.name) && scene.find(&weight.name).is_some() {
                weight.layout = Layout::Broken(twice("as a tensor that is not quantized"));
            }
        }
        self.weights
            .sort_by(|left, right| left.name.cmp(&right.name));
        self.weights.dedup_by(|second, first| {
            let is_same = second.name == first.name;
            if is_same {
                let message = format!("in {} and in {}", first.scheme, second.scheme);
                first.layout = Layout::Broken(twice(&message));
                first.parts.append(&mut second.parts);
            }
            is_same
        });
        let mut findings = scene.config.findings.clone();
        let origin = scene.config.origin.clone();
        if let (Some(origin), true) = (&origin, self.weights.is_empty()) {
            let method = scene
                .config
                .method
                .as_deref()
                .unwrap_or("a method that it does not name");
            let message =
                format!("{origin} says that weights are quantized by {method}, but no tensor is");
            findings.push(QuantFinding::new(QuantFindingKind::Unused, message));
        }
        let (companions, orphans) = orphans::left_over(scene, &self.taken);
        findings.extend(orphans);
        Quantization {
            weights: self.weights,
            companions,
            findings,
            config: origin,
        }
    }
}

fn twice(how: &str) -> Error {
    Error::new(
        ErrorKind::InvalidTensor,
        format!("the weight is there twice, {how}"),
    )
}

/// What the values of a weight are given as, and where that is said.
fn dtype(module: &Module<'_>, reading: &Reading) -> (Dtype, DtypeFrom) {
    if let Some(dtype) = reading.dtype {
        return (dtype, DtypeFrom::Weight);
    }
    if let Some(dtype) = module.scene.config.dtype {
        return (dtype, DtypeFrom::Config);
    }
    match module.dtype_of(reading.scales) {
        Some(dtype @ (Dtype::BF16 | Dtype::F16)) => (dtype, DtypeFrom::Scales),
        _ => (Dtype::F32, DtypeFrom::Nowhere),
    }
}
