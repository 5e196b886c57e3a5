//! Weights whose codes are a matrix of another size: the same elements in the same order, in other rows.

use core::ops::Range;

use tensorhold_core::{Result, n_elements};

use super::parts::Part;
use super::recipe::least_common_multiple;
use super::window::Window;

/// The box of a matrix of size `inner` that has all of `window` of a weight of `size`.
///
/// It has more where the window leaves out columns: what lies between its rows.
pub(super) fn cover(size: [u64; 3], window: &Window, inner: [u64; 3]) -> Window {
    let [_, _, columns] = inner;
    let Range { start, end } = span(size, window);
    if start == end {
        return Window {
            experts: 0..1,
            rows: 0..0,
            columns: 0..0,
        };
    }
    let rows = start / columns..end.div_ceil(columns);
    let columns = match rows.end - rows.start {
        1 => start - rows.start * columns..end - rows.start * columns,
        _ => 0..columns,
    };
    Window {
        experts: 0..1,
        rows,
        columns,
    }
}

/// The elements from the first to the last of `window`, counted through the weight.
fn span(size: [u64; 3], window: &Window) -> Range<u64> {
    let Window {
        experts,
        rows,
        columns,
    } = window;
    if experts.is_empty() || rows.is_empty() || columns.is_empty() {
        return 0..0;
    }
    let [_, n_rows, n_columns] = size;
    let row = |expert: u64, row: u64| (expert * n_rows + row) * n_columns;
    let last = row(experts.end - 1, rows.end - 1);
    row(experts.start, rows.start) + columns.start..last + columns.end
}

/// The units in which rows and columns can be cut where codes of one row can be in units of `unit`.
pub(super) fn units(size: [u64; 3], inner: [u64; 3], unit: u64) -> [u64; 2] {
    let [experts, rows, columns] = size;
    let whole = [rows.max(1), columns.max(1)];
    if inner[1] > 1 || experts > 1 {
        return whole;
    }
    match rows {
        0 | 1 => [1, unit],
        _ => {
            let row_unit = least_common_multiple(unit, columns) / columns.max(1);
            [row_unit.clamp(1, whole[0]), whole[1]]
        }
    }
}

/// A stretch of weights: where it begins among some that follow one another and in a window, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) len: usize,
}

/// What of `weights`, counted through a weight of `size`, lies in `window`.
pub(crate) fn stretches(
    size: [u64; 3],
    window: &Window,
    weights: Range<u64>,
) -> impl Iterator<Item = Stretch> {
    let [_, n_rows, n_columns] = size.map(|size| size.max(1));
    let window = window.clone();
    let lines = weights.start / n_columns..weights.end.div_ceil(n_columns);
    lines.filter_map(move |line| {
        let (expert, row) = (line / n_rows, line % n_rows);
        let start = (line * n_columns + window.columns.start).max(weights.start);
        let end = (line * n_columns + window.columns.end).min(weights.end);
        let is_in = window.experts.contains(&expert) && window.rows.contains(&row);
        if !is_in || start >= end {
            return None;
        }
        let [_, window_rows, window_columns] = window.size();
        let before = (expert - window.experts.start) * window_rows + row - window.rows.start;
        let column = start - line * n_columns - window.columns.start;
        Some(Stretch {
            from: (start - weights.start) as usize,
            to: (before * window_columns + column) as usize,
            len: (end - start) as usize,
        })
    })
}

/// The size of the matrix of the codes of a weight whose groups of `group_size` follow one another through all of it:
/// that of the weight where groups end with its rows, and else one row.
///
/// # Errors
/// `InvalidTensor` with `part` for a weight without dimensions, of more than 3, or past 2^64 elements.
pub(super) fn rows_or_flat(part: Part<'_>, shape: &[u64], group_size: u64) -> Result<[u64; 3]> {
    let n_codes = n_codes(part, shape)?;
    Ok(match *shape {
        [experts, rows, columns] if columns.is_multiple_of(group_size) => [experts, rows, columns],
        [rows, columns] if columns.is_multiple_of(group_size) => [1, rows, columns],
        _ => [1, 1, n_codes],
    })
}

/// The elements of a weight of `shape`, of 1 to 3 dimensions, whose bits can be counted.
pub(super) fn n_codes(part: Part<'_>, shape: &[u64]) -> Result<u64> {
    let n_codes = n_elements(shape).filter(|n| n.checked_mul(64).is_some());
    match (n_codes, shape.len()) {
        (Some(n_codes), 1..=3) => Ok(n_codes),
        _ => Err(part.wrong(&format!("it can be no weight of {shape:?}"))),
    }
}
