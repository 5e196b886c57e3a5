//! Carries the bytes of a selection from a file into memory.

use tensorhold_core::{ByteRange, Error, ErrorKind, Result, Selection, TensorInfo};

use crate::file::File;

/// Reads are joined where at most this many unwanted bytes lie between them: reading 16 KiB costs about
/// as much as a second system call.
const MAX_GAP_BYTES: u64 = 16 << 10;
/// The most that is read at once for runs that are joined.
const WINDOW_BYTES: u64 = 1 << 20;

/// The bytes of a whole tensor.
pub(crate) fn read_whole(file: &File, info: &TensorInfo<'_>) -> Result<Vec<u8>> {
    let selection = Selection::whole(info.dtype, info.shape)?;
    let mut bytes = allocate(selection.size_bytes())?;
    read_selection(file, info, &selection, &mut bytes)?;
    Ok(bytes)
}

/// A zeroed buffer, or an error where there is no memory for it.
pub(crate) fn allocate(size_bytes: u64) -> Result<Vec<u8>> {
    let refused = || {
        Error::new(
            ErrorKind::NoMemory,
            format!("no memory for {size_bytes} bytes"),
        )
    };
    let size = usize::try_from(size_bytes).map_err(|_| refused())?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(|_| refused())?;
    bytes.resize(size, 0);
    Ok(bytes)
}

/// Fills `into` with the bytes of `selection`, which was resolved against the tensor `info` of `file`.
pub(crate) fn read_selection(
    file: &File,
    info: &TensorInfo<'_>,
    selection: &Selection,
    into: &mut [u8],
) -> Result<()> {
    if into.len() as u64 != selection.size_bytes() {
        let message = format!(
            "{} bytes of room were given for {}",
            into.len(),
            selection.size_bytes()
        );
        return Err(file.blame(info, Error::new(ErrorKind::InvalidArgument, message)));
    }
    carry_out(file, info, selection, into).map_err(|error| file.blame(info, error))
}

fn carry_out(
    file: &File,
    info: &TensorInfo<'_>,
    selection: &Selection,
    into: &mut [u8],
) -> Result<()> {
    let source = file.source();
    let start = file.header().data_start() + info.offsets.start;
    if let Some(bytes) = source.as_bytes() {
        let end = start + info.size_bytes();
        let tensor = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let tensor = tensor.and_then(|(start, end)| bytes.get(start..end));
        let tensor =
            tensor.ok_or_else(|| Error::truncated(start, end - start, bytes.len() as u64))?;
        selection.gather(tensor, into);
        return Ok(());
    }
    if selection.is_whole() {
        return source.read_at(start, into);
    }
    if !selection.is_byte_aligned() {
        let mut tensor = allocate(info.size_bytes())?;
        source.read_at(start, &mut tensor)?;
        selection.gather(&tensor, into);
        return Ok(());
    }
    read_runs(selection, into, |offset, bytes| {
        source.read_at(start + offset, bytes)
    })
}

/// Reads the runs of `selection`, joining near ones that rise into one read.
fn read_runs(
    selection: &Selection,
    mut into: &mut [u8],
    mut read_at: impl FnMut(u64, &mut [u8]) -> Result<()>,
) -> Result<()> {
    let mut window = Window::default();
    for run in selection.runs() {
        if !window.admits(run) {
            into = window.fetch(into, &mut read_at)?;
        }
        window.add(run);
    }
    window.fetch(into, &mut read_at)?;
    Ok(())
}

/// Runs that are fetched with one read.
#[derive(Default)]
struct Window {
    runs: Vec<ByteRange>,
    scratch: Vec<u8>,
}

impl Window {
    fn admits(&self, run: ByteRange) -> bool {
        match (self.runs.first(), self.runs.last()) {
            (Some(first), Some(last)) => {
                run.start >= last.end
                    && run.start - last.end <= MAX_GAP_BYTES
                    && run.end - first.start <= WINDOW_BYTES
            }
            _ => true,
        }
    }

    fn add(&mut self, run: ByteRange) {
        self.runs.push(run);
    }

    /// Fetches the runs into the front of `into`, and gives back the rest of it.
    fn fetch<'a>(
        &mut self,
        into: &'a mut [u8],
        read_at: &mut impl FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<&'a mut [u8]> {
        let (Some(first), Some(last)) = (self.runs.first(), self.runs.last()) else {
            return Ok(into);
        };
        let (start, span) = (first.start, last.end - first.start);
        let wanted: u64 = self.runs.iter().map(|run| run.len()).sum();
        let (front, rest) = into.split_at_mut(to_usize(wanted));
        if self.runs.len() == 1 {
            read_at(start, front)?;
        } else {
            self.scratch.resize(to_usize(span), 0);
            read_at(start, &mut self.scratch)?;
            let mut filled = 0;
            for run in &self.runs {
                let bytes = &self.scratch[to_usize(run.start - start)..to_usize(run.end - start)];
                front[filled..filled + bytes.len()].copy_from_slice(bytes);
                filled += bytes.len();
            }
        }
        self.runs.clear();
        Ok(rest)
    }
}

/// A count of bytes that were just found to fit into memory.
fn to_usize(size_bytes: u64) -> usize {
    usize::try_from(size_bytes).expect("a part of a buffer in memory fits into usize")
}
