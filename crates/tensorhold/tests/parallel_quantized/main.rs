//! What ranks hold of quantized checkpoints: pieces that are weights of their own.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod checkpoints;

use tempfile::{TempDir, tempdir};

use tensorhold::{
    Assembled, Checkpoint, Dequantize, Dtype, Error, ErrorKind, Held, Index, Memory, OpenOptions,
    ParallelRules, Pattern, Result, SaveOptions, Transfer, TransferOptions, shape_size_bytes,
};

use checkpoints::{Case, FP8, cases, open, save, tensor};

fn rules(n_ranks: u64, pattern: &str, style: &str) -> ParallelRules {
    let mut rules = ParallelRules::new(format!("tp={n_ranks}").parse().unwrap());
    rules
        .add(Pattern::new(pattern), "tp", style.parse().unwrap())
        .unwrap();
    rules
}

/// What a rank holds, read by a plan of it, as a checkpoint of its own.
fn piece(checkpoint: &Checkpoint, held: &[Option<Held>], config: &str) -> (TempDir, u64) {
    let plan = checkpoint.plan_held(held).unwrap();
    let size_bytes = plan.size_bytes();
    let options = TransferOptions::default();
    let (buffers, _) = Transfer::run(plan, checkpoint.files(), Vec::new(), options, &mut |_| {
        Ok(())
    })
    .unwrap();
    let there = checkpoint
        .tensors()
        .zip(held)
        .filter_map(|(tensor, held)| Some((tensor, held.as_ref()?)));
    let tensors = there.zip(buffers).map(|((tensor, held), buffer)| {
        let info = tensor.info();
        let mut bytes = Memory::into_host(buffer).unwrap().to_vec();
        if let Some(values) = &held.rewritten {
            bytes = match info.dtype {
                Dtype::I64 => values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect(),
                _ => values
                    .iter()
                    .flat_map(|value| (*value as i32).to_le_bytes())
                    .collect(),
            };
        }
        (info.name.to_owned(), info.dtype, held.share.shape(), bytes)
    });
    let folder = tempdir().unwrap();
    save(folder.path(), &tensors.collect::<Vec<_>>(), config);
    (folder, size_bytes)
}

fn weights(checkpoint: &Checkpoint, index: &[Index]) -> (Vec<u64>, Vec<u8>) {
    let quantization = checkpoint.quantization().unwrap();
    let weight = quantization.find("a.weight").unwrap();
    let wanted = Dequantize::whole(weight).part(index).cast(Dtype::F32);
    let made = checkpoint.dequantize(&wanted).unwrap();
    (wanted.shape().unwrap(), made.to_vec())
}

/// The index of a range of dimension `dim` of so many.
fn index(rank: usize, dim: usize, range: std::ops::Range<u64>) -> Vec<Index> {
    let mut index = vec![Index::ALL; rank];
    index[dim] = Index::Range {
        start: Some(range.start as i64),
        stop: Some(range.end as i64),
        step: None,
    };
    index
}

fn needed_bytes(checkpoint: &Checkpoint, index: &[Index]) -> u64 {
    let quantization = checkpoint.quantization().unwrap();
    let weight = quantization.find("a.weight").unwrap();
    Dequantize::whole(weight)
        .part(index)
        .needed_bytes()
        .unwrap()
}

fn all_held(checkpoint: &Checkpoint, rules: &ParallelRules) -> Result<Vec<Vec<Option<Held>>>> {
    let bound = checkpoint.bind(rules)?;
    (0..rules.mesh().n_ranks())
        .map(|rank| bound.held(rank))
        .collect()
}

#[test]
fn pieces_are_weights_that_are_slices_of_the_whole_or_are_refused() {
    let (mut n_legal, mut n_refused) = (0, 0);
    for case in cases() {
        let folder = case.save();
        let checkpoint = open(&folder);
        let shape = checkpoint.logical("a.weight").unwrap().shape;
        for (n_ranks, dim) in [2u64, 4, 8]
            .into_iter()
            .flat_map(|n| (0..shape.len()).map(move |dim| (n, dim)))
        {
            let rules = rules(n_ranks, "a.weight", &format!("Shard({dim})"));
            let name = format!("{} {n_ranks} {dim}", case.name);
            let all = match all_held(&checkpoint, &rules) {
                Ok(all) => all,
                Err(error) => {
                    assert_eq!(error.tensor(), Some("a.weight"), "{name}: {error}");
                    assert!(
                        error.message().contains("the nearest cuts are at"),
                        "{name}: {error}"
                    );
                    assert!(error.hint().unwrap().contains("dequantize=True"), "{name}");
                    n_refused += 1;
                    continue;
                }
            };
            let size = shape[dim].div_ceil(n_ranks);
            for (rank, held) in (0..).zip(&all) {
                let (start, end) = (
                    (rank * size).min(shape[dim]),
                    ((rank + 1) * size).min(shape[dim]),
                );
                let slice = index(shape.len(), dim, start..end);
                let (piece, size_bytes) = piece(&checkpoint, held, case.config);
                let found = weights(&open(&piece), &[]);
                assert_eq!(found, weights(&checkpoint, &slice), "{name} {rank}");
                let rest: u64 = checkpoint
                    .tensors()
                    .zip(held)
                    .filter(|(tensor, _)| {
                        [
                            "bias",
                            "shape",
                            "input_scale",
                            "pre_quant_scale",
                            "weight_format",
                            "g_idx",
                        ]
                        .iter()
                        .any(|end| tensor.info().name.ends_with(end))
                    })
                    .map(|(tensor, held)| {
                        shape_size_bytes(tensor.info().dtype, &held.as_ref().unwrap().share.shape())
                            .unwrap()
                    })
                    .sum();
                let is_indexed = checkpoint.find("a.g_idx").is_some();
                if !is_indexed {
                    assert_eq!(
                        size_bytes,
                        needed_bytes(&checkpoint, &slice) + rest,
                        "{name}"
                    );
                }
            }
            n_legal += 1;
        }
    }
    assert!(n_legal > 40 && n_refused > 5, "{n_legal} {n_refused}");
}

fn shapes(
    case: &Case,
    rules: &ParallelRules,
    rank: u64,
) -> Vec<(String, Vec<u64>, Option<Vec<i64>>)> {
    let folder = case.save();
    let checkpoint = open(&folder);
    let bound = checkpoint.bind(rules).unwrap();
    let mut held: Vec<_> = bound
        .tensors(rank)
        .unwrap()
        .into_iter()
        .map(|found| {
            (
                found.name.to_owned(),
                found.held.share.shape(),
                found.held.rewritten,
            )
        })
        .collect();
    held.sort();
    held
}

fn named(name: &str, shape: &[u64]) -> (String, Vec<u64>, Option<Vec<i64>>) {
    (name.to_owned(), shape.to_vec(), None)
}

#[test]
fn each_part_is_cut_at_the_same_place_in_its_own_dimension() {
    let cases = cases();
    let find = |name: &str| cases.iter().find(|case| case.name == name).unwrap();
    let rowwise = rules(2, "a", "rowwise");
    assert_eq!(
        shapes(find("gptq"), &rowwise, 1),
        [
            named("a.bias", &[128]),
            named("a.qweight", &[16, 128]),
            named("a.qzeros", &[4, 16]),
            named("a.scales", &[4, 128]),
        ]
        .to_vec()
    );
    let colwise = rules(2, "a", "colwise");
    assert_eq!(
        shapes(find("nvfp4"), &colwise, 1),
        [
            named("a.pre_quant_scale", &[256]),
            named("a.weight", &[64, 128]),
            named("a.weight_scale", &[64, 16]),
            named("a.weight_scale_2", &[]),
        ]
    );
    assert_eq!(
        shapes(find("nvfp4"), &rowwise, 1)[0],
        named("a.pre_quant_scale", &[128])
    );
    let packed = shapes(find("pack-quantized"), &colwise, 0);
    let (_, _, sizes) = packed
        .iter()
        .find(|held| held.0 == "a.weight_shape")
        .unwrap();
    assert_eq!(sizes.as_deref(), Some(&[64, 256][..]));
}

#[test]
fn groups_in_order_are_counted_from_the_first_and_others_keep_all_scales() {
    let cases = cases();
    let find = |name: &str| cases.iter().find(|case| case.name == name).unwrap();
    let of = |name: &str, part: &str| {
        let held = shapes(find(name), &rules(4, "a", "rowwise"), 3);
        held.into_iter().find(|held| held.0 == part).unwrap()
    };
    assert_eq!(of("gptq with groups in order", "a.scales").1, [2, 128]);
    let groups: Vec<i64> = (0..64).map(|column| column / 32).collect();
    assert_eq!(of("gptq with groups in order", "a.g_idx").2, Some(groups));
    assert_eq!(of("gptq by activation", "a.scales").1, [8, 128]);
    assert_eq!(of("gptq by activation", "a.g_idx"), named("a.g_idx", &[64]));
}

#[test]
fn fused_matrices_are_divided_one_by_one() {
    let mut n_legal = 0;
    for case in cases()
        .into_iter()
        .filter(|case| !case.name.starts_with("fp8"))
    {
        let folder = case.save();
        let checkpoint = open(&folder);
        let shape = checkpoint.logical("a.weight").unwrap().shape;
        let dim = shape.len() - 2;
        let (half, quarter) = (shape[dim] / 2, shape[dim] / 4);
        let rules = rules(2, "a", &format!("Fused({dim}, [{half}, {half}])"));
        let Ok(all) = all_held(&checkpoint, &rules) else {
            continue;
        };
        n_legal += 1;
        for (rank, held) in (0..).zip(all) {
            let (piece, _) = piece(&checkpoint, &held, case.config);
            let piece = open(&piece);
            for number in 0..2 {
                let (to, at) = (number * quarter, number * half + rank * quarter);
                let found = weights(&piece, &index(shape.len(), dim, to..to + quarter));
                let expected = weights(&checkpoint, &index(shape.len(), dim, at..at + quarter));
                assert_eq!(found, expected, "{} {rank} {number}", case.name);
            }
        }
    }
    assert!(n_legal >= 16, "{n_legal}");
}

/// The index of a box of the last two dimensions of so many.
fn boxed(rank: usize, rows: std::ops::Range<u64>, columns: std::ops::Range<u64>) -> Vec<Index> {
    let mut both = index(rank, rank - 2, rows);
    both[rank - 1] = index(rank, rank - 1, columns)[rank - 1];
    both
}

#[test]
fn several_rows_and_columns_at_once_are_a_weight_too() {
    let mut n_legal = 0;
    for case in cases() {
        let folder = case.save();
        let checkpoint = open(&folder);
        let shape = checkpoint.logical("a.weight").unwrap().shape;
        let rank = shape.len();
        let [.., rows, columns] = shape[..] else {
            panic!("{shape:?}")
        };
        let mut rules = ParallelRules::new("a=2,b=2".parse().unwrap());
        let fused = format!("Fused({}, [{}, {}])", rank - 2, rows / 2, rows - rows / 2);
        for (axis, style) in [
            ("a", fused),
            ("b", format!("StridedShard({}, 2)", rank - 1)),
        ] {
            let style = style.parse().unwrap();
            rules.add(Pattern::new("a.weight"), axis, style).unwrap();
        }
        let Ok(all) = all_held(&checkpoint, &rules) else {
            continue;
        };
        n_legal += 1;
        let (row_step, column_step) = (rows / 4, columns / 4);
        for (number, held) in (0..).zip(&all) {
            let (of_rows, of_columns) = (number / 2, number % 2);
            let (piece, _) = piece(&checkpoint, held, case.config);
            let piece = open(&piece);
            for part in 0..4 {
                let (down, across) = (part / 2, part % 2);
                let to = [down * row_step, across * column_step];
                let from = [
                    (down * 2 + of_rows) * row_step,
                    (across * 2 + of_columns) * column_step,
                ];
                let at = |[row, column]: [u64; 2]| {
                    boxed(rank, row..row + row_step, column..column + column_step)
                };
                assert_eq!(
                    weights(&piece, &at(to)),
                    weights(&checkpoint, &at(from)),
                    "{} {number} {part}",
                    case.name
                );
            }
        }
    }
    assert!(n_legal >= 10, "{n_legal}");
}

fn refused(case: &Case, rules: &ParallelRules) -> Error {
    let folder = case.save();
    let checkpoint = open(&folder);
    all_held(&checkpoint, rules).unwrap_err()
}

#[test]
fn a_refusal_says_the_unit_the_nearest_cuts_and_the_ways_out() {
    let cases = cases();
    let find = |name: &str| cases.iter().find(|case| case.name == name).unwrap();
    let error = refused(find("fp8 in blocks"), &rules(2, "a", "colwise"));
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(
        error.message(),
        "dimension 0 of size 120 would be cut at 60, inside a unit of 32: the nearest cuts are at 32 and 64"
    );
    assert_eq!(
        error.hint(),
        Some(
            "divide it between units, as `Blocks(0, 32)` does; with `dequantize=True` every cut can be made"
        )
    );
    let folder = find("fp8 in blocks").save();
    let checkpoint = open(&folder);
    let rules = rules(2, "a", "Blocks(0, 32)");
    let held = all_held(&checkpoint, &rules).unwrap();
    let (piece, _) = piece(&checkpoint, &held[1], FP8);
    assert_eq!(
        weights(&open(&piece), &[]),
        weights(&checkpoint, &index(2, 0, 64..120))
    );
}

#[test]
fn rules_name_weights_and_not_their_parts() {
    let cases = cases();
    let error = refused(&cases[0], &rules(2, "a.qweight", "Shard(0)"));
    assert_eq!(error.message(), "rule `a.qweight` names no tensor");
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("without quantization, such as `a.weight`"),
        "{hint}"
    );
}

#[test]
fn what_is_not_read_is_held_whole_and_not_divided() {
    let case = Case {
        name: "marlin",
        config: r#"{"quant_method": "gptq", "bits": 4, "group_size": 128, "checkpoint_format": "marlin"}"#,
        tensors: vec![
            tensor("a.B", Dtype::I32, &[16, 128]),
            tensor("a.s", Dtype::F16, &[2, 64]),
            tensor("b.weight", Dtype::F32, &[4, 4]),
        ],
    };
    let error = refused(&case, &rules(2, "a", "colwise"));
    assert_eq!(
        (error.kind(), error.tensor()),
        (ErrorKind::Unsupported, Some("a.weight"))
    );
    let held = shapes(&case, &rules(2, "b", "colwise"), 0);
    let expected = [
        named("a.B", &[16, 128]),
        named("a.s", &[2, 64]),
        named("b.weight", &[2, 4]),
    ];
    assert_eq!(held, expected);
}

#[test]
fn numbers_can_be_cut_everywhere() {
    for case in cases() {
        let folder = case.save();
        let checkpoint = open(&folder);
        let rules = rules(3, "a", "rowwise");
        let bound = checkpoint.bind(&rules).unwrap();
        let shape = checkpoint.logical("a.weight").unwrap().shape;
        let held = bound.logical(2).unwrap();
        let weight = held.iter().find(|held| held.name == "a.weight").unwrap();
        let size = shape[shape.len() - 1].div_ceil(3);
        let ranges = weight.held.share.ranges();
        assert_eq!(ranges[shape.len() - 1][0], size * 2..shape[shape.len() - 1]);
        assert_eq!(weight.shape, shape);
        let names: Vec<&str> = held.iter().map(|held| held.name).collect();
        assert!(
            !names.contains(&"a.scales") && !names.contains(&"a.input_scale"),
            "{names:?}"
        );
    }
}

#[test]
fn the_plan_of_a_rank_counts_what_its_piece_takes() {
    let case = cases().remove(0);
    let folder = case.save();
    let checkpoint = open(&folder);
    let rules = rules(2, "a", "rowwise");
    let plan = checkpoint
        .rank_plan(&checkpoint.bind(&rules).unwrap(), 1)
        .unwrap();
    // Half of codes, zeros and scales, all of the bias.
    assert_eq!(
        plan.held_bytes,
        (32 * 128 * 4 + 8 * 16 * 4 + 8 * 128 * 2) / 2 + 256
    );
    assert_eq!(plan.n_tensors, 4);
}

#[test]
fn what_says_the_shape_of_all_of_a_weight_is_not_divided_with_it() {
    let state =
        r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 128]}"#;
    let name = "a.weight.quant_state.bitsandbytes__nf4".to_owned();
    let case = Case {
        name: "bnb-nf4",
        config: r#"{"quant_method": "bitsandbytes", "load_in_4bit": true}"#,
        tensors: vec![
            tensor("a.weight", Dtype::U8, &[4096, 1]),
            tensor("a.weight.absmax", Dtype::F32, &[128]),
            tensor("a.weight.quant_map", Dtype::F32, &[16]),
            (name, Dtype::U8, vec![state.len() as u64], state.into()),
        ],
    };
    let error = refused(&case, &rules(2, "a", "colwise"));
    assert_eq!(
        (error.kind(), error.tensor()),
        (ErrorKind::Unsupported, Some("a.weight"))
    );
    assert!(error.hint().unwrap().contains("dequantize=True"), "{error}");
    let folder = case.save();
    let checkpoint = open(&folder);
    let rules = rules(2, "a", "colwise");
    let held = checkpoint.bind(&rules).unwrap().logical(1).unwrap();
    assert_eq!(held[0].held.share.ranges()[0][0], 32..64);
}

#[test]
fn a_resharded_checkpoint_has_for_each_rank_what_it_needs_of_the_parts() {
    for case in cases()
        .into_iter()
        .filter(|case| case.name.starts_with("gptq"))
    {
        let folder = case.save();
        let checkpoint = open(&folder);
        let rules = rules(2, "a", "rowwise");
        let target = tempdir().unwrap();
        let source = Assembled::open(folder.path(), &OpenOptions::default()).unwrap();
        let options = SaveOptions::default();
        let written =
            tensorhold::reshard(&source, &rules, target.path(), &options, &mut |_| {}).unwrap();
        let second = Checkpoint::open(&written[1], &OpenOptions::default()).unwrap();
        let held = checkpoint.held(&rules, 1).unwrap();
        for (tensor, held) in checkpoint.tensors().zip(held) {
            let share = held.unwrap().share;
            // What the first rank has, too, is with that.
            let found = second
                .find(tensor.info().name)
                .map(|found| found.info().shape.to_vec());
            let expected = (!share.is_whole()).then(|| share.shape());
            assert_eq!(found, expected, "{} {}", case.name, tensor.info().name);
        }
        let whole = Assembled::open(target.path(), &OpenOptions::default()).unwrap();
        for tensor in whole.tensors() {
            let mut bytes = Vec::new();
            whole
                .stream(tensor, &tensor.ranges(), &mut |some| {
                    bytes.extend_from_slice(some);
                    Ok(())
                })
                .unwrap();
            assert_eq!(
                bytes,
                checkpoint.tensor(&tensor.name).unwrap().read().unwrap()
            );
        }
    }
}
