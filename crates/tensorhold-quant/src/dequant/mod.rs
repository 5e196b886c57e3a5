//! The weights that a recipe makes of the bytes of their parts.
//!
//! ```text
//! for each tile of rows and columns:
//!     codes, scales, zeros of the tile <- where the recipe says that they lie
//!     for each row: value of each code as F32; (value - zero) * scale, one group at a time; round to the wanted type
//!     put the row in its place
//! ```
//!
//! A weight is computed in F32 and rounded once, to nearest even, as [`cast`] does; a second scale goes into
//! the first one before that. Only `value * scale + bias` is rounded in between.
//!
//! # Source
//! The programs that the recipes name. Those that compute in the type of the scales (compressed-tensors) have
//! the same results in that type where it has 16 bits, since no product of a code and such a scale loses bits in F32.

mod codes;
mod lent;
mod lookup;
mod sparse;
mod store;
mod tile;
mod transpose;
mod turn;
mod value;
mod zeros;

use core::ops::Range;

use tensorhold_core::{Dtype, Error, ErrorKind, Result, shape_size_bytes};

use crate::scheme::{Recipe, Stretch, Window, stretches};
use crate::{can_cast, cast};
use store::Fence;
use tile::Tiles;
use value::{Casts, Single};

pub use codes::unpack;
pub use lent::PartBytes;
pub use sparse::dequantize_sparse;
pub use store::Store;

/// Writes the weights of `window` into `into`, as elements of type `to`, row by row and expert by expert.
///
/// `parts` are the bytes of the elements that [`Recipe::needs`] names for the window, in its order and no
/// others.
///
/// # Errors
/// `InvalidSlice` for a window outside of the weight; `InvalidArgument` when there are more or fewer parts or
/// bytes, when `into` is not as long as the weights, or when `to` is no float of 8 to 64 bits; `InvalidTensor`
/// when a column's group is none of the groups that there are.
pub fn dequantize(
    recipe: &Recipe,
    window: &Window,
    parts: &[&[u8]],
    to: Dtype,
    into: &mut [u8],
) -> Result<()> {
    let parts: Vec<PartBytes<'_>> = parts.iter().copied().map(PartBytes::Joined).collect();
    dequantize_parts(recipe, window, &parts, to, Store::Through, into)
}

/// Does what [`dequantize`] does with parts as they lie in memory, and weights to memory as `store` says.
///
/// # Errors
/// As [`dequantize`].
pub fn dequantize_parts(
    recipe: &Recipe,
    window: &Window,
    parts: &[PartBytes<'_>],
    to: Dtype,
    store: Store,
    into: &mut [u8],
) -> Result<()> {
    let width = check(recipe, window, to, into.len())?;
    let inner = recipe.inner(window);
    let mut tiles = Tiles::new(recipe, window, &inner, parts, to)?;
    let _fence = Fence(store);
    let (mut singles, mut casts) = (Vec::new(), Casts::default());
    for tile in tiles_of(&inner, tiles.size()) {
        let n_columns = (tile.columns.end - tile.columns.start) as usize;
        tiles.rows(&tile, |number, row| {
            if recipe.is_flat() {
                singles.resize(n_columns * 4, 0);
                row.weigh::<Single>(Store::Through, &mut singles);
                let line = (tile.rows.start + number as u64) * recipe.codes.size[2];
                let first = line + tile.columns.start;
                return scatter(recipe.size(), window, first, &singles, to, into);
            }
            let at = place(window, &tile, number) * width;
            row.put(to, store, &mut casts, &mut into[at..][..n_columns * width])
        })?;
    }
    Ok(())
}

/// Writes what of `weights`, which follow one another from `first` on in a weight of `size`, lies in `window`.
fn scatter(
    size: [u64; 3],
    window: &Window,
    first: u64,
    weights: &[u8],
    to: Dtype,
    into: &mut [u8],
) -> Result<()> {
    let width = to.width_bytes().unwrap_or(1) as usize;
    let range = first..first + (weights.len() / 4) as u64;
    for Stretch { from, to: at, len } in stretches(size, window, range) {
        let weights = &weights[from * 4..][..len * 4];
        cast(
            Dtype::F32,
            weights,
            to,
            &mut into[at * width..][..len * width],
        )?;
    }
    Ok(())
}

/// The width of an element of the result, if everything fits.
fn check(recipe: &Recipe, window: &Window, to: Dtype, len: usize) -> Result<usize> {
    let invalid = |message| Error::new(ErrorKind::InvalidArgument, message);
    window.check(recipe.size())?;
    if !can_cast(Dtype::F32, to) {
        return Err(invalid(format!(
            "weights cannot become `{to}`: they become floats of 8 to 64 bits"
        )));
    }
    let shape = window.size();
    let wanted = shape_size_bytes(to, &shape)?;
    if wanted != len as u64 {
        return Err(invalid(format!(
            "weights of {shape:?} take {wanted} bytes as `{to}`, but there is room for {len}"
        )));
    }
    Ok(to.width_bytes().unwrap_or(1) as usize)
}

/// The tiles of `window` of at most so many rows and columns, none of them empty.
fn tiles_of(window: &Window, size: [u64; 2]) -> impl Iterator<Item = Window> + use<> {
    let Window {
        experts,
        rows,
        columns,
    } = window.clone();
    experts.flat_map(move |expert| {
        let columns = columns.clone();
        pieces(rows.clone(), size[0]).flat_map(move |rows| {
            pieces(columns.clone(), size[1]).map(move |columns| Window {
                experts: expert..expert + 1,
                rows: rows.clone(),
                columns,
            })
        })
    })
}

/// The range in pieces that end at multiples of `size`.
fn pieces(range: Range<u64>, size: u64) -> impl Iterator<Item = Range<u64>> {
    let Range { start, end } = range;
    let pieces = start / size..end.div_ceil(size);
    let pieces = pieces.map(move |piece| (piece * size).max(start)..(piece * size + size).min(end));
    pieces.filter(|piece| !piece.is_empty())
}

/// The number of weights of `window` before the first of `row` of `tile`.
fn place(window: &Window, tile: &Window, row: usize) -> usize {
    let [_, n_rows, n_columns] = window.size();
    let matrix = tile.experts.start - window.experts.start;
    let line = matrix * n_rows + tile.rows.start - window.rows.start + row as u64;
    (line * n_columns + tile.columns.start - window.columns.start) as usize
}
