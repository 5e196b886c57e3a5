//! What a rank holds of the tensors of a quantized weight.
//!
//! ```text
//! share of the weight: ranges of experts, rows and columns, each between units of the recipe
//! each part: what the recipe needs for these ranges, one behind the other
//!            the same in the shape that the tensor has
//!            what it says of the whole weight, such as the shape, said of the piece
//! ```

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use tensorhold_core::{ByteRange, Dtype, Error, ErrorKind, Granularity, Result, Share, TensorInfo};
use tensorhold_quant::detect::{MAX_CONFIG_BYTES, QuantizedWeight};
use tensorhold_quant::scheme::{Need, Recipe, Window};

use super::read_part;
use crate::checkpoint::Checkpoint;

/// Positions of a dimension, one range behind the other.
type Line = Vec<Range<u64>>;

/// Tensors beside a weight that are cut along with it, though they are not parts of it: whether rows or columns are their
/// first and their second dimension.
const BESIDE: [(&str, [Option<Way>; 2]); 3] = [
    ("pre_quant_scale", [Some(Way::Columns), None]),
    ("svdquant_lora_a", [None, Some(Way::Columns)]),
    ("svdquant_lora_b", [Some(Way::Rows), None]),
];

#[derive(Clone, Copy)]
enum Way {
    Rows,
    Columns,
}

/// A share of a weight, as what is held of the tensors that are its parts.
pub(crate) struct Piece<'a> {
    weight: &'a QuantizedWeight,
    /// The shape of the piece.
    shape: Vec<u64>,
    /// Those that the recipe needs.
    parts: Vec<PartLines>,
    /// The groups of columns where they follow one another, though they stand in a part of their own.
    index: Option<Index>,
}

struct PartLines {
    need: Need,
    /// Of each dimension of the part's view, what is held.
    lines: [Line; 3],
}

struct Index {
    part: &'static str,
    columns: Line,
    group_size: u64,
}

/// What is held of a tensor, and the integers that it has then in place of its own.
pub(crate) type HeldPart = (Share, Option<Vec<i64>>);

impl<'a> Piece<'a> {
    /// What `share` of `weight` is. `follows` keeps whether groups that stand in a part of their own follow one another, for which that
    /// part is read.
    ///
    /// # Errors
    /// `InvalidArgument` for a share that is cut inside of a unit, with the nearest cuts; those of [`QuantizedWeight::recipe`];
    /// `Truncated` or `Io`.
    pub fn of(
        checkpoint: &Checkpoint,
        weight: &'a QuantizedWeight,
        share: &Share,
        follows: &OnceLock<bool>,
    ) -> Result<Piece<'a>> {
        let named = |error: Error| match error.tensor() {
            Some(_) => error,
            None => error.with_tensor(&*weight.name),
        };
        let mut recipe = Cow::Borrowed(weight.recipe()?);
        let lines = lines_of(share);
        let index = Index::find(checkpoint, weight, &lines[2], follows)?;
        if index.is_some() {
            recipe.to_mut().group_index = None;
        }
        let units = recipe.granularity();
        let checked = share.check(&units);
        checked.map_err(|error| named(error.with_hint(hint(share, &units))))?;
        Ok(Piece {
            weight,
            shape: share.shape(),
            parts: part_lines(&recipe, &lines).map_err(named)?,
            index,
        })
    }

    /// What of the tensor that is part `part` goes with it.
    ///
    /// # Errors
    /// `Unsupported` for a part that says of the weight what is not known to be true of a piece; `InvalidTensor` for one of another shape
    /// than the recipe says.
    pub fn held(&self, part: &str, info: &TensorInfo<'_>) -> Result<HeldPart> {
        if let Some(found) = self.parts.iter().find(|found| found.need.part == part) {
            let ranges = in_shape(found, info).ok_or_else(|| {
                let message = format!(
                    "part `{part}` of `{}` cannot be cut in the shape that it has, {:?}",
                    self.weight.name, info.shape
                );
                Error::new(ErrorKind::InvalidTensor, message).with_tensor(info.name)
            })?;
            return Ok((Share::of_ranges(info.shape, ranges)?, None));
        }
        match &self.index {
            Some(index) if index.part == part => {
                let share = Share::of_ranges(info.shape, vec![index.columns.clone()])?;
                Ok((share, Some(index.groups())))
            }
            _ => self.beyond(part, info),
        }
    }

    /// What goes with it of a part that no weights are computed of.
    fn beyond(&self, part: &str, info: &TensorInfo<'_>) -> Result<HeldPart> {
        let whole = Share::whole(info.shape);
        let is_integer = matches!(info.dtype, Dtype::I64 | Dtype::I32);
        if part.ends_with("shape") && is_integer && info.shape == [self.shape.len() as u64] {
            let sizes = self.shape.iter().map(|size| i64::try_from(*size).ok());
            return Ok((whole, sizes.collect()));
        }
        match part.contains("quant_state") {
            true => Err(Error::new(
                ErrorKind::Unsupported,
                format!("it cannot be divided: its part `{part}` says the shape of all of it"),
            )
            .with_tensor(&*self.weight.name)
            .with_hint(DEQUANTIZE)),
            false => Ok((whole, None)),
        }
    }
}

impl Index {
    /// The groups of `columns`, if that is not all, and a part has them that only says what would be so without it.
    fn find(
        checkpoint: &Checkpoint,
        weight: &QuantizedWeight,
        columns: &Line,
        follows: &OnceLock<bool>,
    ) -> Result<Option<Index>> {
        let recipe = weight.recipe()?;
        let index = recipe.group_index.as_ref();
        let Some(stored) = index.filter(|_| !is_whole(columns, recipe.size()[2])) else {
            return Ok(None);
        };
        let is_following = match follows.get() {
            Some(follows) => *follows,
            None => {
                let found = groups_follow(checkpoint, weight, recipe, stored.part)?;
                *follows.get_or_init(|| found)
            }
        };
        Ok(is_following.then(|| Index {
            part: stored.part,
            columns: columns.clone(),
            group_size: recipe.groups.columns.max(1),
        }))
    }

    /// The group of each column of the piece, counted from its first.
    fn groups(&self) -> Vec<i64> {
        let n_columns: u64 = self
            .columns
            .iter()
            .map(|range| range.end - range.start)
            .sum();
        let group = |column: u64| i64::try_from(column / self.group_size);
        (0..n_columns)
            .map(|column| group(column).expect("a tensor in a file has fewer elements"))
            .collect()
    }
}

const DEQUANTIZE: &str = "with `dequantize=True` every cut can be made";

/// The tensors beside `weight` that are cut along with it, by their names.
pub(crate) fn beside(weight: &QuantizedWeight) -> impl Iterator<Item = (&'static str, String)> {
    let module = weight.name.strip_suffix(".weight");
    let names = module.map(|module| BESIDE.map(|(part, _)| (part, format!("{module}.{part}"))));
    names.into_iter().flatten()
}

/// What of a tensor beside a weight of `shape` goes with a share of the weight: all of it, where it has not the sizes to be cut.
pub(crate) fn held_beside(
    part: &str,
    info: &TensorInfo<'_>,
    shape: &[u64],
    share: &Share,
) -> Share {
    let found = BESIDE.iter().find(|(name, _)| *name == part);
    let (Some((_, ways)), [n_rows, n_columns], [rows, columns]) = (found, shape, share.ranges())
    else {
        return Share::whole(info.shape);
    };
    let lines = info.shape.iter().zip(ways).map(|(&size, way)| match way {
        Some(Way::Rows) if size == *n_rows => rows.clone(),
        Some(Way::Columns) if size == *n_columns => columns.clone(),
        _ => one(0..size),
    });
    let cut = Share::of_ranges(info.shape, lines.collect());
    cut.unwrap_or_else(|_| Share::whole(info.shape))
}

/// Which way out there is of a cut that cannot be made.
fn hint(share: &Share, units: &Granularity) -> String {
    let sized = share.ranges().iter().zip(&units.units).enumerate();
    let size = |dim: usize| share.full_shape()[dim];
    let mut cut = sized.filter(|&(dim, (line, &unit))| {
        let ends = line.iter().flat_map(|range| [range.start, range.end]);
        let inside = |end: u64| end != size(dim) && !end.is_multiple_of(unit.max(1));
        unit < size(dim) && ends.into_iter().any(inside)
    });
    match cut.next() {
        Some((dim, (_, unit))) => {
            format!("divide it between units, as `Blocks({dim}, {unit})` does; {DEQUANTIZE}")
        }
        None => DEQUANTIZE.to_owned(),
    }
}

/// Whether each column is in the group that it would be in if no part said so.
fn groups_follow(
    checkpoint: &Checkpoint,
    weight: &QuantizedWeight,
    recipe: &Recipe,
    part: &str,
) -> Result<bool> {
    let Some(name) = weight.parts.get(part) else {
        return Ok(false);
    };
    let tensor = checkpoint.tensor(name)?;
    let size = tensor.info().size_bytes();
    if size > MAX_CONFIG_BYTES as u64 || recipe.size()[2].checked_mul(4) != Some(size) {
        return Ok(false);
    }
    let bytes = read_part(&tensor, ByteRange::new(0, size))?;
    let found = bytes
        .as_chunks()
        .0
        .iter()
        .map(|bytes| u32::from_le_bytes(*bytes));
    let group = |column: u64| column / recipe.groups.columns.max(1);
    Ok((0..)
        .zip(found)
        .all(|(column, found)| group(column) == u64::from(found)))
}

/// Experts, rows and columns, in as few ranges as can be; of each at least one, which may be empty.
fn lines_of(share: &Share) -> [Line; 3] {
    let mut lines = [0, 1, 2].map(|_| one(0..1));
    let first = lines.len() - share.ranges().len().min(3);
    for (line, ranges) in lines[first..].iter_mut().zip(share.ranges()) {
        *line = joined(ranges);
    }
    lines
}

fn one(range: Range<u64>) -> Line {
    std::iter::once(range).collect()
}

fn joined(ranges: &[Range<u64>]) -> Line {
    let mut joined = Line::with_capacity(ranges.len());
    for range in ranges.iter().filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range.clone()),
        }
    }
    if joined.is_empty() {
        joined.push(0..0);
    }
    joined
}

fn is_whole(line: &[Range<u64>], size: u64) -> bool {
    matches!(line, [range] if *range == (0..size))
}

/// What each part needs for the boxes that `lines` make.
///
/// Along each dimension of a part's view at most one of experts, rows and columns tells boxes apart.
fn part_lines(recipe: &Recipe, lines: &[Line; 3]) -> Result<Vec<PartLines>> {
    let needs = |at: [usize; 3]| {
        recipe.needs(&Window {
            experts: lines[0][at[0]].clone(),
            rows: lines[1][at[1]].clone(),
            columns: lines[2][at[2]].clone(),
        })
    };
    let first = needs([0; 3])?.into_iter().map(|need| PartLines {
        lines: need.ranges.clone().map(one),
        need,
    });
    let mut parts: Vec<PartLines> = first.collect();
    for (dim, line) in lines.iter().enumerate().filter(|(_, line)| line.len() > 1) {
        let mut at = [0; 3];
        let along = (0..line.len()).map(|number| {
            at[dim] = number;
            needs(at)
        });
        let along = along.collect::<Result<Vec<Vec<Need>>>>()?;
        for (number, part) in parts.iter_mut().enumerate() {
            part.add(along.iter().map(|needs| &needs[number]))?;
        }
    }
    Ok(parts)
}

impl PartLines {
    /// Adds what `needs` have, which are those of boxes one behind the other.
    fn add<'n>(&mut self, needs: impl Iterator<Item = &'n Need> + Clone) -> Result<()> {
        for (view, line) in self.lines.iter_mut().enumerate() {
            let ranges = needs.clone().map(|need| need.ranges[view].clone());
            let ranges: Line = ranges.collect();
            if ranges.iter().all(|range| *range == ranges[0]) {
                continue;
            }
            if line.len() > 1 {
                let message = format!(
                    "part `{}` cannot be cut into several rows and columns at once",
                    self.need.part
                );
                return Err(Error::new(ErrorKind::InvalidArgument, message).with_hint(DEQUANTIZE));
            }
            *line = ranges;
        }
        Ok(())
    }
}

/// The same elements in ranges of the dimensions that the tensor has; `None` where they are no such ranges.
fn in_shape(part: &PartLines, info: &TensorInfo<'_>) -> Option<Vec<Line>> {
    if info.shape.contains(&0) {
        return Some(info.shape.iter().map(|&size| one(0..size)).collect());
    }
    let (view_bits, bits) = (part.need.dtype.width_bits(), info.dtype.width_bits());
    let in_elements = |n: u64| {
        let n_bits = n.checked_mul(view_bits.into())?;
        n_bits
            .is_multiple_of(bits.into())
            .then(|| n_bits / u64::from(bits))
    };
    let [matrices, rows, elements] = part.need.view;
    let view = [matrices, rows, in_elements(elements)?];
    let mut lines = part.lines.clone();
    for range in &mut lines[2] {
        *range = in_elements(range.start)?..in_elements(range.end)?;
    }
    let mut found = Vec::with_capacity(info.shape.len());
    for (of_view, of_tensor) in matched(&view, info.shape)? {
        let cut = view[of_view.clone()].iter().zip(&lines[of_view]);
        found.extend(regrouped(cut, &info.shape[of_tensor])?);
    }
    Some(found)
}

/// The dimensions of two shapes of as many elements, as few together as have as many elements in both; `None` for other shapes.
fn matched(left: &[u64], right: &[u64]) -> Option<Vec<(Range<usize>, Range<usize>)>> {
    let (mut groups, mut of_left, mut of_right) = (Vec::new(), 0, 0);
    while of_left < left.len() || of_right < right.len() {
        let start = (of_left, of_right);
        let (mut n_left, mut n_right) = (1u64, 1u64);
        while start == (of_left, of_right) || n_left != n_right {
            if n_left <= n_right && of_left < left.len() {
                n_left = n_left.checked_mul(left[of_left])?;
                of_left += 1;
            } else {
                n_right = n_right.checked_mul(*right.get(of_right)?)?;
                of_right += 1;
            }
        }
        groups.push((start.0..of_left, start.1..of_right));
    }
    Some(groups)
}

/// What `view`, sizes with what is held of each, is in dimensions of these sizes, which have as many elements.
fn regrouped<'l>(
    view: impl Iterator<Item = (&'l u64, &'l Line)>,
    sizes: &[u64],
) -> Option<Vec<Line>> {
    let view: Vec<(u64, &Line)> = view.map(|(size, line)| (*size, line)).collect();
    let mut lines: Vec<Line> = sizes.iter().map(|&size| one(0..size)).collect();
    let is_cut = |(size, line): &(u64, &Line)| !is_whole(line, *size);
    let Some(cut) = view.iter().position(is_cut) else {
        return Some(lines);
    };
    // One number for all is held by those, too, that hold nothing else.
    let Some(outer) = sizes.iter().position(|size| *size != 1) else {
        return Some(lines);
    };
    if view[..cut].iter().any(|(size, _)| *size != 1) || view[cut + 1..].iter().any(is_cut) {
        return None;
    }
    let inner: u64 = view[cut + 1..].iter().map(|(size, _)| size).product();
    let step: u64 = sizes[outer + 1..].iter().product();
    let place = |at: u64| {
        let at = at.checked_mul(inner)?;
        at.is_multiple_of(step).then(|| at / step)
    };
    let ranges = view[cut].1.iter();
    let ranges = ranges.map(|range| Some(place(range.start)?..place(range.end)?));
    lines[outer] = ranges.collect::<Option<Line>>()?;
    Some(lines)
}
