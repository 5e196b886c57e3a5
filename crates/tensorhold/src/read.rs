//! One selection into memory of the caller's, in the caller's thread: what is too small for the engine.

use std::sync::Arc;

use tensorhold_core::{Error, ErrorKind, LoadPlan, Piece, Request, Result, Selection, Source};
use tensorhold_io::Way;

use crate::checkpoint::Tensor;
use crate::transfer::cut_for;

/// The bytes of a whole tensor.
pub(crate) fn read_whole(tensor: &Tensor<'_>) -> Result<Vec<u8>> {
    let info = tensor.info();
    let selection = Selection::whole(info.dtype, info.shape)?;
    let mut bytes = allocate(selection.size_bytes())?;
    read_selection(tensor, &selection, &mut bytes)?;
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

/// Fills `into` with the bytes of `selection`, which was resolved against `tensor`.
pub(crate) fn read_selection(
    tensor: &Tensor<'_>,
    selection: &Selection,
    into: &mut [u8],
) -> Result<()> {
    read_from(
        tensor,
        tensor.file().source(),
        Way::Buffered,
        selection,
        into,
    )
}

/// The same by way of `source`, which reads the tensor's file.
pub(crate) fn read_from(
    tensor: &Tensor<'_>,
    source: &dyn Source,
    way: Way,
    selection: &Selection,
    into: &mut [u8],
) -> Result<()> {
    let read = match into.len() as u64 == selection.size_bytes() {
        true => carry_out(tensor, source, way, selection, into),
        false => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "{} bytes of room were given for {}",
                into.len(),
                selection.size_bytes()
            ),
        )),
    };
    read.map_err(|error| tensor.file().blame(&tensor.info(), error))
}

fn carry_out(
    tensor: &Tensor<'_>,
    source: &dyn Source,
    way: Way,
    selection: &Selection,
    into: &mut [u8],
) -> Result<()> {
    if selection.tensor_bytes() != tensor.info().size_bytes() {
        let message = "the selection is of a tensor of another size";
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    if into.is_empty() {
        return Ok(());
    }
    let start = tensor.file().header().data_start() + tensor.info().offsets.start;
    let span = selection.span().checked_add(start);
    let span = span.expect("a header's tensors lie inside its file");
    if source.with_bytes(span, &mut |bytes| selection.gather_span(bytes, into))? {
        return Ok(());
    }
    match selection.is_run() {
        true => source.read_at(span.start, into),
        false => read_planned(tensor, source, way, selection, into),
    }
}

/// Reads what does not lie side by side, as a plan cuts and joins it.
fn read_planned(
    tensor: &Tensor<'_>,
    source: &dyn Source,
    way: Way,
    selection: &Selection,
    into: &mut [u8],
) -> Result<()> {
    let mut plan = LoadPlan::new();
    let name = tensor.file().path().to_string_lossy();
    let file = plan.add_file(&name, Arc::clone(tensor.file().header()));
    plan.add_new(Request::whole(file, tensor.index()).part(selection.clone()))?;
    // What is read costs something, even where it was to be shown in place.
    let way = match way {
        Way::Direct => Way::Direct,
        Way::Mapped | Way::Copied | Way::Buffered => Way::Buffered,
    };
    let tasks = plan.tasks(|_| cut_for(way))?;
    for task in tasks.tasks() {
        let range = task.extent.range;
        let mut bytes = allocate(range.len())?;
        source.read_at(range.start, &mut bytes)?;
        for Piece {
            range: wanted,
            place,
            selection,
            ..
        } in tasks.pieces(task)
        {
            let wanted = &bytes[in_memory(wanted.start - range.start, wanted.len())];
            let into = &mut into[in_memory(place.start, place.len())];
            match selection {
                Some(selection) => selection.gather_span(wanted, into),
                None => into.copy_from_slice(wanted),
            }
        }
    }
    Ok(())
}

fn in_memory(start: u64, len: u64) -> std::ops::Range<usize> {
    let place = |offset| usize::try_from(offset).expect("a part of a buffer in memory fits");
    place(start)..place(start + len)
}
