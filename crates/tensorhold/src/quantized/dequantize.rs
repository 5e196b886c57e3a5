//! Quantized weights as numbers, in memory.
//!
//! ```text
//! each weight: what is wanted of it, in strips
//! threads, each strip: its codes where the page cache holds them, else read; its scales and zeros read
//!                      numbers, past the caches, into the part of the result that the strip is
//! ```

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use tensorhold_core::{Dtype, Error, ErrorKind, Index, Result};
use tensorhold_io::{Buffer, Part as BufferPart};
use tensorhold_quant::can_cast;
use tensorhold_quant::detect::QuantizedWeight;

use super::crew::share_out;
use super::located::{Located, Origins, Room};
use super::part::{Part, Strip};
use crate::checkpoint::{Checkpoint, Tensor};

/// A quantized weight, or a part of one, that is wanted as numbers.
#[derive(Debug, Clone)]
pub struct Dequantize<'a> {
    weight: &'a QuantizedWeight,
    index: Vec<Index>,
    dtype: Dtype,
}

impl<'a> Dequantize<'a> {
    /// All of `weight`, as the type that it is given as where nothing else is asked for.
    #[must_use]
    pub fn whole(weight: &'a QuantizedWeight) -> Dequantize<'a> {
        Dequantize {
            weight,
            index: Vec::new(),
            dtype: weight.dtype,
        }
    }

    /// A part of it; ranges past the end are clamped, as NumPy does.
    #[must_use]
    pub fn part(self, index: &[Index]) -> Dequantize<'a> {
        let index = index.to_vec();
        Dequantize { index, ..self }
    }

    /// As elements of type `dtype`.
    #[must_use]
    pub fn cast(self, dtype: Dtype) -> Dequantize<'a> {
        Dequantize { dtype, ..self }
    }

    /// The weight.
    #[must_use]
    pub fn weight(&self) -> &'a QuantizedWeight {
        self.weight
    }

    /// The type of the result.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape of the result.
    ///
    /// # Errors
    /// `InvalidSlice` for an index that does not fit; those of [`QuantizedWeight::logical_shape`].
    pub fn shape(&self) -> Result<Vec<u64>> {
        Ok(self.resolve()?.shape)
    }

    /// The bytes of the parts that it takes: no others need be read. Where only what is read says which values those are, all are counted.
    ///
    /// # Errors
    /// Those of [`shape`](Dequantize::shape).
    pub fn needed_bytes(&self) -> Result<u64> {
        let part = self.resolve()?;
        let all = part.strips(u64::MAX);
        let needs = all.iter();
        let needs = needs.map(|strip| self.weight.needs(&part.window(strip)));
        let mut n_bytes = 0;
        for need in needs.collect::<Result<Vec<_>>>()?.iter().flatten() {
            n_bytes += need.size_bytes()?;
        }
        Ok(n_bytes)
    }

    pub(super) fn resolve(&self) -> Result<Part> {
        let dtype = self.dtype;
        let part = match can_cast(Dtype::F32, dtype) {
            true => Part::resolve(self.weight.logical_shape()?, &self.index, dtype),
            false => {
                let message =
                    format!("weights cannot become `{dtype}`: they become floats of 8 to 64 bits");
                Err(Error::new(ErrorKind::InvalidArgument, message))
            }
        };
        part.map_err(|error| error.with_tensor(&*self.weight.name))
    }
}

impl Checkpoint {
    /// Numbers of a quantized weight, row by row, in memory of their own.
    ///
    /// # Errors
    /// As [`dequantize_all`](Checkpoint::dequantize_all).
    pub fn dequantize(&self, wanted: &Dequantize<'_>) -> Result<Buffer> {
        let wanted = std::slice::from_ref(wanted);
        let made = self.dequantize_all(wanted, Vec::new(), None, &mut |_| Ok(()));
        Ok(made?
            .pop()
            .expect("there is a buffer for each that is wanted"))
    }

    /// Numbers of quantized weights, each row by row, in their order; those whose number is in `given` in that memory. Of the files, what a
    /// part takes is read and no more, unless that lies closer together than a read is worth; beside the result a few MB of it are in memory
    /// for each thread.
    ///
    /// `progress` is told how many bytes of the result are made, and ends the work by an error.
    ///
    /// # Errors
    /// Where weights are not read, or broken, all are named before any byte is read. `InvalidSlice` for an index that does not fit;
    /// `InvalidArgument` for a type that is no float; `TensorNotFound` and `InvalidTensor` where the checkpoint has not what a weight
    /// is made of; `NoMemory`, `Truncated` or `Io`.
    ///
    /// # Panics
    /// If given memory has another size than what is to go there.
    pub fn dequantize_all(
        &self,
        wanted: &[Dequantize<'_>],
        given: Vec<(usize, Buffer)>,
        n_threads: Option<usize>,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Vec<Buffer>> {
        let jobs = self.jobs(wanted)?;
        let weights: Vec<&Located<'_>> = jobs.iter().map(|(weight, _)| weight).collect();
        let sizes = jobs.iter().map(|(_, part)| part.size_bytes());
        let sizes = sizes.collect::<Result<Vec<u64>>>()?;
        let total = sizes
            .iter()
            .fold(0, |total: u64, size| total.saturating_add(*size));
        let is_small = total < SMALL_BYTES;
        let origins = match is_small {
            true => Origins::plain(self),
            false => Origins::of(self, &weights),
        };
        let n_threads = match is_small {
            true => 1,
            false => n_threads.unwrap_or_else(|| origins.n_readers(n_cores())),
        };
        let buffers = memory(&sizes, given)?;
        let work = Work::of(&jobs, &origins, buffers, n_threads);
        work.run(n_threads, progress)
    }

    /// The bytes that [`dequantize_all`](Checkpoint::dequantize_all) makes of `wanted`.
    ///
    /// # Errors
    /// What it refuses before any byte is read.
    pub fn dequantized_bytes(&self, wanted: &[Dequantize<'_>]) -> Result<u64> {
        let mut n_bytes: u64 = 0;
        for (_, part) in self.jobs(wanted)? {
            n_bytes = n_bytes.saturating_add(part.size_bytes()?);
        }
        Ok(n_bytes)
    }

    /// The names that tensors have without quantization, each with whether it is that of a quantized weight, in the order of the
    /// files; the tensors that weights are made of are not among them.
    ///
    /// # Errors
    /// Those of [`quantization`](Checkpoint::quantization).
    pub fn logical_names(&self) -> Result<Vec<(String, bool)>> {
        let quantization = self.quantization()?;
        let each = logical_order(self, &quantization.weights).into_iter();
        let each = each.map(|logical| match logical {
            Entry::Tensor(tensor) => (tensor.info().name.to_owned(), false),
            Entry::Weight(weight) => (weight.name.clone(), true),
        });
        Ok(each.collect())
    }

    fn jobs<'a>(&'a self, wanted: &[Dequantize<'a>]) -> Result<Vec<(Located<'a>, Part)>> {
        refuse_unread(wanted.iter().map(Dequantize::weight))?;
        let jobs = wanted.iter().map(|wanted| {
            let located = Located::find(self, wanted.weight())?;
            Ok((located, wanted.resolve()?))
        });
        jobs.collect()
    }
}

/// What a checkpoint has without quantization.
pub(super) enum Entry<'a> {
    /// A tensor that is no part of a weight.
    Tensor(Tensor<'a>),
    Weight(&'a QuantizedWeight),
}

/// All tensors but those that `weights` are made of, and each weight in the place of the first of them.
pub(super) fn logical_order<'a>(
    checkpoint: &'a Checkpoint,
    weights: &'a [QuantizedWeight],
) -> Vec<Entry<'a>> {
    let numbered = weights.iter().enumerate();
    let parts = numbered.flat_map(|(number, weight)| {
        let names = weight.parts.values();
        names.map(move |name| (name.as_str(), number))
    });
    let weight_of: HashMap<&str, usize> = parts.collect();
    let mut is_there = vec![false; weights.len()];
    let each = checkpoint.tensors().filter_map(|tensor| {
        let Some(&number) = weight_of.get(tensor.info().name) else {
            return Some(Entry::Tensor(tensor));
        };
        let is_first = !std::mem::replace(&mut is_there[number], true);
        is_first.then(|| Entry::Weight(&weights[number]))
    });
    each.collect()
}

/// So little is made before another thread would have started.
const SMALL_BYTES: u64 = 1 << 20;

pub(super) fn n_cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The given buffers, and new ones for the others.
fn memory(sizes: &[u64], given: Vec<(usize, Buffer)>) -> Result<Vec<Buffer>> {
    let mut all: Vec<Option<Buffer>> = sizes.iter().map(|_| None).collect();
    for (number, buffer) in given {
        assert_eq!(buffer.len() as u64, sizes[number], "the size of the result");
        all[number] = Some(buffer);
    }
    let missing = all.iter().zip(sizes).filter(|(buffer, _)| buffer.is_none());
    let missing: Vec<u64> = missing.map(|(_, size)| *size).collect();
    let mut new = Buffer::allocate_many(&missing)?.into_iter();
    let each = all.into_iter().map(|buffer| buffer.or_else(|| new.next()));
    Ok(each
        .map(|buffer| buffer.expect("one was made for each"))
        .collect())
}

/// What one thread makes at a time.
struct Unit {
    job: usize,
    strip: Strip,
    into: Mutex<Option<BufferPart>>,
}

struct Work<'a> {
    jobs: &'a [(Located<'a>, Part)],
    origins: &'a Origins,
    units: Vec<Unit>,
    /// The buffers that are complete.
    made: Mutex<Vec<Option<Buffer>>>,
}

impl<'a> Work<'a> {
    fn of(
        jobs: &'a [(Located<'a>, Part)],
        origins: &'a Origins,
        buffers: Vec<Buffer>,
        n_threads: usize,
    ) -> Work<'a> {
        let mut units = Vec::new();
        let mut made = Vec::with_capacity(buffers.len());
        for (job, ((weight, part), buffer)) in jobs.iter().zip(buffers).enumerate() {
            let strips = part.strips(weight.strip_bytes(origins, part, n_threads));
            if strips.is_empty() {
                made.push(Some(buffer));
                continue;
            }
            made.push(None);
            let parts = buffer.split(&ranges(part, &strips));
            units.extend(strips.into_iter().zip(parts).map(|(strip, into)| Unit {
                job,
                strip,
                into: Mutex::new(Some(into)),
            }));
        }
        Work {
            jobs,
            origins,
            units,
            made: Mutex::new(made),
        }
    }

    fn run(
        self,
        n_threads: usize,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Vec<Buffer>> {
        let done = AtomicU64::new(0);
        let work = |number: usize, room: &mut Room| {
            done.fetch_add(self.make(&self.units[number], room)?, Ordering::Relaxed);
            Ok(())
        };
        share_out(
            self.units.len(),
            n_threads,
            Room::default,
            work,
            &mut || progress(done.load(Ordering::Relaxed)),
        )?;
        let made = self
            .made
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let made = made
            .into_iter()
            .map(|buffer| buffer.expect("every strip of it was made"));
        Ok(made.collect())
    }

    /// Makes a strip, and gives its size in bytes.
    fn make(&self, unit: &Unit, room: &mut Room) -> Result<u64> {
        let (weight, part) = &self.jobs[unit.job];
        let into = unit
            .into
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut into) = into else {
            return Ok(0);
        };
        weight.make(self.origins, part, &unit.strip, room, &mut into)?;
        let n_bytes = into.len() as u64;
        if let Some(buffer) = into.join() {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            made[unit.job] = Some(buffer);
        }
        Ok(n_bytes)
    }
}

/// Where the strips are in the result.
fn ranges(part: &Part, strips: &[Strip]) -> Vec<Range<usize>> {
    let mut end = 0;
    let each = strips.iter().map(|strip| {
        let start = end;
        end += usize::try_from(part.strip_bytes(strip)).expect("the result is in memory");
        start..end
    });
    each.collect()
}

/// So many weights are named in a message.
const N_NAMED: usize = 5;

/// Refuses weights that cannot be computed, all together.
pub(super) fn refuse_unread<'a>(weights: impl Iterator<Item = &'a QuantizedWeight>) -> Result<()> {
    let unread: Vec<&QuantizedWeight> = weights
        .filter(|weight| weight.logical_shape().is_err())
        .collect();
    let Some(first) = unread.first() else {
        return Ok(());
    };
    let Err(error) = first.logical_shape() else {
        return Ok(());
    };
    if unread.len() == 1 {
        return Err(error);
    }
    let names = unread
        .iter()
        .take(N_NAMED)
        .map(|weight| format!("`{}`", weight.name));
    let names: Vec<String> = names.collect();
    let more = match unread.len() - names.len() {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let message = format!(
        "{} weights cannot be read as numbers: {}{more}; the first: {}",
        unread.len(),
        names.join(", "),
        error.message()
    );
    let all = Error::new(error.kind(), message).with_tensor(&*first.name);
    Err(match error.hint() {
        Some(hint) => all.with_hint(hint.to_owned()),
        None => all,
    })
}
