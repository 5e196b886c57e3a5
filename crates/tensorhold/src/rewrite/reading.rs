//! Bytes of tensors, and the numbers that they are.

use tensorhold_core::{Dtype, Error, ErrorKind, Result, Selection};
use tensorhold_io::check_interrupt;
use tensorhold_quant::scheme::{Need, Recipe, Window};
use tensorhold_quant::{cast, dequantize};

use super::Put;
use crate::checkpoint::Tensor;
use crate::read::{allocate, read_selection};

/// A file's bytes are copied in pieces that stay in the cache.
const PIECE_BYTES: u64 = 1 << 20;
/// Numbers that go through a cast at once.
const BLOCK: usize = 1024;

/// Fills `into` with bytes of a tensor, counted from its first, which are there.
pub(crate) fn read_at(tensor: &Tensor<'_>, start: u64, into: &mut [u8]) -> Result<()> {
    let (file, info) = (tensor.file(), tensor.info());
    let position = file.header().data_start() + info.offsets.start + start;
    let read = file.source().read_at(position, into);
    read.map_err(|error| file.blame(&info, error))
}

/// Hands the bytes of a tensor to `put`.
pub(crate) fn copy(tensor: &Tensor<'_>, put: &mut Put<'_>) -> Result<()> {
    let size = tensor.info().size_bytes();
    let mut piece = allocate(size.min(PIECE_BYTES))?;
    let mut done = 0;
    while done < size {
        check_interrupt()?;
        let now = (size - done).min(PIECE_BYTES);
        let piece = &mut piece[..usize::try_from(now).unwrap_or(0)];
        read_at(tensor, done, piece)?;
        put(piece)?;
        done += now;
    }
    Ok(())
}

/// The bytes of the elements that are needed of a tensor.
pub(crate) fn read_need(tensor: &Tensor<'_>, need: &Need) -> Result<Vec<u8>> {
    let ranges = need.ranges.each_ref().map(|range| vec![range.clone()]);
    let selection = Selection::of_ranges(need.dtype, &need.view, &ranges)?;
    let mut bytes = allocate(selection.size_bytes())?;
    read_selection(tensor, &selection, &mut bytes)?;
    Ok(bytes)
}

/// A window of a quantized weight, as numbers.
pub(crate) fn weights_of<'a, 'p>(
    recipe: &Recipe,
    window: &Window,
    part: impl Fn(&str) -> Option<&'p Tensor<'a>>,
) -> Result<Vec<f32>>
where
    'a: 'p,
{
    let needs = recipe.needs(window)?;
    let bytes = needs.iter().map(|need| {
        let tensor = part(need.part).ok_or_else(|| missing(need.part))?;
        read_need(tensor, need)
    });
    let bytes = bytes.collect::<Result<Vec<Vec<u8>>>>()?;
    let parts: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    let n_weights = [&window.rows, &window.columns].map(|range| range.end - range.start);
    let mut weights = allocate(n_weights[0] * n_weights[1] * 4)?;
    dequantize(recipe, window, &parts, Dtype::F32, &mut weights)?;
    as_numbers(Dtype::F32, &weights)
}

fn missing(part: &str) -> Error {
    let message = format!("part `{part}` is needed, and is not there");
    Error::new(ErrorKind::TensorNotFound, message)
}

/// Elements of a type as F32.
pub(crate) fn as_numbers(from: Dtype, bytes: &[u8]) -> Result<Vec<f32>> {
    let width = from.width_bytes().unwrap_or(1) as usize;
    let mut singles = [0; 4 * BLOCK];
    let mut numbers = Vec::with_capacity(bytes.len() / width);
    for bytes in bytes.chunks(width * BLOCK) {
        let singles = &mut singles[..bytes.len() / width * 4];
        cast(from, bytes, Dtype::F32, singles)?;
        let block = singles.as_chunks().0.iter();
        numbers.extend(block.copied().map(f32::from_le_bytes));
    }
    Ok(numbers)
}
