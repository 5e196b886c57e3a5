//! MessagePack: what stands at a place of the file, one item at a time.

use tensorhold_core::{ByteRange, Result, Source};

use super::wrong;
use crate::cursor::Cursor;
use crate::limits::Limits;

/// An item, or the beginning of one: what its bytes, items or pairs are is read after it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Item {
    Nil,
    Truth(bool),
    Integer(i64),
    /// An integer of 2^63 or more.
    Large(u64),
    Float(f64),
    /// Text of so many bytes.
    Text(u64),
    /// So many bytes.
    Bytes(u64),
    /// So many items.
    Array(u64),
    /// So many pairs.
    Map(u64),
    /// A kind, and so many bytes.
    Extension(i8, u64),
}

pub(super) struct Reader<'a> {
    source: &'a dyn Source,
    cursor: Cursor<'a>,
    limits: &'a Limits,
}

impl<'a> Reader<'a> {
    pub fn new(source: &'a dyn Source, limits: &'a Limits) -> Reader<'a> {
        let all = ByteRange::new(0, source.size_bytes());
        Reader {
            source,
            cursor: Cursor::new(source, all, 64 * 1024),
            limits,
        }
    }

    /// The position of the next item.
    pub fn position(&self) -> u64 {
        self.cursor.position()
    }

    /// The next item.
    pub fn item(&mut self) -> Result<Item> {
        let [first] = self.cursor.take()?;
        Ok(match first {
            0x00..=0x7f => Item::Integer(i64::from(first)),
            0x80..=0x8f => Item::Map(u64::from(first & 15)),
            0x90..=0x9f => Item::Array(u64::from(first & 15)),
            0xa0..=0xbf => Item::Text(u64::from(first & 31)),
            0xc0 => Item::Nil,
            0xc2 | 0xc3 => Item::Truth(first == 0xc3),
            0xc4..=0xc6 => Item::Bytes(self.length(1 << (first - 0xc4))?),
            0xc7..=0xc9 => {
                let n_bytes = self.length(1 << (first - 0xc7))?;
                Item::Extension(self.kind()?, n_bytes)
            }
            0xca => Item::Float(widened(f32::from_be_bytes(self.cursor.take()?))),
            0xcb => Item::Float(f64::from_be_bytes(self.cursor.take()?)),
            0xcc..=0xcf => unsigned(self.length(1 << (first - 0xcc))?),
            0xd0 => Item::Integer(i64::from(i8::from_be_bytes(self.cursor.take()?))),
            0xd1 => Item::Integer(i64::from(i16::from_be_bytes(self.cursor.take()?))),
            0xd2 => Item::Integer(i64::from(i32::from_be_bytes(self.cursor.take()?))),
            0xd3 => Item::Integer(i64::from_be_bytes(self.cursor.take()?)),
            0xd4..=0xd8 => Item::Extension(self.kind()?, 1 << (first - 0xd4)),
            0xd9..=0xdb => Item::Text(self.length(1 << (first - 0xd9))?),
            0xdc | 0xdd => Item::Array(self.length(2 << (first - 0xdc))?),
            0xde | 0xdf => Item::Map(self.length(2 << (first - 0xde))?),
            0xe0..=0xff => Item::Integer(i64::from(first as i8)),
            0xc1 => {
                let here = ByteRange::new(self.position() - 1, self.position());
                return Err(wrong(
                    "a value begins with the byte c1, which none does",
                    here,
                ));
            }
        })
    }

    /// An unsigned number of 1, 2, 4 or 8 bytes.
    fn length(&mut self, n_bytes: u32) -> Result<u64> {
        Ok(match n_bytes {
            1 => u64::from(u8::from_be_bytes(self.cursor.take()?)),
            2 => u64::from(u16::from_be_bytes(self.cursor.take()?)),
            4 => u64::from(u32::from_be_bytes(self.cursor.take()?)),
            _ => u64::from_be_bytes(self.cursor.take()?),
        })
    }

    fn kind(&mut self) -> Result<i8> {
        self.cursor.take().map(i8::from_be_bytes)
    }

    /// The next bytes, of which a limit allows so many.
    pub fn text(&mut self, n_bytes: u64) -> Result<Vec<u8>> {
        if n_bytes > self.limits.text_bytes {
            let here = ByteRange::new(self.position(), self.position());
            let most = self.limits.text_bytes;
            return Err(wrong(
                format!("a text of {n_bytes} bytes is over the limit of {most}"),
                here,
            ));
        }
        self.cursor.bytes(n_bytes)
    }

    /// Passes over bytes, and gives their place in the file.
    pub fn skip(&mut self, n_bytes: u64) -> Result<ByteRange> {
        self.cursor.skip(n_bytes)
    }

    /// The bytes at a place that was passed over, of a number or two.
    pub fn again(&self, place: ByteRange) -> Result<Vec<u8>> {
        let mut bytes = vec![0; place.len().min(16) as usize];
        self.source.read_at(place.start, &mut bytes)?;
        Ok(bytes)
    }

    /// Refuses so many items where the rest of the file, or the limit of values, has no room for them.
    pub fn check_room(&self, n_items: u64) -> Result<()> {
        if n_items <= self.cursor.remaining().min(self.limits.nodes) {
            return Ok(());
        }
        let rest = ByteRange::new(self.position(), self.position() + self.cursor.remaining());
        Err(wrong(
            format!("{n_items} values do not fit the rest of the file"),
            rest,
        ))
    }
}

fn unsigned(number: u64) -> Item {
    match i64::try_from(number) {
        Ok(number) => Item::Integer(number),
        Err(_) => Item::Large(number),
    }
}

/// The number with more bits; a NaN keeps its sign and the bits of its fraction.
pub(super) fn widened(number: f32) -> f64 {
    if !number.is_nan() {
        return f64::from(number);
    }
    let bits = u64::from(number.to_bits());
    f64::from_bits((bits >> 31) << 63 | 0x7ff << 52 | (bits & 0x7f_ffff) << 29)
}
