//! What is wrong with a checkpoint is told, weight by weight, and no number is made of it.

use proptest::prelude::*;
use tensorhold_core::Dtype::{self, BF16, F8_E4M3, F16, F32, I32, I64, U8};
use tensorhold_core::ErrorKind;
use tensorhold_quant::detect::QuantFindingKind;

use super::checkpoint::{Checkpoint, has, lines, told_of_all};

fn check(checkpoint: Checkpoint, expected: &[&str]) {
    assert_eq!(lines(&checkpoint.detect()), expected);
}

const BLOCKS: &str = r#"{"quant_method": "fp8", "weight_block_size": [128, 128]}"#;

#[test]
fn a_missing_scale_is_named_whether_or_not_a_configuration_asks_for_it() {
    let message = "a.weight: fp8 broken: its scale is missing: there is none of `weight_scale_inv`, `weight_scale`, `scale`, `qscale_weight`, `scale_weight`";
    let alone = || Checkpoint::of(&[("a.weight", F8_E4M3, &[4, 4])]);
    check(alone().config(BLOCKS), &[message]);
    check(alone(), &[]);
    let other = alone()
        .tensor("b.weight", F8_E4M3, &[4, 4])
        .tensor("b.weight_scale", F32, &[]);
    check(other, &[message, "b.weight: fp8 [4, 4] F32"]);
}

#[test]
fn blocks_of_a_size_that_nobody_says_are_refused_with_those_that_would_suit() {
    let found = Checkpoint::of(&[
        ("a.weight", F8_E4M3, &[200, 300]),
        ("a.weight_scale_inv", F32, &[2, 3]),
    ])
    .detect();
    let error = found.weights[0].recipe().unwrap_err();
    assert_eq!(
        error.to_string(),
        "`weight_scale_inv` has 2 x 3 scales for 200 x 300 weights, which suits blocks of 100 to 199 rows and 100 to 149 columns \
         (tensor `a.weight`)\nhint: say which by `weight_block_size` in the configuration, such as [128, 128]"
    );
}

#[test]
fn a_grid_of_scales_over_nothing_is_refused() {
    let found = Checkpoint::of(&[
        ("a.weight", F8_E4M3, &[0, 300]),
        ("a.weight_scale_inv", F32, &[2, 3]),
    ]);
    assert!(found.detect().weights[0].recipe().is_err());
}

#[test]
fn parts_that_only_the_configuration_knows_of_are_missed() {
    let gptq = || Checkpoint::of(&[("a.qweight", I32, &[12, 64]), ("a.scales", F16, &[3, 64])]);
    let config = r#"{"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": true}"#;
    check(
        gptq().config(config),
        &[
            "a.weight: gptq broken: the configuration says that groups are not in order (`desc_act`), but `g_idx` is missing",
        ],
    );
    check(
        gptq().config(&config.replace(r#""desc_act": true"#, r#""sym": false"#)),
        &[
            "a.weight: gptq broken: the configuration says that weights are not symmetric, but `qzeros` is missing",
        ],
    );
    let shape = [20i64, 96].map(i64::to_le_bytes).concat();
    let packed = Checkpoint::of(&[
        ("a.weight_packed", I32, &[20, 12]),
        ("a.weight_scale", BF16, &[20, 3]),
    ])
    .bytes("a.weight_shape", I64, &[2], &shape);
    let groups = r#"{"quant_method": "compressed-tensors", "config_groups": {"g": {"targets": ["Linear"],
        "weights": {"num_bits": 4, "group_size": 32, "actorder": "group"}}}}"#;
    check(
        packed.config(groups),
        &[
            "a.weight: pack-quantized broken: the configuration says that groups are not in order (`actorder`), but `weight_g_idx` is \
           missing",
        ],
    );
}

#[test]
fn shapes_that_disagree_and_impossible_groups_are_refused() {
    check(
        Checkpoint::of(&[
            ("a.weight", F8_E4M3, &[200, 300]),
            ("a.weight_scale_inv", F32, &[2, 4]),
        ])
        .config(BLOCKS),
        &[
            "a.weight: fp8 broken: part `weight_scale_inv` is F32 [2, 4]: it must have shape [2, 3] or [2, 1, 3, 1] or [1, 2, 3]",
        ],
    );
    let zero = BLOCKS.replace("[128, 128]", "[0, 128]");
    check(
        Checkpoint::of(&[
            ("a.weight", F8_E4M3, &[200, 300]),
            ("a.weight_scale_inv", F32, &[2, 3]),
        ])
        .config(&zero),
        &["a.weight: fp8 broken: blocks of 0 x 128 hold nothing"],
    );
    check(
        Checkpoint::of(&[
            ("a.qweight", I32, &[12, 64]),
            ("a.scales", F16, &[5, 64]),
            ("a.qzeros", I32, &[5, 8]),
        ])
        .config(r#"{"quant_method": "gptq", "bits": 4, "group_size": 0}"#),
        &[
            "a.weight: gptq broken: 5 groups of 96 inputs cannot be of one size that the tensors tell",
        ],
    );
    let shape = [-1i64, 96].map(i64::to_le_bytes).concat();
    check(
        Checkpoint::of(&[
            ("a.weight_packed", I32, &[20, 12]),
            ("a.weight_scale", BF16, &[20, 3]),
        ])
        .bytes("a.weight_shape", I64, &[2], &shape),
        &["a.weight: pack-quantized broken: part `weight_shape` is I64 [2]: it must be sizes"],
    );
}

#[test]
fn parts_without_their_weight_are_orphans_and_scales_of_caches_are_not() {
    let found = Checkpoint::of(&[
        ("a.weight_scale", F32, &[]),
        ("b.weight", BF16, &[4, 4]),
        ("b.weight_scale_inv", F32, &[1, 1]),
        ("c.qzeros", I32, &[1, 1]),
        ("c.input_scale", F32, &[]),
        ("c.self_attn.k_scale", F32, &[]),
    ])
    .detect();
    assert_eq!(
        told_of_all(&found),
        [
            "orphan: `a.weight_scale` is a part of a quantized weight, but there is no `a.weight`",
            "orphan: `b.weight_scale_inv` is a part of a quantized weight, but `b.weight` is BF16 [4, 4], which no scheme has beside it",
            "orphan: `c.qzeros` is a part of a quantized weight, but there is no `c.qweight`",
        ]
    );
    assert_eq!(found.companions, ["c.input_scale", "c.self_attn.k_scale"]);
}

#[test]
fn a_weight_that_is_there_twice_is_refused() {
    check(
        Checkpoint::of(&[
            ("a.qweight", I32, &[96, 8]),
            ("a.scales", F16, &[3, 64]),
            ("a.weight", BF16, &[64, 96]),
        ]),
        &["a.weight: awq broken: the weight is there twice, as a tensor that is not quantized"],
    );
}

#[test]
fn a_configuration_that_cannot_be_read_stops_only_who_needs_it() {
    let bomb = format!(r#"{{"a": {}"#, "[".repeat(100_000));
    let quantized = Checkpoint::of(&[("a.weight", F8_E4M3, &[4, 4]), ("a.weight_scale", F32, &[])]);
    let error = quantized
        .file("config.json", &bomb)
        .try_detect()
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.file()),
        (ErrorKind::InvalidConfig, Some("config.json"))
    );
    assert!(error.message().contains("recursion limit"), "{error}");

    let large = " ".repeat(17 << 20);
    let plain = Checkpoint::of(&[("a.weight", BF16, &[4, 4])])
        .file("config.json", &large)
        .detect();
    assert_eq!(
        told_of_all(&plain),
        ["unknown config: config.json: 17825792 bytes of JSON are over the limit of 16777216"]
    );
    assert!(has(&plain, QuantFindingKind::UnknownConfig));
}

#[test]
fn a_text_in_a_tensor_is_bounded() {
    let parts: &[(&str, Dtype, &[u64])] = &[
        ("a.weight", F8_E4M3, &[4, 4]),
        ("a.weight_scale", F32, &[]),
        ("a.comfy_quant", U8, &[1 << 40]),
    ];
    check(
        Checkpoint::of(parts),
        &[
            "a.weight: comfyui broken: 1099511627776 bytes are over the limit of 65536 for a tensor that describes another",
        ],
    );
}

const SUFFIXES: [&str; 26] = [
    ".weight",
    ".weight_scale",
    ".weight_scale_inv",
    ".weight_scale_2",
    ".weight_packed",
    ".weight_shape",
    ".weight_global_scale",
    ".weight_zero_point",
    ".scale",
    ".scales",
    ".qweight",
    ".qzeros",
    ".g_idx",
    "_blocks",
    "_scales",
    "",
    "_scale_inv",
    ".B",
    ".s",
    ".comfy_quant",
    ".biases",
    ".SCB",
    ".W_q",
    ".weight._data",
    ".weight.absmax",
    "._weight_qdata",
];
const CONFIGS: [&str; 6] = [
    "{}",
    BLOCKS,
    r#"{"quant_method": "gptq", "bits": 4, "group_size": -7}"#,
    r#"{"quant_method": "awq", "bits": 4000000000, "group_size": 1e18}"#,
    r#"{"quant_method": "compressed-tensors", "config_groups": {"": {"targets": ["re:."], "weights": {"num_bits": 3}}}}"#,
    r#"{"quant_method": "modelopt", "quant_algo": "FP8_PB_WO", "quantized_layers": {"m": {"group_size": 0}}}"#,
];

fn sizes() -> impl Strategy<Value = u64> {
    const ODD: [u64; 11] = [0, 1, 2, 3, 8, 16, 32, 96, 1 << 31, 1 << 50, u64::MAX];
    (0..ODD.len()).prop_map(|place| ODD[place])
}

proptest! {
    #[test]
    fn no_checkpoint_ends_the_program(
        made in prop::collection::vec((0..SUFFIXES.len(), 0..Dtype::ALL.len(), prop::collection::vec(sizes(), 0..4)), 1..8),
        bytes in prop::collection::vec(any::<u8>(), 16),
        config in 0..CONFIGS.len(),
    ) {
        let mut checkpoint = Checkpoint::default().config(CONFIGS[config]);
        let mut names = std::collections::BTreeSet::new();
        for (suffix, dtype, shape) in &made {
            let dtype = Dtype::ALL[*dtype];
            if tensorhold_core::shape_size_bytes(dtype, shape).is_ok() && names.insert(*suffix) {
                checkpoint = checkpoint.bytes(&format!("m{}", SUFFIXES[*suffix]), dtype, shape, &bytes);
            }
        }
        let found = checkpoint.detect();
        let sorted: Vec<_> = found.weights.iter().map(|weight| &weight.name).collect();
        prop_assert!(sorted.is_sorted());
    }
}
