//! Pieces of a weight that are weights of their own.

use tensorhold_core::{Result, Share};

use super::numbers::{Change, Numbers};
use super::recipe::{Global, Recipe, Zeros};
use super::stored::Stored;
use super::window::Window;

impl Recipe {
    /// What the elements that [`Recipe::needs`] names for `window` mean by themselves: a weight of the size of the window.
    ///
    /// It is what a rank holds that is given its share of the parts as they are.
    ///
    /// # Errors
    /// `InvalidArgument` for a window that is cut inside of a unit of [`Recipe::granularity`], with the nearest cuts that may be; what
    /// `needs` refuses.
    pub fn piece(&self, window: &Window) -> Result<Recipe> {
        self.needs(window)?;
        let ranges = [&window.experts, &window.rows, &window.columns];
        let ranges = &ranges[3 - self.shape.len()..];
        let mut share = Share::whole(&self.shape);
        for (dim, range) in ranges.iter().enumerate() {
            share.keep(dim, (*range).clone())?;
        }
        share.check(&self.granularity())?;
        let inner = self.inner(window);
        let grid = self.grid(&inner);
        let mut piece = self.clone();
        piece.shape = share.shape();
        piece.codes.size = inner.size();
        cut(&mut piece.scales, &grid);
        if let Some(Global { numbers, .. }) = &mut piece.global {
            let whole = window.global(&numbers.stored);
            cut(numbers, &whole);
        }
        match &mut piece.zeros {
            Zeros::None | Zeros::Factor(_) | Zeros::Constant(_) => {}
            Zeros::Packed { stored, .. } => cut_stored(stored, &grid),
            Zeros::Numbers(numbers) | Zeros::Bias(numbers) => cut(numbers, &grid),
        }
        if let Some(index) = &mut piece.group_index {
            index.size[2] = inner.size()[2];
        }
        piece.checked()
    }
}

/// The numbers of `window` alone.
fn cut(numbers: &mut Numbers, window: &Window) {
    if let Change::Nested(nested) = &mut numbers.change {
        let blocks = nested.blocks(numbers.stored.size, window);
        nested.scales.size[2] = blocks.end - blocks.start;
    }
    cut_stored(&mut numbers.stored, window);
}

fn cut_stored(stored: &mut Stored, window: &Window) {
    stored.size = window.size();
}
