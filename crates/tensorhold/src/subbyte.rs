//! Integers narrower than a byte, in tensors of U8 that the metadata describes.
//!
//! The format has no types I1 to I7 and U1 to U7. Such a tensor is stored as U8, its integers one after another from the
//! least significant bit on, each line along the last dimension from a byte on; an entry of the metadata says what it is.
//! `docs/reference/quantized.md` is the specification.

mod described;
mod select;

use std::fmt;

use tensorhold_core::{Bounds, Dtype, Index};
use tensorhold_core::{Error, ErrorKind, Result, n_elements, shape_size_bytes};
use tensorhold_quant::codec::BitOrder;

pub use described::NarrowTensors;
pub(crate) use described::check;
pub use select::{NarrowSelection, Widths};

/// What the keys of the metadata that describe a tensor begin with; the tensor's name follows.
pub const DTYPE_KEY: &str = "tensorhold.dtype.";

/// A type of integers narrower than a byte: I1 to I7, in two's complement, and U1 to U7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NarrowInt {
    width_bits: u8,
    is_signed: bool,
}

impl NarrowInt {
    /// The type that descriptions call so: `I4`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<NarrowInt> {
        let is_signed = match name.get(..1)? {
            "I" => true,
            "U" => false,
            _ => return None,
        };
        NarrowInt::new(&name[1..], is_signed)
    }

    /// The type that frameworks call so: `int4`.
    #[must_use]
    pub fn from_framework_name(name: &str) -> Option<NarrowInt> {
        let signed = name.strip_prefix("int");
        match signed {
            Some(width) => NarrowInt::new(width, true),
            None => NarrowInt::new(name.strip_prefix("uint")?, false),
        }
    }

    fn new(width: &str, is_signed: bool) -> Option<NarrowInt> {
        match width.as_bytes() {
            [digit @ b'1'..=b'7'] => Some(NarrowInt {
                width_bits: digit - b'0',
                is_signed,
            }),
            _ => None,
        }
    }

    /// The width of an integer in bits, 1 to 7.
    #[must_use]
    pub const fn width_bits(self) -> u32 {
        self.width_bits as u32
    }

    /// Whether the highest bit is the sign.
    #[must_use]
    pub const fn is_signed(self) -> bool {
        self.is_signed
    }

    /// What frameworks call it: `int4`.
    #[must_use]
    pub fn framework_name(self) -> String {
        let prefix = if self.is_signed { "int" } else { "uint" };
        format!("{prefix}{}", self.width_bits)
    }

    /// The type of whole bytes that holds all its values.
    #[must_use]
    pub const fn in_bytes(self) -> Dtype {
        if self.is_signed { Dtype::I8 } else { Dtype::U8 }
    }

    fn order(self) -> BitOrder {
        BitOrder::lsb(self.width_bits()).expect("1 to 7 bits are widths of codes")
    }

    /// The bits of a value in a byte, with copies of its sign above them or with zeros; `None` where it has more bits.
    fn code_of(self, value: u8) -> Option<u8> {
        let mask = (1 << self.width_bits) - 1;
        let code = value & mask;
        (value == code || (self.is_signed && value == self.widened(code))).then_some(code)
    }

    /// The value in two's complement of 8 bits.
    fn widened(self, code: u8) -> u8 {
        if !self.is_signed {
            return code;
        }
        let above = 8 - self.width_bits;
        ((code << above).cast_signed() >> above).cast_unsigned()
    }
}

impl fmt::Display for NarrowInt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = if self.is_signed { 'I' } else { 'U' };
        write!(f, "{letter}{}", self.width_bits)
    }
}

/// A tensor of integers narrower than a byte: its type, its shape, and how it is stored.
///
/// ```
/// use tensorhold::{NarrowInt, NarrowTensor};
///
/// let tensor = NarrowTensor::new(NarrowInt::from_name("I4").unwrap(), &[2, 3])?;
/// assert_eq!(tensor.stored_shape(), [2, 2]);
/// assert_eq!(tensor.description(), r#"{"dtype":"I4","shape":[2,3]}"#);
/// let mut stored = [0; 4];
/// tensor.pack(&[1, 2, 3, 0xff, 0x0f, 0xf8], &mut stored)?;
/// assert_eq!(stored, [0x21, 0x03, 0xff, 0x08]);
/// # Ok::<(), tensorhold::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarrowTensor {
    dtype: NarrowInt,
    shape: Vec<u64>,
    stored_shape: Vec<u64>,
}

/// So many integers are checked and packed at a time: a whole number of bytes of every width.
const PIECE: usize = 1 << 16;

impl NarrowTensor {
    /// A tensor of `shape`, counted in integers.
    ///
    /// # Errors
    /// `Overflow` past 2^64 integers.
    pub fn new(dtype: NarrowInt, shape: &[u64]) -> Result<NarrowTensor> {
        shape_size_bytes(Dtype::U8, shape)?;
        let mut stored_shape = shape.to_vec();
        match stored_shape.last_mut() {
            Some(last) => *last = dtype.order().size_bytes(*last)?,
            None => stored_shape.push(1),
        }
        // Each line has at most as many bytes as integers.
        Ok(NarrowTensor {
            dtype,
            shape: shape.to_vec(),
            stored_shape,
        })
    }

    /// The type of its integers.
    #[must_use]
    pub fn dtype(&self) -> NarrowInt {
        self.dtype
    }

    /// Its shape, counted in integers.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The shape of the tensor of U8 that holds it.
    #[must_use]
    pub fn stored_shape(&self) -> &[u64] {
        &self.stored_shape
    }

    /// The number of its integers.
    #[must_use]
    pub fn n_values(&self) -> u64 {
        n_elements(&self.shape).expect("a tensor that exists has less than 2^64 integers")
    }

    /// The number of bytes that hold it.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        n_elements(&self.stored_shape).expect("a line has no more bytes than integers")
    }

    /// The key of the metadata under which a tensor called `name` is described.
    #[must_use]
    pub fn key(name: &str) -> String {
        format!("{DTYPE_KEY}{name}")
    }

    /// The value under that key: `{"dtype":"I4","shape":[4,8]}`.
    #[must_use]
    pub fn description(&self) -> String {
        let sizes: Vec<String> = self.shape.iter().map(u64::to_string).collect();
        let (dtype, sizes) = (self.dtype, sizes.join(","));
        format!(r#"{{"dtype":"{dtype}","shape":[{sizes}]}}"#)
    }

    /// Whether a tensor of this type and shape in a file can hold it.
    #[must_use]
    pub fn fits(&self, dtype: Dtype, shape: &[u64]) -> bool {
        dtype == Dtype::U8 && shape == self.stored_shape
    }

    /// Fills `into` with `values`, of which each is a byte: the integer in its low bits, and above them zeros or, of signed
    /// types, copies of the sign.
    ///
    /// # Errors
    /// `InvalidTensor` when there are more or fewer values, or one has more bits; `InvalidArgument` when `into` is not as
    /// long as [`size_bytes`](NarrowTensor::size_bytes) says.
    pub fn pack(&self, values: &[u8], into: &mut [u8]) -> Result<()> {
        let (wanted, given) = (self.n_values(), values.len());
        if given as u64 != wanted {
            let message = format!("{given} integers were given for a tensor of {wanted}");
            return Err(Error::new(ErrorKind::InvalidTensor, message));
        }
        if into.len() as u64 != self.size_bytes() {
            let (size, room) = (self.size_bytes(), into.len());
            let message = format!("the tensor takes {size} bytes, but there is room for {room}");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        if values.is_empty() {
            return Ok(());
        }
        let (codes, bytes) = self.run();
        let mut codes_of_piece = vec![0; codes.min(PIECE)];
        let mut first = 0;
        for (values, into) in values.chunks(codes).zip(into.chunks_mut(bytes)) {
            for (values, into) in values
                .chunks(PIECE)
                .zip(into.chunks_mut(self.piece_bytes()))
            {
                let codes = &mut codes_of_piece[..values.len()];
                self.take_codes(values, codes, first)?;
                self.dtype.order().pack(codes, into)?;
                first += values.len();
            }
        }
        Ok(())
    }

    /// Integers that lie one after another, and their bytes: a line, or all where lines fill their bytes. Neither is 0
    /// where there are any.
    fn run(&self) -> (usize, usize) {
        let line = self.shape.last().copied().unwrap_or(1);
        let (codes, bytes) = match self.padding() {
            None => (self.n_values(), self.size_bytes()),
            Some((line_bytes, _)) => (line, line_bytes),
        };
        let within = "they are no more than those in memory";
        (
            usize::try_from(codes).expect(within),
            usize::try_from(bytes).expect(within),
        )
    }

    /// The bytes of a line, and the bits of its last byte that are behind its integers; `None` where lines fill their bytes.
    pub(crate) fn padding(&self) -> Option<(u64, u8)> {
        let line = self.shape.last().copied().unwrap_or(1);
        let used_bits = line % 8 * u64::from(self.dtype.width_bits()) % 8;
        let line_bytes = *self.stored_shape.last()?;
        (used_bits > 0).then_some((line_bytes, 0xff << used_bits))
    }

    fn piece_bytes(&self) -> usize {
        PIECE / 8 * usize::from(self.dtype.width_bits)
    }

    fn take_codes(&self, values: &[u8], codes: &mut [u8], first: usize) -> Result<()> {
        let mut are_all = true;
        for (code, &value) in codes.iter_mut().zip(values) {
            let taken = self.dtype.code_of(value);
            are_all &= taken.is_some();
            *code = taken.unwrap_or(0);
        }
        if are_all {
            return Ok(());
        }
        let at = values
            .iter()
            .position(|&value| self.dtype.code_of(value).is_none());
        let at = at.unwrap_or(0);
        let (dtype, value, place) = (self.dtype, values[at], first + at);
        let message = format!("element {place} is the byte {value:#04x}, which is no {dtype}");
        Err(Error::new(ErrorKind::InvalidTensor, message))
    }

    /// What `index`, which counts integers, selects.
    ///
    /// # Errors
    /// `InvalidSlice` if the index does not fit the shape.
    pub fn select(&self, index: &[Index], bounds: Bounds) -> Result<NarrowSelection> {
        select::select(self, index, bounds)
    }
}

#[cfg(test)]
mod tests;
