//! Matrices a window at a time: how they are cut, turned round, and their codes packed.

use std::ops::Range;

use tensorhold_core::{Index, Result};
use tensorhold_quant::codec::BitOrder;
use tensorhold_quant::scheme::Window;

use super::Put;

/// A matrix of this shape in windows of about `n_entries`, each of so many whole rows or, where `by_columns`, columns that a multiple of
/// `unit` goes into all but the last.
pub(crate) fn cut(
    [rows, columns]: [u64; 2],
    by_columns: bool,
    n_entries: u64,
    unit: u64,
) -> Vec<Window> {
    let (length, across) = if by_columns {
        (columns, rows)
    } else {
        (rows, columns)
    };
    let size = (n_entries / across.max(1) / unit)
        .max(1)
        .saturating_mul(unit);
    let window = |start: u64| {
        let range = start..start.saturating_add(size).min(length);
        let (rows, columns) = if by_columns {
            (0..rows, range)
        } else {
            (range, 0..columns)
        };
        Window {
            experts: 0..1,
            rows,
            columns,
        }
    };
    (0..length)
        .step_by(usize::try_from(size).unwrap_or(usize::MAX))
        .map(window)
        .collect()
}

/// Codes in rows, each row packed by itself.
pub(crate) fn lines(order: BitOrder, codes: &[u8], n_columns: usize) -> Result<Vec<u8>> {
    let row_bytes = order.size_bytes(n_columns as u64)?;
    let row_bytes = usize::try_from(row_bytes).unwrap_or(usize::MAX);
    let n_rows = codes.len().checked_div(n_columns).unwrap_or(0);
    let mut bytes = vec![0; n_rows * row_bytes];
    let rows = codes.chunks_exact(n_columns.max(1));
    for (codes, into) in rows.zip(bytes.chunks_exact_mut(row_bytes.max(1))) {
        order.pack(codes, into)?;
    }
    Ok(bytes)
}

/// Codes in rows, packed down the columns.
pub(crate) fn columns(order: BitOrder, codes: &[u8], n_columns: usize) -> Result<Vec<u8>> {
    let n_rows = codes.len().checked_div(n_columns).unwrap_or(0) as u64;
    let n_words = order.rows_of(0..n_rows)?;
    let mut bytes = vec![0; size(&n_words) * n_columns * 4];
    order.pack_rows(codes, n_columns, &mut bytes)?;
    Ok(bytes)
}

/// A matrix turned round.
pub(crate) fn transposed<T: Copy>(matrix: &[T], n_rows: usize, n_columns: usize) -> Vec<T> {
    const TILE: usize = 64;
    let mut turned = matrix.to_vec();
    for row in (0..n_rows).step_by(TILE) {
        for column in (0..n_columns).step_by(TILE) {
            for column in column..(column + TILE).min(n_columns) {
                for row in row..(row + TILE).min(n_rows) {
                    turned[column * n_rows + row] = matrix[row * n_columns + column];
                }
            }
        }
    }
    turned
}

/// A matrix of elements of so many bytes turned round.
pub(crate) fn turned<const WIDTH: usize>(bytes: &[u8], n_rows: usize, n_columns: usize) -> Vec<u8> {
    transposed(bytes.as_chunks::<WIDTH>().0, n_rows, n_columns).into_flattened()
}

/// Hands over the group of each input, where so many follow one another.
pub(crate) fn group_index(columns: u64, group: u64, put: &mut Put<'_>) -> Result<()> {
    let groups = (0..columns).map(|column| (column / group) as u32);
    let bytes: Vec<u8> = groups.flat_map(u32::to_le_bytes).collect();
    put(&bytes)
}

/// The size of a range in memory.
pub(crate) fn size(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX)
}

pub(crate) fn range_index(range: &Range<u64>) -> Index {
    let at = |position: u64| i64::try_from(position).ok();
    Index::Range {
        start: at(range.start),
        stop: at(range.end),
        step: None,
    }
}
