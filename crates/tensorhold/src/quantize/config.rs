//! What engines read in `config.json`: what the weights are.

use serde_json::{Value, json};
use tensorhold_core::Dtype;

use super::scheme::{IntLayout, QuantizeScheme};

/// The version of compressed-tensors whose names and values are written.
const VERSION: &str = "0.20.0";

/// What engines read under `quantization_config`.
pub(crate) fn quantization_config(scheme: QuantizeScheme, ignored: &[String]) -> Value {
    if let QuantizeScheme::Int {
        bits,
        symmetric,
        group_size,
        layout: IntLayout::Gptq,
    } = scheme
    {
        return gptq(bits, symmetric, group_size, ignored);
    }
    if let QuantizeScheme::Fp8Finegrained { rows, columns } = scheme {
        return finegrained([rows, columns], ignored);
    }
    let mut group = json!({
        "targets": ["Linear"],
        "weights": weights(scheme),
        "input_activations": inputs(scheme),
        "output_activations": null,
    });
    group["format"] = scheme.format().into();
    json!({
        "config_groups": { "group_0": group },
        "format": scheme.format(),
        "global_compression_ratio": null,
        "ignore": ignored,
        "kv_cache_scheme": null,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "version": VERSION,
    })
}

fn finegrained(block: [u64; 2], ignored: &[String]) -> Value {
    json!({
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "modules_to_not_convert": ignored,
        "quant_method": "fp8",
        "weight_block_size": block,
    })
}

fn gptq(bits: u32, symmetric: bool, group_size: Option<u64>, ignored: &[String]) -> Value {
    let escaped = ignored
        .iter()
        .map(|name| (format!("-:^{}$", name.replace('.', "\\.")), json!({})));
    let mut config = json!({
        "bits": bits,
        "checkpoint_format": "gptq_v2",
        "desc_act": false,
        "format": "gptq_v2",
        "group_size": group_size.map_or(json!(-1), |size| json!(size)),
        "lm_head": false,
        "pack_dtype": "int32",
        "quant_method": "gptq",
        "sym": symmetric,
    });
    let dynamic: serde_json::Map<String, Value> = escaped.collect();
    if !dynamic.is_empty() {
        config["dynamic"] = dynamic.into();
    }
    config
}

fn weights(scheme: QuantizeScheme) -> Value {
    use QuantizeScheme::*;
    let args = |bits: u32, kind: &str, strategy: &str| {
        json!({
            "num_bits": bits, "type": kind, "symmetric": true, "strategy": strategy, "group_size": null,
            "block_structure": null, "dynamic": false, "actorder": null, "observer": "memoryless_minmax", "observer_kwargs": {},
        })
    };
    let mut weights = match scheme {
        Fp8Tensor => args(8, "float", "tensor"),
        Fp8Channel => args(8, "float", "channel"),
        Fp8Block { .. } | Fp8Finegrained { .. } => args(8, "float", "block"),
        Int {
            bits,
            group_size: Some(_),
            ..
        } => args(bits, "int", "group"),
        Int { bits, .. } => args(bits, "int", "channel"),
        Mxfp4 => args(4, "float", "group"),
        Mxfp8 => args(8, "float", "group"),
        Nvfp4 => args(4, "float", "tensor_group"),
    };
    for (key, value) in further(scheme) {
        weights[key] = value;
    }
    weights
}

/// What is said of weights of this scheme alone.
fn further(scheme: QuantizeScheme) -> Vec<(&'static str, Value)> {
    use QuantizeScheme::*;
    let floats = |size: u64, scales: &str| {
        vec![
            ("group_size", size.into()),
            ("scale_dtype", scales.into()),
            ("zp_dtype", scales.into()),
        ]
    };
    match scheme {
        Fp8Tensor | Fp8Channel => Vec::new(),
        Fp8Block { rows, columns } | Fp8Finegrained { rows, columns } => {
            vec![("block_structure", json!([rows, columns]))]
        }
        Int {
            symmetric,
            group_size,
            ..
        } => vec![
            ("symmetric", symmetric.into()),
            ("group_size", json!(group_size)),
        ],
        Mxfp4 | Mxfp8 => floats(32, "torch.uint8"),
        Nvfp4 => floats(16, "torch.float8_e4m3fn"),
    }
}

/// How an engine is to quantize inputs, while it runs: as the presets of compressed-tensors have it that need no calibration.
fn inputs(scheme: QuantizeScheme) -> Value {
    use QuantizeScheme::*;
    let args = |kind: &str, strategy: &str, group_size: Value| {
        json!({
            "num_bits": 8, "type": kind, "symmetric": true, "strategy": strategy, "group_size": group_size,
            "block_structure": null, "dynamic": true, "actorder": null, "observer": null, "observer_kwargs": {},
        })
    };
    match scheme {
        Fp8Tensor | Fp8Channel => args("float", "token", Value::Null),
        Fp8Block { columns, .. } | Fp8Finegrained { columns, .. } => {
            args("float", "group", columns.into())
        }
        Int {
            layout: IntLayout::Bytes,
            ..
        } => args("int", "token", Value::Null),
        _ => Value::Null,
    }
}

/// The type that scales are stored in, unless another is asked for.
pub(super) fn scale_dtype(scheme: QuantizeScheme, weight: Dtype) -> Dtype {
    match (scheme.is_gptq(), weight) {
        // Kernels of GPTQ have scales of 16 bits.
        (true, Dtype::F32) => Dtype::F16,
        _ if matches!(scheme, QuantizeScheme::Fp8Finegrained { .. }) => Dtype::F32,
        _ => weight,
    }
}
