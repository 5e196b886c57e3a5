//! Codes in every order and the numbers that they are, beside those of other programs.
//!
//! `codec_golden.py` makes `codec_golden.txt` with numpy and ml_dtypes, and compares its own work with the
//! packages that write these formats.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::BTreeMap;

use tensorhold_core::Dtype;
use tensorhold_quant::cast;
use tensorhold_quant::codec::{
    AllOnes, BitOrder, BlockedScales, E8m0, FloatCode, FourBitTable, PartOrder, Zero,
};

const GOLDEN: &str = include_str!("codec_golden.txt");

const FLOATS: [(FloatCode, Option<Dtype>); 7] = [
    (FloatCode::E2m1, None),
    (FloatCode::E2m3, None),
    (FloatCode::E3m2, None),
    (FloatCode::E4m3, Some(Dtype::F8_E4M3)),
    (FloatCode::E5m2, Some(Dtype::F8_E5M2)),
    (FloatCode::E4m3Fnuz, Some(Dtype::F8_E4M3FNUZ)),
    (FloatCode::E5m2Fnuz, Some(Dtype::F8_E5M2FNUZ)),
];

/// The lines of one kind, in words after the first.
fn lines(kind: &str) -> Vec<Vec<&'static str>> {
    let lines = GOLDEN.lines().map(|line| line.split(' ').collect());
    let lines = lines.filter(|line: &Vec<_>| line[0] == kind);
    let lines: Vec<Vec<&str>> = lines.map(|line| line[1..].to_vec()).collect();
    assert!(!lines.is_empty());
    lines
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap());
    bytes.collect()
}

/// The order of a line; strided ones are just long enough for `n_codes`.
fn order(name: &str, bits: u32, n_codes: usize) -> BitOrder {
    let n_parts = if bits == 3 { 10 } else { 8 / bits };
    let part = (n_codes as u64).div_ceil(n_parts.into());
    match name {
        "lsb" => BitOrder::lsb(bits).unwrap(),
        "lsb_words" => BitOrder::lsb_words(bits).unwrap(),
        "padded" => BitOrder::padded(bits).unwrap(),
        "planar" => BitOrder::planar(bits).unwrap(),
        "awq" => BitOrder::AWQ,
        "high_nibble_first" => BitOrder::HIGH_NIBBLE_FIRST,
        "strided_low" => BitOrder::strided(bits, PartOrder::LowFirst, part).unwrap(),
        "strided_high" => BitOrder::strided(bits, PartOrder::HighFirst, part).unwrap(),
        _ => panic!("no order `{name}`"),
    }
}

/// The numbers of each format, NaNs as one pattern.
fn golden_values() -> BTreeMap<&'static str, Vec<u32>> {
    let numbers = |words: &[&str]| {
        let numbers = words.iter().map(|word| u32::from_str_radix(word, 16));
        numbers.collect::<Result<_, _>>().unwrap()
    };
    let lines = lines("values").into_iter();
    lines
        .map(|words| (words[0], numbers(&words[1..])))
        .collect()
}

fn patterns(values: &[f32]) -> Vec<u32> {
    let pattern = |value: &f32| match value.is_nan() {
        true => 0x7fc0_0000,
        false => value.to_bits(),
    };
    values.iter().map(pattern).collect()
}

#[test]
fn codes_lie_where_other_programs_have_them() {
    for words in lines("order") {
        let (codes, packed) = (bytes(words[2]), bytes(words[3]));
        let order = order(words[0], words[1].parse().unwrap(), codes.len());
        let mut found = vec![0xa5; packed.len()];
        order.pack(&codes, &mut found).unwrap();
        assert_eq!(found, packed, "{order}");

        let range = order.bytes_of(0..codes.len() as u64).unwrap();
        let mut found = vec![0xa5; codes.len()];
        order
            .unpack(&packed[..range.end as usize], 0, &mut found)
            .unwrap();
        assert_eq!(found, codes, "{order}");
    }
}

#[test]
fn codes_are_the_numbers_of_other_programs() {
    let golden = golden_values();
    for (code, _) in FLOATS {
        let expected = &golden[format!("{code:?}").as_str()];
        assert_eq!(1 << code.width_bits(), expected.len());
        assert_eq!(
            &patterns(&code.table())[..expected.len()],
            expected,
            "{code:?}"
        );
    }
    for (name, table) in [
        ("Nf4", FourBitTable::NF4),
        ("BitsandbytesFp4", FourBitTable::BITSANDBYTES_FP4),
    ] {
        assert_eq!(patterns(&table.0), golden[name], "{name}");
    }
    let codes: Vec<u8> = (0..=255).collect();
    let mut values = [0.0; 256];
    E8m0::default().decode(&codes, &mut values);
    assert_eq!(patterns(&values), golden["E8m0"]);
}

#[test]
fn bits_above_a_code_change_nothing() {
    for (code, _) in FLOATS {
        let n_codes = 1 << code.width_bits();
        let patterns = patterns(&code.table());
        for again in patterns.chunks(n_codes) {
            assert_eq!(again, &patterns[..n_codes], "{code:?}");
        }
    }
    for code in 0..=255 {
        let low = FourBitTable::NF4.value(code & 15);
        assert_eq!(FourBitTable::NF4.value(code), low);
    }
}

#[test]
fn floats_of_8_bits_are_those_of_a_cast_nan_for_nan() {
    let codes: Vec<u8> = (0..=255).collect();
    for (code, dtype) in FLOATS {
        let Some(dtype) = dtype else { continue };
        let mut bytes = [0; 1024];
        cast(dtype, &codes, Dtype::F32, &mut bytes).unwrap();
        let bits = code.table().map(|value| value.to_bits().to_le_bytes());
        assert_eq!(bits.as_flattened(), bytes, "{dtype}");
    }
}

#[test]
fn a_float_is_found_by_its_dtype() {
    for dtype in Dtype::ALL {
        let code = FloatCode::of_dtype(dtype);
        let is_small = dtype.width_bits() <= 8
            && !matches!(dtype, Dtype::BOOL | Dtype::U8 | Dtype::I8 | Dtype::F8_E8M0);
        assert_eq!(
            code.map(FloatCode::width_bits),
            is_small.then(|| dtype.width_bits())
        );
    }
}

#[test]
fn the_two_disputed_scales_are_as_asked_for() {
    let ocp = E8m0::default();
    assert_eq!(ocp.value(0).to_bits(), 1 << 22);
    assert!(ocp.value(0xff).is_nan());
    let other = E8m0 {
        all_ones: AllOnes::Infinity,
        zero: Zero::Flushed,
    };
    assert_eq!((other.value(0), other.value(0xff)), (0.0, f32::INFINITY));
    for scales in [ocp, other] {
        for code in 0..=255 {
            let mut value = [7.0];
            scales.decode(&[code], &mut value);
            assert_eq!(patterns(&value), patterns(&[scales.value(code)]));
        }
        assert_eq!(
            (scales.value(127), scales.value(254)),
            (1.0, 2f32.powi(127))
        );
    }
}

#[test]
fn values_are_written_as_far_as_there_are_codes_and_room() {
    let mut values = [9.0; 5];
    FloatCode::E2m1.decode(&[2, 3, 10], &mut values);
    assert_eq!(values, [1.0, 1.5, -1.0, 9.0, 9.0]);
    FourBitTable::BITSANDBYTES_FP4.decode(&[3; 9], &mut values[..2]);
    assert_eq!(values, [1.0, 1.0, -1.0, 9.0, 9.0]);
    E8m0::default().decode(&[128, 126], &mut values[3..]);
    assert_eq!(values, [1.0, 1.0, -1.0, 2.0, 0.5]);
}

/// The CRC-32 of zip archives.
fn crc32(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn scales_lie_where_cublas_wants_them() {
    for words in lines("blocked") {
        let [n_rows, n_columns] = [words[0], words[1]].map(|word| word.parse().unwrap());
        let scales = BlockedScales::new(n_rows, n_columns).unwrap();
        let places = (0..n_rows).flat_map(|row| (0..n_columns).map(move |column| (row, column)));
        let offsets: Vec<u64> = places
            .clone()
            .map(|(row, column)| scales.offset(row, column).unwrap())
            .collect();
        let digest = crc32(offsets.iter().flat_map(|at| (*at as u32).to_le_bytes()));
        assert_eq!(format!("{digest:08x}"), words[2], "{n_rows} x {n_columns}");

        let size = n_rows.div_ceil(128) * 128 * n_columns.div_ceil(4) * 4;
        assert_eq!(scales.size_bytes(), size);
        for (place, offset) in places.zip(&offsets) {
            assert_eq!(scales.position(*offset), Some(place));
        }
        let n_used = (0..=size)
            .filter(|at| scales.position(*at).is_some())
            .count();
        assert_eq!(n_used, offsets.len());
        assert_eq!(scales.offset(n_rows, 0), None);
        assert_eq!(scales.offset(0, n_columns), None);
    }
}

#[test]
fn scales_of_more_than_can_be_counted_are_refused() {
    for (n_rows, n_columns) in [
        (u64::MAX, 1),
        (1 << 40, 1 << 40),
        (u64::MAX, 0),
        (1, u64::MAX),
    ] {
        let fits = BlockedScales::new(n_rows, n_columns).map(BlockedScales::size_bytes);
        assert!(fits.is_err(), "{n_rows} x {n_columns}");
    }
}
