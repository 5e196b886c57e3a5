//! The schemes of single packages, whose settings lie in tensors, in metadata, or in the configuration alone.

use tensorhold_core::Dtype::{self, BF16, F8_E4M3, F8_E8M0, F16, F32, I8, I16, I32, I64, U8, U32};
use tensorhold_quant::detect::DtypeFrom;

use super::checkpoint::{Checkpoint, lines, told};

fn check(checkpoint: Checkpoint, expected: &[&str]) {
    assert_eq!(lines(&checkpoint.detect()), expected);
}

fn text(name: &str, text: &str) -> (String, Vec<u64>, Vec<u8>) {
    (
        name.to_owned(),
        vec![text.len() as u64],
        text.as_bytes().to_vec(),
    )
}

/// NF4 of `[20, 64]` with a state.
fn nf4(state: &str) -> Checkpoint {
    let (name, shape, bytes) = text("a.weight.quant_state.bitsandbytes__nf4", state);
    Checkpoint::of(&[
        ("a.weight", U8, &[640, 1]),
        ("a.weight.absmax", F32, &[20]),
        ("a.weight.quant_map", F32, &[16]),
    ])
    .bytes(&name, U8, &shape, &bytes)
}

#[test]
fn bitsandbytes_says_its_shape_in_a_text() {
    const STATE: &str =
        r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [20, 64]}"#;
    check(nf4(STATE), &["a.weight: bnb-nf4 [20, 64] BF16"]);
    assert_eq!(nf4(STATE).detect().weights[0].dtype_from, DtypeFrom::Weight);
    for (state, message) in [
        (
            "{",
            "this is no JSON: EOF while parsing an object at line 1 column 1",
        ),
        (
            r#"{"blocksize": 64}"#,
            "the quantization state has no `shape`, or not as it must be",
        ),
        (
            r#"{"blocksize": 0, "shape": [20, 64]}"#,
            "groups of 0 inputs hold nothing",
        ),
        (
            r#"{"blocksize": -64, "shape": [20, 64]}"#,
            "the quantization state has no `blocksize`, or not as it must be",
        ),
    ] {
        check(
            nf4(state),
            &[&format!("a.weight: bnb-nf4 broken: {message}")],
        );
    }
    let large = STATE.replace("20, 64", "9007199254740992, 9007199254740992");
    assert!(nf4(&large).detect().weights[0].recipe().is_err());
    let int8 = || Checkpoint::of(&[("a.weight", I8, &[20, 64]), ("a.SCB", F32, &[20])]);
    check(
        int8().bytes("a.weight_format", U8, &[], &[0]),
        &["a.weight: bnb-int8 [20, 64] F32"],
    );
    check(
        int8().bytes("a.weight_format", U8, &[], &[2]),
        &[
            "a.weight: bnb-int8 opaque: its rows lie in the tiles of a kernel, as `weight_format` says",
        ],
    );
}

#[test]
fn bitsandbytes_is_read_by_the_names_that_gptqmodel_gives() {
    let named = |kind: &str| {
        let state = format!(
            r#"{{"quant_type": "{kind}", "blocksize": 64, "dtype": "float16", "shape": [20, 64]}}"#
        );
        let (name, shape, bytes) = text("a.weight_quant_state", &state);
        Checkpoint::of(&[
            ("a.weight", U8, &[640, 1]),
            ("a.weight_absmax", F32, &[20]),
            ("a.weight_quant_map", F32, &[16]),
        ])
        .bytes(&name, U8, &shape, &bytes)
    };
    check(named("nf4"), &["a.weight: bnb-nf4 [20, 64] F16"]);
    check(named("fp4"), &["a.weight: bnb-fp4 [20, 64] F16"]);
    let found = named("nf4").detect();
    assert_eq!(found.weights[0].parts.len(), 4);
    assert_eq!(found.weights[0].parts["weight_absmax"], "a.weight_absmax");
    check(
        named("af4"),
        &[
            "a.weight: bnb-nf4 broken: the quantization state has no `quant_type`, or not as it must be",
        ],
    );
    let nested: &[(&str, Dtype, &[u64])] = &[
        ("a.weight", U8, &[640, 1]),
        ("a.weight_absmax", U8, &[20]),
        ("a.weight_nested_absmax", F32, &[1]),
        ("a.weight_nested_quant_map", F32, &[256]),
        ("a.weight_quant_map", F32, &[16]),
    ];
    let state = r#"{"quant_type": "nf4", "blocksize": 64, "shape": [20, 64], "nested_blocksize": 256, "nested_offset": 0.5}"#;
    let (name, shape, bytes) = text("a.weight_quant_state", state);
    check(
        Checkpoint::of(nested).bytes(&name, U8, &shape, &bytes),
        &["a.weight: bnb-nf4 [20, 64] F32"],
    );
    check(
        Checkpoint::of(nested),
        &["a.weight: bnb-nf4 broken: part `weight_quant_state` is missing"],
    );
    check(
        Checkpoint::of(&[("a.weight", I8, &[20, 64]), ("a.weight_scb", F32, &[20])]),
        &["a.weight: bnb-int8 [20, 64] F32"],
    );
}

#[test]
fn mlx_says_widths_and_groups_in_its_configuration_for_each_module() {
    let tensors: &[(&str, Dtype, &[u64])] = &[
        ("a.q.weight", U32, &[20, 8]),
        ("a.q.scales", BF16, &[20, 1]),
        ("a.q.biases", BF16, &[20, 1]),
        ("a.up.weight", U32, &[20, 8]),
        ("a.up.scales", U8, &[20, 2]),
    ];
    let config = r#"{"quantization": {"group_size": 64, "bits": 4, "a.up": {"group_size": 32, "bits": 4, "mode": "mxfp4"}, "a.norm": false}}"#;
    check(
        Checkpoint::of(tensors).file("config.json", config),
        &[
            "a.q.weight: mlx [20, 64] BF16",
            "a.up.weight: mxfp4 [20, 64] F32",
        ],
    );
    check(
        Checkpoint::of(&tensors[..3]),
        &[
            "a.q.weight: mlx broken: the tensors do not tell the width of codes from the size of groups",
        ],
    );
}

#[test]
fn parts_of_other_packages_beside_a_weight_are_not_its_own() {
    let quanto: &[(&str, Dtype, &[u64])] = &[
        ("a.weight._data", F8_E4M3, &[20, 64]),
        ("a.weight._scale", F32, &[20, 1]),
        ("a.weight_scale", F32, &[]),
        ("b.weight._data", I8, &[20, 64]),
        ("b.weight._scale", F32, &[20, 1]),
        ("b.weight_scale", F32, &[1]),
    ];
    for weight in &Checkpoint::of(quanto).detect().weights {
        let needs = weight.needs(&weight.whole().unwrap()).unwrap();
        let names: Vec<&str> = needs.iter().map(|need| need.part).collect();
        assert_eq!(names, ["weight._data", "weight._scale"], "{}", weight.name);
        assert!(names.iter().all(|name| weight.parts.contains_key(*name)));
    }
}

fn torchao(entry: &str) -> Checkpoint {
    let entry = format!(r#"{{{entry}, "_tensor_data_names": ["qdata", "scale"]}}"#);
    Checkpoint::default()
        .metadata("tensor_names", r#"["a.weight"]"#)
        .metadata("a.weight", &entry)
}

#[test]
fn torchao_describes_tensors_in_the_metadata() {
    const DTYPE: &str = r#"{"_type": "torch.dtype", "_data": "bfloat16"}"#;
    let float8 =
        format!(r#""_type": "Float8Tensor", "_data": {{"block_size": [1, 64], "dtype": {DTYPE}}}"#);
    let tensors = |checkpoint: Checkpoint| {
        let checkpoint = checkpoint.tensor("a._weight_qdata", F8_E4M3, &[20, 64]);
        checkpoint.tensor("a._weight_scale", F32, &[20, 1])
    };
    check(tensors(torchao(&float8)), &["a.weight: fp8 [20, 64] BF16"]);
    check(
        tensors(Checkpoint::default()),
        &[
            "a.weight: torchao broken: the metadata has no entry for `a.weight`, which says what its parts are",
        ],
    );
    let integers = r#""_type": "IntxUnpackedToInt8Tensor", "_data": {"block_size": [1, 32]}"#;
    check(
        torchao(integers)
            .tensor("a._weight_qdata", I8, &[20, 64])
            .tensor("a._weight_scale", BF16, &[20, 2])
            .tensor("a._weight_zero_point", I8, &[20, 2]),
        &["a.weight: int-quantized [20, 64] BF16"],
    );
    let mx = r#""_type": "MXTensor", "_data": {"elem_dtype": {"_data": "float4_e2m1fn_x2"}, "block_size": 32, "is_swizzled_scales": false}"#;
    check(
        torchao(mx)
            .tensor("a._weight_qdata", U8, &[128, 32])
            .tensor("a._weight_scale", F8_E8M0, &[128, 2]),
        &["a.weight: mxfp4 [128, 64] F32"],
    );
    let nvfp4 =
        r#""_type": "NVFP4Tensor", "_data": {"block_size": 16, "is_swizzled_scales": true}"#;
    check(
        torchao(nvfp4)
            .tensor("a._weight_qdata", U8, &[128, 32])
            .tensor("a._weight_scale", F8_E4M3, &[32, 16]),
        &["a.weight: nvfp4 [128, 64] F32"],
    );
    check(
        tensors(torchao(
            r#""_type": "Int4TilePackedTo4dTensor", "_data": {}"#,
        )),
        &["a.weight: torchao opaque: it is of a tensor class of torchao that is not read"],
    );
}

/// HQQ of `[20, 64]` in groups of 64, with a packing.
fn hqq(packing: &str, dtype: &str) -> Checkpoint {
    let shape = [20i64, 64].map(i64::to_le_bytes).concat();
    let number = |value: i32| value.to_le_bytes();
    let checkpoint = Checkpoint::of(&[
        ("a.W_q", U8, &[10, 64]),
        ("a.scale", F16, &[20, 1]),
        ("a.zero", F16, &[20, 1]),
    ])
    .bytes("a.nbits", I32, &[], &number(4))
    .bytes("a.group_size", I32, &[], &number(64))
    .bytes("a.axis", I32, &[], &number(1))
    .bytes("a.shape", I64, &[2], &shape);
    [("a.packing", packing), ("a.compute_dtype", dtype)]
        .into_iter()
        .fold(checkpoint, |checkpoint, (name, value)| {
            let (name, shape, bytes) = text(name, value);
            checkpoint.bytes(&name, U8, &shape, &bytes)
        })
}

#[test]
fn texts_of_hqq_are_read_and_never_run() {
    check(
        hqq("4bit_u8", "torch.bfloat16"),
        &["a.weight: hqq [20, 64] BF16"],
    );
    check(
        hqq("4bit_u8", "__import__('os').system('true')"),
        &["a.weight: hqq [20, 64] F16"],
    );
    check(
        hqq("9bit", "torch.float16"),
        &["a.weight: hqq broken: `packing` is `9bit`, which is not known"],
    );
    check(
        hqq("4bit_u8", "torch.float16").bytes("a.quant_zero", U8, &[], &[1]),
        &["a.weight: hqq opaque: its scales or zeros are themselves quantized"],
    );
}

#[test]
fn quanto_says_the_number_of_rows_by_a_bias_alone() {
    let tensors: &[(&str, Dtype, &[u64])] = &[
        ("a.weight._data._data", U8, &[10, 64]),
        ("a.weight._scale", BF16, &[20, 1]),
        ("a.weight._shift", BF16, &[20, 1]),
        ("a.bias", BF16, &[10]),
    ];
    let map = r#"{"a": {"weights": "qint4", "activations": "none"}}"#;
    check(
        Checkpoint::of(tensors),
        &["a.weight: quanto [10, 128] BF16"],
    );
    check(
        Checkpoint::of(tensors).file("model_qmap.json", map),
        &["a.weight: quanto [10, 128] BF16"],
    );
    let found = Checkpoint::of(tensors)
        .file("model_qmap.json", &map.replace("qint4", "qint2"))
        .detect();
    assert_eq!(
        told(&found),
        ["conflict: the configuration has codes of 2 bits, but the tensors have codes of 4 bits"]
    );
    check(
        Checkpoint::of(&tensors[..3]),
        &[
            "a.weight: quanto broken: 20 groups of 64 are a matrix whose number of rows no tensor says: there is no `bias`",
        ],
    );
    check(
        Checkpoint::of(&[
            ("a.weight._data", I8, &[10, 128]),
            ("a.weight._scale", BF16, &[10, 1]),
        ]),
        &["a.weight: quanto [10, 128] BF16"],
    );
}

#[test]
fn bytes_with_scales_are_what_the_configuration_says() {
    let bitnet = || Checkpoint::of(&[("a.weight", U8, &[5, 64]), ("a.weight_scale", BF16, &[1])]);
    check(
        bitnet().config(r#"{"quant_method": "bitnet"}"#),
        &["a.weight: bitnet [20, 64] BF16"],
    );
    let modelopt = r#"{"quantization": {"quant_algo": "W4A16_AWQ", "group_size": 32}}"#;
    let found = Checkpoint::of(&[
        ("a.weight", U8, &[10, 64]),
        ("a.weight_scale", BF16, &[20, 2]),
        ("a.pre_quant_scale", BF16, &[64]),
    ])
    .file("hf_quant_config.json", modelopt)
    .detect();
    assert_eq!(lines(&found), ["a.weight: w4a16_awq [20, 64] BF16"]);
    assert_eq!(
        told(&found),
        [
            "note: inputs are multiplied by `pre_quant_scale` before the weight, which does not have it in it"
        ]
    );
    // What the inputs need stays a tensor of its own.
    assert!(!found.parts().any(|part| part == "a.pre_quant_scale"));
}

#[test]
fn awq_for_gemv_needs_the_size_of_groups() {
    let gemv = || {
        Checkpoint::of(&[
            ("a.qweight", I32, &[64, 16]),
            ("a.qzeros", I32, &[64, 1]),
            ("a.scales", F16, &[64, 8]),
        ])
    };
    let config = r#"{"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemv"}"#;
    check(gemv().config(config), &["a.weight: awq [64, 128] F16"]);
    check(
        gemv(),
        &[
            "a.weight: awq broken: scales for the GEMV kernels of AWQ are filled up, so that they do not tell the size of groups",
        ],
    );
    check(
        Checkpoint::of(&[
            ("a.qweight", I16, &[16, 128]),
            ("a.qzeros", F16, &[8, 64]),
            ("a.scales", F16, &[8, 64]),
        ])
        .config(&config.replace("gemv", "gemv_fast")),
        &["a.weight: awq [64, 128] F16"],
    );
}

#[test]
fn what_comfyui_rotates_is_not_read() {
    for (format, expected) in [
        (
            r#"{"format": "convrot_w4a4"}"#,
            "a.weight: comfyui opaque: its weights are rotated",
        ),
        (
            r#"{"format": "int8_tensorwise"}"#,
            "a.weight: int-quantized [20, 64] F32",
        ),
        (
            "{}",
            "a.weight: comfyui broken: the text of ComfyUI for it names no `format`",
        ),
    ] {
        let (name, shape, bytes) = text("a.comfy_quant", format);
        check(
            Checkpoint::of(&[("a.weight", I8, &[20, 64]), ("a.weight_scale", F32, &[])])
                .bytes(&name, U8, &shape, &bytes),
            &[expected],
        );
    }
}

/// Parts of a weight of 4 x 8 without its zeros.
fn sparse(values: Dtype, n_values: &[u64], more: &[(&str, Dtype, &[u64])]) -> Checkpoint {
    let shape: Vec<u8> = [4i64, 8].map(i64::to_le_bytes).concat();
    let parts = [
        ("a.compressed", values, n_values),
        ("a.bitmask", U8, &[4, 1]),
    ];
    let parts: Vec<_> = parts.iter().chain(more).copied().collect();
    Checkpoint::of(&parts).bytes("a.shape", I64, &[2, 1], &shape)
}

#[test]
fn weights_without_their_zeros_are_found() {
    let offsets: (&str, Dtype, &[u64]) = ("a.row_offsets", I64, &[4]);
    let scale: (&str, Dtype, &[u64]) = ("a.weight_scale", BF16, &[4, 1]);
    check(
        sparse(BF16, &[7], &[offsets]),
        &["a.weight: sparse-bitmask [4, 8] BF16"],
    );
    check(
        sparse(F16, &[4, 4], &[]),
        &["a.weight: sparse-24-bitmask [4, 8] F16"],
    );
    for values in [F8_E4M3, I8] {
        check(
            sparse(values, &[4, 4], &[scale]),
            &["a.weight: sparse-24-bitmask [4, 8] BF16"],
        );
        check(
            sparse(values, &[7], &[offsets, scale]),
            &["a.weight: sparse-bitmask [4, 8] BF16"],
        );
    }
    let ignored = r#"{"quantization_config": {"quant_method": "compressed-tensors", "ignore": ["a"],
        "sparsity_config": {"format": "sparse-bitmask"}}}"#;
    let plain = sparse(BF16, &[7], &[offsets]).config(ignored);
    assert_eq!(told(&plain.detect()), [""; 0]);
}

#[test]
fn weights_without_their_zeros_whose_parts_differ_are_broken() {
    let offsets: (&str, Dtype, &[u64]) = ("a.row_offsets", I64, &[4]);
    let scale: (&str, Dtype, &[u64]) = ("a.weight_scale", BF16, &[4, 1]);
    let cases = [
        (
            sparse(BF16, &[33], &[offsets]),
            "part `compressed` is BF16 [33]: a weight of 4 x 8 has no more elements",
        ),
        (
            sparse(BF16, &[7], &[offsets, scale]),
            "part `compressed` is BF16 with `weight_scale` beside it, which is no weight that is known",
        ),
        (
            sparse(I64, &[7], &[offsets]),
            "part `compressed` is I64, which is no weight that is known",
        ),
        (
            sparse(I8, &[7], &[offsets]),
            "part `weight_scale` or `scale` or `weight._scale` is missing; there are `weight`",
        ),
    ];
    for (checkpoint, expected) in cases {
        let [line] = &lines(&checkpoint.detect())[..] else {
            panic!("{expected}");
        };
        let (_, found) = line.split_once("broken: ").unwrap_or((line, ""));
        assert_eq!(found, expected);
    }
    let huge = [1i64 << 40, 1 << 40].map(i64::to_le_bytes).concat();
    let parts: &[(&str, Dtype, &[u64])] = &[
        ("a.compressed", BF16, &[7]),
        ("a.bitmask", U8, &[4, 1]),
        offsets,
    ];
    let error = lines(
        &Checkpoint::of(parts)
            .bytes("a.shape", I64, &[2], &huge)
            .detect(),
    );
    assert!(error[0].contains("broken: "), "{error:?}");
    let none = lines(&Checkpoint::of(parts).detect());
    assert_eq!(
        none,
        ["a.weight: sparse-bitmask broken: part `shape` is missing"]
    );
}
