//! From a header's text to its table, in one pass.

use alloc::format;

use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::escape::Named;

use super::canonical::{self, Description};
use super::growth::{Progress, make_room};
use super::json::{Cursor, JsonStr};
use super::metadata::Pairs;
use super::shapes;
use super::table::{Entry, Name, Table};
use super::{LENGTH_BYTES, Rules, validate};

const METADATA: &str = "__metadata__";

/// The table in `text`, its tensors checked and in the order of their data.
pub(super) fn table(text: &str, rules: Rules) -> Result<Table> {
    let mut parser = Parser {
        text,
        rules,
        cursor: Cursor::new(text, LENGTH_BYTES, ErrorKind::HeaderJson),
        table: Table::default(),
        is_chain: true,
    };
    parser.header()?;
    let Parser {
        mut table,
        is_chain,
        ..
    } = parser;
    if !is_chain {
        validate::order_by_offset(&mut table);
    }
    if let Err((first, second)) = table.index_names(text) {
        return Err(validate::stands_twice(&table, text, first, second));
    }
    if !is_chain {
        validate::check_chain(&mut table, text)?;
    }
    Ok(table)
}

struct Parser<'a> {
    text: &'a str,
    rules: Rules,
    cursor: Cursor<'a>,
    table: Table,
    /// Whether every tensor so far starts where the one before it in the text ends.
    is_chain: bool,
}

impl<'a> Parser<'a> {
    fn header(&mut self) -> Result<()> {
        self.cursor.expect(b'{', "`{`")?;
        let mut first = true;
        let mut has_metadata = false;
        while let Some(key) = self.cursor.next_key(&mut first)? {
            let name = self.name(key);
            if !self.is_metadata(key, name) {
                self.tensor(key, name)?;
            } else if has_metadata {
                return Err(self
                    .cursor
                    .fault_at(key.start(), "`__metadata__` stands twice"));
            } else {
                has_metadata = true;
                self.metadata()?;
            }
        }
        self.cursor.end()?;
        if self.rules == Rules::Strict {
            self.strict_ends()?;
        }
        Ok(())
    }

    #[inline]
    fn is_metadata(&self, key: JsonStr<'a>, name: Name) -> bool {
        match key.plain() {
            Some(plain) => plain == METADATA,
            None => name.of(self.text, &self.table.resolved) == METADATA,
        }
    }

    fn strict_ends(&self) -> Result<()> {
        if !self.text.starts_with('{') {
            let message = "the header does not begin with `{`";
            return Err(self.forbidden(0, message));
        }
        let end = self.text.trim_end_matches(' ').len();
        if !self.text[..end].ends_with('}') {
            let message = "the header does not end with `}` and spaces";
            return Err(self.forbidden(end - 1, message));
        }
        Ok(())
    }

    #[inline]
    fn name(&mut self, key: JsonStr<'a>) -> Name {
        match key.plain() {
            Some(plain) => Name::in_text(key.start(), plain.len()),
            None => {
                let start = self.table.resolved.len();
                key.resolve_into(&mut self.table.resolved);
                Name::resolved(start, self.table.resolved.len() - start)
            }
        }
    }

    fn tensor(&mut self, key: JsonStr<'a>, name: Name) -> Result<()> {
        if self.rules == Rules::Strict {
            self.strict_name(key, name)?;
        }
        let progress = self.progress();
        let dims = &mut self.table.shapes.dims;
        let n_dims = dims.len();
        make_room(dims, canonical::LONGEST_SHAPE, progress);
        if let Some((description, rest)) = canonical::description(self.cursor.rest(), dims) {
            self.cursor.move_to(rest);
            return self.push(name, &description);
        }
        dims.truncate(n_dims);
        self.general_tensor(name)
    }

    #[inline(never)]
    fn general_tensor(&mut self, name: Name) -> Result<()> {
        let read = match self.cursor.peek() {
            Some(b'{') => self.object_form(),
            Some(b'[') => self.array_form(),
            _ => Err(self.cursor.expected("an object that describes the tensor")),
        };
        read.and_then(|tensor| self.push(name, &tensor))
            .map_err(|error| error.with_tensor(name.of(self.text, &self.table.resolved)))
    }

    #[inline]
    fn progress(&self) -> Progress {
        Progress {
            read_bytes: self.cursor.position(),
            total_bytes: self.text.len(),
        }
    }

    fn strict_name(&self, key: JsonStr<'a>, name: Name) -> Result<()> {
        let name = name.of(self.text, &self.table.resolved);
        if name.is_empty() {
            return Err(self
                .forbidden(key.start(), "a tensor has an empty name")
                .with_tensor(name));
        }
        // A fold without an early exit is what the compiler turns into vector code.
        let is_ascii_text = |byte: u8| (b' '..0x7f).contains(&byte);
        let is_clean = name
            .bytes()
            .fold(true, |clean, byte| clean & is_ascii_text(byte));
        if !is_clean && name.contains(char::is_control) {
            let message = format!("the name {} holds a control character", Named(name));
            return Err(self.forbidden(key.start(), message).with_tensor(name));
        }
        Ok(())
    }

    fn object_form(&mut self) -> Result<Description> {
        let start = self.cursor.position();
        self.cursor.expect(b'{', "`{`")?;
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        let mut first = true;
        while let Some(key) = self.cursor.next_key(&mut first)? {
            match &*key.resolve() {
                "dtype" if dtype.is_none() => dtype = Some(self.dtype()?),
                "shape" if shape.is_none() => shape = Some(self.shape()?),
                "data_offsets" if offsets.is_none() => offsets = Some(self.offsets()?),
                other => self.other_field(key, other)?,
            }
        }
        let missing = match (dtype, shape, offsets) {
            (Some(dtype), Some(shape), Some(offsets)) => {
                return Ok(self.description(dtype, &shape, offsets, start));
            }
            (None, ..) => "dtype",
            (_, None, _) => "shape",
            _ => "data_offsets",
        };
        Err(self
            .cursor
            .fault_at(start, format!("the field `{missing}` is missing")))
    }

    fn other_field(&mut self, key: JsonStr<'a>, field: &str) -> Result<()> {
        if matches!(field, "dtype" | "shape" | "data_offsets") {
            let message = format!("the field `{field}` stands twice");
            return Err(self.cursor.fault_at(key.start(), message));
        }
        if self.rules == Rules::Strict {
            let message = format!("the field {} is unknown", Named(field));
            return Err(self.forbidden(key.start(), message));
        }
        self.cursor.skip_value(2)
    }

    fn array_form(&mut self) -> Result<Description> {
        let position = self.cursor.position();
        if self.rules == Rules::Strict {
            let message = "a tensor is described by an array";
            return Err(self.forbidden(position, message));
        }
        self.cursor.expect(b'[', "`[`")?;
        let dtype = self.dtype()?;
        self.cursor.expect(b',', "`,` and the shape")?;
        let shape = self.shape()?;
        self.cursor.expect(b',', "`,` and the offsets")?;
        let offsets = self.offsets()?;
        self.cursor
            .expect(b']', "`]` after dtype, shape and offsets")?;
        Ok(self.description(dtype, &shape, offsets, position))
    }

    /// A description whose text began at `position` and ends at the cursor.
    fn description(
        &mut self,
        dtype: Dtype,
        shape: &shapes::Read,
        (start, end): (u64, u64),
        position: usize,
    ) -> Description {
        let n_elements = shape.n_elements;
        let text_bytes = self.cursor.position() - position;
        let shape = self.table.shapes.keep(shape, text_bytes, self.progress());
        Description {
            dtype,
            shape,
            n_elements,
            start,
            end,
        }
    }

    fn dtype(&mut self) -> Result<Dtype> {
        if self.cursor.peek() == Some(b'{') {
            return self.dtype_in_map();
        }
        let name = self.cursor.string("a dtype in double quotes")?;
        self.dtype_of(name)
    }

    /// Reads `{"F32":null}`, the other JSON form that the reference takes for a dtype.
    #[cold]
    fn dtype_in_map(&mut self) -> Result<Dtype> {
        if self.rules == Rules::Strict {
            let message = "a dtype is given as an object, not as a string";
            return Err(self.forbidden(self.cursor.position(), message));
        }
        self.cursor.expect(b'{', "`{`")?;
        let name = self.cursor.string("a dtype in double quotes")?;
        self.cursor.expect(b':', "`:` after the dtype")?;
        self.cursor.literal("null")?;
        self.cursor.expect(b'}', "`}` after the dtype")?;
        self.dtype_of(name)
    }

    fn dtype_of(&self, name: JsonStr<'a>) -> Result<Dtype> {
        let resolved = name.resolve();
        Dtype::from_name(resolved.as_bytes()).ok_or_else(|| {
            let message = format!("unknown dtype {}", Named(&resolved));
            self.cursor.fault_at(name.start(), message)
        })
    }

    fn shape(&mut self) -> Result<shapes::Read> {
        self.cursor.expect(b'[', "an array of sizes")?;
        let position = self.cursor.position() - 1;
        let start = self.table.shapes.dims.len();
        let mut n_elements = Some(1_u64);
        let (mut first, mut rank) = (true, 0);
        while self.cursor.next_item(&mut first)? {
            let size = self.cursor.unsigned("a size from 0 to 2^64 - 1")?;
            n_elements = n_elements.and_then(|product| product.checked_mul(size));
            if rank < shapes::LONGEST_KEPT {
                let progress = self.progress();
                make_room(&mut self.table.shapes.dims, 1, progress);
                self.table.shapes.dims.push(size);
            }
            rank += 1;
        }
        Ok(shapes::Read {
            position,
            start,
            rank,
            n_elements,
        })
    }

    fn offsets(&mut self) -> Result<(u64, u64)> {
        const WHAT: &str = "an offset from 0 to 2^64 - 1";
        self.cursor.expect(b'[', "an array of two offsets")?;
        let start = self.cursor.unsigned(WHAT)?;
        self.cursor.expect(b',', "`,` and a second offset")?;
        let end = self.cursor.unsigned(WHAT)?;
        self.cursor.expect(b']', "`]` after two offsets")?;
        Ok((start, end))
    }

    #[inline]
    fn push(&mut self, name: Name, tensor: &Description) -> Result<()> {
        let &Description {
            dtype,
            shape,
            n_elements,
            start,
            end,
        } = tensor;
        let Some(size) = validate::size_bytes(dtype, n_elements) else {
            let error = validate::no_size(dtype, n_elements, self.table.shapes.kept(shape));
            return Err(self.table.blame(self.text, name, error));
        };
        if end.checked_sub(start) != Some(size) {
            let shown = name.of(self.text, &self.table.resolved);
            let error = validate::wrong_size(shown, dtype, size, start, end);
            return Err(self.table.blame(self.text, name, error));
        }
        self.is_chain &= start == self.table.data_size;
        self.table.data_size = end;
        let progress = self.progress();
        make_room(&mut self.table.entries, 1, progress);
        self.table
            .entries
            .push(Entry::new(name, dtype, shape, start));
        Ok(())
    }

    fn metadata(&mut self) -> Result<()> {
        if self.cursor.peek() == Some(b'n') {
            let start = self.cursor.position();
            self.cursor.literal("null")?;
            if self.rules == Rules::Strict {
                return Err(self.forbidden(start, "`__metadata__` is null"));
            }
            return Ok(());
        }
        let start = self.cursor.position();
        self.cursor.expect(b'{', "an object of strings")?;
        let mut pairs = Pairs::default();
        let mut first = true;
        while let Some(key) = self.cursor.next_key(&mut first)? {
            let value = self
                .cursor
                .string("a string, as all values of `__metadata__` are")?;
            pairs.push(key, value, self.progress());
        }
        if let Some(key) = pairs.keep_last_of_each_key()
            && self.rules == Rules::Strict
        {
            let message = format!("the key {} of `__metadata__` stands twice", Named(&key));
            let place = self.cursor.fault_at(start, "").bytes();
            let error = Error::new(ErrorKind::DuplicateKey, message);
            return Err(place.into_iter().fold(error, Error::with_bytes));
        }
        self.table.pairs = Some(pairs);
        Ok(())
    }

    #[cold]
    fn forbidden(
        &self,
        position: usize,
        message: impl Into<alloc::borrow::Cow<'static, str>>,
    ) -> Error {
        let cursor = Cursor::new(self.text, LENGTH_BYTES, ErrorKind::Forbidden);
        cursor.fault_at(position, message)
    }
}
