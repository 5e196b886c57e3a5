//! The bytes of one tensor of a foreign file, from first to last, some at a time.
//!
//! ```text
//! elements side by side: piece by piece
//! elements by strides: for each window of rows: read what it needs in the order of the file, then turn it round
//! on the way: check the checksum of the storage, turn bytes around, cast, dequantize
//! ```

use std::collections::HashSet;

use tensorhold_convert::container::{Method, ZipEntry};
use tensorhold_convert::gguf::{self, Blocks};
use tensorhold_convert::{Place, Storage, StorageId, Stored, View};
use tensorhold_core::{ByteRange, Dtype, Error, ErrorKind, Result, Selection};
use tensorhold_io::check_interrupt;
use tensorhold_quant::cast;

use super::ForeignFile;
use crate::read::{allocate, read_selection};

/// Small enough to stay in a processor's cache from the read to the write, and for the checksum between.
const PIECE_BYTES: u64 = 256 << 10;
/// So much of a tensor by strides is put together at a time.
const WINDOW_BYTES: u64 = 8 << 20;

/// A tensor to stream, and what its elements are to become.
pub(crate) struct Streamed<'a> {
    pub stored: &'a Stored,
    /// The type that its elements are cast to.
    pub cast: Option<Dtype>,
    /// What its bytes are the blocks of, which become numbers of type F32.
    pub blocks: Option<Blocks>,
}

impl Streamed<'_> {
    /// As it is.
    pub fn of(stored: &Stored) -> Streamed<'_> {
        Streamed {
            stored,
            cast: None,
            blocks: None,
        }
    }
}

type Put<'p> = dyn FnMut(&[u8]) -> Result<()> + 'p;

/// Streams the tensors of one file.
pub(crate) struct Streamer<'a> {
    file: &'a ForeignFile,
    /// The storages whose checksum has been found right.
    checked: HashSet<StorageId>,
    becoming: Becoming,
}

impl<'a> Streamer<'a> {
    pub fn new(file: &'a ForeignFile) -> Streamer<'a> {
        Streamer {
            file,
            checked: HashSet::new(),
            becoming: Becoming::default(),
        }
    }

    /// Hands the bytes of a tensor to `put`, in row-major order.
    ///
    /// # Errors
    /// `Truncated` or `Io` where they cannot be read; `ForeignFormat` where the checksum is another; those of `put`.
    pub fn stream(&mut self, tensor: &Streamed<'_>, put: &mut Put<'_>) -> Result<()> {
        let name = &tensor.stored.name[..];
        let path = self.file.path().to_string_lossy().into_owned();
        self.stream_checked(tensor, put)
            .map_err(|error| error.with_tensor(name).with_file(path))
    }

    fn stream_checked(&mut self, tensor: &Streamed<'_>, put: &mut Put<'_>) -> Result<()> {
        let view = &tensor.stored.view;
        let storage = &self.file.foreign.storages[view.storage().0 as usize];
        let Streamer {
            file,
            checked,
            becoming,
        } = self;
        let unit = becoming.begin(tensor, storage);
        let mut put = |bytes: &[u8]| becoming.put(bytes, put);
        if view.n_elements() == 0 {
            return Ok(());
        }
        let used = view.used_bytes()?;
        match &storage.place {
            Place::Missing => Err(missing(storage)),
            Place::InFile(range) => {
                let crc32 = storage.crc32.filter(|_| checked.insert(view.storage()));
                if view.is_contiguous() {
                    return Pieces::new(file, *range, used, unit, crc32)?.run(&mut put);
                }
                let nothing = ByteRange::new(range.len(), range.len());
                Pieces::new(file, *range, nothing, unit, crc32)?.run(&mut put)?;
                let row = file.rows.tensor(&view.storage().0.to_string())?;
                by_strides(
                    view,
                    (range.len(), WINDOW_BYTES),
                    &mut put,
                    &mut |selection, into| read_selection(&row, selection, into),
                )
            }
            Place::Pieces(ranges) if view.is_contiguous() => {
                let mut start = 0;
                for &range in ranges {
                    let inside = |position: u64| position.clamp(start, start + range.len()) - start;
                    let wanted = ByteRange::new(inside(used.start), inside(used.end));
                    Pieces::new(file, range, wanted, unit, None)?.run(&mut put)?;
                    start += range.len();
                }
                Ok(())
            }
            Place::Pieces(ranges) => {
                let mut bytes = allocate(storage.size_bytes)?;
                let mut rest = &mut bytes[..];
                for range in ranges {
                    let size = usize::try_from(range.len()).expect("a part of what is in memory");
                    let (piece, later) = rest.split_at_mut(size);
                    file.source().read_at(range.start, piece)?;
                    rest = later;
                }
                in_memory(view, &bytes, &mut put)
            }
            Place::Memory(bytes) => in_memory(view, bytes, &mut put),
            Place::Deflated(range) => {
                let entry = entry_of(storage, *range);
                if view.is_contiguous() && used.len() == storage.size_bytes {
                    return inflate(file, &entry, unit, &mut put);
                }
                in_memory(view, &entry.bytes(file.source(), &file.limits)?, &mut put)
            }
        }
    }
}

fn in_memory(view: &View, bytes: &[u8], put: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let sizes = (bytes.len() as u64, WINDOW_BYTES);
    by_strides(view, sizes, put, &mut |selection, into| {
        selection.gather(bytes, into);
        Ok(())
    })
}

fn missing(storage: &Storage) -> Error {
    let message = format!("the file lacks the bytes of `{}`", storage.name);
    Error::new(ErrorKind::Truncated, message)
}

fn wrong_checksum(range: ByteRange) -> Error {
    let message = "the checksum is another than that of the bytes: the file is damaged";
    Error::new(ErrorKind::ForeignFormat, message)
        .with_bytes(range)
        .with_hint("fetch the file again")
}

fn entry_of(storage: &Storage, data: ByteRange) -> ZipEntry {
    ZipEntry {
        name: storage.name.clone(),
        method: Method::Deflated,
        crc32: storage.crc32.unwrap_or(0),
        size_bytes: storage.size_bytes,
        data,
    }
}

fn inflate(
    file: &ForeignFile,
    entry: &ZipEntry,
    unit: u64,
    put: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut reader = entry.reader(file.source());
    let mut piece = allocate(piece_bytes(unit))?;
    loop {
        check_interrupt()?;
        let mut n_filled = 0;
        while n_filled < piece.len() {
            match reader.read(&mut piece[n_filled..])? {
                0 => break,
                n => n_filled += n,
            }
        }
        if n_filled == 0 {
            return Ok(());
        }
        put(&piece[..n_filled])?;
    }
}

/// About [`PIECE_BYTES`], as a whole number of units.
fn piece_bytes(unit: u64) -> u64 {
    (PIECE_BYTES / unit).max(1) * unit
}

/// Bytes side by side in a storage, read from first to last.
struct Pieces<'a> {
    file: &'a ForeignFile,
    /// The storage in the file.
    storage: ByteRange,
    /// What is left of the wanted bytes in the file.
    left: ByteRange,
    /// Pieces are whole numbers of so many bytes.
    unit: u64,
    /// The checksum of the whole storage, where it is to be looked at, and that of what was read.
    crc32: Option<(u32, crc32fast::Hasher)>,
}

impl<'a> Pieces<'a> {
    fn new(
        file: &'a ForeignFile,
        storage: ByteRange,
        used: ByteRange,
        unit: u64,
        crc32: Option<u32>,
    ) -> Result<Pieces<'a>> {
        let used = used.checked_add(storage.start);
        let mut pieces = Pieces {
            file,
            storage,
            left: used.expect("a storage lies in its file"),
            unit,
            crc32: crc32.map(|expected| (expected, crc32fast::Hasher::new())),
        };
        pieces.pass(ByteRange::new(storage.start, pieces.left.start))?;
        Ok(pieces)
    }

    /// Reads the next piece into `piece`; `false` after the last.
    fn next(&mut self, piece: &mut Vec<u8>) -> Result<bool> {
        if self.left.is_empty() {
            return Ok(false);
        }
        check_interrupt()?;
        let size = self.left.len().min(piece_bytes(self.unit));
        piece.resize(usize::try_from(size).expect("about 256 KiB"), 0);
        self.file.source().read_at(self.left.start, piece)?;
        if let Some((_, read)) = &mut self.crc32 {
            read.update(piece);
        }
        self.left.start += size;
        Ok(true)
    }

    /// Counts bytes that nobody wants into the checksum.
    fn pass(&mut self, range: ByteRange) -> Result<()> {
        let Some((_, read)) = &mut self.crc32 else {
            return Ok(());
        };
        let mut piece = Vec::new();
        let mut position = range.start;
        while position < range.end {
            check_interrupt()?;
            let size = (range.end - position).min(PIECE_BYTES);
            piece.resize(usize::try_from(size).expect("at most 256 KiB"), 0);
            self.file.source().read_at(position, &mut piece)?;
            read.update(&piece);
            position += size;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.pass(ByteRange::new(self.left.end, self.storage.end))?;
        let crc32 = self.crc32.take();
        match crc32.is_none_or(|(expected, read)| read.finalize() == expected) {
            true => Ok(()),
            false => Err(wrong_checksum(self.storage)),
        }
    }

    fn run(mut self, put: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut piece = Vec::new();
        while self.next(&mut piece)? {
            put(&piece)?;
        }
        self.finish()
    }
}

/// Counts of elements, each with the bytes from one to the next.
type Dims = Vec<(u64, u64)>;

/// Puts the elements, of which there are some, of a view of a storage of `size` bytes in order, about `most` bytes at a time; `read` fills memory with a selection of
/// the storage's bytes.
fn by_strides(
    view: &View,
    (size, most): (u64, u64),
    put: &mut dyn FnMut(&[u8]) -> Result<()>,
    read: &mut dyn FnMut(&Selection, &mut [u8]) -> Result<()>,
) -> Result<()> {
    let width = view.element().width_bytes();
    let start = view.offset() * width;
    let each = view.shape().iter().zip(view.strides());
    let each = each.map(|(&count, &stride)| (count, stride * width));
    let mut outer: Dims = std::iter::once((1, 0))
        .chain(each)
        .chain([(width, 1)])
        .collect();
    // The first dimension of which one position fits into a window, and how many do.
    let volume = |dims: &[(u64, u64)]| dims.iter().map(|dim| dim.0).product::<u64>();
    let fits = |dim: &usize| volume(&outer[dim + 1..]) <= most;
    let cut = (0..outer.len()).find(fits).unwrap_or(0);
    let inner = outer.split_off(cut);
    let step = (most / volume(&inner[1..])).max(1);
    let (count, stride) = inner[0];
    for number in 0..volume(&outer) {
        let mut left = number;
        let mut from = start;
        for &(count, stride) in outer.iter().rev() {
            from += left % count * stride;
            left /= count;
        }
        let mut done = 0;
        while done < count {
            check_interrupt()?;
            let mut window = inner.clone();
            window[0].0 = step.min(count - done);
            put(&gathered(from + done * stride, &window, size, read)?)?;
            done += window[0].0;
        }
    }
    Ok(())
}

/// The bytes of a window that begins at `start` of a storage, read in the order in which they lie there.
fn gathered(
    start: u64,
    window: &Dims,
    size: u64,
    read: &mut dyn FnMut(&Selection, &mut [u8]) -> Result<()>,
) -> Result<Vec<u8>> {
    let mut order: Vec<usize> = (0..window.len()).collect();
    order.retain(|&dim| window[dim].0 > 1 && window[dim].1 > 0);
    order.sort_by_key(|&dim| std::cmp::Reverse(window[dim].1));
    let (shape, strides): (Vec<u64>, Vec<u64>) = order.iter().map(|&dim| window[dim]).unzip();
    let lying = Selection::of_strides(Dtype::U8, size, start, &shape, &strides)?;
    let mut bytes = allocate(lying.size_bytes())?;
    read(&lying, &mut bytes)?;
    let mut turned = vec![0; window.len()];
    let mut stride = 1;
    for &dim in order.iter().rev() {
        turned[dim] = stride;
        stride *= window[dim].0;
    }
    let shape: Vec<u64> = window.iter().map(|dim| dim.0).collect();
    let wanted = Selection::of_strides(Dtype::U8, stride, 0, &shape, &turned)?;
    if wanted.is_whole() {
        return Ok(bytes);
    }
    let mut into = allocate(wanted.size_bytes())?;
    wanted.gather(&bytes, &mut into);
    Ok(into)
}

/// What the bytes of a tensor become on the way.
#[derive(Default)]
struct Becoming {
    /// Bytes that are turned around together.
    swap: usize,
    swapped: Vec<u8>,
    from: Option<Dtype>,
    cast: Option<Dtype>,
    blocks: Option<Blocks>,
    numbers: Vec<f32>,
    decoded: Vec<u8>,
    casted: Vec<u8>,
}

impl Becoming {
    /// Takes up a tensor; its bytes are to be given in whole numbers of so many.
    fn begin(&mut self, tensor: &Streamed<'_>, storage: &Storage) -> u64 {
        let element = tensor.stored.view.element();
        self.swap = usize::try_from(storage.swap_width_bytes).unwrap_or(1);
        self.blocks.clone_from(&tensor.blocks);
        let from = match self.blocks {
            Some(_) => Dtype::F32,
            None => tensor.stored.dtype,
        };
        self.from = Some(from);
        self.cast = tensor.cast.filter(|&to| to != from);
        let blocks = self.blocks.as_ref();
        blocks.map_or(
            element.width_bytes().max(storage.swap_width_bytes),
            |blocks| blocks.kind.block_bytes(),
        )
    }

    fn put(&mut self, bytes: &[u8], put: &mut Put<'_>) -> Result<()> {
        let bytes = match self.swap {
            0 | 1 => bytes,
            width => {
                self.swapped.clear();
                self.swapped.extend_from_slice(bytes);
                let numbers = self.swapped.chunks_exact_mut(width);
                numbers.for_each(<[u8]>::reverse);
                &self.swapped[..]
            }
        };
        let numbers = match &self.blocks {
            None => bytes,
            Some(blocks) => {
                let kind = blocks.kind;
                let n_blocks = bytes.len() as u64 / kind.block_bytes();
                let n_numbers = usize::try_from(n_blocks * kind.block_elements());
                self.numbers.resize(n_numbers.expect("a few pieces"), 0.0);
                gguf::dequantize(kind, blocks.is_big_endian, bytes, &mut self.numbers)?;
                self.decoded.clear();
                let each = self.numbers.iter().flat_map(|number| number.to_le_bytes());
                self.decoded.extend(each);
                &self.decoded[..]
            }
        };
        let (Some(from), Some(to)) = (self.from, self.cast) else {
            return put(numbers);
        };
        let size = numbers.len() * to.width_bits() as usize / from.width_bits() as usize;
        self.casted.resize(size, 0);
        cast(from, numbers, to, &mut self.casted)?;
        put(&self.casted)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

    use proptest::prelude::*;
    use tensorhold_convert::Element;

    use super::*;

    proptest! {
        #[test]
        fn views_come_in_order_whatever_the_strides(
            dims in prop::collection::vec((1u64..6, 0u64..12), 0..5),
            offset in 0u64..5,
            element in prop::sample::select(vec![Element::Int8, Element::Float16, Element::Complex128]),
            most in 1u64..200,
        ) {
            let (shape, strides): (Vec<u64>, Vec<u64>) = dims.iter().copied().unzip();
            let width = element.width_bytes() as usize;
            let bytes: Vec<u8> = (0..400 * width).map(|n| (n * 31 + n / 251) as u8).collect();
            let storage = (StorageId(0), bytes.len() as u64);
            let view = View::new(storage, element, offset, shape, strides).unwrap();
            let mut starts = vec![offset as usize];
            for &(count, stride) in &dims {
                let each = starts.iter().flat_map(|at| (0..count).map(move |n| at + (n * stride) as usize));
                starts = each.collect();
            }
            let expected: Vec<u8> = starts
                .iter()
                .flat_map(|at| &bytes[at * width..][..width])
                .copied()
                .collect();
            let mut found = Vec::new();
            let mut put = |piece: &[u8]| {
                found.extend_from_slice(piece);
                Ok(())
            };
            let read = &mut |selection: &Selection, into: &mut [u8]| {
                selection.gather(&bytes, into);
                Ok(())
            };
            by_strides(&view, (bytes.len() as u64, most), &mut put, read).unwrap();
            prop_assert_eq!(found, expected);
        }
    }
}
