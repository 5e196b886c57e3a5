//! Weights computed one by one, from all bytes of all parts.

use tensorhold_core::Dtype;
use tensorhold_quant::codec::{BitOrder, BlockedScales};
use tensorhold_quant::scheme::{
    Axis, Change, Effect, Entries, Global, Number, Numbers, Packed, Recipe, Stored, Value, Zeros,
};

/// A byte that depends on its place and on what it is of.
fn noise(seed: u64, place: u64) -> u8 {
    let mixed = (place ^ seed << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as u8
}

/// All bytes of a part; floats are between 1 and 2.
fn bytes_of(stored: &Stored, number: Option<Number>, seed: u64) -> Vec<u8> {
    let n_elements: u64 = stored.view().unwrap().iter().product();
    let byte = |place| noise(seed, place);
    match number {
        Some(Number::Float(Dtype::F32)) => {
            let value = |place| 1.0 + f32::from(byte(place)) / 256.0;
            (0..n_elements)
                .flat_map(|place| value(place).to_le_bytes())
                .collect()
        }
        Some(Number::Power(_)) => (0..n_elements)
            .map(|place| 120 + byte(place) % 16)
            .collect(),
        _ => {
            let n_bytes = n_elements * u64::from(stored.dtype.width_bytes().unwrap());
            (0..n_bytes).map(byte).collect()
        }
    }
}

/// The element of the view at these places, as bytes.
fn element<'a>(stored: &Stored, bytes: &'a [u8], expert: u64, line: u64, at: u64) -> &'a [u8] {
    let [_, n_lines, n_elements] = stored.view().unwrap();
    let width = u64::from(stored.dtype.width_bytes().unwrap());
    let start = ((expert * n_lines + line) * n_elements + at) * width;
    &bytes[start as usize..][..width as usize]
}

fn packed(stored: &Stored) -> Packed {
    match stored.entries {
        Entries::Packed(packed) => packed,
        Entries::Interleaved => Packed {
            order: BitOrder::AWQ_FAST,
            along: Axis::Columns,
        },
        _ => panic!("{stored:?}"),
    }
}

/// The code of interleaved rows at these places.
fn interleaved(stored: &Stored, bytes: &[u8], [expert, row, column]: [u64; 3]) -> u8 {
    let [_, n_lines, n_elements] = stored.view().unwrap();
    let size = n_elements * u64::from(stored.dtype.width_bytes().unwrap());
    let line = (expert * n_lines + row / 4) * size;
    let (unit, pair, octet) = (column / 64, column % 8 / 2, column / 8 % 4);
    let in_run = column % 64 / 32 * 32 + pair * 8 + column % 2 * 4 + octet;
    let nibble = unit * 256 + row % 4 * 64 + in_run;
    bytes[(line + nibble / 2) as usize] >> (nibble % 2 * 4) & 15
}

/// The code at these places, from the whole run that it is in.
pub fn code(stored: &Stored, bytes: &[u8], [expert, row, column]: [u64; 3]) -> u8 {
    let Packed { order, along } = packed(stored);
    let [_, n_lines, n_elements] = stored.view().unwrap();
    if stored.entries == Entries::Interleaved {
        return interleaved(stored, bytes, [expert, row, column]);
    }
    let (entry, across, n_entries) = match along {
        Axis::Columns => (column, row, stored.size[2]),
        Axis::Rows => (row, column, stored.size[1]),
    };
    let run: Vec<u8> = match stored.lines == along {
        true => (0..n_elements)
            .flat_map(|at| element(stored, bytes, expert, across, at))
            .copied()
            .collect(),
        false => (0..n_lines)
            .flat_map(|line| element(stored, bytes, expert, line, across))
            .copied()
            .collect(),
    };
    let mut codes = vec![0; n_entries as usize];
    let range = order.bytes_of(0..n_entries).unwrap();
    order
        .unpack(&run[..range.end as usize], 0, &mut codes)
        .unwrap();
    codes[entry as usize]
}

/// The bytes of parts that were not used yet.
type Rest<'a> = core::slice::Iter<'a, Vec<u8>>;

/// The number at these places; its bytes and those of what it needs besides are the next of `rest`.
fn number(numbers: &Numbers, rest: &mut Rest<'_>, place: [u64; 3]) -> f32 {
    let found = element_number(numbers, rest.next().unwrap(), place);
    match &numbers.change {
        Change::None => found,
        Change::Negated => -found,
        Change::Inverted => 1.0 / found,
        Change::Nested(nested) => {
            let at = place[1] * numbers.stored.size[2] + place[2];
            let table = single(rest.next().unwrap(), found as u64);
            let scale = single(rest.next().unwrap(), at / nested.block_size);
            table * scale + nested.offset
        }
    }
}

fn single(bytes: &[u8], place: u64) -> f32 {
    f32::from_le_bytes(*bytes[place as usize * 4..].first_chunk().unwrap())
}

fn element_number(numbers: &Numbers, bytes: &[u8], [expert, row, column]: [u64; 3]) -> f32 {
    let stored = &numbers.stored;
    let (line, at) = match stored.lines {
        Axis::Columns => (row, column),
        Axis::Rows => (column, row),
    };
    let expert = expert.min(stored.size[0] - 1);
    let bytes = match stored.entries {
        Entries::Tiles => {
            let [_, n_rows, n_columns] = stored.size;
            let places = BlockedScales::new(n_rows, n_columns).unwrap();
            let offset = expert * places.size_bytes() + places.offset(row, column).unwrap();
            &bytes[offset as usize..][..1]
        }
        _ => element(stored, bytes, expert, line, at),
    };
    match numbers.number {
        Number::Float(_) => f32::from_le_bytes(bytes.try_into().unwrap()),
        Number::Power(power) => power.value(bytes[0]),
        Number::Signed => f32::from(bytes[0] as i8),
        Number::Unsigned => f32::from(bytes[0]),
    }
}

/// What a code stands for.
fn value(recipe: &Recipe, code: u8) -> f32 {
    let bits = packed(&recipe.codes).order.width_bits();
    match recipe.value {
        Value::Unsigned => f32::from(code),
        Value::Signed if code >> (bits - 1) == 1 => f32::from(code) - (1u32 << bits) as f32,
        Value::Signed => f32::from(code),
        Value::Float(float) => float.value(code),
        Value::Table(table) => table.value(code),
    }
}

/// The scale of a group with the second scale in it.
fn scale(recipe: &Recipe, place: [u64; 3], rest: &mut Rest<'_>) -> f32 {
    let scale = number(&recipe.scales, rest, place);
    let Some(Global { numbers, effect }) = &recipe.global else {
        return scale;
    };
    let global = number(numbers, rest, [place[0], 0, 0]);
    match effect {
        Effect::Multiplies => scale * global,
        Effect::Divides => scale / global,
    }
}

/// One weight, from all bytes of all parts.
pub fn weight(recipe: &Recipe, parts: &[Vec<u8>], [expert, row, column]: [u64; 3]) -> f32 {
    let [_, n_rows, n_columns] = recipe.size();
    let at = (expert * n_rows + row) * n_columns + column;
    let [_, n_rows, n_columns] = recipe.codes.size;
    let (row, column) = (at / n_columns % n_rows, at % n_columns);
    let expert = at / n_columns / n_rows;
    let value = value(
        recipe,
        code(&recipe.codes, &parts[0], [expert, row, column]),
    );
    let group = match (&recipe.group_index, parts.last()) {
        (Some(_), Some(index)) => {
            let index = index[column as usize * 4..].first_chunk().unwrap();
            u32::from_le_bytes(*index).into()
        }
        _ => column / recipe.groups.columns,
    };
    let place = [expert, row / recipe.groups.rows, group];
    let mut rest = parts[1..].iter();
    let scale = scale(recipe, place, &mut rest);
    match &recipe.zeros {
        Zeros::None => value * scale,
        Zeros::Factor(factor) => value * scale * factor,
        Zeros::Constant(zero) => (value - zero) * scale,
        Zeros::Packed { stored, plus } => {
            let bits = packed(stored).order.width_bits();
            let zero = u32::from(code(stored, rest.next().unwrap(), place)) + u32::from(*plus);
            (value - (zero % (1 << bits)) as f32) * scale
        }
        Zeros::Numbers(numbers) => (value - number(numbers, &mut rest, place)) * scale,
        Zeros::Bias(numbers) => value * scale + number(numbers, &mut rest, place),
    }
}

/// Adds the bytes of numbers and of what they need besides.
fn add_parts(numbers: &Numbers, seed: u64, parts: &mut Vec<Vec<u8>>) {
    parts.push(bytes_of(&numbers.stored, Some(numbers.number), seed));
    if let Change::Nested(nested) = &numbers.change {
        let single = Some(Number::Float(Dtype::F32));
        parts.push(bytes_of(&nested.table, single, seed + 10));
        parts.push(bytes_of(&nested.scales, single, seed + 20));
    }
}

/// The bytes of all parts, in the order of the needs.
pub fn parts_of(recipe: &Recipe) -> Vec<Vec<u8>> {
    let mut parts = vec![bytes_of(&recipe.codes, None, 1)];
    add_parts(&recipe.scales, 2, &mut parts);
    if let Some(Global { numbers, .. }) = &recipe.global {
        add_parts(numbers, 3, &mut parts);
    }
    match &recipe.zeros {
        Zeros::None | Zeros::Factor(_) | Zeros::Constant(_) => {}
        Zeros::Packed { stored, .. } => parts.push(bytes_of(stored, None, 4)),
        Zeros::Numbers(numbers) | Zeros::Bias(numbers) => {
            add_parts(numbers, 4, &mut parts);
        }
    }
    if recipe.group_index.is_some() {
        let n_groups = recipe.scales.stored.size[2];
        let group = |column| (u64::from(noise(5, column)) % n_groups) as u32;
        parts.push(
            (0..recipe.codes.size[2])
                .flat_map(|column| group(column).to_le_bytes())
                .collect(),
        );
    }
    parts
}
