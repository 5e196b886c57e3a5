//! Scales, zeros and codes beside those that compressed-tensors makes of the same weights, by their digests.
//!
//! `encode_golden.py` makes the text file.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use tensorhold_core::Dtype;
use tensorhold_quant::cast;
use tensorhold_quant::codec::FloatCode;
use tensorhold_quant::encode::{Code, Coding, Extremes};
use tensorhold_quant::scheme::Groups;

const GOLDEN: &str = include_str!("encode_golden.txt");
const ROWS: usize = 40;
const COLUMNS: usize = 192;

/// The weights of `encode_golden.py`.
fn weights(seed: u64, dtype: Dtype) -> Vec<f32> {
    let number = |place: usize| {
        let mixed = (place as u64 + seed * 7919).wrapping_mul(2_654_435_761) & 0xffff_ffff;
        let mixed = (mixed ^ mixed >> 15).wrapping_mul(2_246_822_519) & 0xffff_ffff;
        let mixed = (mixed ^ mixed >> 13) as u32;
        let number = f32::from_bits(mixed & 0x807f_ffff | (112 + (mixed >> 23 & 15)) << 23);
        let (row, column) = (place / COLUMNS, place % COLUMNS);
        match row {
            3 => 0.0,
            5 if column < 32 => 0.0,
            7 => (column as f32 % 31.0 - 15.0) * 0.5,
            9 => number.abs(),
            11 => -number.abs(),
            _ => number,
        }
    };
    let bytes: Vec<u8> = (0..ROWS * COLUMNS)
        .flat_map(|place| number(place).to_le_bytes())
        .collect();
    let mut narrow = vec![0; ROWS * COLUMNS * dtype.width_bytes().unwrap() as usize];
    cast(Dtype::F32, &bytes, dtype, &mut narrow).unwrap();
    let mut again = vec![0; bytes.len()];
    cast(dtype, &narrow, Dtype::F32, &mut again).unwrap();
    again
        .as_chunks()
        .0
        .iter()
        .copied()
        .map(f32::from_le_bytes)
        .collect()
}

fn code(name: &str) -> Code {
    match name {
        "fp8" => Code::Float(FloatCode::E4m3),
        "mxfp4" => Code::Power(FloatCode::E2m1),
        "mxfp8" => Code::Power(FloatCode::E4m3),
        "nvfp4" => Code::Nvfp4,
        name => Code::Int {
            bits: name[3..4].parse().unwrap(),
            symmetric: !name.ends_with("asym"),
        },
    }
}

fn groups(kind: &str) -> Groups {
    let (rows, columns) = match kind {
        "tensor" => (ROWS as u64, COLUMNS as u64),
        "channel" => (1, COLUMNS as u64),
        kind => {
            let (rows, columns) = kind.split_once('x').unwrap();
            (rows.parse().unwrap(), columns.parse().unwrap())
        }
    };
    Groups { rows, columns }
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ ((crc & 1) * 0xedb8_8320);
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !bytes.iter().fold(!0, byte)
}

#[test]
fn scales_zeros_and_codes_are_those_of_compressed_tensors() {
    assert!(GOLDEN.lines().count() > 200);
    for line in GOLDEN.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let dtype: Dtype = words[1].parse().unwrap();
        let weights = weights(words[0].parse().unwrap(), dtype);
        let coding = Coding::new(code(words[2]), dtype).unwrap();
        let groups = groups(words[3]);
        let n_groups =
            ROWS.div_ceil(groups.rows as usize) * COLUMNS.div_ceil(groups.columns as usize);
        let mut extremes = vec![Extremes::default(); n_groups];
        coding
            .observe(&weights, COLUMNS, groups, &mut extremes)
            .unwrap();
        let global = coding.global(
            extremes
                .iter()
                .copied()
                .fold(Extremes::default(), Extremes::joined),
        );
        let scales = extremes
            .iter()
            .map(|extremes| coding.scale(*extremes, global).unwrap());
        let scales: Vec<_> = scales.collect();
        let mut codes = vec![0; weights.len()];
        coding
            .encode(&weights, COLUMNS, groups, &scales, global, &mut codes)
            .unwrap();
        let values: Vec<u8> = scales
            .iter()
            .flat_map(|scale| scale.value.to_le_bytes())
            .collect();
        let zeros: Vec<u8> = scales.iter().map(|scale| scale.zero).collect();
        let mut sums = vec![crc32(&values), crc32(&zeros), crc32(&codes)];
        sums.extend((words[2] == "nvfp4").then(|| crc32(&global.to_le_bytes())));
        let sums: Vec<String> = sums.iter().map(|sum| format!("{sum:08x}")).collect();
        assert_eq!(sums, words[4..], "{line}");
    }
}

fn observed(weights: &[f32]) -> tensorhold_core::Result<()> {
    let coding = Coding::new(Code::Float(FloatCode::E4m3), Dtype::F32)?;
    let groups = Groups {
        rows: 1,
        columns: 2,
    };
    coding.observe(weights, 4, groups, &mut [Extremes::default(); 4])
}

#[test]
fn a_weight_without_a_code_is_named_by_its_place() {
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = observed(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, bad, 6.0]).unwrap_err();
        assert!(error.message().contains("row 1, column 2 is"), "{error}");
    }
    observed(&[
        f32::MAX,
        -f32::MAX,
        0.0,
        -0.0,
        f32::MIN_POSITIVE,
        1e-45,
        1.0,
        2.0,
    ])
    .unwrap();
}

#[test]
fn scales_that_are_too_large_for_their_type_are_refused() {
    let extremes = Extremes {
        least: -60000.0,
        greatest: 60000.0,
    };
    let code = Code::Int {
        bits: 8,
        symmetric: false,
    };
    let scale = |dtype| Coding::new(code, dtype).unwrap().scale(extremes, 1.0);
    assert!(
        scale(Dtype::F16)
            .unwrap_err()
            .message()
            .contains("too large")
    );
    scale(Dtype::BF16).unwrap();
}

#[test]
fn codings_that_there_are_not_are_refused() {
    for code in [
        Code::Float(FloatCode::E2m1),
        Code::Power(FloatCode::E5m2),
        Code::Int {
            bits: 9,
            symmetric: true,
        },
        Code::Int {
            bits: 1,
            symmetric: true,
        },
    ] {
        assert!(Coding::new(code, Dtype::F32).is_err(), "{code:?}");
    }
    assert!(Coding::new(Code::Nvfp4, Dtype::F64).is_err());
}

#[test]
fn every_weight_is_within_half_a_step_of_what_its_code_is() {
    let weights = weights(9, Dtype::F32);
    let groups = Groups {
        rows: 1,
        columns: 64,
    };
    for symmetric in [true, false] {
        let coding = Coding::new(Code::Int { bits: 4, symmetric }, Dtype::F32).unwrap();
        let mut extremes = vec![Extremes::default(); ROWS * 3];
        coding
            .observe(&weights, COLUMNS, groups, &mut extremes)
            .unwrap();
        let scales: Vec<_> = extremes
            .iter()
            .map(|one| coding.scale(*one, 1.0).unwrap())
            .collect();
        let mut codes = vec![0; weights.len()];
        coding
            .encode(&weights, COLUMNS, groups, &scales, 1.0, &mut codes)
            .unwrap();
        for (place, (weight, code)) in weights.iter().zip(&codes).enumerate() {
            let scale = scales[place / 64];
            let value = (f32::from(*code) - f32::from(scale.zero)) * scale.value;
            // The greatest positive number of a symmetric group is half a step past the last code.
            assert!(
                (weight - value).abs() <= 0.51 * scale.value,
                "{weight} {value} {scale:?}"
            );
        }
    }
}

#[test]
fn the_greatest_weight_of_e5m2_is_its_greatest_finite_number() {
    let weights = weights(4, Dtype::F32);
    let groups = Groups {
        rows: 1,
        columns: COLUMNS as u64,
    };
    let coding = Coding::new(Code::Float(FloatCode::E5m2), Dtype::F32).unwrap();
    let mut extremes = vec![Extremes::default(); ROWS];
    coding
        .observe(&weights, COLUMNS, groups, &mut extremes)
        .unwrap();
    let scales: Vec<_> = extremes
        .iter()
        .map(|one| coding.scale(*one, 1.0).unwrap())
        .collect();
    let mut codes = vec![0; weights.len()];
    coding
        .encode(&weights, COLUMNS, groups, &scales, 1.0, &mut codes)
        .unwrap();
    for (row, (weights, codes)) in weights
        .chunks(COLUMNS)
        .zip(codes.chunks(COLUMNS))
        .enumerate()
    {
        for (weight, code) in weights.iter().zip(codes) {
            let value = FloatCode::E5m2.value(*code);
            assert!(value.abs() <= 57344.0, "row {row}: {value}");
            let error = (value * scales[row].value - weight).abs();
            assert!(error <= weight.abs() / 8.0 + scales[row].value, "{weight}");
        }
        let is_greatest = |code: &u8| FloatCode::E5m2.value(*code).abs() == 57344.0;
        let is_zero = weights.iter().all(|weight| *weight == 0.0);
        assert_eq!(codes.iter().any(is_greatest), !is_zero, "row {row}");
    }
}
