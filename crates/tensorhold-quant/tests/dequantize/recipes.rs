//! Recipes of every kind.

use proptest::prelude::*;
use tensorhold_core::Dtype;
use tensorhold_quant::codec::{BitOrder, E8m0, FloatCode, FourBitTable, PartOrder};
use tensorhold_quant::scheme::{
    Axis, Change, Effect, Entries, Global, Groups, Nested, Number, Numbers, Packed, Recipe, Stored,
    Value, Zeros,
};

fn axes() -> impl Strategy<Value = Axis> {
    prop_oneof![Just(Axis::Rows), Just(Axis::Columns)]
}

/// An order of runs of so many codes, with a type of elements that it fills.
fn order(kind: u32, bits: u32, n_codes: u64) -> (BitOrder, Dtype) {
    let strided = |bits: u32, order| {
        let n_parts = if bits == 3 { 10 } else { 8 / bits };
        BitOrder::strided(bits, order, n_codes.div_ceil(n_parts.into()).max(1)).unwrap()
    };
    match kind {
        0 => (BitOrder::lsb(bits).unwrap(), Dtype::U8),
        1 => (BitOrder::lsb_words(bits).unwrap(), Dtype::I32),
        2 => (BitOrder::padded(bits).unwrap(), Dtype::I32),
        3 => (BitOrder::planar(bits).unwrap(), Dtype::I32),
        4 => (BitOrder::AWQ, Dtype::I32),
        5 if bits == 3 => (strided(3, PartOrder::HighFirst), Dtype::I32),
        5 => (strided(1 << (bits % 4), PartOrder::HighFirst), Dtype::U8),
        6 => (strided(1 << (bits % 4), PartOrder::LowFirst), Dtype::U8),
        7 => (BitOrder::AWQ_FAST, Dtype::U8),
        _ => (BitOrder::HIGH_NIBBLE_FIRST, Dtype::U8),
    }
}

fn codes(part: &'static str, size: [u64; 3]) -> impl Strategy<Value = Stored> {
    let kinds = (0u32..10, 1u32..=8);
    (kinds, axes(), axes()).prop_map(move |((kind, bits), lines, along)| {
        let (order, dtype) = order(kind, bits, size[1 + usize::from(along == Axis::Columns)]);
        let stored = Stored {
            part,
            dtype,
            size,
            lines,
            entries: Entries::Packed(Packed { order, along }),
        };
        match kind {
            9 => Stored {
                dtype: [Dtype::U8, Dtype::I16][bits as usize % 2],
                lines: Axis::Columns,
                entries: Entries::Interleaved,
                ..stored
            },
            _ => stored,
        }
    })
}

/// What is made of numbers like these.
fn changes(numbers: &Numbers) -> impl Strategy<Value = Change> + use<> {
    let stored = &numbers.stored;
    let is_plain = stored.entries == Entries::Elements && stored.lines == Axis::Columns;
    let can_nest = is_plain && stored.size[0] == 1 && numbers.number == Number::Unsigned;
    let n_codes = stored.size[1] * stored.size[2];
    (0u32..3, 1u64..9).prop_map(move |(kind, block_size)| {
        let row = |part, n_columns| Stored {
            part,
            dtype: Dtype::F32,
            size: [1, 1, n_columns],
            lines: Axis::Columns,
            entries: Entries::Elements,
        };
        match kind {
            0 => Change::None,
            1 => Change::Negated,
            _ if can_nest => Change::Nested(Box::new(Nested {
                table: row("table", 256),
                scales: row("nested", n_codes.div_ceil(block_size)),
                block_size,
                offset: 0.25,
            })),
            _ => Change::Inverted,
        }
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
    let numbers = (kinds, axes()).prop_map(move |((dtype, number, entries), lines)| Numbers {
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
    });
    numbers.prop_flat_map(|numbers| {
        changes(&numbers).prop_map(move |change| Numbers {
            change,
            ..numbers.clone()
        })
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

pub fn recipes() -> impl Strategy<Value = Recipe> {
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
            0usize..6,
        );
        parts.prop_map(
            move |(codes, value, scales, global, zeros, group_index, shape)| Recipe {
                shape: match shape {
                    // The same weights in other rows.
                    0 if experts == 1 => vec![columns, rows],
                    1 if experts == 1 => vec![rows * columns],
                    2 if experts == 1 => vec![columns, 1, rows],
                    _ => size.to_vec(),
                },
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
