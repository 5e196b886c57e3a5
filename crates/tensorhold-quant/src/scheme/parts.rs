//! The tensors that a checkpoint has for one weight.

use std::collections::BTreeMap;

use tensorhold_core::{Dtype, Error, ErrorKind, Result, n_elements};

use super::numbers::{Change, Number, Numbers};
use super::stored::{Axis, Entries, Packed, Stored};
use crate::codec::E8m0;

/// The tensors that a checkpoint has for one weight, by what their names end in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts<'a>(BTreeMap<&'a str, (Dtype, &'a [u64])>);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// What its name ends in.
    pub name: &'static str,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: &'a [u64],
}

impl<'a> FromIterator<(&'a str, Dtype, &'a [u64])> for Parts<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a str, Dtype, &'a [u64])>>(parts: I) -> Parts<'a> {
        Parts(
            parts
                .into_iter()
                .map(|(name, dtype, shape)| (name, (dtype, shape)))
                .collect(),
        )
    }
}

impl<'a> Parts<'a> {
    /// The part that is called `name`, if there is one.
    #[must_use]
    pub fn find(&self, name: &'static str) -> Option<Part<'a>> {
        let (dtype, shape) = *self.0.get(name)?;
        Some(Part { name, dtype, shape })
    }

    /// The part that is called `name`.
    ///
    /// # Errors
    /// `TensorNotFound` with the parts that there are.
    pub fn part(&self, name: &'static str) -> Result<Part<'a>> {
        self.first_of(&[name])
    }

    /// The first of these parts that is there.
    ///
    /// # Errors
    /// `TensorNotFound` with the parts that there are.
    pub fn first_of(&self, names: &[&'static str]) -> Result<Part<'a>> {
        names
            .iter()
            .find_map(|name| self.find(name))
            .ok_or_else(|| {
                let there: Vec<&str> = self.0.keys().copied().collect();
                Error::new(
                    ErrorKind::TensorNotFound,
                    format!(
                        "part `{}` is missing; there are `{}`",
                        names.join("` or `"),
                        there.join("`, `")
                    ),
                )
            })
    }
}

impl Part<'_> {
    /// Refuses other types than these.
    pub(super) fn of_dtype(self, dtypes: &[Dtype]) -> Result<Self> {
        match dtypes.contains(&self.dtype) {
            true => Ok(self),
            false => {
                let names: Vec<&str> = dtypes.iter().map(|dtype| dtype.name()).collect();
                Err(self.wrong(&format!("it must be {}", names.join(" or "))))
            }
        }
    }

    /// Refuses other shapes than these.
    pub(super) fn of_shape(self, shapes: &[&[u64]]) -> Result<Self> {
        match shapes.contains(&self.shape) {
            true => Ok(self),
            false => {
                let shapes: Vec<String> = shapes.iter().map(|shape| format!("{shape:?}")).collect();
                Err(self.wrong(&format!("it must have shape {}", shapes.join(" or "))))
            }
        }
    }

    /// The dimensions, if there are so many.
    pub(super) fn dims<const N: usize>(self) -> Result<[u64; N]> {
        let dims = self.shape.try_into();
        dims.map_err(|_| self.wrong(&format!("it must have {N} dimensions")))
    }

    /// Experts, first and second dimension of a tensor of 2 or 3 dimensions.
    pub(super) fn matrices(self) -> Result<[u64; 3]> {
        match *self.shape {
            [rows, columns] => Ok([1, rows, columns]),
            [experts, rows, columns] => Ok([experts, rows, columns]),
            _ => Err(self.wrong("it must have 2 or 3 dimensions")),
        }
    }

    /// Entries of matrices of this size; `lines` is as in [`Stored`].
    ///
    /// The tensor must have as many elements as such entries take. One whose elements are narrower than a byte is
    /// one of bytes.
    pub(super) fn stored(self, size: [u64; 3], lines: Axis, entries: Entries) -> Result<Stored> {
        let dtype = match self.dtype.width_bytes() {
            Some(_) => self.dtype,
            None => Dtype::U8,
        };
        self.stored_as(dtype, size, lines, entries)
    }

    /// As [`Part::stored`], with the tensor's bytes taken for elements of another type.
    pub(super) fn stored_as(
        self,
        dtype: Dtype,
        size: [u64; 3],
        lines: Axis,
        entries: Entries,
    ) -> Result<Stored> {
        let stored = Stored {
            part: self.name,
            dtype,
            size,
            lines,
            entries,
        };
        stored.check()?;
        let view = stored.view()?;
        let n_bits = |dtype: Dtype, shape: &[u64]| {
            n_elements(shape).and_then(|n| n.checked_mul(dtype.width_bits().into()))
        };
        match n_bits(dtype, &view) == n_bits(self.dtype, self.shape) {
            true => Ok(stored),
            false => {
                let [experts, rows, columns] = size;
                let bits = stored.code_bits();
                Err(self.wrong(&format!(
                    "{experts} x {rows} x {columns} codes of {bits} bits take {view:?}"
                )))
            }
        }
    }

    /// Codes in this order; `lines` and `along` are as in [`Stored`].
    pub(super) fn codes(self, size: [u64; 3], lines: Axis, packed: Packed) -> Result<Stored> {
        self.stored(size, lines, Entries::Packed(packed))
    }

    /// Elements as they are.
    pub(super) fn elements(self, size: [u64; 3], lines: Axis) -> Result<Stored> {
        self.stored(size, lines, Entries::Elements)
    }

    /// Floats as they are, or powers of two in bytes.
    pub(super) fn numbers(self, size: [u64; 3], lines: Axis) -> Result<Numbers> {
        let number = match self.dtype {
            Dtype::U8 | Dtype::F8_E8M0 => Number::Power(E8m0::default()),
            Dtype::F64
            | Dtype::F32
            | Dtype::F16
            | Dtype::BF16
            | Dtype::F8_E4M3
            | Dtype::F8_E5M2 => Number::Float(self.dtype),
            _ => return Err(self.wrong("it must be floats or powers of two")),
        };
        Ok(Numbers {
            stored: self.elements(size, lines)?,
            number,
            change: Change::None,
        })
    }

    /// What is wrong with it, and what must be.
    pub(super) fn wrong(self, must: &str) -> Error {
        let Part { name, dtype, shape } = self;
        Error::new(
            ErrorKind::InvalidTensor,
            format!("part `{name}` is {dtype} {shape:?}: {must}"),
        )
    }
}

/// The shape of a weight of so many experts, rows and columns, as that of `part`, which has or has not experts.
pub(super) fn logical(size: [u64; 3], has_experts: bool) -> Vec<u64> {
    size[usize::from(!has_experts)..].to_vec()
}
