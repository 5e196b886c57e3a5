//! Slices counted out one position and one bit at a time.

use tensorhold_core::Index;

/// What NumPy's rules select, counted out one position at a time: the shape and the elements.
pub fn naive(shape: &[u64], index: &[Index]) -> Option<(Vec<u64>, Vec<u64>)> {
    let is_named = |part: &&Index| matches!(part, Index::At(_) | Index::Range { .. });
    let n_left = shape
        .len()
        .checked_sub(index.iter().filter(is_named).count())?;
    let mut index = index.to_vec();
    let dots = index.iter().position(|part| *part == Index::Ellipsis);
    let at = dots.unwrap_or(index.len());
    index.splice(
        at..at + usize::from(dots.is_some()),
        vec![Index::ALL; n_left],
    );

    let (mut sizes, mut result, mut elements) = (shape.iter(), Vec::new(), vec![0]);
    for part in index {
        let positions = match part {
            Index::Ellipsis => return None,
            Index::NewAxis => {
                result.push(1);
                continue;
            }
            Index::At(at) => {
                let size = *sizes.next().unwrap() as i64;
                let at = if at < 0 { at + size } else { at };
                (0..size).contains(&at).then_some((size, vec![at]))?
            }
            Index::Range { start, stop, step } => {
                let size = *sizes.next().unwrap() as i64;
                let positions = count_out(start, stop, step.unwrap_or(1), size)?;
                result.push(positions.len() as u64);
                (size, positions)
            }
        };
        elements = elements
            .iter()
            .flat_map(|element| positions.1.iter().map(move |at| element * positions.0 + at))
            .collect();
    }
    Some((
        result,
        elements.into_iter().map(|element| element as u64).collect(),
    ))
}

fn count_out(start: Option<i64>, stop: Option<i64>, step: i64, size: i64) -> Option<Vec<i64>> {
    let from_end = |bound: i64| if bound < 0 { bound + size } else { bound };
    let mut positions = Vec::new();
    if step > 0 {
        let mut at = start.map_or(0, from_end).max(0);
        while at < size && stop.is_none_or(|stop| at < from_end(stop)) {
            positions.push(at);
            at = at.saturating_add(step);
        }
    } else if step < 0 {
        let mut at = start.map_or(size - 1, from_end).min(size - 1);
        while at >= 0 && stop.is_none_or(|stop| at > from_end(stop)) {
            positions.push(at);
            at = at.saturating_add(step);
        }
    } else {
        return None;
    }
    Some(positions)
}

/// The selected elements packed side by side, one bit at a time.
pub fn pack(tensor: &[u8], elements: &[u64], width_bits: u64) -> Vec<u8> {
    let mut packed = vec![0; (elements.len() as u64 * width_bits).div_ceil(8) as usize];
    for (nth, element) in elements.iter().enumerate() {
        for bit in 0..width_bits {
            let (from, to) = (element * width_bits + bit, nth as u64 * width_bits + bit);
            let value = tensor[(from / 8) as usize] >> (from % 8) & 1;
            packed[(to / 8) as usize] |= value << (to % 8);
        }
    }
    packed
}
