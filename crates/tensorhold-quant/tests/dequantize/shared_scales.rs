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

/// BF16 of windows that begin and end anywhere, beside the same weights as F32, rounded once.
fn check(recipe: &Recipe, parts: &[Vec<u8>]) {
    for (rows, columns) in [
        (0..16, 0..1300),
        (3..32, 6..1299),
        (3..32, 5..420),
        (8..9, 64..65),
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
        let mut expected = vec![0; n_weights * 2];
        cast(Dtype::F32, &singles, Dtype::BF16, &mut expected).unwrap();
        let spans = spanned(recipe, &window, parts);
        for store in [Store::Through, Store::Past] {
            let mut found = vec![0; n_weights * 2];
            dequantize_parts(recipe, &window, &spans, Dtype::BF16, store, &mut found).unwrap();
            assert!(found == expected, "{recipe:?} {window:?} {store:?}");
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

#[test]
fn codes_of_4_bits_are_those_computed_in_f32_and_rounded_once() {
    let (like, mut parts) = recipe(FloatCode::E2m1);
    parts[0].truncate(32 * 650);
    let orders = [BitOrder::lsb(4).unwrap(), BitOrder::HIGH_NIBBLE_FIRST];
    let values = [
        (Value::Unsigned, Zeros::Constant(8.0)),
        (Value::Signed, Zeros::None),
        (Value::Float(FloatCode::E2m1), Zeros::Factor(0.3)),
        (Value::Table(FourBitTable::NF4), Zeros::None),
        (Value::Unsigned, Zeros::Bias(like.scales.clone())),
    ];
    for (order, (value, zeros)) in orders
        .into_iter()
        .flat_map(|order| values.clone().map(|value| (order, value)))
    {
        for columns in [32, 64, 100, 333, 1300] {
            let mut recipe = like.clone();
            recipe.codes.entries = Entries::Packed(Packed {
                order,
                along: Axis::Columns,
            });
            recipe.value = value;
            recipe.groups = Groups { rows: 16, columns };
            let n_groups = 1300_u64.div_ceil(columns);
            recipe.scales.stored.size = [1, 2, n_groups];
            let scales: Vec<u8> = parts[1]
                .iter()
                .copied()
                .cycle()
                .take(8 * n_groups as usize)
                .collect();
            let mut given = vec![parts[0].clone(), scales.clone()];
            recipe.zeros = match &zeros {
                Zeros::Bias(_) => {
                    given.push(scales);
                    Zeros::Bias(recipe.scales.clone())
                }
                zeros => zeros.clone(),
            };
            check(&recipe, &given);
        }
    }
}
