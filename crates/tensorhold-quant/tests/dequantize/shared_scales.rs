//! Codes of 8 and of 4 bits of which many share a scale, for which processors may have a way of their own.

use super::*;

use tensorhold_quant::codec::{FloatCode, FourBitTable};

/// Every code, with scales of every kind.
fn recipe(float: FloatCode) -> (Recipe, Vec<Vec<u8>>) {
    let mut recipe = small();
    recipe.shape = vec![32, 1300];
    recipe.codes.size = [1, 32, 1300];
    recipe.codes.entries = Entries::Elements;
    recipe.value = Value::Float(float);
    recipe.groups = Groups {
        rows: 16,
        columns: 333,
    };
    recipe.scales.stored.size = [1, 2, 4];
    let codes = (0..32 * 1300).map(|place| (place % 256) as u8).collect();
    let positive = [0.7f32, 3.0e38, 1.0e-40, 0.0];
    let others = [f32::NAN, f32::INFINITY, 2.0, -1.3];
    let scales = [positive, others].concat();
    let scales = scales.into_iter().flat_map(f32::to_le_bytes).collect();
    (recipe, vec![codes, scales])
}

/// Weights of 16 bits of windows that begin and end anywhere, beside the same weights as F32, rounded once.
fn check(recipe: &Recipe, parts: &[Vec<u8>]) {
    for (rows, columns) in [
        (0..16, 0..1300),
        (3..32, 6..1299),
        (3..32, 5..420),
        (8..9, 64..65),
        (9..11, 34..97),
    ] {
        let window = Window {
            rows,
            columns,
            ..recipe.whole()
        };
        let given = needed(recipe, &window, parts);
        let given: Vec<&[u8]> = given.iter().map(|bytes| &bytes[..]).collect();
        let size = [&window.rows, &window.columns].map(|range| range.end - range.start);
        let n_weights = (size[0] * size[1]) as usize;
        let mut singles = vec![0; n_weights * 4];
        dequantize(recipe, &window, &given, Dtype::F32, &mut singles).unwrap();
        let spans = spanned(recipe, &window, parts);
        for to in [Dtype::BF16, Dtype::F16] {
            let mut expected = vec![0; n_weights * 2];
            cast(Dtype::F32, &singles, to, &mut expected).unwrap();
            for store in [Store::Through, Store::Past] {
                let mut found = vec![0; n_weights * 2];
                dequantize_parts(recipe, &window, &spans, to, store, &mut found).unwrap();
                assert!(found == expected, "{recipe:?} {window:?} {to} {store:?}");
            }
        }
    }
}

#[test]
fn floats_are_those_computed_in_f32_and_rounded_once() {
    for float in [FloatCode::E4m3, FloatCode::E5m2, FloatCode::E4m3Fnuz] {
        let (recipe, parts) = recipe(float);
        check(&recipe, &parts);
    }
}

/// As many bytes as `stored` has.
fn noise(stored: &Stored) -> Vec<u8> {
    let n_elements: u64 = stored.view().unwrap().iter().product();
    let n_bytes = n_elements * u64::from(stored.dtype.width_bytes().unwrap());
    let bytes = (0..n_bytes as u32).map(|place| place.wrapping_mul(2_654_435_761) >> 24);
    bytes.map(|byte| byte as u8).collect()
}

/// Codes of 4 bits in every way in which those of a row are, or become, a run.
fn ways() -> [Stored; 5] {
    use Axis::{Columns, Rows};
    let words = BitOrder::lsb_words(4).unwrap();
    let stored = |order, dtype, lines, along| Stored {
        lines,
        dtype,
        size: [1, 32, 1300],
        entries: Entries::Packed(Packed { order, along }),
        ..small().codes
    };
    [
        stored(BitOrder::lsb(4).unwrap(), Dtype::U8, Columns, Columns),
        stored(BitOrder::HIGH_NIBBLE_FIRST, Dtype::U8, Columns, Columns),
        stored(words, Dtype::I32, Rows, Columns),
        stored(words, Dtype::I32, Rows, Rows),
        stored(BitOrder::AWQ, Dtype::I32, Rows, Rows),
    ]
}

#[test]
fn codes_of_4_bits_are_those_computed_in_f32_and_rounded_once() {
    let (like, like_parts) = recipe(FloatCode::E2m1);
    let values = [
        (Value::Unsigned, Zeros::Constant(8.0)),
        (Value::Signed, Zeros::None),
        (Value::Float(FloatCode::E2m1), Zeros::Factor(0.3)),
        (Value::Table(FourBitTable::NF4), Zeros::None),
    ];
    for (codes, (value, zeros)) in ways().into_iter().zip(values.into_iter().cycle()) {
        for columns in [32, 64, 100, 333, 1300] {
            let n_groups = 1300_u64.div_ceil(columns);
            let mut recipe = like.clone();
            (recipe.codes, recipe.value) = (codes.clone(), value);
            recipe.zeros = zeros.clone();
            recipe.groups = Groups { rows: 16, columns };
            recipe.scales.stored.size = [1, 2, n_groups];
            let scales = like_parts[1].iter().copied().cycle();
            let scales: Vec<u8> = scales.take(8 * n_groups as usize).collect();
            let mut parts = vec![noise(&codes), scales];
            check(&recipe, &parts);
            recipe.group_index = Some(Stored {
                part: "index",
                dtype: Dtype::I32,
                size: [1, 1, 1300],
                ..like.scales.stored.clone()
            });
            // Some of anywhere, and some that follow one another.
            for apart in [7919, 1] {
                let group = |column: u64| (column * apart % 1300 / columns) as u32;
                parts.push(
                    (0..1300)
                        .flat_map(|column| group(column).to_le_bytes())
                        .collect(),
                );
                check(&recipe, &parts);
                parts.pop();
            }
        }
    }
}
