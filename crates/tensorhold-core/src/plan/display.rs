//! Plans for people to read.

use core::fmt;

use super::load::LoadPlan;
use crate::dtype::Dtype;
use crate::escape::Escaped;

/// One line a request: which bytes of which file, what they are, where they go. Then the sums.
impl fmt::Display for LoadPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for request in self.requests() {
            let tensor = self.tensor(request);
            let span = self.span(request);
            let shape = match &request.selection {
                Some(selection) => selection.shape(),
                None => tensor.shape,
            };
            writeln!(
                f,
                "{} {}..{}: {} {}{} {shape:?}{} -> buffer {} at {}, {} bytes",
                Escaped(self.file_name(request.file)),
                span.start,
                span.end,
                Escaped(tensor.name),
                tensor.dtype,
                Becoming(request.dtype.filter(|&dtype| dtype != tensor.dtype)),
                OfWhole(request.selection.as_ref().map(|_| tensor.shape)),
                request.place.buffer,
                request.place.offset,
                self.size_of(request),
            )?;
        }
        write!(
            f,
            "{} requests, {} files, {} buffers, {} bytes",
            self.requests().len(),
            self.n_files(),
            self.buffers().len(),
            self.size_bytes()
        )
    }
}

/// The shape of the tensor that only a part is wanted of.
struct OfWhole<'a>(Option<&'a [u64]>);

impl fmt::Display for OfWhole<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(shape) => write!(f, " of {shape:?}"),
            None => Ok(()),
        }
    }
}

/// The dtype that elements are cast to.
struct Becoming(Option<Dtype>);

impl fmt::Display for Becoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(dtype) => write!(f, " as {dtype}"),
            None => Ok(()),
        }
    }
}
