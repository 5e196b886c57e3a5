//! Floats of 8 bits by tables: of a scale that many codes share, each magnitude is computed once.
//!
//! ```text
//! tables: low and high byte of the weight of every magnitude, 128 of each
//! 64 codes: two look-ups by their low 7 bits; the sign goes into the high bytes; low and high bytes side by side
//! ```
//!
//! It takes the byte permutations of AVX-512 VBMI; elsewhere, and where a scale is not positive and finite, weights are computed one by one.

use tensorhold_core::{Dtype, Result};

use super::super::store::Store;
use super::super::value::{Casts, Columns, Groups, Row, Rule, runs};

/// Codes that are looked up together.
const N: usize = 64;

/// Weights that must share a scale, or that a row must have of it, for a table to be worth it.
const MIN_ROWS: u64 = 8;
const MIN_COLUMNS: u64 = 1024;

/// The low and the high bytes of what the magnitudes of codes are, times a scale.
struct Table {
    scale: f32,
    low: [u8; 128],
    high: [u8; 128],
}

/// The tables of the groups of a row, kept for the rows that have the same.
#[derive(Default)]
pub(in super::super) struct Magnitudes(Vec<Table>);

/// Whether groups of so many rows and columns share tables enough, and the processor has what it takes.
pub(super) fn are_worth_it(rows: u64, columns: u64) -> bool {
    (rows >= MIN_ROWS && columns >= N as u64 || columns >= MIN_COLUMNS) && has_permutations()
}

#[cfg(target_arch = "x86_64")]
fn has_permutations() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vbmi")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_permutations() -> bool {
    false
}

impl Magnitudes {
    /// Writes the weights of `row` into `into`, as elements of 16 bits of type `to`, where tables serve; gives `false`, having written
    /// nothing, where they do not.
    ///
    /// # Errors
    /// Those of a cast.
    pub(in super::super) fn put(
        &mut self,
        row: &Row<'_>,
        to: Dtype,
        store: Store,
        into: &mut [[u8; 2]],
    ) -> Result<bool> {
        let Groups {
            scales, columns, ..
        } = row.groups;
        let (Columns::Follow { first, size }, Rule::Scale) = (columns, row.groups.rule) else {
            return Ok(false);
        };
        // The sign of a weight is that of its code, but where it is made of a NaN or of infinity times nothing.
        let keeps_sign = |scale: &f32| *scale > 0.0 && scale.is_finite();
        if !scales.iter().all(keeps_sign) || !has_permutations() {
            return Ok(false);
        }
        let runs = runs(first, size, row.codes.len());
        for (group, (run, &scale)) in runs.zip(scales).enumerate() {
            let table = self.table(group, scale, row, to)?;
            let (codes, into) = (&row.codes[run.clone()], &mut into[run]);
            let (whole, tail) = codes.as_chunks();
            let (into_whole, into_tail) = into.as_chunks_mut();
            look_up(table, store, whole, into_whole);
            if !tail.is_empty() {
                weigh(row, tail, scale, to, into_tail)?;
            }
        }
        Ok(true)
    }

    /// The table of a scale, at the place of its group.
    fn table(&mut self, group: usize, scale: f32, row: &Row<'_>, to: Dtype) -> Result<&Table> {
        if self.0.len() <= group {
            self.0.resize_with(group + 1, || Table {
                scale: -1.0,
                low: [0; 128],
                high: [0; 128],
            });
        }
        let table = &mut self.0[group];
        if table.scale.to_bits() != scale.to_bits() {
            let codes: [u8; 128] = std::array::from_fn(|code| code as u8);
            let mut weights = [[0; 2]; 128];
            weigh(row, &codes, scale, to, &mut weights)?;
            table.scale = scale;
            table.low = weights.map(|[low, _]| low);
            table.high = weights.map(|[_, high]| high);
        }
        Ok(table)
    }
}

/// Writes the weights that `codes` have with one scale, computed like those of `row`.
fn weigh(row: &Row<'_>, codes: &[u8], scale: f32, to: Dtype, into: &mut [[u8; 2]]) -> Result<()> {
    let groups = Groups {
        scales: &[scale],
        zeros: &[0.0],
        columns: Columns::Follow {
            first: codes.len(),
            size: codes.len(),
        },
        ..row.groups
    };
    let mut row = row.of(codes, groups, &mut []);
    row.put(
        to,
        Store::Through,
        &mut Casts::default(),
        into.as_flattened_mut(),
    )
}

#[cfg(target_arch = "x86_64")]
fn look_up(table: &Table, store: Store, codes: &[[u8; N]], into: &mut [[[u8; 2]; N]]) {
    if has_permutations() {
        // SAFETY: the function is safe but for the features that were found.
        unsafe { x86_64::look_up(table, store == Store::Past, codes, into) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn look_up(_: &Table, _: Store, _: &[[u8; N]], _: &mut [[[u8; 2]; N]]) {}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::{
        __m512i, _mm512_and_si512, _mm512_loadu_si512, _mm512_or_si512, _mm512_permutex2var_epi8,
        _mm512_permutex2var_epi64, _mm512_set1_epi8, _mm512_setr_epi64, _mm512_storeu_si512,
        _mm512_stream_si512, _mm512_unpackhi_epi8, _mm512_unpacklo_epi8,
    };

    use super::{N, Table};

    const LINE: usize = 64;

    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    pub(super) fn look_up(
        table: &Table,
        is_past: bool,
        codes: &[[u8; N]],
        into: &mut [[[u8; 2]; N]],
    ) {
        let (low, high) = (halves(&table.low), halves(&table.high));
        let sign = _mm512_set1_epi8(i8::MIN);
        let first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
        let second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
        let is_past = is_past && into.as_ptr().addr().is_multiple_of(LINE);
        for (codes, into) in codes.iter().zip(into) {
            // SAFETY: `codes` are the 64 bytes that are loaded, which needs no alignment.
            let codes = unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) };
            let low = _mm512_permutex2var_epi8(low[0], codes, low[1]);
            let high = _mm512_permutex2var_epi8(high[0], codes, high[1]);
            let high = _mm512_or_si512(high, _mm512_and_si512(codes, sign));
            let (even, odd) = (
                _mm512_unpacklo_epi8(low, high),
                _mm512_unpackhi_epi8(low, high),
            );
            let made = [
                _mm512_permutex2var_epi64(even, first, odd),
                _mm512_permutex2var_epi64(even, second, odd),
            ];
            let (lines, _) = into.as_flattened_mut().as_chunks_mut::<LINE>();
            for (line, made) in lines.iter_mut().zip(made) {
                let line: *mut __m512i = line.as_mut_ptr().cast();
                // SAFETY: a line is the 64 bytes that are stored. Stores past the caches are aligned, as the first line was found
                // so and each begins 64 bytes behind the one before; nobody else reads them before the `Fence` that the caller holds.
                unsafe {
                    match is_past {
                        true => _mm512_stream_si512(line, made),
                        false => _mm512_storeu_si512(line, made),
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    fn halves(table: &[u8; 128]) -> [__m512i; 2] {
        let (halves, _) = table.as_chunks::<LINE>();
        // SAFETY: each half is the 64 bytes that are loaded, which needs no alignment.
        [0, 1].map(|half| unsafe { _mm512_loadu_si512(halves[half].as_ptr().cast()) })
    }
}
