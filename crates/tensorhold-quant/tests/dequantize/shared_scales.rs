//! Floats of 8 bits of which many share a scale, for which processors may have a way of its own.

use super::*;

use tensorhold_quant::codec::FloatCode;

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

#[test]
fn they_are_those_computed_in_f32_and_rounded_once() {
    for float in [FloatCode::E4m3, FloatCode::E5m2, FloatCode::E4m3Fnuz] {
        let (recipe, parts) = recipe(float);
        for (rows, columns) in [(0..16, 0..1300), (3..32, 5..1299), (3..32, 300..420)] {
            let window = Window {
                rows,
                columns,
                ..recipe.whole()
            };
            let given = needed(&recipe, &window, &parts);
            let given: Vec<&[u8]> = given.iter().map(|bytes| &bytes[..]).collect();
            let size = [&window.rows, &window.columns].map(|range| range.end - range.start);
            let n_weights = (size[0] * size[1]) as usize;
            let mut singles = vec![0; n_weights * 4];
            dequantize(&recipe, &window, &given, Dtype::F32, &mut singles).unwrap();
            let mut expected = vec![0; n_weights * 2];
            cast(Dtype::F32, &singles, Dtype::BF16, &mut expected).unwrap();
            let mut found = vec![0; n_weights * 2];
            dequantize(&recipe, &window, &given, Dtype::BF16, &mut found).unwrap();
            assert!(found == expected, "{float:?} {window:?}");
        }
    }
}
