//! Which bytes of which tensor go to which place of a file that is to be written.

use alloc::vec::Vec;
use core::fmt;

use crate::extent::ByteRange;
use crate::header::Layout;

/// The writes that make one file, known before the first byte is written, so that several threads can share them.
///
/// The file is cut at multiples of one size: each write begins on such a boundary, small tensors lie together in one write, and
/// large ones are spread over several. The plan keeps no list of writes; each is found when it is asked for.
///
/// ```
/// use tensorhold_core::{Dtype, LayoutOptions, Origin, SavePlan, TensorSpec, layout};
///
/// let bias = TensorSpec { name: "bias", dtype: Dtype::F32, shape: &[2] };
/// let layout = layout(&[bias], None, &LayoutOptions::default())?;
/// let plan = SavePlan::new(&layout, 1 << 20);
/// let origins: Vec<Origin> = plan.parts(0).map(|part| part.origin).collect();
/// assert_eq!((plan.n_writes(), &origins[..]), (1, &[Origin::Head, Origin::Tensor(0)][..]));
/// # Ok::<(), tensorhold_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SavePlan {
    /// What has bytes in the file, in the order of the file.
    placed: Vec<Placed>,
    size_bytes: u64,
    write_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Placed {
    origin: Origin,
    range: ByteRange,
}

/// Where bytes of a file come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The head of the layout.
    Head,
    /// The tensor of this number, as the layout numbers them.
    Tensor(usize),
}

/// Bytes that lie side by side at their origin and in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavePart {
    /// Where they come from.
    pub origin: Origin,
    /// Which of its bytes they are.
    pub bytes: ByteRange,
    /// The position of the first one in the file.
    pub position: u64,
}

impl SavePlan {
    /// The plan for `layout`, in writes of `write_bytes`; the last may be shorter.
    ///
    /// # Panics
    /// If `write_bytes` is 0.
    #[must_use]
    pub fn new(layout: &Layout, write_bytes: u64) -> SavePlan {
        assert!(write_bytes > 0, "a write has bytes");
        let head_bytes = layout.head.len() as u64;
        let head = (Origin::Head, ByteRange::new(0, head_bytes));
        let tensors = layout.order.iter().map(|&index| {
            let ByteRange { start, end } = layout.offsets[index];
            let range = ByteRange::new(head_bytes + start, head_bytes + end);
            (Origin::Tensor(index), range)
        });
        let placed = core::iter::once(head)
            .chain(tensors)
            .filter(|(_, range)| !range.is_empty())
            .map(|(origin, range)| Placed { origin, range })
            .collect();
        SavePlan {
            placed,
            size_bytes: layout.file_size,
            write_bytes,
        }
    }

    /// The size of the file.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// How many writes there are.
    #[must_use]
    pub fn n_writes(&self) -> u64 {
        self.size_bytes.div_ceil(self.write_bytes)
    }

    /// The bytes of the file that write number `write` fills; none where there is no such write.
    #[must_use]
    pub fn range(&self, write: u64) -> ByteRange {
        let start = write.saturating_mul(self.write_bytes).min(self.size_bytes);
        let end = start.saturating_add(self.write_bytes).min(self.size_bytes);
        ByteRange::new(start, end)
    }

    /// What write number `write` is made of, in the order of the file.
    pub fn parts(&self, write: u64) -> impl Iterator<Item = SavePart> + '_ {
        let range = self.range(write);
        let first = self
            .placed
            .partition_point(|placed| placed.range.end <= range.start);
        self.placed[first..]
            .iter()
            .take_while(move |placed| placed.range.start < range.end)
            .map(move |placed| {
                let start = placed.range.start.max(range.start);
                let end = placed.range.end.min(range.end);
                SavePart {
                    origin: placed.origin,
                    bytes: ByteRange::new(start - placed.range.start, end - placed.range.start),
                    position: start,
                }
            })
    }
}

/// One line a part: which bytes of the file, whose they are. Then the sums.
impl fmt::Display for SavePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for write in 0..self.n_writes() {
            for part in self.parts(write) {
                let ByteRange { start, end } = part.bytes;
                write!(f, "{}..{}: ", part.position, part.position + (end - start))?;
                match part.origin {
                    Origin::Head => writeln!(f, "head {start}..{end}")?,
                    Origin::Tensor(index) => writeln!(f, "tensor {index} {start}..{end}")?,
                }
            }
        }
        write!(f, "{} writes, {} bytes", self.n_writes(), self.size_bytes)
    }
}
