//! Requests for tensors and parts of tensors.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::tasks::{Cut, Tasks};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::extent::ByteRange;
use crate::header::{Header, TensorInfo};
use crate::slice::Selection;

/// Which bytes of which files go to which places in which buffers.
///
/// A buffer is whatever memory the plan is carried out with: a new one for each, or the memory of tensors that
/// are there already. The plan knows their sizes only.
///
/// ```
/// use std::sync::Arc;
/// use tensorhold_core::{Header, LoadPlan, Request, Rules};
///
/// let text = br#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
/// let header = Arc::new(Header::parse(text.to_vec(), 8 + 54 + 8, Rules::Strict)?);
/// let mut plan = LoadPlan::new();
/// let file = plan.add_file("a.safetensors", header);
/// plan.add_new(Request::whole(file, 0))?;
/// assert_eq!((plan.size_bytes(), plan.buffers()), (8, &[8][..]));
/// # Ok::<(), tensorhold_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct LoadPlan {
    pub(super) files: Vec<PlannedFile>,
    requests: Vec<Request>,
    buffers: Vec<u64>,
}

#[derive(Debug, Clone)]
pub(super) struct PlannedFile {
    pub name: String,
    pub header: Arc<Header>,
}

/// One tensor, or a part of one, and where it goes.
#[derive(Debug, Clone)]
pub struct Request {
    /// The file, as [`LoadPlan::add_file`] numbered it.
    pub file: usize,
    /// The tensor's number in its file, in the order of the bytes.
    pub tensor: usize,
    /// What of the tensor is wanted; all of it where there is none.
    pub selection: Option<Box<Selection>>,
    /// What its elements are to become; they stay what they are where there is none.
    pub dtype: Option<Dtype>,
    /// Where it goes.
    pub place: Place,
}

/// A place in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The buffer, as [`LoadPlan::add_buffer`] numbered it.
    pub buffer: usize,
    /// The first byte in it.
    pub offset: u64,
}

impl Request {
    /// All of tensor number `tensor` of `file`, as it is, at the first byte of the first buffer.
    #[must_use]
    pub fn whole(file: usize, tensor: usize) -> Request {
        Request {
            file,
            tensor,
            selection: None,
            dtype: None,
            place: Place::default(),
        }
    }

    /// The same with a part of the tensor only.
    #[must_use]
    pub fn part(mut self, selection: Selection) -> Request {
        self.selection = Some(Box::new(selection));
        self
    }

    /// The same with its elements cast.
    #[must_use]
    pub fn cast(mut self, dtype: Dtype) -> Request {
        self.dtype = Some(dtype);
        self
    }

    /// The same at another place.
    #[must_use]
    pub fn at(mut self, place: Place) -> Request {
        self.place = place;
        self
    }

    /// The bytes that it takes in its buffer.
    fn size_in(&self, tensor: &TensorInfo<'_>) -> u64 {
        let size_bytes = match &self.selection {
            Some(selection) => selection.size_bytes(),
            None => tensor.size_bytes(),
        };
        match self.casts_from(tensor) {
            Some((from, to)) => (size_bytes / u64::from(from)).saturating_mul(to.into()),
            None => size_bytes,
        }
    }

    /// The bytes of an element before and after the cast, if there is one.
    pub(super) fn casts_from(&self, tensor: &TensorInfo<'_>) -> Option<(u32, u32)> {
        let dtype = self.dtype.filter(|&dtype| dtype != tensor.dtype)?;
        tensor.dtype.width_bytes().zip(dtype.width_bytes())
    }
}

impl LoadPlan {
    /// A plan that wants nothing.
    #[must_use]
    pub fn new() -> LoadPlan {
        LoadPlan::default()
    }

    /// Adds a file to read from, and gives its number. `name` is for messages.
    pub fn add_file(&mut self, name: &str, header: Arc<Header>) -> usize {
        self.files.push(PlannedFile {
            name: name.to_string(),
            header,
        });
        self.files.len() - 1
    }

    /// Adds a buffer of `size_bytes`, and gives its number.
    pub fn add_buffer(&mut self, size_bytes: u64) -> usize {
        self.buffers.push(size_bytes);
        self.buffers.len() - 1
    }

    /// Wants `request`.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no such file, tensor or buffer, if the selection was made for a tensor of another size, if
    /// the cast is from or to elements that are no whole bytes, or if the buffer has no room at that place.
    pub fn add(&mut self, request: Request) -> Result<()> {
        let info = self.check(&request)?;
        let size_bytes = request.size_in(&info);
        let Place { buffer, offset } = request.place;
        let room = self.buffers.get(buffer).copied();
        let room = room.and_then(|room| room.checked_sub(offset));
        if room.is_none_or(|room| room < size_bytes) {
            let message = format!("buffer {buffer} has no room for {size_bytes} bytes at {offset}");
            return Err(invalid(message).with_tensor(info.name));
        }
        self.requests.push(request);
        Ok(())
    }

    /// Wants `request` in a buffer of its own, and gives the buffer's number.
    ///
    /// # Errors
    /// As [`add`](LoadPlan::add).
    pub fn add_new(&mut self, request: Request) -> Result<usize> {
        let info = self.check(&request)?;
        let size_bytes = request.size_in(&info);
        let buffer = self.add_buffer(size_bytes);
        self.requests.push(request.at(Place { buffer, offset: 0 }));
        Ok(buffer)
    }

    fn check(&self, request: &Request) -> Result<TensorInfo<'_>> {
        let info = self.known(request.file, request.tensor)?;
        let refuse = |message: String| Err(invalid(message).with_tensor(info.name));
        if let Some(selection) = &request.selection
            && selection.tensor_bytes() != info.size_bytes()
        {
            return refuse(format!(
                "the selection is of a tensor of {} bytes, not of {}",
                selection.tensor_bytes(),
                info.size_bytes()
            ));
        }
        if request.size_in(&info) == u64::MAX {
            return refuse("the result takes over 2^64 bytes".to_string());
        }
        match request.dtype {
            Some(dtype) if dtype != info.dtype && request.casts_from(&info).is_none() => refuse(
                format!("{} cannot be cast to {dtype} on the way", info.dtype),
            ),
            _ => Ok(info),
        }
    }

    /// What is wanted, in the order in which it was added.
    #[must_use]
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// The sizes of the buffers in bytes.
    #[must_use]
    pub fn buffers(&self) -> &[u64] {
        &self.buffers
    }

    /// The number of files.
    #[must_use]
    pub fn n_files(&self) -> usize {
        self.files.len()
    }

    /// What messages call a file.
    ///
    /// # Panics
    /// If the plan has no such file.
    #[must_use]
    pub fn file_name(&self, file: usize) -> &str {
        &self.files[file].name
    }

    /// The tensor that `request` wants something of.
    ///
    /// # Panics
    /// If it is no request of this plan.
    #[must_use]
    pub fn tensor(&self, request: &Request) -> TensorInfo<'_> {
        self.known(request.file, request.tensor)
            .expect("a request is added only for a tensor that is there")
    }

    /// The bytes that `request` takes in its buffer.
    #[must_use]
    pub fn size_of(&self, request: &Request) -> u64 {
        request.size_in(&self.tensor(request))
    }

    /// The bytes of its file from the first to the last that `request` needs.
    #[must_use]
    pub fn span(&self, request: &Request) -> ByteRange {
        let start = self.position(request);
        let span = match &request.selection {
            Some(selection) => selection.span(),
            None => ByteRange::new(0, self.tensor(request).size_bytes()),
        };
        ByteRange::new(start + span.start, start + span.end)
    }

    /// The bytes that are wanted, as they are in the buffers.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.requests
            .iter()
            .map(|request| self.size_of(request))
            .sum()
    }

    /// The plan as reads of one file each, by file and position; `cut` says how each file is best read.
    ///
    /// # Errors
    /// `InvalidArgument` if two requests overlap in a buffer, or leave a part of one unfilled.
    pub fn tasks(&self, cut: impl FnMut(usize) -> Cut) -> Result<Tasks> {
        self.check_buffers()?;
        Ok(Tasks::of(self, cut))
    }

    /// Where the first byte of the tensor lies in its file.
    pub(super) fn position(&self, request: &Request) -> u64 {
        let start = self.files[request.file].header.data_start();
        start + self.tensor(request).offsets.start
    }

    fn known(&self, file: usize, tensor: usize) -> Result<TensorInfo<'_>> {
        self.files
            .get(file)
            .and_then(|file| file.header.tensor_at(tensor))
            .ok_or_else(|| invalid(format!("the plan has no tensor {tensor} in a file {file}")))
    }

    /// Each byte of each buffer comes from one request.
    fn check_buffers(&self) -> Result<()> {
        let mut filled: Vec<(usize, ByteRange, &Request)> = self
            .requests
            .iter()
            .map(|request| {
                let Place { buffer, offset } = request.place;
                let range = ByteRange::new(offset, offset + self.size_of(request));
                (buffer, range, request)
            })
            .filter(|(_, range, _)| !range.is_empty())
            .collect();
        if !filled.is_sorted_by_key(|&(buffer, range, _)| (buffer, range)) {
            filled.sort_unstable_by_key(|&(buffer, range, _)| (buffer, range));
        }
        let mut rest = filled.into_iter().peekable();
        for (buffer, &size_bytes) in self.buffers.iter().enumerate() {
            let mut end = 0;
            while let Some((_, range, request)) = rest.next_if(|&(of, ..)| of == buffer) {
                if range.start != end {
                    let what = if range.start < end { "twice" } else { "never" };
                    let (from, to) = (range.start.min(end), range.start.max(end));
                    return Err(invalid(format!(
                        "bytes {from}..{to} of buffer {buffer} would be filled {what}"
                    ))
                    .with_tensor(self.tensor(request).name));
                }
                end = range.end;
            }
            if end != size_bytes {
                return Err(invalid(format!(
                    "bytes {end}..{size_bytes} of buffer {buffer} would be filled never"
                )));
            }
        }
        Ok(())
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}
