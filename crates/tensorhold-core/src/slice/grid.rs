//! Selections that one copy in two dimensions can carry.

use super::Selection;

/// Runs of one size, each as far behind the one before, in bytes of the tensor.
///
/// Columns of a matrix are such: a run for each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Where the first run begins, counted from the tensor's first byte.
    pub offset: u64,
    /// The size of a run.
    pub width: u64,
    /// From the beginning of a run to that of the next: more than `width`, where there are several.
    pub pitch: u64,
    /// The number of runs; never 0.
    pub n_rows: u64,
}

impl Selection {
    /// The selected bytes as a grid, whose runs in their order are the result; `None` where they lie in another way, or there
    /// are none.
    ///
    /// ```
    /// use tensorhold_core::{Bounds, Dtype, Grid, Index, Selection};
    ///
    /// // x[:, 1:3] of a tensor of 4 x 5
    /// let columns = Index::Range { start: Some(1), stop: Some(3), step: None };
    /// let index = [Index::ALL, columns];
    /// let selection = Selection::resolve(Dtype::F16, &[4, 5], &index, Bounds::Clamped)?;
    /// let grid = Grid { offset: 2, width: 4, pitch: 10, n_rows: 4 };
    /// assert_eq!(selection.grid(), Some(grid));
    /// # Ok::<(), tensorhold_core::Error>(())
    /// ```
    #[must_use]
    pub fn grid(&self) -> Option<Grid> {
        let mut nests = self.nests();
        let nest = nests.next().filter(|_| self.is_byte_aligned())?;
        if nests.next().is_some() {
            return None;
        }
        let in_bytes = |n_elements: u64| n_elements * u64::from(self.dtype.width_bits()) / 8;
        let width = in_bytes(nest.run);
        let (pitch, n_rows) = match *nest.loops {
            [] => (width, 1),
            [rows] => (in_bytes(u64::try_from(rows.stride).ok()?), rows.count),
            _ => return None,
        };
        // Ranges that somebody lists may overlap.
        (n_rows == 1 || pitch > width).then_some(Grid {
            offset: in_bytes(nest.start),
            width,
            pitch,
            n_rows,
        })
    }
}
