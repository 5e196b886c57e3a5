//! A table whose tensors lie anywhere in a file, as those of other formats do.

use alloc::string::String;
use alloc::vec::Vec;

use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::extent::ByteRange;
use crate::shape::shape_size_bytes;

use super::metadata::Pairs;
use super::shapes::Place;
use super::table::{Entry, Name, Table};
use super::{Header, MAX_HEADER_BYTES};

/// A tensor, and where in a file its elements lie: in row-major order, little-endian, without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedTensor<'a> {
    /// The name.
    pub name: &'a str,
    /// The type of the elements.
    pub dtype: Dtype,
    /// The size in each dimension; none for a scalar.
    pub shape: &'a [u64],
    /// The position of the first byte in the file.
    pub start: u64,
}

impl Header {
    /// The table of a file of `file_size` bytes whose format is another one; with it, such a file is loaded and sliced as
    /// any. Tensors may lie in any order, apart from each other, or over each other. Their offsets count from the start of the file.
    ///
    /// # Errors
    /// `DuplicateTensor`; `Overflow` or `Misaligned` for a shape without a size; `Truncated` for a tensor that is not all in the
    /// file; `HeaderTooLarge` if names, shapes and metadata take more than a header may.
    pub fn of_placed(
        tensors: &[PlacedTensor<'_>],
        metadata: Option<&[(&str, &str)]>,
        file_size: u64,
    ) -> Result<Header> {
        require_room(tensors, metadata)?;
        let mut order: Vec<(ByteRange, &PlacedTensor<'_>)> = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let range = range_of(tensor, file_size).map_err(|e| e.with_tensor(tensor.name))?;
            order.push((range, tensor));
        }
        order.sort_by_key(|(range, _)| (range.start, range.end));
        let mut text = String::new();
        let mut table = Table {
            pairs: metadata.map(Pairs::of),
            data_size: file_size,
            ..Table::default()
        };
        for (range, tensor) in order {
            let name = Name::in_text(text.len(), tensor.name.len());
            text.push_str(tensor.name);
            let shape = Place::of_kept(table.shapes.dims.len(), tensor.shape.len());
            table.shapes.dims.extend_from_slice(tensor.shape);
            let entry = Entry::new(name, tensor.dtype, shape, range.start);
            table.entries.push(entry);
            table.ends.push(range.end);
        }
        if let Err((_, second)) = table.index_names(&text) {
            let message = "the name stands twice";
            let error = Error::new(ErrorKind::DuplicateTensor, message);
            return Err(error.with_tensor(table.name(&text, second)));
        }
        Ok(Header {
            text,
            table,
            data_start: 0,
        })
    }
}

fn range_of(tensor: &PlacedTensor<'_>, file_size: u64) -> Result<ByteRange> {
    let size = shape_size_bytes(tensor.dtype, tensor.shape)?;
    let end = tensor.start.checked_add(size);
    match end.filter(|&end| end <= file_size) {
        Some(end) => Ok(ByteRange::new(tensor.start, end)),
        None => Err(Error::truncated(tensor.start, size, file_size)),
    }
}

/// Holds the table to what a header could say, whose numbers fit the fields of an entry.
fn require_room(tensors: &[PlacedTensor<'_>], metadata: Option<&[(&str, &str)]>) -> Result<()> {
    // The shortest description of a tensor in a header.
    const LEAST_BYTES: u64 = 50;
    let of_tensors = tensors
        .iter()
        .map(|tensor| LEAST_BYTES + tensor.name.len() as u64 + 2 * tensor.shape.len() as u64);
    let of_pairs = metadata.unwrap_or_default().iter();
    let of_pairs = of_pairs.map(|(key, value)| (key.len() + value.len()) as u64);
    let size: u64 = of_tensors.chain(of_pairs).sum();
    if size <= MAX_HEADER_BYTES {
        return Ok(());
    }
    let message = alloc::format!(
        "the table of tensors takes {size} bytes, more than the {MAX_HEADER_BYTES} of the longest header"
    );
    Err(Error::new(ErrorKind::HeaderTooLarge, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u8s(name: &'static str, shape: &'static [u64], start: u64) -> PlacedTensor<'static> {
        PlacedTensor {
            name,
            dtype: Dtype::U8,
            shape,
            start,
        }
    }

    #[test]
    fn tensors_lie_where_they_are_said_to() {
        let tensors = [
            u8s("late", &[2, 3], 10),
            u8s("early", &[4], 2),
            u8s("over", &[1], 3),
        ];
        let header = Header::of_placed(&tensors, Some(&[("a", "b"), ("c", "")]), 20).unwrap();
        let names: Vec<&str> = header.tensors().map(|tensor| tensor.name).collect();
        assert_eq!(names, ["early", "over", "late"]);
        let late = header.tensor("late").unwrap();
        assert_eq!(late.shape, [2, 3]);
        assert_eq!(late.offsets, ByteRange::new(10, 16));
        assert_eq!(header.offsets_at(0), Some(ByteRange::new(2, 6)));
        assert_eq!((header.data_start(), header.file_size()), (0, 20));
        let metadata = header.metadata().unwrap();
        assert_eq!(metadata.iter().collect::<Vec<_>>(), [("a", "b"), ("c", "")]);
    }

    #[test]
    fn what_is_not_all_in_the_file_is_refused() {
        let kind = |tensors: &[PlacedTensor<'_>]| {
            let made = Header::of_placed(tensors, None, 8);
            made.map(|_| ()).map_err(|error| error.kind())
        };
        assert_eq!(kind(&[u8s("a", &[8], 0), u8s("none", &[0], 8)]), Ok(()));
        assert_eq!(kind(&[u8s("a", &[8], 1)]), Err(ErrorKind::Truncated));
        assert_eq!(kind(&[u8s("a", &[0], 9)]), Err(ErrorKind::Truncated));
        assert_eq!(kind(&[u8s("a", &[1], u64::MAX)]), Err(ErrorKind::Truncated));
        assert_eq!(
            kind(&[u8s("a", &[u64::MAX, 2], 0)]),
            Err(ErrorKind::Overflow)
        );
        let twice = [u8s("a", &[1], 0), u8s("a", &[2], 2)];
        assert_eq!(kind(&twice), Err(ErrorKind::DuplicateTensor));
        let long = [("key", "x".repeat(100_000_000).leak() as &str)];
        let made = Header::of_placed(&[], Some(&long), 8);
        assert_eq!(made.unwrap_err().kind(), ErrorKind::HeaderTooLarge);
    }
}
