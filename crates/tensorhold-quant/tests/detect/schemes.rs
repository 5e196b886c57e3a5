//! Every scheme is recognised by its tensors and its configuration.

use tensorhold_core::Dtype;
use tensorhold_core::Dtype::{BF16, F8_E4M3, F8_E8M0, F16, F32, I8, I16, I32, I64, U8};
use tensorhold_quant::detect::Layout;
use tensorhold_quant::scheme::Zeros;

use super::checkpoint::{Checkpoint, lines, told};

fn check(checkpoint: Checkpoint, expected: &[&str]) {
    assert_eq!(lines(&checkpoint.detect()), expected);
}

#[test]
fn fp8_in_all_granularities() {
    let block = r#"{"quant_method": "fp8", "weight_block_size": [128, 128]}"#;
    check(
        Checkpoint::of(&[
            ("a.weight", F8_E4M3, &[200, 300]),
            ("a.weight_scale_inv", F32, &[2, 3]),
        ])
        .config(block),
        &["a.weight: fp8 [200, 300] F32"],
    );
    check(
        Checkpoint::of(&[
            ("a.weight", F8_E4M3, &[200, 300]),
            ("a.weight_scale", BF16, &[200, 1]),
        ]),
        &["a.weight: fp8 [200, 300] BF16"],
    );
    check(
        Checkpoint::of(&[
            ("a.weight", F8_E4M3, &[20, 30]),
            ("a.scale_weight", F32, &[]),
        ]),
        &["a.weight: fp8 [20, 30] F32"],
    );
    check(
        Checkpoint::of(&[
            ("x.gate_up_proj", F8_E4M3, &[4, 200, 300]),
            ("x.gate_up_proj_scale_inv", F32, &[4, 2, 3]),
        ])
        .config(block),
        &["x.gate_up_proj: fp8 [4, 200, 300] F32"],
    );
    check(
        Checkpoint::of(&[
            ("a.weight", F8_E4M3, &[20, 64]),
            ("a.weight_scale", U8, &[20, 2]),
        ]),
        &["a.weight: mxfp8 [20, 64] F32"],
    );
    check(
        Checkpoint::of(&[
            ("a.weight", F8_E4M3, &[256, 128]),
            ("a.weight_scale", F32, &[2, 1, 1, 1]),
        ])
        .file(
            "hf_quant_config.json",
            r#"{"quantization": {"quant_algo": "FP8_PB_WO"}}"#,
        ),
        &["a.weight: fp8 [256, 128] F32"],
    );
}

#[test]
fn compressed_tensors() {
    let group = r#"{"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0":
        {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": true}}}}"#;
    let shape = [20i64, 96].map(i64::to_le_bytes).concat();
    let packed = || {
        Checkpoint::of(&[
            ("a.weight_packed", I32, &[20, 12]),
            ("a.weight_scale", BF16, &[20, 3]),
        ])
        .bytes("a.weight_shape", I64, &[2], &shape)
    };
    check(
        packed().config(group),
        &["a.weight: pack-quantized [20, 96] BF16"],
    );
    check(packed(), &["a.weight: pack-quantized [20, 96] BF16"]);
    check(
        Checkpoint::of(&[
            ("a.weight", I8, &[20, 75]),
            ("a.weight_scale", BF16, &[20, 1]),
            ("a.weight_zero_point", I8, &[20, 1]),
        ]),
        &["a.weight: int-quantized [20, 75] BF16"],
    );
    check(
        Checkpoint::of(&[
            ("a.weight_packed", U8, &[20, 48]),
            ("a.weight_scale", U8, &[20, 3]),
        ]),
        &["a.weight: mxfp4 [20, 96] F32"],
    );
    check(
        Checkpoint::of(&[
            ("a.weight_packed", U8, &[20, 72]),
            ("a.weight_scale", U8, &[20, 3]),
        ]),
        &["a.weight: mxfp6 [20, 96] F32"],
    );
    check(
        Checkpoint::of(&[
            ("a.weight_packed", U8, &[20, 48]),
            ("a.weight_scale", F8_E4M3, &[20, 6]),
            ("a.weight_global_scale", F32, &[1]),
            ("a.input_global_scale", F32, &[1]),
        ]),
        &["a.weight: nvfp4 [20, 96] F32"],
    );
}

#[test]
fn floats_of_four_and_six_bits_of_others() {
    check(
        Checkpoint::of(&[
            ("e.gate_up_proj_blocks", U8, &[2, 20, 3, 16]),
            ("e.gate_up_proj_scales", U8, &[2, 20, 3]),
        ])
        .config(r#"{"quant_method": "mxfp4"}"#),
        &["e.gate_up_proj: mxfp4 [2, 20, 96] F32"],
    );
    check(
        Checkpoint::of(&[
            ("a.weight", U8, &[20, 48]),
            ("a.weight_scale", F8_E4M3, &[20, 6]),
            ("a.weight_scale_2", F32, &[]),
        ]),
        &["a.weight: nvfp4 [20, 96] F32"],
    );
    check(
        Checkpoint::of(&[("a.weight", I8, &[20, 48]), ("a.scale", F8_E8M0, &[20, 3])]),
        &["a.weight: mxfp4 [20, 96] F32"],
    );
    check(
        Checkpoint::of(&[
            ("a.weight", U8, &[20, 72]),
            ("a.weight_scale", U8, &[20, 3]),
        ])
        .config(r#"{"quant_method": "quark", "weight_dtype": "mxfp6_e3m2"}"#),
        &["a.weight: mxfp6 [20, 96] F32"],
    );
    check(
        Checkpoint::of(&[
            ("a.weight", U8, &[20, 72]),
            ("a.weight_scale", U8, &[20, 3]),
        ]),
        &[
            "a.weight: mxfp6 broken: 24 bytes for each scale are floats of 6 bits, E2M3 or E3M2, and nothing says which",
        ],
    );
}

#[test]
fn what_comfyui_writes_is_told_from_modelopt_by_its_marks() {
    let parts: &[(&str, Dtype, &[u64])] = &[
        ("a.weight", U8, &[128, 32]),
        ("a.weight_scale", F8_E4M3, &[128, 4]),
        ("a.weight_scale_2", F32, &[]),
    ];
    let text = br#"{"format": "nvfp4"}"#;
    let marked = Checkpoint::of(parts).bytes("a.comfy_quant", U8, &[text.len() as u64], text);
    let named = Checkpoint::of(parts).metadata(
        "_quantization_metadata",
        r#"{"layers": {"a": {"format": "nvfp4"}}}"#,
    );
    let recipes = [Checkpoint::of(parts), marked, named].map(|checkpoint| {
        let found = checkpoint.detect();
        found.weights[0].recipe().unwrap().clone()
    });
    assert_ne!(recipes[0], recipes[1]);
    assert_eq!(recipes[1], recipes[2]);
    let broken = Checkpoint::of(parts).metadata("_quantization_metadata", "{");
    assert!(broken.detect().weights[0].recipe().is_err());
}

/// `qzeros` of 4 bits, all of which are `zero`.
fn zeros(zero: u8) -> Vec<u8> {
    vec![zero << 4 | zero; 3 * 8 * 4]
}

fn gptq(qzeros: &[u8]) -> Checkpoint {
    Checkpoint::of(&[
        ("a.qweight", I32, &[12, 64]),
        ("a.scales", F16, &[3, 64]),
        ("a.g_idx", I32, &[96]),
    ])
    .bytes("a.qzeros", I32, &[3, 8], qzeros)
}

fn plus(checkpoint: &Checkpoint) -> Option<u8> {
    let found = checkpoint.detect();
    match &found.weights[0].layout {
        Layout::Known(recipe) => match recipe.zeros {
            Zeros::Packed { plus, .. } => Some(plus),
            _ => None,
        },
        _ => None,
    }
}

#[test]
fn the_version_of_gptq_is_that_of_the_stored_zeros() {
    const SYMMETRIC: &str = r#"{"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": true, "checkpoint_format": "gptq"}"#;
    check(
        gptq(&zeros(7)).config(SYMMETRIC),
        &["a.weight: gptq [64, 96] F16"],
    );
    assert_eq!(plus(&gptq(&zeros(7)).config(SYMMETRIC)), Some(1));
    assert!(told(&gptq(&zeros(7)).config(SYMMETRIC).detect()).is_empty());

    let other = gptq(&zeros(8)).config(SYMMETRIC);
    assert_eq!(plus(&other), Some(0));
    assert_eq!(
        told(&other.detect()),
        [
            "conflict: the configuration says version 1 (`gptq`), but all zeros are stored as 8, which symmetric weights \
          have in version 2 (`gptq_v2`)"
        ]
    );
    let v2 = SYMMETRIC.replace(r#""gptq"}"#, r#""gptq_v2"}"#);
    assert_eq!(plus(&gptq(&zeros(7)).config(&v2)), Some(1));
    let asymmetric = v2.replace("true", "false");
    let various: Vec<u8> = (0..96).collect();
    assert_eq!(plus(&gptq(&various).config(&asymmetric)), Some(0));
    assert_eq!(
        plus(&gptq(&various).config(&asymmetric.replace("_v2", ""))),
        Some(1)
    );
}

#[test]
fn gptq_without_configuration_is_read_where_its_zeros_decide() {
    assert_eq!(
        (plus(&gptq(&zeros(7))), plus(&gptq(&zeros(8)))),
        (Some(1), Some(0))
    );
    let various: Vec<u8> = (0..96).collect();
    check(
        gptq(&various),
        &[
            "a.weight: gptq broken: zeros of GPTQ are stored less one (version 1) or as they are (version 2), and neither a \
           configuration nor the zeros, which differ from each other, tell which",
        ],
    );
    let given = gptq(&various).given(r#"{"quant_method": "gptq", "checkpoint_format": "gptq_v2"}"#);
    assert_eq!(plus(&given), Some(0));
    let old = gptq(&various).file(
        "quantize_config.json",
        r#"{"bits": 4, "group_size": 32, "sym": false}"#,
    );
    assert_eq!(plus(&old), Some(1));
    assert_eq!(
        told(&old.detect()),
        [
            "assumed: the configuration has no `checkpoint_format`, which stands for `gptq`: zeros are stored less one"
        ]
    );
}

#[test]
fn awq_is_told_from_gptq_by_its_shapes() {
    let awq = || {
        Checkpoint::of(&[
            ("a.qweight", I32, &[96, 8]),
            ("a.qzeros", I32, &[3, 8]),
            ("a.scales", F16, &[3, 64]),
        ])
    };
    check(awq(), &["a.weight: awq [64, 96] F16"]);
    let found = awq()
        .config(r#"{"quant_method": "gptq", "bits": 4, "group_size": 32}"#)
        .detect();
    assert_eq!(
        told(&found),
        [
            "conflict: the configuration says GPTQ, but `qweight` [96, 8] beside `scales` [3, 64] is AWQ"
        ]
    );
    let fast = Checkpoint::of(&[
        ("a.qweight", I16, &[16, 96]),
        ("a.qzeros", F16, &[8, 64]),
        ("a.scales", F16, &[8, 64]),
    ]);
    assert!(fast.detect().weights[0].name == "a.weight");
}

#[test]
fn gptq_of_three_bits_in_planes_is_told_by_its_zeros() {
    let format = |qzeros: &[u8]| {
        let found = Checkpoint::of(&[("a.qweight", I32, &[9, 64]), ("a.scales", F16, &[3, 64])])
            .bytes("a.qzeros", I32, &[3, 6], qzeros)
            .detect();
        let recipe = found.weights[0].recipe();
        recipe
            .map(|recipe| format!("{:?}", recipe.codes.entries))
            .unwrap_or_default()
    };
    // Fours in planes: two words of low bits, which are zero, and one of high bits.
    let planes = [0u32, 0, u32::MAX].map(u32::to_le_bytes).concat().repeat(6);
    assert!(format(&planes).contains("Planar"), "{}", format(&planes));
    // Fours and threes one after another.
    let dense = [0x24924924u32, 0x49249249, 0x92492492]
        .map(u32::to_le_bytes)
        .concat()
        .repeat(6);
    assert!(format(&dense).contains("LsbWords"), "{}", format(&dense));
}

#[test]
fn kernels_orders_are_named_and_not_read() {
    check(
        Checkpoint::of(&[("a.B", I32, &[6, 128]), ("a.s", F16, &[1, 64])]),
        &["a.weight: marlin opaque: its codes are permuted for the tiles of a kernel"],
    );
    check(
        Checkpoint::of(&[
            ("a.trellis", I16, &[4, 4, 64]),
            ("a.suh", F16, &[64]),
            ("a.svh", F16, &[64]),
        ]),
        &["a.weight: exl3 opaque: its codes are steps through a trellis"],
    );
    check(
        Checkpoint::of(&[("a.weight", U8, &[20, 64]), ("a.weight_scale", F16, &[7])]),
        &[
            "a.weight: unknown opaque: no scheme that is known has a `weight` of integers with these scales",
        ],
    );
}
