//! Codes of 4 bits by tables: of a group, the weight of each of the 16 codes is computed once.
//!
//! ```text
//! tables: the 16 weights of every group of a row, computed like any weights
//! 32 codes: each byte in a lane of 32 bits, one code in its lower and one in its upper half; one look-up of both halves
//! ```
//!
//! It takes the permutation of AVX-512 BW; elsewhere codes are unpacked, and weights computed one by one. Where the groups of columns
//! are listed, weights are looked up one by one, on any processor.

use core::ops::Range;

use tensorhold_core::{Dtype, Result};

use super::super::store::{Store, put_all};
use super::super::value::{Casts, Columns, Groups, Row, runs};
use crate::codec::PairOrder;

/// The codes that there are, each of which has a weight in a table.
const N_CODES: usize = super::N_WEIGHTS as usize;

/// Codes that lie in 16 bytes, and whose weights fill a line of a cache.
const N: usize = 32;

/// Whether groups of so many columns are worth a table each, and the processor has what it takes.
pub(super) fn are_worth_it(columns: u64, is_listed: bool) -> bool {
    columns >= N as u64 && (is_listed || columns.is_multiple_of(2) && has_permutation())
}

#[cfg(target_arch = "x86_64")]
fn has_permutation() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_permutation() -> bool {
    false
}

/// Room for the tables of a row.
#[derive(Default)]
pub(in super::super) struct Pairs {
    /// All codes, for every group.
    codes: Vec<u8>,
    numbers: Vec<f32>,
    tables: Vec<u8>,
    casts: Casts,
}

impl Pairs {
    /// Writes the weights of `row`, whose codes are two in a byte, into `into`, as elements of 16 bits of type `to`.
    ///
    /// # Errors
    /// Those of a cast.
    pub(in super::super) fn put(
        &mut self,
        row: &Row<'_>,
        order: PairOrder,
        to: Dtype,
        store: Store,
        into: &mut [[u8; 2]],
    ) -> Result<()> {
        let n_codes = row.groups.scales.len() * N_CODES;
        if self.codes.len() < n_codes {
            self.codes = (0..n_codes).map(|place| (place % N_CODES) as u8).collect();
            self.numbers.resize(n_codes, 0.0);
            self.tables.resize(n_codes * 2, 0);
        }
        let groups = Groups {
            columns: Columns::Follow {
                first: N_CODES,
                size: N_CODES,
            },
            ..row.groups
        };
        let tables = &mut self.tables[..n_codes * 2];
        row.of(&self.codes[..n_codes], groups, &mut self.numbers[..n_codes])
            .put(to, Store::Through, &mut self.casts, tables)?;
        let codes = (order, row.codes);
        match row.groups.columns {
            Columns::Follow { first, size } => {
                let runs = runs(first, size, into.len());
                look_up(tables.as_chunks().0, runs, codes, store, into);
            }
            Columns::Listed { groups, first } => {
                let tables = tables.as_chunks().0.as_chunks().0;
                let groups = (groups, first);
                match order {
                    PairOrder::LowFirst => {
                        look_up_each::<false>(tables, groups, row.codes, store, into)
                    }
                    PairOrder::HighFirst => {
                        look_up_each::<true>(tables, groups, row.codes, store, into)
                    }
                }
            }
        }
        Ok(())
    }
}

/// Looks up the code of each column in the table of its group, of which the first table is that of `first`.
fn look_up_each<const HIGH_FIRST: bool>(
    tables: &[[[u8; 2]; N_CODES]],
    (groups, first): (&[u32], usize),
    packed: &[u8],
    store: Store,
    into: &mut [[u8; 2]],
) {
    let (whole, tail) = packed.as_chunks();
    let (whole_groups, tail_groups) = groups.as_chunks();
    let (whole_into, tail_into) = into.as_chunks_mut::<N>();
    for ((packed, groups), into) in whole.iter().zip(whole_groups).zip(whole_into) {
        let made = look_up_block::<HIGH_FIRST>(tables, (groups, first), packed);
        put_all(store, made.as_flattened(), into.as_flattened_mut());
    }
    if let [any, ..] = tail_groups {
        // With an odd number of codes the bytes of the last may seem to be a whole block.
        let tail = if tail.is_empty() {
            &packed[packed.len() - N / 2..]
        } else {
            tail
        };
        let (mut bytes, mut groups) = ([0; N / 2], [*any; N]);
        bytes[..tail.len()].copy_from_slice(tail);
        groups[..tail_groups.len()].copy_from_slice(tail_groups);
        let made = look_up_block::<HIGH_FIRST>(tables, (&groups, first), &bytes);
        tail_into.copy_from_slice(&made[..tail_into.len()]);
    }
}

#[inline(always)]
fn look_up_block<const HIGH_FIRST: bool>(
    tables: &[[[u8; 2]; N_CODES]],
    (groups, first): (&[u32; N], usize),
    packed: &[u8; N / 2],
) -> [[u8; 2]; N] {
    let mut made = [[0; 2]; N];
    let pairs = groups
        .as_chunks::<2>()
        .0
        .iter()
        .zip(made.as_chunks_mut::<2>().0);
    for (byte, ([group, next], [made, made_next])) in packed.iter().zip(pairs) {
        let (low, high) = (usize::from(byte & 15), usize::from(byte >> 4));
        let (code, code_next) = if HIGH_FIRST { (high, low) } else { (low, high) };
        *made = tables[*group as usize - first][code];
        *made_next = tables[*next as usize - first][code_next];
    }
    made
}

#[cfg(target_arch = "x86_64")]
fn look_up(
    tables: &[[u8; N_CODES * 2]],
    runs: impl Iterator<Item = Range<usize>>,
    (order, packed): (PairOrder, &[u8]),
    store: Store,
    into: &mut [[u8; 2]],
) {
    assert!(has_permutation(), "nothing else makes such rows");
    let is_past = store == Store::Past;
    // SAFETY: the functions are safe but for the features that were found.
    unsafe {
        match order {
            PairOrder::LowFirst => x86_64::look_up::<false>(tables, runs, packed, is_past, into),
            PairOrder::HighFirst => x86_64::look_up::<true>(tables, runs, packed, is_past, into),
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn look_up(
    _: &[[u8; N_CODES * 2]],
    _: impl Iterator<Item = Range<usize>>,
    _: (PairOrder, &[u8]),
    _: Store,
    _: &mut [[u8; 2]],
) {
    unreachable!("nothing makes such rows")
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use core::ops::Range;
    use std::arch::x86_64::{
        __m512i, _mm_loadu_si128, _mm256_loadu_si256, _mm512_broadcast_i64x4, _mm512_cvtepu8_epi32,
        _mm512_or_si512, _mm512_permutexvar_epi16, _mm512_slli_epi32, _mm512_srli_epi32,
        _mm512_storeu_si512, _mm512_stream_si512,
    };

    use super::{N, N_CODES};

    const LINE: usize = 64;

    /// Looks up the codes of every run in its table.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn look_up<const HIGH_FIRST: bool>(
        tables: &[[u8; N_CODES * 2]],
        runs: impl Iterator<Item = Range<usize>>,
        packed: &[u8],
        is_past: bool,
        into: &mut [[u8; 2]],
    ) {
        for (table, run) in tables.iter().zip(runs) {
            let bytes = &packed[run.start / 2..run.end.div_ceil(2)];
            look_up_run::<HIGH_FIRST>(twice(table), bytes, is_past, &mut into[run]);
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn look_up_run<const HIGH_FIRST: bool>(
        table: __m512i,
        packed: &[u8],
        is_past: bool,
        into: &mut [[u8; 2]],
    ) {
        let is_past = is_past && into.as_ptr().addr().is_multiple_of(LINE);
        let (whole, _) = packed.as_chunks::<{ N / 2 }>();
        let (lines, into_tail) = into.as_flattened_mut().as_chunks_mut::<LINE>();
        for (bytes, line) in whole.iter().zip(&mut *lines) {
            let made = look_up_line::<HIGH_FIRST>(table, bytes);
            let line: *mut __m512i = line.as_mut_ptr().cast();
            // SAFETY: a line is the 64 bytes that are stored. Stores past the caches are aligned, as the first line was found so and
            // each begins 64 bytes behind the one before; nobody else reads them before the `Fence` that the caller holds.
            unsafe {
                match is_past {
                    true => _mm512_stream_si512(line, made),
                    false => _mm512_storeu_si512(line, made),
                }
            }
        }
        if !into_tail.is_empty() {
            // The bytes of the codes that are left, which fill no line; with an odd number of codes they may seem to.
            let tail = &packed[lines.len() * N / 2..];
            let (mut bytes, mut line) = ([0; N / 2], [0; LINE]);
            bytes[..tail.len()].copy_from_slice(tail);
            let made = look_up_line::<HIGH_FIRST>(table, &bytes);
            // SAFETY: `line` is the 64 bytes that are stored, which needs no alignment.
            unsafe { _mm512_storeu_si512(line.as_mut_ptr().cast(), made) };
            into_tail.copy_from_slice(&line[..into_tail.len()]);
        }
    }

    /// The weights of the codes of 16 bytes, in their order.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn look_up_line<const HIGH_FIRST: bool>(table: __m512i, bytes: &[u8; N / 2]) -> __m512i {
        // SAFETY: `bytes` are the 16 that are loaded, which needs no alignment.
        let bytes = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
        let bytes = _mm512_cvtepu8_epi32(bytes);
        // A look-up takes the lowest five bits of each half; the table has its 16 weights twice, so that the fifth is free.
        let places = match HIGH_FIRST {
            false => _mm512_or_si512(bytes, _mm512_slli_epi32::<12>(bytes)),
            true => _mm512_or_si512(
                _mm512_srli_epi32::<4>(bytes),
                _mm512_slli_epi32::<16>(bytes),
            ),
        };
        _mm512_permutexvar_epi16(places, table)
    }

    #[target_feature(enable = "avx512f")]
    fn twice(table: &[u8; N_CODES * 2]) -> __m512i {
        // SAFETY: the table is the 32 bytes that are loaded, which needs no alignment.
        _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(table.as_ptr().cast()) })
    }
}
