//! Weights whose zeros are left out.

use tensorhold_core::{Dtype, Error, ErrorKind, Result, shape_size_bytes};

use super::{PartBytes, Store, dequantize_parts};
use crate::cast;
use crate::scheme::{Line, Recipe, Sparse, Window};

/// Writes the weights of `window` into `into`, as elements of type `to`, row by row.
///
/// `parts` are the bytes that [`Sparse::needs`] names for the window, in its order, but of the first those that [`Sparse::values`]
/// names. Elements that are weights are cast; those that are codes become weights as [`dequantize_parts`] makes them.
///
/// # Errors
/// `InvalidSlice` for a window outside of the weight; `InvalidArgument` when there are more or fewer parts or bytes, when `into` is
/// not as long as the weights, or for types that [`cast`] refuses; `InvalidTensor` when bits, offsets and values do not suit each other.
pub fn dequantize_sparse(
    sparse: &Sparse,
    window: &Window,
    parts: &[PartBytes<'_>],
    to: Dtype,
    store: Store,
    into: &mut [u8],
) -> Result<()> {
    let n_needs = sparse.needs(window)?.len();
    let (values, bitmask, rest) = match parts {
        [values, bitmask, rest @ ..] if parts.len() == n_needs => (values, bitmask, rest),
        _ => return Err(wrong("parts", n_needs as u64, parts.len())),
    };
    let mask = sparse.mask();
    let (offsets, rest) = match rest {
        [offsets, rest @ ..] if mask.has_offsets() => (offsets.bytes(), rest),
        rest => (&[][..], rest),
    };
    let rows = window.rows.clone();
    let lines = mask.lines(rows, bitmask.bytes(), offsets, values.bytes())?;
    match sparse.recipe() {
        None => cast_lines(sparse, lines, window, to, into),
        Some(recipe) => {
            let elements = elements(sparse, lines, window);
            let codes = codes(recipe, window, &elements)?;
            let parts: Vec<PartBytes<'_>> = [codes].iter().chain(rest).copied().collect();
            dequantize_parts(recipe, window, &parts, to, store, into)
        }
    }
}

/// Casts the columns of `window` of each line.
fn cast_lines<'a>(
    sparse: &Sparse,
    lines: impl Iterator<Item = Line<'a>>,
    window: &Window,
    to: Dtype,
    into: &mut [u8],
) -> Result<()> {
    let wanted = shape_size_bytes(to, &window.size())?;
    if wanted != into.len() as u64 {
        return Err(wrong("bytes of room", wanted, into.len()));
    }
    if into.is_empty() {
        return Ok(());
    }
    let (from, columns) = (sparse.mask().dtype(), &window.columns);
    let width = from.width_bytes().unwrap_or(1) as usize;
    let columns = columns.start as usize * width..columns.end as usize * width;
    let mut line_room = vec![0; sparse.shape()[1] as usize * width];
    let [_, n_rows, _] = window.size();
    let row_bytes = into.len() / n_rows as usize;
    for (line, into) in lines.zip(into.chunks_exact_mut(row_bytes)) {
        line.put(&mut line_room);
        cast(from, &line_room[columns.clone()], to, into)?;
    }
    Ok(())
}

/// All elements of the rows of `window`.
fn elements<'a>(
    sparse: &Sparse,
    lines: impl Iterator<Item = Line<'a>>,
    window: &Window,
) -> Vec<u8> {
    let width = sparse.mask().dtype().width_bytes().unwrap_or(1) as usize;
    let line_bytes = sparse.shape()[1] as usize * width;
    let [_, n_rows, _] = window.size();
    let mut elements = vec![0; n_rows as usize * line_bytes];
    lines
        .zip(elements.chunks_mut(line_bytes.max(1)))
        .for_each(|(line, into)| line.put(into));
    elements
}

/// What of the `elements` of its rows `window` needs.
fn codes<'a>(recipe: &Recipe, window: &Window, elements: &'a [u8]) -> Result<PartBytes<'a>> {
    let of_rows = Window {
        columns: 0..recipe.size()[2],
        ..window.clone()
    };
    let first = recipe.needs(&of_rows)?[0].span()?.start;
    let span = recipe.needs(window)?[0].span()?;
    let range = span.start.saturating_sub(first)..span.end.saturating_sub(first);
    Ok(PartBytes::Spanned(
        &elements[range.start as usize..range.end as usize],
    ))
}

fn wrong(what: &str, wanted: u64, found: usize) -> Error {
    let message = format!("these weights take {wanted} {what}, but there are {found}");
    Error::new(ErrorKind::InvalidArgument, message)
}
