//! What holds for every cast, whatever the values.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tensorhold_core::{Dtype, ErrorKind};
use tensorhold_quant::{can_cast, cast};

const FLOATS: [Dtype; 9] = [
    Dtype::F64,
    Dtype::F32,
    Dtype::F16,
    Dtype::BF16,
    Dtype::F8_E4M3,
    Dtype::F8_E5M2,
    Dtype::F8_E4M3FNUZ,
    Dtype::F8_E5M2FNUZ,
    Dtype::F8_E8M0,
];

fn width(dtype: Dtype) -> usize {
    dtype.width_bytes().unwrap() as usize
}

/// What `bytes` are when cast on their own.
fn cast_to_vec(from: Dtype, bytes: &[u8], to: Dtype) -> Vec<u8> {
    let mut into = vec![0xa5; bytes.len() / width(from) * width(to)];
    cast(from, bytes, to, &mut into).unwrap();
    into
}

#[test]
fn floats_of_whole_bytes_can_be_cast_and_nothing_else() {
    for from in Dtype::ALL {
        for to in Dtype::ALL {
            let both = FLOATS.contains(&from) && FLOATS.contains(&to);
            assert_eq!(can_cast(from, to), both, "{from} to {to}");
            assert_eq!(cast(from, &[], to, &mut []).is_ok(), both, "{from} to {to}");
        }
    }
}

#[test]
fn a_refusal_says_what_does_not_fit() {
    let check = |from, n_bytes: usize, to, room: usize, message: &str| {
        let error = cast(from, &vec![0; n_bytes], to, &mut vec![0; room]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(error.to_string(), message);
    };
    check(
        Dtype::I32,
        4,
        Dtype::F32,
        4,
        "cannot cast `I32` to `F32`: only floats of 8 to 64 bits are cast",
    );
    check(
        Dtype::F32,
        7,
        Dtype::BF16,
        2,
        "7 bytes of `F32` end inside an element of 4 bytes",
    );
    check(
        Dtype::BF16,
        6,
        Dtype::F32,
        11,
        "3 elements cast to `F32` take 4 bytes each, but there is room for 11 bytes",
    );
}

#[test]
fn large_casts_are_the_small_ones_in_a_row() {
    let bytes: Vec<u8> = (0u32..3 << 20)
        .map(|n| (n.wrapping_mul(2654435761) >> 24) as u8)
        .collect();
    for (from, to) in [
        (Dtype::BF16, Dtype::F32),
        (Dtype::F32, Dtype::BF16),
        (Dtype::F16, Dtype::F64),
        (Dtype::F8_E4M3, Dtype::F16),
    ] {
        let small: Vec<u8> = bytes
            .chunks(24)
            .flat_map(|few| cast_to_vec(from, few, to))
            .collect();
        assert!(cast_to_vec(from, &bytes, to) == small, "{from} to {to}");
    }
}

proptest! {
    #[test]
    fn a_cast_to_the_same_type_is_a_copy(dtype in select(&FLOATS), mut bytes in vec(any::<u8>(), 0..9000)) {
        bytes.truncate(bytes.len() / 8 * 8);
        prop_assert_eq!(cast_to_vec(dtype, &bytes, dtype), bytes);
    }

    #[test]
    fn parts_cast_one_by_one_are_the_whole_cast(
        from in select(&FLOATS),
        to in select(&FLOATS),
        bytes in vec(any::<u8>(), 0..20_000),
        cut in any::<prop::sample::Index>(),
    ) {
        let n_elements = bytes.len() / width(from);
        let cut = cut.index(n_elements + 1) * width(from);
        let (head, tail) = bytes[..n_elements * width(from)].split_at(cut);
        let parts = [cast_to_vec(from, head, to), cast_to_vec(from, tail, to)].concat();
        prop_assert_eq!(parts, cast_to_vec(from, &bytes[..n_elements * width(from)], to));
    }

    #[test]
    fn any_alignment_gives_the_same_and_nothing_beside_it_is_touched(
        from in select(&FLOATS),
        to in select(&FLOATS),
        bytes in vec(any::<u8>(), 0..6000),
        from_skew in 0usize..64,
        to_skew in 0usize..64,
    ) {
        let bytes = &bytes[..bytes.len() / width(from) * width(from)];
        let expected = cast_to_vec(from, bytes, to);
        let skewed = [vec![0; from_skew], bytes.to_vec()].concat();
        let mut into = vec![0x5a; to_skew + expected.len() + 64];
        let end = to_skew + expected.len();
        cast(from, &skewed[from_skew..], to, &mut into[to_skew..end]).unwrap();
        prop_assert_eq!(&into[to_skew..end], &expected[..]);
        prop_assert!(into[..to_skew].iter().chain(&into[end..]).all(|byte| *byte == 0x5a));
    }

    #[test]
    fn lengths_that_do_not_match_are_refused(
        from in select(&FLOATS),
        to in select(&FLOATS),
        n_bytes in 0usize..100,
        room in 0usize..800,
    ) {
        let fits = n_bytes.is_multiple_of(width(from)) && n_bytes / width(from) * width(to) == room;
        let done = cast(from, &vec![1; n_bytes], to, &mut vec![0; room]);
        prop_assert_eq!(done.is_ok(), fits);
    }

    #[test]
    fn what_a_wider_type_holds_comes_back(bits in vec(any::<u16>(), 0..3000)) {
        let finite = |bits: &u16| bits & 0x7f80 != 0x7f80;
        let bytes: Vec<u8> = bits.into_iter().filter(finite).flat_map(u16::to_le_bytes).collect();
        for wide in [Dtype::F32, Dtype::F64] {
            prop_assert_eq!(&cast_to_vec(wide, &cast_to_vec(Dtype::BF16, &bytes, wide), Dtype::BF16), &bytes);
        }
    }
}
