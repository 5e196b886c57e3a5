//! 32 codes in as many words as a code has bits, cut into planes of 4, 2 and 1 bits.
//!
//! The widest plane comes first and has the lowest bits of each code. A plane of `w` bits is `w` words, in which
//! these bits of the 32 codes lie one after another from the least significant bit on.
//!
//! # Source
//! GPTQModel, for 3, 5, 6 and 7 bits. Codes of 1, 2, 4 and 8 bits are one plane, which is the plain order.

use super::lsb::{gather, spread, word};
use super::rows::{Piece, Pieces};
use super::unit::{self, Lead, Unit};

/// The number of codes in a unit.
pub(super) const CODES: u64 = 32;

const OCTETS: usize = 4;

/// Runs a function for codes of `bits` bits: it is given the bits and the number of bytes of 32 codes.
macro_rules! with_width {
    ($bits:expr, $function:ident($($argument:expr),*)) => {
        match $bits {
            1 => $function::<1, 4>($($argument),*),
            2 => $function::<2, 8>($($argument),*),
            3 => $function::<3, 12>($($argument),*),
            4 => $function::<4, 16>($($argument),*),
            5 => $function::<5, 20>($($argument),*),
            6 => $function::<6, 24>($($argument),*),
            7 => $function::<7, 28>($($argument),*),
            _ => $function::<8, 32>($($argument),*),
        }
    };
}

/// Fills `into` with the codes from `first` on; `packed` starts with the first word of that one's unit.
#[inline(always)]
pub(super) fn unpack(bits: u32, packed: &[u8], first: u64, into: &mut [u8]) {
    with_width!(bits, unpack_as(packed, first, into));
}

/// Fills `into` with all `codes`.
#[inline(always)]
pub(super) fn pack(bits: u32, codes: &[u8], into: &mut [u8]) {
    with_width!(bits, pack_as(codes, into));
}

#[inline(always)]
fn unpack_as<const BITS: usize, const BYTES: usize>(packed: &[u8], first: u64, into: &mut [u8]) {
    let lead = Lead {
        codes: (first % CODES) as usize,
        bytes: 0,
    };
    unit::unpack::<Planes<BITS>, { CODES as usize }, BYTES>(packed, lead, into);
}

#[inline(always)]
fn pack_as<const BITS: usize, const BYTES: usize>(codes: &[u8], into: &mut [u8]) {
    unit::pack::<Planes<BITS>, { CODES as usize }, BYTES>(codes, into);
}

/// Where a code lies in the words of a column: a piece for each plane.
#[inline(always)]
pub(super) fn pieces(bits: u32, code: u64) -> Pieces {
    let (unit, in_unit) = (code / CODES, (code % CODES) as u32);
    let mut pieces = [None; 3];
    let planes = [8, 4, 2, 1].into_iter().filter(|width| bits & width != 0);
    for (piece, width) in pieces.iter_mut().zip(planes) {
        // A plane is as many words as it has bits, so that the words before it are the bits before it.
        let place = bits_below(bits as usize, width as usize) as u32;
        let codes_in_word = 32 / width;
        *piece = Some(Piece {
            word: unit * u64::from(bits) + u64::from(place + in_unit / codes_in_word),
            shift: in_unit % codes_in_word * width,
            width,
            place,
        });
    }
    pieces
}

struct Planes<const BITS: usize>;

impl<const BITS: usize, const BYTES: usize> Unit<{ CODES as usize }, BYTES> for Planes<BITS> {
    #[inline(always)]
    fn unpack(bytes: [u8; BYTES]) -> [u8; CODES as usize] {
        let mut octets = [0; OCTETS];
        let planes = &bytes[..];
        let planes = unpack_plane::<BITS, 8>(planes, &mut octets);
        let planes = unpack_plane::<BITS, 4>(planes, &mut octets);
        let planes = unpack_plane::<BITS, 2>(planes, &mut octets);
        unpack_plane::<BITS, 1>(planes, &mut octets);
        let mut codes = [0; CODES as usize];
        for (codes, octet) in codes.as_chunks_mut().0.iter_mut().zip(octets) {
            *codes = octet.to_le_bytes();
        }
        codes
    }

    #[inline(always)]
    fn pack(codes: [u8; CODES as usize]) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let planes = &mut bytes[..];
        let planes = pack_plane::<BITS, 8>(&codes, planes);
        let planes = pack_plane::<BITS, 4>(&codes, planes);
        let planes = pack_plane::<BITS, 2>(&codes, planes);
        pack_plane::<BITS, 1>(&codes, planes);
        bytes
    }
}

/// Adds the plane of `WIDTH` bits to the codes, if they have it, and returns the planes after it.
#[inline(always)]
fn unpack_plane<'a, const BITS: usize, const WIDTH: usize>(
    planes: &'a [u8],
    octets: &mut [u64; OCTETS],
) -> &'a [u8] {
    if BITS & WIDTH == 0 {
        return planes;
    }
    let (plane, after) = planes.split_at(OCTETS * WIDTH);
    for (octet, bits) in octets.iter_mut().zip(plane.chunks_exact(WIDTH)) {
        *octet |= spread::<WIDTH>(word(bits)) << bits_below(BITS, WIDTH);
    }
    after
}

/// Writes the plane of `WIDTH` bits, if the codes have it, and returns the room after it.
#[inline(always)]
fn pack_plane<'a, const BITS: usize, const WIDTH: usize>(
    codes: &[u8; CODES as usize],
    planes: &'a mut [u8],
) -> &'a mut [u8] {
    if BITS & WIDTH == 0 {
        return planes;
    }
    let (plane, after) = planes.split_at_mut(OCTETS * WIDTH);
    for (codes, bits) in codes.chunks_exact(8).zip(plane.chunks_exact_mut(WIDTH)) {
        let octet = word(codes) >> bits_below(BITS, WIDTH);
        bits.copy_from_slice(&gather::<WIDTH>(octet).to_le_bytes()[..WIDTH]);
    }
    after
}

/// The bits of a code that wider planes have, which come first.
const fn bits_below(bits: usize, width: usize) -> usize {
    bits & !(2 * width - 1)
}
