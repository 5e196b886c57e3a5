//! What holds for every order of bits, whatever the codes.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use tensorhold_core::{ByteRange, ErrorKind};
use tensorhold_quant::codec::{BitOrder, PartOrder};

/// The place of a bit of a code, both counted from 0.
type Bit = fn(Run, u64, u64) -> u64;

/// An order and the bits of a code, counted from the start of the run, the lowest first.
#[derive(Debug, Clone, Copy)]
struct Case {
    order: BitOrder,
    bit: Bit,
    run: Run,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    bits: u64,
    part: u64,
}

impl Case {
    fn bits(&self, code: u64) -> impl Iterator<Item = u64> {
        let Case { bit, run, .. } = *self;
        (0..run.bits).map(move |place| bit(run, code, place))
    }
}

fn dense(run: Run, code: u64, place: u64) -> u64 {
    code * run.bits + place
}

fn in_words(run: Run, code: u64, place: u64) -> u64 {
    let per_word = 32 / run.bits;
    code / per_word * 32 + code % per_word * run.bits + place
}

/// A plane of 4, 2 or 1 bits of 32 codes, after the wider ones, which have the lower bits.
fn in_planes(run: Run, code: u64, place: u64) -> u64 {
    let mut below = 0;
    for width in [8, 4, 2, 1] {
        if run.bits & width == 0 {
            continue;
        }
        if place < below + width {
            let per_word = 32 / width;
            let word = code / 32 * run.bits + below + code % 32 / per_word;
            return word * 32 + code % per_word * width + place - below;
        }
        below += width;
    }
    unreachable!("a place is less than the bits")
}

fn awq(_: Run, code: u64, place: u64) -> u64 {
    let nibble = [0, 4, 1, 5, 2, 6, 3, 7][code as usize % 8];
    (code / 8 * 8 + nibble) * 4 + place
}

fn awq_fast(_: Run, code: u64, place: u64) -> u64 {
    let (unit, octet, in_octet) = (code / 32, code / 8 % 4, code % 8);
    (unit * 32 + in_octet / 2 * 8 + in_octet % 2 * 4 + octet) * 4 + place
}

fn high_first(_: Run, code: u64, place: u64) -> u64 {
    (code ^ 1) * 4 + place
}

fn low_part_first(run: Run, code: u64, place: u64) -> u64 {
    let container = if run.bits == 3 { 32 } else { 8 };
    code % run.part * container + code / run.part * run.bits + place
}

fn high_part_first(run: Run, code: u64, place: u64) -> u64 {
    let container = if run.bits == 3 { 32 } else { 8 };
    let n_parts = container / run.bits;
    code % run.part * container + (n_parts - 1 - code / run.part) * run.bits + place
}

/// All orders, in runs long enough for `n_codes`.
fn cases(n_codes: usize) -> Vec<Case> {
    type Make = fn(u32) -> BitOrder;
    let plain: [(Make, Bit); 4] = [
        (|bits| BitOrder::lsb(bits).unwrap(), dense),
        (|bits| BitOrder::lsb_words(bits).unwrap(), dense),
        (|bits| BitOrder::padded(bits).unwrap(), in_words),
        (|bits| BitOrder::planar(bits).unwrap(), in_planes),
    ];
    let mut cases = Vec::new();
    let mut add = |order, bit, bits: u64, part| {
        let run = Run { bits, part };
        cases.push(Case { order, bit, run });
    };
    for bits in 1..=8 {
        for (make, bit) in plain {
            add(make(bits), bit, bits.into(), 1);
        }
    }
    add(BitOrder::AWQ, awq, 4, 1);
    add(BitOrder::AWQ_FAST, awq_fast, 4, 1);
    add(BitOrder::HIGH_NIBBLE_FIRST, high_first, 4, 1);
    for bits in [1, 2, 3, 4, 8] {
        let n_parts = if bits == 3 { 10 } else { 8 / bits };
        let part = (n_codes as u64).div_ceil(n_parts.into()).max(1);
        for (order, bit) in [
            (PartOrder::LowFirst, low_part_first as Bit),
            (PartOrder::HighFirst, high_part_first),
        ] {
            let order = BitOrder::strided(bits, order, part).unwrap();
            add(order, bit, bits.into(), part);
        }
    }
    cases
}

/// Codes that fit in the bits of `order`.
fn fitting(order: BitOrder, codes: &[u8]) -> Vec<u8> {
    let fitting = codes
        .iter()
        .map(|code| (u32::from(*code) & ((1 << order.width_bits()) - 1)) as u8);
    fitting.collect()
}

fn pack(order: BitOrder, codes: &[u8]) -> Vec<u8> {
    let mut packed = vec![0xa5; order.size_bytes(codes.len() as u64).unwrap() as usize];
    order.pack(codes, &mut packed).unwrap();
    packed
}

/// What `unpack` makes of the bytes of `range`, and of no others.
fn unpack(order: BitOrder, packed: &[u8], range: Range<usize>) -> Vec<u8> {
    let bytes = order
        .bytes_of(range.start as u64..range.end as u64)
        .unwrap();
    let packed = &packed[bytes.start as usize..bytes.end as usize];
    let mut codes = vec![0xa5; range.len()];
    order
        .unpack(packed, range.start as u64, &mut codes)
        .unwrap();
    codes
}

proptest! {
    #[test]
    fn codes_lie_in_the_bits_that_the_order_says(codes in vec(any::<u8>(), 0..200)) {
        for case in cases(codes.len()) {
            let codes = fitting(case.order, &codes);
            let packed = pack(case.order, &codes);
            let mut naive = vec![0u8; packed.len()];
            for (place, code) in codes.iter().enumerate() {
                for (bit, at) in case.bits(place as u64).enumerate() {
                    naive[at as usize / 8] |= (code >> bit & 1) << (at % 8);
                }
            }
            prop_assert_eq!(&packed, &naive, "{}", case.order);
        }
    }

    #[test]
    fn what_is_packed_is_unpacked(codes in vec(any::<u8>(), 0..700)) {
        for Case { order, .. } in cases(codes.len()) {
            let codes = fitting(order, &codes);
            prop_assert_eq!(&unpack(order, &pack(order, &codes), 0..codes.len()), &codes, "{}", order);
        }
    }

    #[test]
    fn any_part_of_the_codes_is_that_part_of_the_whole(
        packed in vec(any::<u8>(), 8 * 300..=8 * 300),
        start in 0usize..300,
        len in 0usize..300,
    ) {
        let range = start..(start + len).min(300);
        for Case { order, .. } in cases(300) {
            let packed = &packed[..order.size_bytes(300).unwrap() as usize];
            let whole = unpack(order, packed, 0..300);
            prop_assert_eq!(&unpack(order, packed, range.clone()), &whole[range.clone()], "{}", order);
        }
    }

    #[test]
    fn the_bytes_of_a_range_are_those_with_its_bits(start in 0u64..300, len in 1u64..300) {
        let end = (start + len).min(300).max(start + 1);
        for case in cases(301) {
            let bytes = case.order.bytes_of(start..end).unwrap();
            let bits = (start..end).flat_map(|code| case.bits(code));
            let (first, last) = bits.fold((u64::MAX, 0), |(first, last), bit| {
                (first.min(bit / 8), last.max(bit / 8))
            });
            prop_assert!(bytes.start <= first && last < bytes.end, "{}", case.order);
            // In the orders of words whole ones are read: 4 bytes, or those of 32 codes.
            let name = case.order.to_string();
            let slack = match name.split('(').next().unwrap() {
                "lsb" | "lsb_words" | "high_nibble_first" => 0,
                "planar" => 4 * case.run.bits - 1,
                "awq_fast" => 15,
                _ if name.starts_with("strided") && case.run.bits != 3 => 0,
                _ => 3,
            };
            prop_assert!(first - bytes.start <= slack, "{name}: {bytes} for {first}..={last}");
            prop_assert!(bytes.end - 1 - last <= slack, "{name}: {bytes} for {first}..={last}");
        }
    }

    #[test]
    fn rows_are_runs_down_the_columns(
        n_columns in 1usize..40,
        codes in vec(any::<u8>(), 40..3000),
        cut in any::<[prop::sample::Index; 2]>(),
    ) {
        let n_rows = codes.len() / n_columns;
        for Case { order, .. } in cases(n_rows) {
            let Ok(words) = order.rows_of(0..n_rows as u64) else { continue };
            let codes = fitting(order, &codes[..n_rows * n_columns]);
            let width = order.element_bytes().unwrap() as usize;
            let row_bytes = n_columns * width;
            let mut packed = vec![0xa5; words.end as usize * row_bytes];
            order.pack_rows(&codes, n_columns, &mut packed).unwrap();
            for column in 0..n_columns {
                let run: Vec<u8> = codes.iter().skip(column).step_by(n_columns).copied().collect();
                let words = packed.chunks(width).skip(column).step_by(n_columns);
                let words: Vec<u8> = words.flatten().copied().collect();
                prop_assert_eq!(words, pack(order, &run), "{}", order);
            }
            let mut cut = cut.map(|cut| cut.index(n_rows + 1));
            cut.sort_unstable();
            let words = order.rows_of(cut[0] as u64..cut[1] as u64).unwrap();
            let packed = &packed[words.start as usize * row_bytes..words.end as usize * row_bytes];
            let mut part = vec![0xa5; (cut[1] - cut[0]) * n_columns];
            order.unpack_rows(packed, n_columns, cut[0] as u64, &mut part).unwrap();
            prop_assert_eq!(&part, &codes[cut[0] * n_columns..cut[1] * n_columns], "{}", order);
        }
    }

    #[test]
    fn a_part_of_a_strided_run_needs_its_own_places_only(start in 0u64..40, len in 1u64..40) {
        let order = BitOrder::strided(2, PartOrder::LowFirst, 40).unwrap();
        let end = (start + len).min(40);
        for part in 0..4 {
            let bytes = order.bytes_of(part * 40 + start..part * 40 + end).unwrap();
            prop_assert_eq!(bytes, ByteRange::new(start, end));
        }
    }
}

fn check<T: std::fmt::Debug>(result: tensorhold_core::Result<T>, kind: ErrorKind, message: &str) {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (kind, message));
}

#[test]
fn a_refusal_says_what_does_not_fit() {
    use ErrorKind::{InvalidArgument, Overflow};
    let lsb = BitOrder::lsb(4).unwrap();
    check(
        BitOrder::lsb(9),
        InvalidArgument,
        "codes of 9 bits: codes have 1 to 8 bits",
    );
    check(
        BitOrder::padded(0),
        InvalidArgument,
        "codes of 0 bits: codes have 1 to 8 bits",
    );
    check(
        BitOrder::strided(5, PartOrder::LowFirst, 7),
        InvalidArgument,
        "parts of 7 codes of 5 bits: codes must have 1, 2, 3, 4 or 8 bits, and parts a code",
    );
    check(
        lsb.unpack(&[0; 2], 3, &mut [0; 4]),
        InvalidArgument,
        "codes 3..7 in the order lsb(4) lie in 3 bytes, but there are 2",
    );
    check(
        lsb.pack(&[1, 2, 3], &mut [0; 3]),
        InvalidArgument,
        "3 codes in the order lsb(4) take 2 bytes, but there is room for 3",
    );
    check(
        lsb.pack(&[1, 17, 3], &mut [0; 2]),
        InvalidArgument,
        "code 17 at place 1 does not fit in 4 bits",
    );
    check(
        lsb.size_bytes(u64::MAX / 2),
        Overflow,
        "9223372036854775807 codes have more than 2^64 bits",
    );
    let strided = BitOrder::strided(4, PartOrder::HighFirst, 6).unwrap();
    check(
        strided.bytes_of(3..13),
        InvalidArgument,
        "a run of 2 parts of 6 codes has no 13 codes",
    );
}

#[test]
fn a_refusal_of_rows_says_what_does_not_fit() {
    use ErrorKind::InvalidArgument;
    let order = BitOrder::lsb_words(3).unwrap();
    check(
        BitOrder::AWQ_FAST.rows_of(0..2),
        InvalidArgument,
        "the order awq_fast fills no elements, and cannot go down the columns of a matrix",
    );
    check(
        order.unpack_rows(&[0; 8], 2, 9, &mut [0; 4]),
        InvalidArgument,
        "rows 9..11 in the order lsb_words(3) lie in 2 rows of 2 words, but there are 8 bytes",
    );
    check(
        order.pack_rows(&[0; 7], 2, &mut [0; 8]),
        InvalidArgument,
        "7 codes are no rows of 2 columns",
    );
    check(
        order.pack_rows(&[0, 8], 2, &mut [0; 8]),
        InvalidArgument,
        "code 8 at place 1 does not fit in 3 bits",
    );
    check(
        order.unpack_rows(&[], 0, 0, &mut [0; 1]),
        InvalidArgument,
        "1 codes are no rows of 0 columns",
    );
    order.unpack_rows(&[], 0, 5, &mut []).unwrap();
    order.pack_rows(&[], 3, &mut []).unwrap();
}

#[test]
fn the_largest_numbers_are_counted_or_refused() {
    for case in cases(100) {
        for start in [0, 1, u64::MAX / 8, u64::MAX - 1, u64::MAX] {
            for end in [start, u64::MAX / 4, u64::MAX] {
                if let Ok(bytes) = case.order.bytes_of(start..end) {
                    assert!(bytes.start <= bytes.end, "{}: {bytes}", case.order);
                }
            }
            let unpacked = case.order.unpack(&[0; 4], start, &mut [0; 9000]);
            assert!(unpacked.is_err(), "{}", case.order);
            let unpacked = case.order.unpack_rows(&[0; 4], 1, start, &mut [0; 9000]);
            assert!(unpacked.is_err(), "{}", case.order);
            // One word may have the very last codes that can be counted.
            let _ = case
                .order
                .unpack_rows(&[0; 4], 1, start - start.min(1), &mut [0]);
        }
    }
    for part in [u64::MAX, u64::MAX / 2, u64::MAX / 4] {
        assert!(BitOrder::strided(1, PartOrder::LowFirst, part).is_err());
    }
}
