//! Requests for tensors and parts of tensors.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
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
    size_bytes: u64,
    /// Whether a request was given a place by the caller, and thus one that others could have or that leaves something unfilled.
    has_places: bool,
    /// The buffers in which some bytes are filled by nobody.
    shared: BTreeSet<usize>,
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
        self.has_places = true;
        self.push_buffer(size_bytes)
    }

    /// Wants `request`.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no such file, tensor or buffer, if the selection was made for a tensor of another size, if
    /// the cast is from or to elements that are no whole bytes, or if the buffer has no room at that place.
    pub fn add(&mut self, request: Request) -> Result<()> {
        let size_bytes = self.check(&request)?;
        let Place { buffer, offset } = request.place;
        let room = self.buffers.get(buffer).copied();
        let room = room.and_then(|room| room.checked_sub(offset));
        if room.is_none_or(|room| room < size_bytes) {
            let message = format!("buffer {buffer} has no room for {size_bytes} bytes at {offset}");
            return Err(invalid(message).with_tensor(self.tensor(&request).name));
        }
        self.has_places = true;
        self.size_bytes = self.size_bytes.saturating_add(size_bytes);
        self.requests.push(request);
        Ok(())
    }

    /// Wants `request` in a buffer of its own, and gives the buffer's number.
    ///
    /// # Errors
    /// As [`add`](LoadPlan::add).
    pub fn add_new(&mut self, request: Request) -> Result<usize> {
        let buffer = self.place_new(&request)?;
        self.requests.push(request.at(Place { buffer, offset: 0 }));
        Ok(buffer)
    }

    /// Wants all of `requests`, each in a buffer of its own.
    ///
    /// # Errors
    /// As [`add`](LoadPlan::add); the plan then wants some of them.
    pub fn add_all_new(&mut self, mut requests: Vec<Request>) -> Result<()> {
        self.buffers.reserve(requests.len());
        for request in &mut requests {
            let buffer = self.place_new(request)?;
            request.place = Place { buffer, offset: 0 };
        }
        match self.requests.is_empty() {
            true => self.requests = requests,
            false => self.requests.append(&mut requests),
        }
        Ok(())
    }

    /// A new buffer for `request`.
    fn place_new(&mut self, request: &Request) -> Result<usize> {
        let size_bytes = self.check(request)?;
        self.size_bytes = self.size_bytes.saturating_add(size_bytes);
        Ok(self.push_buffer(size_bytes))
    }

    fn push_buffer(&mut self, size_bytes: u64) -> usize {
        self.buffers.push(size_bytes);
        self.buffers.len() - 1
    }

    /// A new buffer, empty yet, that may have gaps.
    pub(super) fn add_shared(&mut self) -> usize {
        let buffer = self.push_buffer(0);
        self.shared.insert(buffer);
        buffer
    }

    /// Gives a buffer `size_bytes`.
    pub(super) fn grow(&mut self, buffer: usize, size_bytes: u64) {
        self.buffers[buffer] = size_bytes;
    }

    /// The bytes that `request` takes in its buffer.
    pub(super) fn check(&self, request: &Request) -> Result<u64> {
        let &Request { file, tensor, .. } = request;
        let tensor_bytes = self
            .offsets(file, tensor)
            .ok_or_else(|| invalid(format!("the plan has no tensor {tensor} in a file {file}")))?;
        let tensor_bytes = tensor_bytes.len();
        let refuse = |message: String| Err(invalid(message).with_tensor(self.tensor(request).name));
        if let Some(selection) = &request.selection
            && selection.tensor_bytes() != tensor_bytes
        {
            return refuse(format!(
                "the selection is of a tensor of {} bytes, not of {tensor_bytes}",
                selection.tensor_bytes(),
            ));
        }
        if let Some(dtype) = request.dtype {
            let from = self.tensor(request).dtype;
            if from != dtype && self.casts(request).is_none() {
                return refuse(format!("{from} cannot be cast to {dtype} on the way"));
            }
        }
        match self.size_of(request) {
            u64::MAX => refuse("the result takes over 2^64 bytes".to_string()),
            size_bytes => Ok(size_bytes),
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
        let tensor = self.files[request.file].header.tensor_at(request.tensor);
        tensor.expect("a request is added only for a tensor that is there")
    }

    /// The bytes that `request` takes in its buffer.
    #[must_use]
    pub fn size_of(&self, request: &Request) -> u64 {
        let size_bytes = match &request.selection {
            Some(selection) => selection.size_bytes(),
            None => self.extent(request).len(),
        };
        match self.casts(request) {
            Some((from, to)) => (size_bytes / u64::from(from)).saturating_mul(to.into()),
            None => size_bytes,
        }
    }

    /// The bytes of its file from the first to the last that `request` needs.
    #[must_use]
    pub fn span(&self, request: &Request) -> ByteRange {
        let extent = self.extent(request);
        match &request.selection {
            Some(selection) => {
                let span = selection.span();
                ByteRange::new(extent.start + span.start, extent.start + span.end)
            }
            None => extent,
        }
    }

    /// The bytes that are wanted, as they are in the buffers.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The plan as reads of one file each, by file and position; `cut` says how each file is best read.
    ///
    /// # Errors
    /// `InvalidArgument` if two requests overlap in a buffer, or leave a part of one unfilled.
    pub fn tasks(&self, cut: impl FnMut(usize) -> Cut) -> Result<Tasks> {
        if self.has_places {
            self.check_buffers()?;
        }
        Ok(Tasks::of(self, cut))
    }

    /// The bytes of its file that the whole tensor takes.
    pub(super) fn extent(&self, request: &Request) -> ByteRange {
        let offsets = self.offsets(request.file, request.tensor);
        let offsets = offsets.expect("a request is added only for a tensor that is there");
        let start = self.files[request.file].header.data_start();
        ByteRange::new(start + offsets.start, start + offsets.end)
    }

    /// The bytes of an element before and after the cast, if there is one.
    pub(super) fn casts(&self, request: &Request) -> Option<(u32, u32)> {
        let to = request.dtype?;
        let from = self.tensor(request).dtype;
        let widths = from.width_bytes().zip(to.width_bytes());
        widths.filter(|_| from != to)
    }

    fn offsets(&self, file: usize, tensor: usize) -> Option<ByteRange> {
        self.files.get(file)?.header.offsets_at(tensor)
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
            let may_have_gaps = self.shared.contains(&buffer);
            let mut end = 0;
            while let Some((_, range, request)) = rest.next_if(|&(of, ..)| of == buffer) {
                if range.start != end && !(range.start > end && may_have_gaps) {
                    let what = if range.start < end { "twice" } else { "never" };
                    let (from, to) = (range.start.min(end), range.start.max(end));
                    return Err(invalid(format!(
                        "bytes {from}..{to} of buffer {buffer} would be filled {what}"
                    ))
                    .with_tensor(self.tensor(request).name));
                }
                end = range.end;
            }
            // Behind the last gap there may be a tensor without bytes.
            if end != size_bytes && !may_have_gaps {
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
