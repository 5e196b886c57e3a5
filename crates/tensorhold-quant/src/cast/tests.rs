//! Every pair of types, with every set of instructions that this processor has, against digests of what
//! PyTorch gives for the same inputs (`tests/cast_golden.py`).

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use super::level::Level;
use super::*;

const GOLDEN: &str = include_str!("../../tests/cast_golden.txt");

#[rustfmt::skip]
const SINGLE_LOW: [u32; 13] = [
    0, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x2000, 0x3000, 0x3001, 0x7fff, 0x8000, 0x8001, 0xffff,
];
const DOUBLE_LOW: [u64; 10] = [
    0,
    1,
    (1 << 28) - 1,
    1 << 28,
    (1 << 28) + 1,
    (1 << 29) + (1 << 28),
    (1 << 41) - (1 << 28),
    1 << 41,
    (1 << 44) + 1,
    (1 << 46) - 1,
];

#[test]
fn values_are_those_of_torch_at_every_level() {
    assert_eq!(GOLDEN.lines().count(), 81, "every pair of the nine types");
    for from in Dtype::ALL {
        let Some(width) = float_bytes(from) else {
            continue;
        };
        let bytes = inputs(width);
        for line in GOLDEN.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            if words[0] == from.name() {
                assert_eq!(words[2].parse(), Ok(bytes.len() / width), "{line}");
                let digest = u32::from_str_radix(words[3], 16).unwrap();
                check_digest(from, &bytes, words[1].parse().unwrap(), digest);
            }
        }
    }
}

fn check_digest(from: Dtype, bytes: &[u8], to: Dtype, digest: u32) {
    let n_elements = bytes.len() / float_bytes(from).unwrap();
    for level in Level::available() {
        let mut into = vec![0; n_elements * float_bytes(to).unwrap()];
        cast_at(level, from, bytes, to, &mut into);
        assert_eq!(crc32(&into), digest, "{from} to {to} with {level:?}");
    }
}

#[test]
fn a_nan_of_f64_is_all_ones_in_bf16_wherever_it_stands() {
    for n_elements in [1, 15, 16, 17] {
        let mut into = vec![0; n_elements * 2];
        let bytes = f64::NAN.to_le_bytes().repeat(n_elements);
        cast(Dtype::F64, &bytes, Dtype::BF16, &mut into).unwrap();
        assert_eq!(into, vec![0xff; n_elements * 2]);
    }
}

fn inputs(width: usize) -> Vec<u8> {
    match width {
        1 => (0..=u8::MAX).collect(),
        2 => (0..=u16::MAX).flat_map(u16::to_le_bytes).collect(),
        4 => singles().flat_map(u32::to_le_bytes).collect(),
        _ => doubles().flat_map(u64::to_le_bytes).collect(),
    }
}

fn singles() -> impl Iterator<Item = u32> {
    let edges = SINGLE_LOW
        .into_iter()
        .flat_map(|low| (0..1 << 16).map(move |high| high << 16 | low));
    edges.chain(random_bits().map(|bits| (bits >> 32) as u32))
}

fn doubles() -> impl Iterator<Item = u64> {
    let positive = || {
        let edges = DOUBLE_LOW.into_iter().flat_map(|low| {
            let high = (1023 - 160) << 6..(1023 + 140) << 6;
            high.map(move |high: u64| high << 46 | low)
        });
        let nans = (0..64u64).map(|n| 0x7ff << 52 | (n * 0x3141592653589) & ((1 << 52) - 1));
        edges.chain(nans)
    };
    let negative = positive().map(|bits| bits | 1 << 63);
    positive().chain(negative).chain(random_bits())
}

/// The first numbers of splitmix64 from 0.
fn random_bits() -> impl Iterator<Item = u64> {
    (1..=1u64 << 16).map(|n| {
        let state = n.wrapping_mul(0x9e3779b97f4a7c15);
        let state = (state ^ (state >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
        let state = (state ^ (state >> 27)).wrapping_mul(0x94d049bb133111eb);
        state ^ (state >> 31)
    })
}

/// The CRC-32 of zlib.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut n = 0;
        while n < 256 {
            let mut crc = n as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ (0xedb88320 * (crc & 1));
                bit += 1;
            }
            table[n] = crc;
            n += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| {
        TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8)
    })
}
