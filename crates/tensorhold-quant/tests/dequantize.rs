//! Weights of recipes of every kind beside those that are computed one by one.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use proptest::prelude::*;
use tensorhold_core::{Dtype, ErrorKind};
use tensorhold_quant::codec::{BitOrder, BlockedScales, E8m0, FloatCode, FourBitTable};
use tensorhold_quant::scheme::{
    Axis, Change, Effect, Entries, Global, Groups, Number, Numbers, Packed, Recipe, Stored, Value,
    Window, Zeros,
};
use tensorhold_quant::{PartBytes, Store, cast, dequantize, dequantize_parts};

/// A byte that depends on its place and on what it is of.
fn noise(seed: u64, place: u64) -> u8 {
    let mixed = (place ^ seed << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as u8
}

/// All bytes of a part; floats are between 1 and 2.
fn bytes_of(stored: &Stored, number: Option<Number>, seed: u64) -> Vec<u8> {
    let n_elements: u64 = stored.view().unwrap().iter().product();
    let byte = |place| noise(seed, place);
    match number {
        Some(Number::Float(Dtype::F32)) => {
            let value = |place| 1.0 + f32::from(byte(place)) / 256.0;
            (0..n_elements)
                .flat_map(|place| value(place).to_le_bytes())
                .collect()
        }
        Some(Number::Power(_)) => (0..n_elements)
            .map(|place| 120 + byte(place) % 16)
            .collect(),
        _ => {
            let n_bytes = n_elements * u64::from(stored.dtype.width_bytes().unwrap());
            (0..n_bytes).map(byte).collect()
        }
    }
}

/// The element of the view at these places, as bytes.
fn element<'a>(stored: &Stored, bytes: &'a [u8], expert: u64, line: u64, at: u64) -> &'a [u8] {
    let [_, n_lines, n_elements] = stored.view().unwrap();
    let width = u64::from(stored.dtype.width_bytes().unwrap());
    let start = ((expert * n_lines + line) * n_elements + at) * width;
    &bytes[start as usize..][..width as usize]
}

fn packed(stored: &Stored) -> Packed {
    match stored.entries {
        Entries::Packed(packed) => packed,
        _ => panic!("{stored:?}"),
    }
}

/// The code at these places, from the whole run that it is in.
fn code(stored: &Stored, bytes: &[u8], [expert, row, column]: [u64; 3]) -> u8 {
    let Packed { order, along } = packed(stored);
    let [_, n_lines, n_elements] = stored.view().unwrap();
    let (entry, across, n_entries) = match along {
        Axis::Columns => (column, row, stored.size[2]),
        Axis::Rows => (row, column, stored.size[1]),
    };
    let run: Vec<u8> = match stored.lines == along {
        true => (0..n_elements)
            .flat_map(|at| element(stored, bytes, expert, across, at))
            .copied()
            .collect(),
        false => (0..n_lines)
            .flat_map(|line| element(stored, bytes, expert, line, across))
            .copied()
            .collect(),
    };
    let mut codes = vec![0; n_entries as usize];
    let range = order.bytes_of(0..n_entries).unwrap();
    order
        .unpack(&run[..range.end as usize], 0, &mut codes)
        .unwrap();
    codes[entry as usize]
}

fn number(numbers: &Numbers, bytes: &[u8], [expert, row, column]: [u64; 3]) -> f32 {
    let stored = &numbers.stored;
    let (line, at) = match stored.lines {
        Axis::Columns => (row, column),
        Axis::Rows => (column, row),
    };
    let expert = expert.min(stored.size[0] - 1);
    let bytes = match stored.entries {
        Entries::Tiles => {
            let [_, n_rows, n_columns] = stored.size;
            let places = BlockedScales::new(n_rows, n_columns).unwrap();
            let offset = expert * places.size_bytes() + places.offset(row, column).unwrap();
            &bytes[offset as usize..][..1]
        }
        _ => element(stored, bytes, expert, line, at),
    };
    match numbers.number {
        Number::Float(_) => f32::from_le_bytes(bytes.try_into().unwrap()),
        Number::Power(power) => power.value(bytes[0]),
        Number::Signed => f32::from(bytes[0] as i8),
        Number::Unsigned => f32::from(bytes[0]),
    }
}

/// What a code stands for.
fn value(recipe: &Recipe, code: u8) -> f32 {
    let bits = packed(&recipe.codes).order.width_bits();
    match recipe.value {
        Value::Unsigned => f32::from(code),
        Value::Signed if code >> (bits - 1) == 1 => f32::from(code) - (1u32 << bits) as f32,
        Value::Signed => f32::from(code),
        Value::Float(float) => float.value(code),
        Value::Table(table) => table.value(code),
    }
}

/// The scale of a group with the second scale in it, whose bytes are the next of `rest`.
fn scale<'a>(
    recipe: &Recipe,
    bytes: &[u8],
    place: [u64; 3],
    rest: &mut impl Iterator<Item = &'a Vec<u8>>,
) -> f32 {
    let scale = number(&recipe.scales, bytes, place);
    let Some(Global { numbers, effect }) = &recipe.global else {
        return scale;
    };
    let global = number(numbers, rest.next().unwrap(), [place[0], 0, 0]);
    match effect {
        Effect::Multiplies => scale * global,
        Effect::Divides => scale / global,
    }
}

/// One weight, from all bytes of all parts.
fn weight(recipe: &Recipe, parts: &[Vec<u8>], place: [u64; 3]) -> f32 {
    let [expert, row, column] = place;
    let value = value(recipe, code(&recipe.codes, &parts[0], place));
    let group = match (&recipe.group_index, parts.last()) {
        (Some(_), Some(index)) => {
            let index = index[column as usize * 4..].first_chunk().unwrap();
            u32::from_le_bytes(*index).into()
        }
        _ => column / recipe.groups.columns,
    };
    let place = [expert, row / recipe.groups.rows, group];
    let mut rest = parts[2..].iter();
    let scale = scale(recipe, &parts[1], place, &mut rest);
    match &recipe.zeros {
        Zeros::None => value * scale,
        Zeros::Factor(factor) => value * scale * factor,
        Zeros::Constant(zero) => (value - zero) * scale,
        Zeros::Packed { stored, plus } => {
            let bits = packed(stored).order.width_bits();
            let zero = u32::from(code(stored, rest.next().unwrap(), place)) + u32::from(*plus);
            (value - (zero % (1 << bits)) as f32) * scale
        }
        Zeros::Numbers(numbers) => (value - number(numbers, rest.next().unwrap(), place)) * scale,
        Zeros::Bias(numbers) => value * scale + number(numbers, rest.next().unwrap(), place),
    }
}

fn axes() -> impl Strategy<Value = Axis> {
    prop_oneof![Just(Axis::Rows), Just(Axis::Columns)]
}

/// Orders with a type of elements that they fill.
fn orders() -> impl Strategy<Value = (BitOrder, Dtype)> {
    (1u32..=8, 0..6).prop_map(|(bits, kind)| match kind {
        0 => (BitOrder::lsb(bits).unwrap(), Dtype::U8),
        1 => (BitOrder::lsb_words(bits).unwrap(), Dtype::I32),
        2 => (BitOrder::padded(bits).unwrap(), Dtype::I32),
        3 => (BitOrder::planar(bits).unwrap(), Dtype::I32),
        4 => (BitOrder::AWQ, Dtype::I32),
        _ => (BitOrder::HIGH_NIBBLE_FIRST, Dtype::U8),
    })
}

fn codes(part: &'static str, size: [u64; 3]) -> impl Strategy<Value = Stored> {
    (orders(), axes(), axes()).prop_map(move |((order, dtype), lines, along)| Stored {
        part,
        dtype,
        size,
        lines,
        entries: Entries::Packed(Packed { order, along }),
    })
}

fn numbers(part: &'static str, size: [u64; 3]) -> impl Strategy<Value = Numbers> {
    let power = Number::Power(E8m0::default());
    let kinds = prop_oneof![
        Just((Dtype::F32, Number::Float(Dtype::F32), Entries::Elements)),
        Just((Dtype::U8, power, Entries::Elements)),
        Just((Dtype::I8, Number::Signed, Entries::Elements)),
        Just((Dtype::U8, Number::Unsigned, Entries::Elements)),
        Just((Dtype::U8, power, Entries::Tiles)),
    ];
    (kinds, axes()).prop_map(move |((dtype, number, entries), lines)| Numbers {
        stored: Stored {
            part,
            dtype,
            size,
            lines: match entries {
                Entries::Tiles => Axis::Columns,
                _ => lines,
            },
            entries,
        },
        number,
        change: Change::None,
    })
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Unsigned),
        Just(Value::Signed),
        Just(Value::Float(FloatCode::E2m1)),
        Just(Value::Float(FloatCode::E3m2)),
        Just(Value::Float(FloatCode::E4m3)),
        Just(Value::Float(FloatCode::E5m2)),
        Just(Value::Table(FourBitTable::NF4)),
    ]
}

fn all_zeros(grid: [u64; 3]) -> impl Strategy<Value = Zeros> {
    prop_oneof![
        Just(Zeros::None),
        Just(Zeros::Constant(7.0)),
        Just(Zeros::Factor(0.3)),
        (codes("zeros", grid), 0u8..2).prop_map(|(stored, plus)| Zeros::Packed { stored, plus }),
        numbers("zeros", grid).prop_map(Zeros::Numbers),
        numbers("zeros", grid).prop_map(Zeros::Bias),
    ]
}

fn globals(experts: u64) -> impl Strategy<Value = Option<Global>> {
    let stored = |experts| Stored {
        part: "global",
        dtype: Dtype::F32,
        size: [experts, 1, 1],
        lines: Axis::Columns,
        entries: Entries::Elements,
    };
    let effects = prop_oneof![Just(Effect::Multiplies), Just(Effect::Divides)];
    let some =
        (effects, prop_oneof![Just(1), Just(experts)]).prop_map(move |(effect, experts)| Global {
            numbers: Numbers {
                stored: stored(experts),
                number: Number::Float(Dtype::F32),
                change: Change::None,
            },
            effect,
        });
    proptest::option::of(some)
}

fn recipes() -> impl Strategy<Value = Recipe> {
    // Some of more than one tile, of rows or of columns.
    let sizes = prop_oneof![
        4 => (1u64..90, 1u64..70),
        2 => (120u64..140, 1u64..9),
        1 => (1u64..4, 1020u64..1030),
        1 => (1u64..3, 2046u64..2052),
    ];
    let sized = (1u64..3, sizes).prop_flat_map(|(experts, (rows, columns))| {
        (
            Just([experts, rows, columns]),
            1..=rows + 1,
            1..=columns + 1,
        )
    });
    sized.prop_flat_map(|(size, group_rows, group_columns)| {
        let [experts, rows, columns] = size;
        let grid = [
            experts,
            rows.div_ceil(group_rows),
            columns.div_ceil(group_columns),
        ];
        let index = Stored {
            part: "index",
            dtype: Dtype::I32,
            size: [1, 1, columns],
            lines: Axis::Columns,
            entries: Entries::Elements,
        };
        let index = proptest::option::of(Just(index));
        let numbers = numbers("scales", grid);
        let parts = (
            codes("codes", size),
            values(),
            numbers,
            globals(experts),
            all_zeros(grid),
            index,
        );
        parts.prop_map(
            move |(codes, value, scales, global, zeros, group_index)| Recipe {
                shape: size.to_vec(),
                codes,
                value,
                groups: Groups {
                    rows: group_rows,
                    columns: group_columns,
                },
                scales,
                global,
                zeros,
                group_index,
            },
        )
    })
}

/// The bytes of all parts, in the order of the needs.
fn parts_of(recipe: &Recipe) -> Vec<Vec<u8>> {
    let mut parts = vec![
        bytes_of(&recipe.codes, None, 1),
        bytes_of(&recipe.scales.stored, Some(recipe.scales.number), 2),
    ];
    if let Some(Global { numbers, .. }) = &recipe.global {
        parts.push(bytes_of(&numbers.stored, Some(numbers.number), 3));
    }
    match &recipe.zeros {
        Zeros::None | Zeros::Factor(_) | Zeros::Constant(_) => {}
        Zeros::Packed { stored, .. } => parts.push(bytes_of(stored, None, 4)),
        Zeros::Numbers(numbers) | Zeros::Bias(numbers) => {
            parts.push(bytes_of(&numbers.stored, Some(numbers.number), 4));
        }
    }
    if recipe.group_index.is_some() {
        let n_groups = recipe.scales.stored.size[2];
        let group = |column| (u64::from(noise(5, column)) % n_groups) as u32;
        parts.push(
            (0..recipe.codes.size[2])
                .flat_map(|column| group(column).to_le_bytes())
                .collect(),
        );
    }
    parts
}

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
