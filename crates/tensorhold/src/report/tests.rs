//! What a person sees of a checkpoint.

use tensorhold_core::{ByteRange, Dtype, TensorInfo, shape_size_bytes};

use super::*;

type Named = (String, Dtype, &'static [u64]);

fn report(tensors: &[Named]) -> Report {
    let tensors = tensors.iter().map(|(name, dtype, shape)| TensorInfo {
        name,
        dtype: *dtype,
        shape,
        offsets: ByteRange::new(0, shape_size_bytes(*dtype, shape).unwrap()),
    });
    Report::of_tensors(tensors.map(|info| (info, None)), &Quantization::default())
}

fn f32s(names: &[&str]) -> Report {
    let tensor = |name: &&str| ((*name).to_owned(), Dtype::F32, &[2][..]);
    report(&names.iter().map(tensor).collect::<Vec<_>>())
}

/// The tree as `name ×folded =tensors`, with two spaces for each parent.
fn tree(report: &Report, max_rows: Option<usize>) -> Vec<String> {
    let show = |row: Row<'_>| {
        let Module {
            name,
            n_folded,
            totals,
            ..
        } = row.module;
        let closed = if row.is_closed { " …" } else { "" };
        let indent = "  ".repeat(row.depth);
        format!("{indent}{name} ×{n_folded} ={}{closed}", totals.n_tensors)
    };
    rows(report, max_rows).into_iter().map(show).collect()
}

fn check(names: &[&str], expected: &[&str]) {
    assert_eq!(tree(&f32s(names), None), expected);
}

/// `n` layers with an attention and a norm; every layer has the projections that `with` says.
fn layers(n: u64, with: impl Fn(u64) -> bool) -> Vec<Named> {
    let layer = |n: u64| {
        let tensor = |name: &str, shape| (format!("layers.{n}.{name}"), Dtype::BF16, shape);
        let mut layer = vec![tensor("norm.weight", &[8][..]), tensor("attn.q", &[8, 8])];
        layer.extend(with(n).then(|| tensor("attn.k", &[8, 8])));
        layer
    };
    (0..n).flat_map(layer).collect()
}

#[test]
fn layers_of_the_same_structure_are_one() {
    let report = report(&layers(36, |_| true));
    assert_eq!(
        tree(&report, None),
        [
            "layers.[0-35] ×36 =108",
            "  attn.{k,q} ×1 =72",
            "  norm.weight ×1 =36"
        ]
    );
    assert_eq!(report.modules[0].totals.size_bytes, 36 * (8 + 64 + 64) * 2);
    assert_eq!(report.modules[0].totals, report.totals);
}

#[test]
fn layers_that_differ_split_the_range() {
    let report = report(&layers(36, |n| n != 3 && n != 4));
    let names: Vec<&str> = report
        .modules
        .iter()
        .map(|module| &module.name[..])
        .collect();
    assert_eq!(names, ["layers.[0-2,5-35]", "layers.[3,4]"]);
}

#[test]
fn another_dtype_or_shape_is_another_structure() {
    let mut tensors = layers(3, |_| true);
    tensors[1].1 = Dtype::F16;
    tensors[4].2 = &[8, 4];
    assert_eq!(report(&tensors).modules.len(), 3);
}

#[test]
fn experts_fold_inside_folded_layers() {
    let expert = |layer, expert| {
        let name = format!("model.layers.{layer}.mlp.experts.{expert}.up.weight");
        (name, Dtype::F8_E4M3, &[4, 4][..])
    };
    let mut tensors: Vec<Named> = (0..58)
        .flat_map(|layer| (0..256).map(move |n| expert(layer, n)))
        .collect();
    tensors.push(("model.norm.weight".to_owned(), Dtype::BF16, &[4]));
    assert_eq!(
        tree(&report(&tensors), None),
        [
            "model ×1 =14849",
            "  layers.[0-57].mlp.experts.[0-255].up.weight ×14848 =14848",
            "  norm.weight ×1 =1"
        ]
    );
}

#[test]
fn one_layer_keeps_its_number() {
    check(&["h.0.a", "h.0.b"], &["h.0.{a,b} ×1 =2"]);
}

#[test]
fn numbers_sort_by_value_and_before_words() {
    check(
        &["x.10.a.p", "x.b", "x.9", "x.a"],
        &[
            "x ×1 =4",
            "  9 ×1 =1",
            "  10.a.p ×1 =1",
            "  a ×1 =1",
            "  b ×1 =1",
        ],
    );
}

#[test]
fn numbers_with_leading_zeros_are_words() {
    check(&["a.00", "a.01"], &["a.{00,01} ×1 =2"]);
}

#[test]
fn a_name_can_be_a_tensor_and_a_module() {
    check(&["a", "a.b", "a.c"], &["a ×1 =3", "  b ×1 =1", "  c ×1 =1"]);
}

#[test]
fn odd_names_stay_whole() {
    check(&["", ".", "a..b"], &[" ×1 =2", "   ×1 =1", "a..b ×1 =1"]);
}

#[test]
fn a_name_of_a_million_dots_is_no_trap() {
    let name = ".".repeat(1_000_000);
    assert_eq!(f32s(&[&name, "a"]).totals.n_tensors, 2);
}

#[test]
fn dtypes_are_ordered_by_their_bytes() {
    let report = report(&[
        ("a".to_owned(), Dtype::F32, &[3]),
        ("b".to_owned(), Dtype::U8, &[100]),
        ("c".to_owned(), Dtype::F32, &[3]),
        ("d".to_owned(), Dtype::F4, &[2, 2]),
    ]);
    let shares: Vec<(Dtype, u64, u64)> = report
        .dtypes
        .iter()
        .map(|(dtype, totals)| (*dtype, totals.n_tensors, totals.size_bytes))
        .collect();
    assert_eq!(
        shares,
        [(Dtype::U8, 1, 100), (Dtype::F32, 2, 24), (Dtype::F4, 1, 2)]
    );
    assert_eq!(report.totals.n_elements, 110);
}

#[test]
fn what_does_not_fit_is_closed_the_smallest_first() {
    let tensor = |name: &str, n: &'static [u64]| (name.to_owned(), Dtype::U8, n);
    let mut tensors = Vec::new();
    for name in ["a", "b", "c", "d"] {
        tensors.push(tensor(&format!("big.{name}"), &[100]));
        tensors.push(tensor(&format!("small.{name}"), &[1]));
    }
    let report = report(&tensors);
    assert_eq!(
        tree(&report, Some(6)),
        [
            "big ×1 =4",
            "  a ×1 =1",
            "  b ×1 =1",
            "  c ×1 =1",
            "  d ×1 =1",
            "small ×1 =4 …"
        ]
    );
    assert_eq!(tree(&report, Some(2)), ["big ×1 =4 …", "small ×1 =4 …"]);
    assert_eq!(tree(&report, Some(1)), ["big ×1 =4 …"]);
    assert_eq!(tree(&report, Some(0)).len(), 0);
    assert_eq!(tree(&report, None).len(), 10);
}

mod sums {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_level_sums_up_to_all_tensors(
            names in prop::collection::btree_set("[a0-3](\\.[ab0-9]){0,4}", 0..60)
        ) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let report = f32s(&names);
            let sum = |modules: &[Module]| -> u64 {
                modules.iter().map(|module| module.totals.n_tensors).sum()
            };
            prop_assert_eq!(sum(&report.modules), names.len() as u64);
            for row in rows(&report, None) {
                if row.module.tensors.is_empty() {
                    prop_assert_eq!(sum(&row.module.children), row.module.totals.n_tensors);
                }
            }
        }
    }
}
