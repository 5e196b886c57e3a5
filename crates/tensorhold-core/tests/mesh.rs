//! Shares: put together they are the tensor, and each byte is held by exactly the ranks that are to hold it.

#![allow(clippy::unwrap_used)]
#![allow(
    clippy::single_range_in_vec_init,
    reason = "a dimension has a list of ranges, mostly of one"
)]

use proptest::prelude::*;
use tensorhold_core::{
    DeviceMesh, Dtype, FusedPart, Granularity, Held, MeshAxis, ParallelRules, Pattern, Placement,
    Share, Style, Unmatched,
};

fn mesh(sizes: &[u64]) -> DeviceMesh {
    let axis = |(number, &size): (usize, &u64)| MeshAxis {
        name: format!("axis{number}"),
        size,
    };
    DeviceMesh::new(sizes.iter().enumerate().map(axis)).unwrap()
}

fn placement(n_dims: i64) -> impl Strategy<Value = Placement> {
    prop_oneof![
        Just(Placement::Replicate),
        (-n_dims..n_dims).prop_map(|dim| Placement::Shard { dim }),
        (-n_dims..n_dims, 1u64..5)
            .prop_map(|(dim, split_factor)| Placement::StridedShard { dim, split_factor }),
        (-n_dims..n_dims, 1u64..5).prop_map(|(dim, size)| Placement::Blocks { dim, size }),
    ]
}

type Case = (Vec<u64>, Vec<u64>, Vec<Placement>);

fn case() -> impl Strategy<Value = Case> {
    (
        prop::collection::vec(1u64..9, 1..4),
        prop::collection::vec(1u64..5, 1..4),
    )
        .prop_flat_map(|(shape, sizes)| {
            let placements = prop::collection::vec(placement(shape.len() as i64), sizes.len());
            (Just(shape), Just(sizes), placements)
        })
}

fn share(shape: &[u64], mesh: &DeviceMesh, placements: &[Placement], rank: u64) -> Share {
    let mut share = Share::whole(shape);
    let coordinates = mesh.coordinates(rank).unwrap();
    for ((placement, axis), at) in placements.iter().zip(mesh.axes()).zip(coordinates) {
        share.divide(placement, axis.size, at).unwrap();
    }
    share
}

/// Some of `parts` with dots between.
fn dotted(parts: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(parts), 1..5).prop_map(|parts| parts.join("."))
}

/// How many parts of `name` a pattern takes, by trying all numbers of them.
fn depth(pattern: &str, name: &str) -> Option<usize> {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let name: Vec<&str> = name.split('.').collect();
    let mut depths = (1..=name.len()).rev();
    depths.find(|&depth| takes(&pattern, &name[..depth]))
}

fn takes(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern, name) {
        ([], _) => name.is_empty(),
        (["**", rest @ ..], _) => (0..=name.len()).any(|n| takes(rest, &name[n..])),
        ([_, ..], []) => false,
        ([first, rest @ ..], [part, others @ ..]) => {
            let is_one = match first.split_once('*') {
                Some((start, end)) => part.starts_with(start) && part.ends_with(end),
                None => first == part,
            };
            is_one && takes(rest, others)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn each_element_is_held_once_by_every_replica((shape, sizes, placements) in case()) {
        let mesh = mesh(&sizes);
        let size: u64 = shape.iter().product();
        let tensor: Vec<u8> = (0..size * 4).map(|n| ((n / 4) >> (n % 4 * 8)) as u8).collect();
        let mut n_holders = vec![0u64; size as usize];
        for rank in 0..mesh.n_ranks() {
            let share = share(&shape, &mesh, &placements, rank);
            let mut held = tensor.clone();
            if let Some(selection) = share.selection(Dtype::F32).unwrap() {
                prop_assert_eq!(selection.shape(), share.shape());
                held = vec![0; selection.size_bytes() as usize];
                selection.gather(&tensor, &mut held);
            }
            for element in held.chunks(4) {
                n_holders[u32::from_le_bytes(element.try_into().unwrap()) as usize] += 1;
            }
        }
        let replicas = sizes.iter().zip(&placements);
        let replicas = replicas.filter(|(_, placement)| placement.dim().is_none());
        let expected: u64 = replicas.map(|(size, _)| size).product();
        prop_assert_eq!(n_holders, vec![expected; size as usize]);
    }

    #[test]
    fn fused_parts_are_divided_one_by_one(
        sizes in prop::collection::vec(0u64..9, 1..4),
        n_ranks in 1u64..5,
    ) {
        let total: u64 = sizes.iter().sum();
        let parts = sizes.iter().map(|&size| FusedPart { size, n_heads: None }).collect();
        let fused = Placement::Fused { dim: 0, parts };
        for rank in 0..n_ranks {
            let mut share = Share::whole(&[total, 3]);
            share.divide(&fused, n_ranks, rank).unwrap();
            let mut expected = Vec::new();
            let mut start = 0;
            for &size in &sizes {
                let mut alone = Share::whole(&[size]);
                alone.divide(&Placement::Shard { dim: 0 }, n_ranks, rank).unwrap();
                expected.extend(alone.ranges()[0].iter().cloned().flatten().map(|at| at + start));
                start += size;
            }
            let held: Vec<u64> = share.ranges()[0].iter().cloned().flatten().collect();
            prop_assert_eq!(held, expected);
        }
    }

    #[test]
    fn meshes_are_read_as_they_are_printed(sizes in prop::collection::vec(1u64..9, 1..4)) {
        let mesh = mesh(&sizes);
        prop_assert_eq!(mesh.to_string().parse::<DeviceMesh>().unwrap(), mesh);
    }

    #[test]
    fn the_closest_rule_is_found_among_any(
        patterns in prop::collection::vec(dotted(&["a", "b", "*", "**", "a*", "*b"]), 1..6),
        name in dotted(&["a", "b", "ab", "ba"]),
    ) {
        for pattern in &patterns {
            prop_assert_eq!(Pattern::new(pattern).depth(&name), depth(pattern, &name));
        }
        let patterns: Vec<&str> = patterns.iter().map(|pattern| &pattern[..]).collect();
        let naming: Vec<&str> = patterns.into_iter().filter(|pattern| depth(pattern, &name).is_some()).collect();
        let mut rules = ParallelRules::new("tp=2".parse().unwrap());
        for (dim, pattern) in (0..).zip(&naming) {
            rules.add(Pattern::new(pattern), "tp", Style::Place(Placement::Shard { dim })).unwrap();
        }
        let held = rules.held(0, [(&name[..], &[2; 5][..])]).unwrap();
        // The first of those that go deepest.
        let numbered: Vec<_> = (0..).zip(&naming).collect();
        let closest = numbered.into_iter().rev().max_by_key(|(_, pattern)| depth(pattern, &name));
        let expected = closest.map_or(Placement::Replicate, |(dim, _)| Placement::Shard { dim });
        prop_assert_eq!(&held[0].as_ref().unwrap().placements[..], &[expected]);
    }

    #[test]
    fn no_text_of_a_mesh_is_trusted(text in ".{0,20}") {
        if let Ok(mesh) = text.parse::<DeviceMesh>() {
            prop_assert!(mesh.coordinates(mesh.n_ranks()).is_err());
        }
    }
}

#[test]
fn fewer_heads_than_ranks_are_repeated() {
    let heads = Placement::Heads { dim: 0, n_heads: 2 };
    let first_and_end = |rank| {
        let mut share = Share::whole(&[8, 4]);
        share.divide(&heads, 4, rank).unwrap();
        let range = share.ranges()[0][0].clone();
        (range.start, range.end)
    };
    assert_eq!(
        [0, 1, 2, 3].map(first_and_end),
        [(0, 4), (0, 4), (4, 8), (4, 8)]
    );
    let mut share = Share::whole(&[8, 4]);
    let error = share.divide(&heads, 3, 0).unwrap_err();
    assert_eq!(
        error.message(),
        "2 heads can neither be divided by 3 ranks nor be repeated evenly for them"
    );
}

#[test]
fn blocks_are_divided_whole_and_the_last_may_be_partial() {
    let ranges = |n_ranks, rank| {
        let mut share = Share::whole(&[90, 3]);
        let blocks = Placement::Blocks { dim: 0, size: 32 };
        share.divide(&blocks, n_ranks, rank).unwrap();
        share.ranges()[0].clone()
    };
    assert_eq!([0, 1].map(|rank| ranges(2, rank)), [[0..64], [64..90]]);
    assert_eq!(ranges(3, 1), [32..64]);
    assert_eq!(ranges(4, 3), []);
    let nothing = Placement::Blocks { dim: 0, size: 0 };
    let error = Share::whole(&[8]).divide(&nothing, 2, 0).unwrap_err();
    assert_eq!(error.message(), "blocks of 0 positions hold nothing");
}

#[test]
fn a_share_of_ranges_holds_them_and_nothing_outside() {
    let ranges = vec![vec![4..6, 0..1], vec![0..3]];
    let share = Share::of_ranges(&[6, 3], ranges.clone()).unwrap();
    assert_eq!(
        (share.ranges(), share.full_shape()),
        (&ranges[..], &[6, 3][..])
    );
    assert_eq!(share.shape(), [3, 3]);
    let error = Share::of_ranges(&[6, 3], vec![vec![4..7], vec![0..3]]).unwrap_err();
    assert_eq!(
        error.message(),
        "[[4..7], [0..3]] are no positions of a tensor of [6, 3]"
    );
    assert!(Share::of_ranges(&[6, 3], vec![vec![0..6]]).is_err());
}

#[test]
fn a_cut_inside_a_unit_is_refused_with_the_nearest_ones() {
    let mut share = Share::whole(&[96, 64]);
    share.divide(&Placement::Shard { dim: 0 }, 4, 1).unwrap();
    share.check(&Granularity { units: vec![24] }).unwrap();
    let error = share
        .check(&Granularity { units: vec![32, 8] })
        .unwrap_err();
    assert_eq!(
        error.message(),
        "dimension 0 of size 96 would be cut at 24, inside a unit of 32: the nearest cuts are at 0 and 32"
    );
}

/// A model of 4 layers with 4 experts each, as checkpoints name them.
fn names() -> Vec<(String, Vec<u64>)> {
    let mut names = vec![("model.embed_tokens.weight".to_owned(), vec![10, 8])];
    for layer in 0..4 {
        let prefix = format!("model.layers.{layer}");
        names.push((format!("{prefix}.self_attn.q_proj.weight"), vec![16, 8]));
        names.push((format!("{prefix}.self_attn.q_proj.bias"), vec![16]));
        names.push((format!("{prefix}.self_attn.o_proj.weight"), vec![8, 16]));
        names.push((format!("{prefix}.self_attn.o_proj.bias"), vec![8]));
        for expert in 0..4 {
            names.push((
                format!("{prefix}.mlp.experts.{expert}.up_proj.weight"),
                vec![12, 8],
            ));
        }
    }
    names.push(("model.norm.weight".to_owned(), vec![8]));
    names.push(("lm_head.weight".to_owned(), vec![10, 8]));
    names
}

fn held(rules: &ParallelRules, rank: u64) -> Vec<(String, Vec<u64>)> {
    let names = names();
    let tensors = names.iter().map(|(name, shape)| (&name[..], &shape[..]));
    let held = rules.held(rank, tensors).unwrap();
    let named = names.iter().zip(held);
    let shape = |held: Held| held.share.shape();
    named
        .filter_map(|((name, _), held)| Some((name.clone(), shape(held?))))
        .collect()
}

fn rules(mesh: &str, rules: &[(&str, &str, Style)]) -> ParallelRules {
    let mut all = ParallelRules::new(mesh.parse().unwrap());
    for (pattern, axis, style) in rules {
        all.add(Pattern::new(pattern), axis, style.clone()).unwrap();
    }
    all
}

#[test]
fn a_rank_holds_its_stage_its_columns_and_its_experts() {
    let rules = rules(
        "pp=2,ep=2,tp=2",
        &[
            ("model.layers", "pp", Style::Stages(None)),
            ("model.embed_tokens", "pp", Style::FirstStage),
            ("model.norm", "pp", Style::LastStage),
            ("lm_head", "pp", Style::LastStage),
            ("model.layers.*.mlp.experts", "ep", Style::Experts(None)),
            ("model.layers.*.self_attn.q_proj", "tp", Style::Colwise),
            ("model.layers.*.self_attn.o_proj", "tp", Style::Rowwise),
            ("lm_head", "tp", Style::Colwise),
        ],
    );
    // pp 1, ep 0, tp 1
    let last = held(&rules, 5);
    let expected = [
        ("model.layers.2.self_attn.q_proj.weight", vec![8, 8]),
        ("model.layers.2.self_attn.q_proj.bias", vec![8]),
        ("model.layers.2.self_attn.o_proj.weight", vec![8, 8]),
        ("model.layers.2.self_attn.o_proj.bias", vec![8]),
        ("model.layers.2.mlp.experts.0.up_proj.weight", vec![12, 8]),
        ("model.layers.2.mlp.experts.1.up_proj.weight", vec![12, 8]),
    ];
    for (found, expected) in last.iter().zip(expected) {
        assert_eq!((&found.0[..], &found.1), (expected.0, &expected.1));
    }
    let ends = &last[last.len() - 2..];
    assert_eq!(ends[0], ("model.norm.weight".to_owned(), vec![8]));
    assert_eq!(ends[1], ("lm_head.weight".to_owned(), vec![5, 8]));
    assert_eq!(last.len(), 14);
    assert_eq!(held(&rules, 0)[0].0, "model.embed_tokens.weight");
}

#[test]
fn the_closest_rule_counts() {
    let rules = rules(
        "tp=2",
        &[
            ("model.layers.*.self_attn", "tp", Style::Replicate),
            ("**.q_proj", "tp", Style::Colwise),
            (
                "model.layers.0.self_attn.q_proj.bias",
                "tp",
                Style::Replicate,
            ),
        ],
    );
    let held: std::collections::BTreeMap<_, _> = held(&rules, 0).into_iter().collect();
    assert_eq!(held["model.layers.0.self_attn.q_proj.weight"], [8, 8]);
    assert_eq!(held["model.layers.0.self_attn.q_proj.bias"], [16]);
    assert_eq!(held["model.layers.1.self_attn.q_proj.bias"], [8]);
    assert_eq!(held["model.layers.1.self_attn.o_proj.weight"], [8, 16]);
}

#[test]
fn rules_that_do_not_fit_are_refused_before_anything_is_read() {
    let names = names();
    let tensors = || names.iter().map(|(name, shape)| (&name[..], &shape[..]));
    let refused = |rules: &ParallelRules| {
        let error = rules.held(0, tensors()).unwrap_err();
        (
            error.tensor().map(str::to_owned),
            error.message().to_owned(),
        )
    };
    let nothing = rules("tp=2", &[("model.layer.*.q_proj", "tp", Style::Colwise)]);
    assert_eq!(
        refused(&nothing),
        (None, "rule `model.layer.*.q_proj` names no tensor".into())
    );
    let deep = rules(
        "tp=2",
        &[(
            "model.norm",
            "tp",
            Style::Place(Placement::Shard { dim: 1 }),
        )],
    );
    assert_eq!(
        refused(&deep),
        (
            Some("model.norm.weight".into()),
            "Shard(1) cannot divide a tensor of 1 dimensions".into()
        )
    );
    let layers = rules(
        "pp=2",
        &[("model.layers", "pp", Style::Stages(Some(vec![1, 2])))],
    );
    assert_eq!(
        refused(&layers),
        (
            None,
            "rule `model.layers` divides 3 layers, but there are 4".into()
        )
    );
    let strict = rules("tp=2", &[("lm_head", "tp", Style::Colwise)]);
    let strict = strict.with_unmatched(Unmatched::Refuse);
    assert_eq!(
        refused(&strict),
        (
            Some("model.embed_tokens.weight".into()),
            "no rule names it".into()
        )
    );
    let mut other = ParallelRules::new("tp=2".parse().unwrap());
    let error = other
        .add(Pattern::new("lm_head"), "pp", Style::LastStage)
        .unwrap_err();
    assert_eq!(
        error.message(),
        "rule `lm_head` is for axis `pp`, which the mesh has not"
    );
    assert_eq!(
        "tp=0".parse::<DeviceMesh>().unwrap_err().message(),
        "axis `tp` of the mesh has no rank"
    );
}

#[test]
fn patterns_match_by_parts() {
    let depth = |pattern: &str, name: &str| Pattern::new(pattern).depth(name);
    assert_eq!(depth("", "a.b"), Some(0));
    assert_eq!(depth("a.*", "a.b.c"), Some(2));
    assert_eq!(depth("a.*.c", "a.b.b.c"), None);
    assert_eq!(depth("a.**.c", "a.b.b.c"), Some(4));
    assert_eq!(depth("a.**", "a.b.b.c"), Some(4));
    assert_eq!(depth("**.c", "c"), Some(1));
    assert_eq!(depth("*_proj.weight", "q_proj.weight"), Some(2));
    assert_eq!(depth("*a*b*", "xaybzb"), Some(1));
    assert_eq!(depth("a", "ab"), None);
    assert_eq!(depth("a.b", "a"), None);
}

#[test]
fn styles_are_read_as_they_are_printed() {
    for text in [
        "colwise",
        "packed_rowwise",
        "stages",
        "experts",
        "Shard(-1)",
        "StridedShard(0, split_factor=2)",
        "Blocks(0, 128)",
        "Heads(0, 8)",
        "Fused(1, [64, 16, 16])",
    ] {
        assert_eq!(text.parse::<Style>().unwrap().to_string(), text);
    }
    assert_eq!(
        "Stages([3, 1])".parse::<Style>().unwrap(),
        Style::Stages(Some(vec![3, 1]))
    );
    for text in [
        "",
        "sideways",
        "Shard",
        "Shard(",
        "Shard(a)",
        "Shard(1, 2)",
        "Fused(0, 3)",
        "Heads(0)",
        "Blocks(0)",
    ] {
        assert!(text.parse::<Style>().is_err(), "{text}");
    }
}
