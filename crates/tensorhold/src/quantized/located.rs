//! The tensors that a weight is made of, and the bytes of them that a strip needs.

use std::sync::Arc;

use tensorhold_core::{ByteRange, Dtype, Error, ErrorKind, Result, Selection};
use tensorhold_io::{Access, Buffer, Wanted, Way};
use tensorhold_quant::detect::{Layout, QuantizedWeight};
use tensorhold_quant::scheme::{Axis, Need, Sparse, Window};
use tensorhold_quant::{PartBytes, Store, dequantize_parts, dequantize_sparse};

use super::part::{Part, Strip};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::read::{read_from, read_selection};
use crate::transfer::{Gds, Origin};

/// The files of a checkpoint as one load of weights reads them, those of which much is wanted by the way that is best.
pub(super) struct Origins(Vec<Option<Origin>>);

impl Origins {
    /// Every file is read through the page cache, a little at a time.
    pub fn plain(checkpoint: &Checkpoint) -> Origins {
        Origins(checkpoint.files().iter().map(|_| None).collect())
    }

    /// For all parts of `weights`.
    pub fn of(checkpoint: &Checkpoint, weights: &[&Located<'_>]) -> Origins {
        let nothing = Wanted {
            n_bytes: 0,
            span: ByteRange::default(),
        };
        let mut wanted = vec![nothing; checkpoint.files().len()];
        for tensor in weights.iter().flat_map(|weight| &weight.tensors) {
            let (info, file) = (tensor.info(), &mut wanted[tensor.file_index()]);
            let start = tensor.file().header().data_start();
            let range = ByteRange::new(start + info.offsets.start, start + info.offsets.end);
            file.span = match file.n_bytes {
                0 => range,
                _ => ByteRange::new(
                    file.span.start.min(range.start),
                    file.span.end.max(range.end),
                ),
            };
            file.n_bytes += range.len();
        }
        let gds: Arc<Gds> = Arc::default();
        let files = checkpoint.files().iter().zip(wanted);
        let origins = files.map(|(file, wanted)| {
            (wanted.n_bytes > 0).then(|| file.origin(wanted, Access::Auto, &gds))
        });
        Origins(origins.collect())
    }

    fn find(&self, tensor: &Tensor<'_>) -> Option<&Origin> {
        self.0[tensor.file_index()].as_ref()
    }

    /// How many threads the files deserve.
    pub fn n_readers(&self, n_cores: usize) -> usize {
        let origins = self.0.iter().flatten();
        let deserved = origins.map(|origin| origin.n_readers(n_cores)).max();
        deserved.unwrap_or(n_cores)
    }
}

/// A weight with the tensors of its parts.
pub(super) struct Located<'a> {
    weight: &'a QuantizedWeight,
    /// Those that the weight needs, in the order of its needs.
    tensors: Vec<Tensor<'a>>,
}

/// Room that strips are made in, one after the other.
#[derive(Default)]
pub(super) struct Room {
    /// The bytes of each part.
    parts: Vec<Option<Buffer>>,
    /// A window of which not all is wanted.
    window: Option<Buffer>,
}

impl<'a> Located<'a> {
    /// # Errors
    /// Those of [`QuantizedWeight::logical_shape`]; `TensorNotFound` for a part that the checkpoint has not; `InvalidTensor` for one of
    /// another size than the weight needs.
    pub fn find(checkpoint: &'a Checkpoint, weight: &'a QuantizedWeight) -> Result<Located<'a>> {
        let needs = weight.needs(&weight.whole()?)?;
        let tensors = needs.iter().map(|need| {
            let name = weight.parts.get(need.part).ok_or_else(|| {
                let message = format!("no tensor is its part `{}`", need.part);
                Error::new(ErrorKind::TensorNotFound, message).with_tensor(&*weight.name)
            })?;
            let tensor = checkpoint.tensor(name)?;
            let (found, wanted) = (tensor.info().size_bytes(), need_bytes(need)?);
            if found == wanted {
                return Ok(tensor);
            }
            let message = format!(
                "part `{}` of `{}` takes {wanted} bytes, but the tensor has {found}",
                need.part, weight.name
            );
            let error = Error::new(ErrorKind::InvalidTensor, message);
            Err(tensor.file().blame(&tensor.info(), error))
        });
        Ok(Located {
            weight,
            tensors: tensors.collect::<Result<_>>()?,
        })
    }

    /// The bytes of a window of `part` that are best made at once by one of `n_threads`.
    pub fn strip_bytes(&self, origins: &Origins, part: &Part, n_threads: usize) -> u64 {
        let recipe = match &self.weight.layout {
            Layout::Known(recipe) if recipe.codes.lines == Axis::Rows => recipe,
            Layout::Sparse(sparse) => return sparse_strip_bytes(sparse, part),
            _ => return STRIP_BYTES,
        };
        // Rows of the weight lie across the lines of the codes: a strip takes a little of each line.
        let way = self.tensors.first().and_then(|codes| origins.find(codes));
        let [experts, rows, columns] = recipe.size();
        let width = u64::from(part.dtype.width_bytes().unwrap_or(1));
        let matrix_bytes = (rows * width).saturating_mul(columns);
        match way.map(Origin::way) {
            Some(Way::Mapped | Way::Copied) => {
                let share = matrix_bytes.saturating_mul(experts) / n_threads.max(1) as u64;
                share.clamp(STRIP_BYTES, MAX_STRIP_BYTES)
            }
            Some(Way::Buffered | Way::Direct) => MAX_STRIP_BYTES,
            None => STREAMED_STRIP_BYTES,
        }
    }

    /// Fills `into` with a strip of `part`.
    pub fn make(
        &self,
        origins: &Origins,
        part: &Part,
        strip: &Strip,
        room: &mut Room,
        into: &mut [u8],
    ) -> Result<()> {
        let window = part.window(strip);
        let made = match part.pick(strip)? {
            None => self.read(origins, &window, part.dtype, room, into),
            Some(selection) => {
                let mut scratch = roomy(room.window.take(), selection.tensor_bytes())?;
                let size = in_memory(selection.tensor_bytes());
                let covering = &mut scratch[..size];
                let made = self.read(origins, &window, part.dtype, room, covering);
                if made.is_ok() {
                    selection.gather(covering, into);
                }
                room.window = Some(scratch);
                made
            }
        };
        made.map_err(|error| match error.tensor() {
            Some(_) => error,
            None => error.with_tensor(&*self.weight.name),
        })
    }

    /// Fills `into` with the weights of `window`.
    fn read(
        &self,
        origins: &Origins,
        window: &Window,
        dtype: Dtype,
        room: &mut Room,
        into: &mut [u8],
    ) -> Result<()> {
        let mut needs = self.weight.needs(window)?;
        room.parts.resize_with(needs.len(), || None);
        let (codes_room, rooms) = room.parts.split_at_mut(1);
        let rest = needs.iter().zip(&self.tensors).skip(1);
        for ((need, tensor), room) in rest.zip(&mut *rooms) {
            fetch(need, tensor, origins, room)?;
        }
        if let Layout::Sparse(sparse) = &self.weight.layout {
            needs[0] = values_of(sparse, window, &needs, rooms)?;
        }
        let (codes, codes_tensor) = (&needs[0], &self.tensors[0]);
        let mut finish = |codes: PartBytes<'_>| {
            let mut parts = vec![codes];
            for (need, room) in needs[1..].iter().zip(&*rooms) {
                parts.push(joined(need, room.as_ref())?);
            }
            self.compute(window, &parts, dtype, into)
        };
        if let Some(origin) = origins.find(codes_tensor) {
            let mut made = Ok(());
            let span = in_file(codes_tensor, codes.span()?);
            let mut show = |bytes: &[u8]| made = finish(PartBytes::Spanned(bytes));
            if origin.source().with_bytes(span, &mut show)? {
                return made;
            }
        }
        fetch(codes, codes_tensor, origins, &mut codes_room[0])?;
        finish(joined(codes, codes_room[0].as_ref())?)
    }

    /// Fills `into` with the weights of `window`, of the parts that it needs.
    fn compute(
        &self,
        window: &Window,
        parts: &[PartBytes<'_>],
        dtype: Dtype,
        into: &mut [u8],
    ) -> Result<()> {
        if let Layout::Sparse(sparse) = &self.weight.layout {
            return dequantize_sparse(sparse, window, parts, dtype, Store::Past, into);
        }
        let recipe = self.weight.recipe()?;
        dequantize_parts(recipe, window, parts, dtype, Store::Past, into)
    }
}

/// What is made at once: small beside the caches, large beside a system call.
const STRIP_BYTES: u64 = 4 << 20;

/// The most that is made at once of codes that are read along with others.
const MAX_STRIP_BYTES: u64 = 128 << 20;

/// The same where memory is scarce.
const STREAMED_STRIP_BYTES: u64 = 16 << 20;

/// The same where all columns are put in their places for a few that are wanted.
fn sparse_strip_bytes(sparse: &Sparse, part: &Part) -> u64 {
    let width = u64::from(sparse.mask().dtype().width_bytes().unwrap_or(1));
    let line_bytes = sparse.shape()[1].saturating_mul(width).max(1);
    let n_rows = (STRIP_BYTES / line_bytes).max(1);
    part.row_bytes().saturating_mul(n_rows).min(STRIP_BYTES)
}

/// The values that `window` takes, by the offsets in `rooms`, which have what it needs besides.
fn values_of(
    sparse: &Sparse,
    window: &Window,
    needs: &[Need],
    rooms: &[Option<Buffer>],
) -> Result<Need> {
    let rest = needs[1..].iter().zip(rooms);
    let mut rest = rest.filter(|(need, _)| need.part == "row_offsets");
    let offsets = match rest.next() {
        Some((need, room)) => joined(need, room.as_ref())?,
        None => PartBytes::Joined(&[]),
    };
    sparse.values(window, offsets.bytes())
}

/// The bytes of the tensor that has the elements of `need`.
fn need_bytes(need: &Need) -> Result<u64> {
    tensorhold_core::shape_size_bytes(need.dtype, &need.view)
}

/// Fills `room` with the bytes of `need`.
fn fetch(
    need: &Need,
    tensor: &Tensor<'_>,
    origins: &Origins,
    room: &mut Option<Buffer>,
) -> Result<()> {
    let ranges = need.ranges.each_ref().map(|range| vec![range.clone()]);
    let selection = Selection::of_ranges(need.dtype, &need.view, &ranges)?;
    let mut buffer = roomy(room.take(), selection.size_bytes())?;
    let into = &mut buffer[..in_memory(selection.size_bytes())];
    match origins.find(tensor) {
        Some(origin) => read_from(tensor, origin.source(), origin.way(), &selection, into)?,
        None => read_selection(tensor, &selection, into)?,
    }
    *room = Some(buffer);
    Ok(())
}

/// The bytes of `need` that were put into `room`.
fn joined<'r>(need: &Need, room: Option<&'r Buffer>) -> Result<PartBytes<'r>> {
    let size = in_memory(need.size_bytes()?);
    Ok(PartBytes::Joined(room.map_or(&[], |room| &room[..size])))
}

/// A buffer with so much room: this one, if it has.
fn roomy(room: Option<Buffer>, size_bytes: u64) -> Result<Buffer> {
    match room {
        Some(room) if room.len() as u64 >= size_bytes => Ok(room),
        _ => Buffer::allocate(size_bytes),
    }
}

/// A range of a tensor's bytes as one of its file.
fn in_file(tensor: &Tensor<'_>, range: ByteRange) -> ByteRange {
    let start = tensor.file().header().data_start() + tensor.info().offsets.start;
    let range = range.checked_add(start);
    range.expect("a header's tensors lie inside its file")
}

fn in_memory(size_bytes: u64) -> usize {
    usize::try_from(size_bytes).expect("a buffer of that size was made")
}
