//! What configurations say, wherever they stand, goes for the modules that they mean.

use tensorhold_core::Dtype::{self, BF16, F8_E4M3, F16, F32, I32, I64};
use tensorhold_quant::detect::DtypeFrom;

use super::checkpoint::{Checkpoint, lines, told, told_of_all};

const FP8: &[(&str, Dtype, &[u64])] = &[
    ("a.weight", F8_E4M3, &[200, 300]),
    ("a.weight_scale_inv", F32, &[2, 3]),
];
const READ: &str = "a.weight: fp8 [200, 300] BF16";

#[test]
fn it_is_found_in_every_place() {
    let inner = r#"{"quant_method": "fp8", "weight_block_size": [128, 128]}"#;
    for text in [
        format!(r#"{{"torch_dtype": "bfloat16", "quantization_config": {inner}}}"#),
        format!(r#"{{"dtype": "bfloat16", "text_config": {{"quantization_config": {inner}}}}}"#),
        format!(r#"{{"text_config": {{"dtype": "bfloat16"}}, "quantization_config": {inner}}}"#),
    ] {
        let found = Checkpoint::of(FP8).file("config.json", &text).detect();
        assert_eq!(lines(&found), [READ]);
        assert_eq!(found.weights[0].dtype_from, DtypeFrom::Config);
        assert!(found.config.unwrap().starts_with("config.json, `"));
    }
}

#[test]
fn what_is_given_takes_the_place_of_the_files() {
    let found = Checkpoint::of(FP8)
        .given(r#"{"quant_method": "fp8", "weight_block_size": [128, 128]}"#)
        .file("config.json", r#"{"dtype": "bfloat16", "quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 64]}}"#)
        .detect();
    assert_eq!(lines(&found), [READ]);
}

#[test]
fn settings_that_are_stored_as_tensors_count_where_no_file_says_more() {
    let stored = |bits: i64| {
        Checkpoint::of(&[("a.qweight", I32, &[12, 64]), ("a.scales", F16, &[1, 64])])
            .bytes("gptq_bits", I64, &[1], &bits.to_le_bytes())
            .bytes("gptq_groupsize", I64, &[], &(-1i64).to_le_bytes())
    };
    let found = stored(4).detect();
    assert_eq!(lines(&found), ["a.weight: gptq [64, 96] F16"]);
    assert_eq!(found.companions, ["gptq_bits", "gptq_groupsize"]);
    assert_eq!(lines(&stored(3).detect()), ["a.weight: gptq [64, 128] F16"]);
    let given = stored(3).given(r#"{"quant_method": "gptq", "bits": 4}"#);
    assert_eq!(lines(&given.detect()), ["a.weight: gptq [64, 96] F16"]);
}

#[test]
fn formats_that_are_not_known_and_transforms_are_told() {
    let config = r#"{"quant_method": "compressed-tensors", "format": "later", "weight_block_size": [128, 128],
        "transform_config": {"config_groups": {"u": {}}}}"#;
    let found = Checkpoint::of(FP8).config(config).detect();
    assert_eq!(
        told_of_all(&found),
        [
            "unknown config: config.json, `quantization_config` names the format `later`, which is not known",
            "note: config.json, `quantization_config` has transforms: weights are those of the transformed model, whose inputs \
             and outputs are transformed, too",
        ]
    );
}

#[test]
fn a_second_configuration_that_differs_is_told() {
    let found = Checkpoint::of(&[("a.qweight", I32, &[12, 64]), ("a.scales", F16, &[3, 64])])
        .config(r#"{"quant_method": "gptq", "bits": 4, "group_size": 32}"#)
        .file("quantize_config.json", r#"{"bits": 4, "group_size": 64}"#)
        .detect();
    assert_eq!(lines(&found), ["a.weight: gptq [64, 96] F16"]);
    assert_eq!(
        told_of_all(&found),
        [
            "conflict: `group_size` differs between config.json, `quantization_config` and quantize_config.json; the first counts"
        ]
    );
}

/// Two modules of 4 and 8 bits in `pack-quantized`.
fn mixed() -> Checkpoint {
    let shape = [20i64, 96].map(i64::to_le_bytes).concat();
    Checkpoint::of(&[
        ("m.q.weight_packed", I32, &[20, 12]),
        ("m.q.weight_scale", BF16, &[20, 3]),
        ("m.down.weight_packed", I32, &[20, 24]),
        ("m.down.weight_scale", BF16, &[20, 1]),
    ])
    .bytes("m.q.weight_shape", I64, &[2], &shape)
    .bytes("m.down.weight_shape", I64, &[2], &shape)
}

#[test]
fn groups_go_for_names_before_patterns_and_patterns_before_classes() {
    let groups = |targets: [&str; 2]| {
        format!(
            r#"{{"quant_method": "compressed-tensors", "config_groups": {{
                "group_0": {{"targets": {}, "weights": {{"num_bits": 4, "group_size": 32, "strategy": "group"}}}},
                "group_1": {{"targets": {}, "weights": {{"num_bits": 8, "strategy": "channel"}}}}}}}}"#,
            targets[0], targets[1]
        )
    };
    let read = [
        "m.down.weight: pack-quantized [20, 96] BF16",
        "m.q.weight: pack-quantized [20, 96] BF16",
    ];
    for targets in [
        [r#"["Linear"]"#, r#"["re:.*down"]"#],
        [r#"["Linear"]"#, r#"["m.down"]"#],
        [r#"["re:.*q$"]"#, r#"["Linear"]"#],
        [r#"["re:m\\..*"]"#, r#"["m.down"]"#],
    ] {
        let found = mixed().config(&groups(targets)).detect();
        assert_eq!(lines(&found), read, "{targets:?}");
        assert!(
            found
                .weights
                .iter()
                .all(|weight| weight.findings.is_empty()),
            "{targets:?}"
        );
    }
    let wrong = mixed()
        .config(&groups([r#"["re:.*down"]"#, r#"["Linear"]"#]))
        .detect();
    assert!(
        lines(&wrong)[1].starts_with("m.q.weight: pack-quantized broken"),
        "{:?}",
        lines(&wrong)
    );
}

#[test]
fn dynamic_settings_of_gptq_count_in_the_order_of_the_file() {
    let found = Checkpoint::of(&[
        ("l.0.up.qweight", I32, &[24, 64]),
        ("l.0.up.scales", F16, &[1, 64]),
        ("l.1.up.qweight", I32, &[12, 64]),
        ("l.1.up.scales", F16, &[3, 64]),
    ])
    .config(
        r#"{"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq_v2", "dynamic": {
            "-:.*norm": {}, "+:.*\\.0\\.": {"bits": 8, "group_size": -1}, ".*": {}}}"#,
    )
    .detect();
    assert_eq!(
        lines(&found),
        [
            "l.0.up.weight: gptq [64, 96] F16",
            "l.1.up.weight: gptq [64, 96] F16"
        ]
    );
    assert!(
        found
            .weights
            .iter()
            .all(|weight| weight.findings.is_empty())
    );
}

#[test]
fn a_module_that_should_not_be_quantized_is_told() {
    let ignored = r#"{"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["a", "b"]}"#;
    let found = Checkpoint::of(FP8)
        .tensor("b.weight", F8_E4M3, &[4, 4])
        .config(ignored)
        .detect();
    assert_eq!(lines(&found), ["a.weight: fp8 [200, 300] F32"]);
    assert_eq!(
        told(&found),
        ["conflict: the configuration says that it is not quantized, but its tensors are"]
    );
}

#[test]
fn what_shapes_deny_is_told_and_not_followed() {
    let found = Checkpoint::of(&[
        ("a.qweight", I32, &[12, 64]),
        ("a.scales", F16, &[3, 64]),
        ("a.qzeros", I32, &[3, 8]),
    ])
    .config(
        r#"{"quant_method": "gptq", "bits": 8, "group_size": 128, "checkpoint_format": "gptq_v2"}"#,
    )
    .detect();
    assert_eq!(lines(&found), ["a.weight: gptq [64, 96] F16"]);
    assert_eq!(
        told(&found),
        [
            "conflict: the configuration has 8 bits, but the tensors have codes of 4 bits",
            "conflict: the configuration has groups of 128, but 96 inputs have 3 scales"
        ]
    );
}

#[test]
fn a_configuration_without_quantized_tensors_is_told() {
    let found = Checkpoint::of(&[("a.weight", BF16, &[4, 4])])
        .config(r#"{"quant_method": "fp8"}"#)
        .detect();
    assert_eq!(
        told_of_all(&found),
        [
            "unused: config.json, `quantization_config` says that weights are quantized by fp8, but no tensor is"
        ]
    );
    let found = Checkpoint::of(FP8)
        .config(r#"{"quant_method": "later", "weight_block_size": [128, 128]}"#)
        .detect();
    assert_eq!(
        told_of_all(&found),
        [
            "unknown config: config.json, `quantization_config` names the method `later`, which is not known"
        ]
    );
}
