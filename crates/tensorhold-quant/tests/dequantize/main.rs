//! Weights of recipes of every kind beside those that are computed one by one.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use proptest::prelude::*;
use tensorhold_core::{Dtype, ErrorKind};
use tensorhold_quant::codec::BitOrder;
use tensorhold_quant::scheme::{
    Axis, Change, Entries, Groups, Number, Numbers, Packed, Recipe, Stored, Value, Window, Zeros,
};
use tensorhold_quant::{PartBytes, Store, cast, dequantize, dequantize_parts, unpack};

mod oracle;
mod recipes;
mod shared_scales;

use oracle::{code, parts_of, weight};
use recipes::recipes;

fn window(size: [u64; 3], cuts: [u64; 6]) -> Window {
    let range = |at: usize| {
        let ends = [cuts[at], cuts[at + 1]].map(|cut| cut % (size[at / 2] + 1));
        ends[0].min(ends[1])..ends[0].max(ends[1])
    };
    Window {
        experts: range(0),
        rows: range(2),
        columns: range(4),
    }
}

/// The bytes that a window needs, out of those of the whole parts.
fn needed(recipe: &Recipe, window: &Window, parts: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let needs = recipe.needs(window).unwrap();
    let needs = needs.iter().zip(parts).map(|(need, part)| {
        let stretches = need.stretches();
        stretches
            .flat_map(|range| &part[range.start as usize..range.end as usize])
            .copied()
            .collect()
    });
    needs.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_window_has_the_weights_computed_one_by_one(recipe in recipes(), cuts in any::<[u64; 6]>()) {
        let parts = parts_of(&recipe);
        let window = window(recipe.size(), cuts);
        let given = needed(&recipe, &window, &parts);
        let given: Vec<&[u8]> = given.iter().map(|bytes| &bytes[..]).collect();
        let mut expected = Vec::new();
        for expert in window.experts.clone() {
            for row in window.rows.clone() {
                for column in window.columns.clone() {
                    expected.push(weight(&recipe, &parts, [expert, row, column]));
                }
            }
        }
        let mut found = vec![0xa5; expected.len() * 4];
        dequantize(&recipe, &window, &given, Dtype::F32, &mut found).unwrap();
        for (found, expected) in found.as_chunks().0.iter().zip(expected) {
            prop_assert_eq!(f32::from_le_bytes(*found).to_bits(), expected.to_bits());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_window_has_the_codes_taken_out_one_by_one(recipe in recipes(), cuts in any::<[u64; 6]>()) {
        let stored = &recipe.codes;
        let bytes = &parts_of(&recipe)[0];
        let window = window(stored.size, cuts);
        let stretches = stored.need(&window).unwrap();
        let given = stretches.stretches().flat_map(|range| &bytes[range.start as usize..range.end as usize]);
        let given: Vec<u8> = given.copied().collect();
        let mut expected = Vec::new();
        for expert in window.experts.clone() {
            for row in window.rows.clone() {
                for column in window.columns.clone() {
                    expected.push(code(stored, bytes, [expert, row, column]));
                }
            }
        }
        let mut found = vec![0xa5; expected.len()];
        unpack(stored, &window, PartBytes::Joined(&given), &mut found).unwrap();
        prop_assert_eq!(found, expected);
    }
}

/// The bytes that [`Need::span`] names, out of those of the whole parts.
fn spanned<'a>(recipe: &Recipe, window: &Window, parts: &'a [Vec<u8>]) -> Vec<PartBytes<'a>> {
    let needs = recipe.needs(window).unwrap();
    let spans = needs.iter().zip(parts).map(|(need, part)| {
        let span = need.span().unwrap();
        PartBytes::Spanned(&part[span.start as usize..span.end as usize])
    });
    spans.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_way_to_memory_has_the_weights_of_f32_rounded_once(
        recipe in recipes(),
        cuts in any::<[u64; 6]>(),
        shift in 0usize..40,
    ) {
        let parts = parts_of(&recipe);
        let window = window(recipe.size(), cuts);
        let given = needed(&recipe, &window, &parts);
        let given: Vec<&[u8]> = given.iter().map(|bytes| &bytes[..]).collect();
        let n_weights: u64 = [&window.experts, &window.rows, &window.columns]
            .iter()
            .map(|range| range.end - range.start)
            .product();
        let mut singles = vec![0; n_weights as usize * 4];
        dequantize(&recipe, &window, &given, Dtype::F32, &mut singles).unwrap();
        for to in [Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F8_E4M3] {
            let n_bytes = n_weights as usize * to.width_bytes().unwrap() as usize;
            let mut expected = vec![0; n_bytes];
            cast(Dtype::F32, &singles, to, &mut expected).unwrap();
            for store in [Store::Through, Store::Past] {
                let mut room = vec![0xa5; shift + n_bytes];
                let from = spanned(&recipe, &window, &parts);
                dequantize_parts(&recipe, &window, &from, to, store, &mut room[shift..]).unwrap();
                prop_assert_eq!(&room[shift..], &expected[..], "{} {:?}", to, store);
                prop_assert!(room[..shift].iter().all(|byte| *byte == 0xa5));
            }
        }
    }
}

/// 2 x 4 codes of 4 bits, one scale for each row.
fn small() -> Recipe {
    let (order, along) = (BitOrder::lsb(4).unwrap(), Axis::Columns);
    let stored = |part, dtype, size, entries| Stored {
        part,
        dtype,
        size,
        lines: Axis::Columns,
        entries,
    };
    let packed = Entries::Packed(Packed { order, along });
    Recipe {
        shape: vec![2, 4],
        codes: stored("codes", Dtype::U8, [1, 2, 4], packed),
        value: Value::Unsigned,
        groups: Groups {
            rows: 1,
            columns: 4,
        },
        scales: Numbers {
            stored: stored("scales", Dtype::F32, [1, 2, 1], Entries::Elements),
            number: Number::Float(Dtype::F32),
            change: Change::None,
        },
        global: None,
        zeros: Zeros::None,
        group_index: None,
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let recipe = small();
    let whole = recipe.whole();
    let refused = |window: &Window, parts: &[&[u8]], to, room: usize| {
        let error = dequantize(&recipe, window, parts, to, &mut vec![0; room]).unwrap_err();
        (error.kind(), error.message().to_owned())
    };
    let message = |text: &str| (ErrorKind::InvalidArgument, text.to_owned());
    assert_eq!(
        refused(&whole, &[&[0; 4]], Dtype::F32, 32),
        message("the weight has 2 parts, but there are 1")
    );
    assert_eq!(
        refused(&whole, &[&[0; 4], &[0; 7]], Dtype::F32, 32),
        message("the window needs 8 bytes of part `scales`, but there are 7")
    );
    assert_eq!(
        refused(&whole, &[&[0; 4], &[0; 8]], Dtype::F16, 32),
        message("weights of [1, 2, 4] take 16 bytes as `F16`, but there is room for 32")
    );
    assert_eq!(
        refused(&whole, &[&[0; 4], &[0; 8]], Dtype::I8, 8),
        message("weights cannot become `I8`: they become floats of 8 to 64 bits")
    );
    let outside = Window {
        rows: 1..3,
        ..whole
    };
    assert_eq!(
        refused(&outside, &[], Dtype::F32, 32).0,
        ErrorKind::InvalidSlice
    );
}

#[test]
fn a_group_that_there_is_not_is_refused() {
    let mut recipe = small();
    recipe.group_index = Some(Stored {
        part: "g_idx",
        dtype: Dtype::I32,
        size: [1, 1, 4],
        lines: Axis::Columns,
        entries: Entries::Elements,
    });
    let index = [0i32, 0, -1, 0].map(i32::to_le_bytes);
    let parts: [&[u8]; 3] = [&[0; 4], &[0; 8], index.as_flattened()];
    let error = dequantize(&recipe, &recipe.whole(), &parts, Dtype::F32, &mut [0; 32]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidTensor);
    assert_eq!(
        error.message(),
        "part `g_idx` has group -1, but there are 1"
    );
}

#[test]
fn a_recipe_of_parts_of_different_weights_is_refused() {
    let message = |recipe: &Recipe| {
        recipe
            .needs(&recipe.whole())
            .unwrap_err()
            .message()
            .to_owned()
    };
    let mut recipe = small();
    recipe.scales.stored.size = [1, 3, 1];
    assert_eq!(
        message(&recipe),
        "part `scales` of type F32: it has [1, 3, 1] entries in place of [1, 2, 1]"
    );
    let mut recipe = small();
    recipe.scales.number = Number::Signed;
    assert_eq!(
        message(&recipe),
        "part `scales` of type F32: its elements are no Signed"
    );
    let mut recipe = small();
    recipe.groups.rows = 0;
    assert_eq!(
        message(&recipe),
        "[1, 2, 4] codes in groups of 0 x 4 are no weight of [2, 4]"
    );
    let mut recipe = small();
    recipe.codes.size = [1, u64::MAX, u64::MAX];
    assert_eq!(message(&recipe), "a weight of [2, 4] passes 2^64 bits");
}
