//! Checkpoints of one weight, in as many ways as it can be quantized.

use std::path::Path;

use tempfile::{TempDir, tempdir};
use tensorhold::{Checkpoint, Dtype, OpenOptions, SaveOptions, TensorSpec, shape_size_bytes};

/// A tensor of a checkpoint: its name, type, shape and bytes.
pub type Tensor = (String, Dtype, Vec<u64>, Vec<u8>);

/// A checkpoint of one weight, `a.weight`, with other tensors beside it, and its configuration.
pub struct Case {
    pub name: &'static str,
    pub config: &'static str,
    pub tensors: Vec<Tensor>,
}

pub fn noise(dtype: Dtype, shape: &[u64]) -> Vec<u8> {
    let size = shape_size_bytes(dtype, shape).unwrap();
    let byte = |place: u64| (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55) as u8;
    let scale = |place: u64| 0.5 + f32::from(byte(place)) / 256.0;
    match dtype {
        Dtype::F32 => (0..size / 4).flat_map(|n| scale(n).to_le_bytes()).collect(),
        Dtype::BF16 => (0..size / 2)
            .flat_map(|n| ((scale(n).to_bits() >> 16) as u16).to_le_bytes())
            .collect(),
        Dtype::F16 => (0..size / 2)
            .flat_map(|n| (0x3800 | u16::from(byte(n)) << 2).to_le_bytes())
            .collect(),
        // No code is a NaN, no scale infinite.
        Dtype::F8_E4M3 => (0..size).map(|n| byte(n) & 0x77).collect(),
        Dtype::U8 => (0..size).map(|n| 100 + byte(n) % 32).collect(),
        _ => (0..size).map(byte).collect(),
    }
}

pub fn tensor(name: &str, dtype: Dtype, shape: &[u64]) -> Tensor {
    (name.to_owned(), dtype, shape.to_vec(), noise(dtype, shape))
}

pub fn integers(name: &str, values: &[i32]) -> Tensor {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes());
    let shape = vec![values.len() as u64];
    (name.to_owned(), Dtype::I32, shape, bytes.collect())
}

pub fn gptq(name: &'static str, bits: u64, index: Option<Vec<i32>>) -> Case {
    let (rows, columns, group) = (128, 256, 32);
    let mut tensors = vec![
        tensor("a.qweight", Dtype::I32, &[columns * bits / 32, rows]),
        tensor("a.qzeros", Dtype::I32, &[columns / group, rows * bits / 32]),
        tensor("a.scales", Dtype::F16, &[columns / group, rows]),
        tensor("a.bias", Dtype::F16, &[rows]),
    ];
    tensors.extend(index.map(|index| integers("a.g_idx", &index)));
    let config = match bits {
        4 => {
            r#"{"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": false, "checkpoint_format": "gptq_v2"}"#
        }
        _ => {
            r#"{"quant_method": "gptq", "bits": 3, "group_size": 32, "sym": false, "checkpoint_format": "gptq_v2"}"#
        }
    };
    Case {
        name,
        config,
        tensors,
    }
}

pub fn shape_part(rows: i64, columns: i64) -> Tensor {
    let bytes = [rows, columns].into_iter().flat_map(i64::to_le_bytes);
    (
        "a.weight_shape".to_owned(),
        Dtype::I64,
        vec![2],
        bytes.collect(),
    )
}

pub const FP8: &str = r#"{"quant_method": "fp8", "weight_block_size": [32, 64]}"#;
pub const PACKED: &str = r#"{"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": {
    "targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "symmetric": false, "strategy": "group", "group_size": 32}}}}"#;
pub const CHANNELS: &str = r#"{"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"group_0": {
    "targets": ["Linear"], "weights": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel"}}}}"#;

pub fn cases() -> Vec<Case> {
    let in_order = (0..256).map(|column| column / 32).collect();
    let by_activation = (0..256).map(|column| column * 7 % 8).collect();
    vec![
        gptq("gptq", 4, None),
        gptq("gptq with groups in order", 4, Some(in_order)),
        gptq("gptq by activation", 4, Some(by_activation)),
        gptq("gptq of 3 bits", 3, None),
        Case {
            name: "awq",
            config: r#"{"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm", "zero_point": true}"#,
            tensors: vec![
                tensor("a.qweight", Dtype::I32, &[256, 16]),
                tensor("a.qzeros", Dtype::I32, &[4, 16]),
                tensor("a.scales", Dtype::F16, &[4, 128]),
            ],
        },
        Case {
            name: "pack-quantized",
            config: PACKED,
            tensors: vec![
                tensor("a.weight_packed", Dtype::I32, &[128, 32]),
                tensor("a.weight_scale", Dtype::BF16, &[128, 8]),
                tensor("a.weight_zero_point", Dtype::I32, &[16, 8]),
                shape_part(128, 256),
            ],
        },
        Case {
            name: "int-quantized",
            config: CHANNELS,
            tensors: vec![
                tensor("a.weight", Dtype::I8, &[128, 256]),
                tensor("a.weight_scale", Dtype::BF16, &[128, 1]),
            ],
        },
        Case {
            name: "fp8 in blocks",
            config: FP8,
            tensors: vec![
                // The last block of either kind is partial.
                tensor("a.weight", Dtype::F8_E4M3, &[120, 248]),
                tensor("a.weight_scale_inv", Dtype::F32, &[4, 4]),
                tensor("a.input_scale", Dtype::F32, &[1]),
            ],
        },
        Case {
            name: "mxfp4 of experts",
            config: r#"{"quant_method": "mxfp4"}"#,
            tensors: vec![
                tensor("a.weight_blocks", Dtype::U8, &[4, 128, 8, 16]),
                tensor("a.weight_scales", Dtype::U8, &[4, 128, 8]),
            ],
        },
        Case {
            name: "fp8 of a tensor",
            config: r#"{"quant_method": "modelopt", "quant_algo": "FP8"}"#,
            tensors: vec![
                tensor("a.weight", Dtype::F8_E4M3, &[128, 256]),
                tensor("a.weight_scale", Dtype::F32, &[]),
            ],
        },
        Case {
            name: "fp8 in blocks with room between",
            config: r#"{"quant_method": "modelopt", "quant_algo": "FP8_PB_WO"}"#,
            tensors: vec![
                tensor("a.weight", Dtype::F8_E4M3, &[256, 512]),
                tensor("a.weight_scale", Dtype::F32, &[2, 1, 4, 1]),
            ],
        },
        Case {
            name: "mxfp8",
            config: r#"{"quant_method": "compressed-tensors", "format": "mxfp8-quantized", "config_groups": {}}"#,
            tensors: vec![
                tensor("a.weight", Dtype::F8_E4M3, &[64, 256]),
                tensor("a.weight_scale", Dtype::U8, &[64, 8]),
            ],
        },
        Case {
            name: "mxfp4 in its own type",
            config: r#"{"quant_method": "quark"}"#,
            tensors: vec![
                tensor("a.weight", Dtype::F4, &[64, 256]),
                tensor("a.weight_scale", Dtype::F8_E8M0, &[64, 8]),
            ],
        },
        Case {
            name: "mlx",
            config: r#"{"group_size": 32, "bits": 6}"#,
            tensors: vec![
                tensor("a.weight", Dtype::U32, &[64, 48]),
                tensor("a.scales", Dtype::F16, &[64, 8]),
                tensor("a.biases", Dtype::F16, &[64, 8]),
            ],
        },
        Case {
            name: "bnb-int8",
            config: r#"{"quant_method": "bitsandbytes", "load_in_8bit": true}"#,
            tensors: vec![
                tensor("a.weight", Dtype::I8, &[64, 128]),
                tensor("a.SCB", Dtype::F32, &[64]),
                ("a.weight_format".to_owned(), Dtype::U8, vec![], vec![0]),
            ],
        },
        Case {
            name: "fp8 of experts",
            config: FP8,
            tensors: vec![
                tensor("a.weight", Dtype::F8_E4M3, &[4, 64, 256]),
                tensor("a.weight_scale_inv", Dtype::F32, &[4, 2, 4]),
            ],
        },
        Case {
            name: "nvfp4 of experts",
            config: r#"{"quant_method": "modelopt", "quant_algo": "NVFP4"}"#,
            tensors: vec![
                tensor("a.weight", Dtype::U8, &[4, 64, 64]),
                tensor("a.weight_scale", Dtype::F8_E4M3, &[4, 64, 8]),
                tensor("a.weight_scale_2", Dtype::F32, &[4]),
            ],
        },
        Case {
            name: "two rows in a byte",
            config: r#"{"quant_method": "modelopt", "quant_algo": "W4A16_AWQ", "group_size": 32}"#,
            tensors: vec![
                tensor("a.weight", Dtype::U8, &[64, 256]),
                tensor("a.weight_scale", Dtype::BF16, &[128, 8]),
            ],
        },
        Case {
            name: "parts of rows in a byte",
            config: r#"{"quant_method": "bitnet"}"#,
            tensors: vec![
                tensor("a.weight", Dtype::U8, &[32, 128]),
                tensor("a.weight_scale", Dtype::BF16, &[1]),
            ],
        },
        Case {
            name: "awq along the inputs",
            config: r#"{"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv", "zero_point": true}"#,
            tensors: vec![
                tensor("a.qweight", Dtype::I32, &[64, 32]),
                tensor("a.qzeros", Dtype::I32, &[64, 4]),
                tensor("a.scales", Dtype::F16, &[64, 32]),
            ],
        },
        Case {
            name: "nvfp4",
            config: r#"{"quant_method": "modelopt", "quant_algo": "NVFP4"}"#,
            tensors: vec![
                tensor("a.weight", Dtype::U8, &[128, 128]),
                tensor("a.weight_scale", Dtype::F8_E4M3, &[128, 16]),
                (
                    "a.weight_scale_2".to_owned(),
                    Dtype::F32,
                    vec![],
                    0.25f32.to_le_bytes().to_vec(),
                ),
                tensor("a.pre_quant_scale", Dtype::BF16, &[256]),
            ],
        },
    ]
}

pub fn save(folder: &Path, tensors: &[Tensor], config: &str) {
    let specs: Vec<TensorSpec<'_>> = tensors
        .iter()
        .map(|(name, dtype, shape, _)| TensorSpec {
            name,
            dtype: *dtype,
            shape,
        })
        .collect();
    let options = SaveOptions::default();
    let path = folder.join("model.safetensors");
    tensorhold::save_file(path, &specs, None, &options, |index| {
        Ok((&tensors[index].3).into())
    })
    .unwrap();
    let config = format!(r#"{{"quantization_config": {config}}}"#);
    std::fs::write(folder.join("config.json"), config).unwrap();
}

impl Case {
    pub fn save(&self) -> TempDir {
        let folder = tempdir().unwrap();
        save(folder.path(), &self.tensors, self.config);
        folder
    }
}

pub fn open(folder: &TempDir) -> Checkpoint {
    Checkpoint::open(folder.path(), &OpenOptions::default()).unwrap()
}
