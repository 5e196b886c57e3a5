//! The operations of a pickle: which there are, and where each ends.
//!
//! # Source
//! `pickletools.opcodes` of CPython 3.11; `tests/opcodes.rs` compares the two.

use tensorhold_core::{ByteRange, Error, ErrorKind, Result};

use super::stream::Stream;
use crate::limits::Limits;

/// Bytes of a `bytes` value that are kept in memory; longer ones are left where they are.
pub(crate) const SMALL_BYTES: u64 = 4096;

/// What stands after an operation's code.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Argument {
    None,
    /// A count, an index or a small integer.
    Number(u64),
    Int(i64),
    Float(f64),
    /// Text, digits, or few bytes.
    Bytes(Vec<u8>),
    /// Many bytes, left in the source.
    Left(ByteRange),
    /// A module and a name.
    Lines(Vec<u8>, Vec<u8>),
}

/// How an argument is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Nothing,
    Unsigned(u8),
    Int4,
    Float8,
    /// The width of the count before text.
    Text(u8),
    /// The width of the count before bytes, which may be left where they are.
    Data(u8),
    /// The width of the count before an integer's bytes.
    Long(u8),
    /// As `Data(4)`, with a count that may be negative.
    DataSigned,
    Line,
    TwoLines,
}

use Written::*;

/// Code, name, what stands after it.
const TABLE: [(u8, &str, Written); 68] = [
    (b'I', "INT", Line),
    (b'J', "BININT", Int4),
    (b'K', "BININT1", Unsigned(1)),
    (b'M', "BININT2", Unsigned(2)),
    (b'L', "LONG", Line),
    (0x8a, "LONG1", Long(1)),
    (0x8b, "LONG4", Long(4)),
    (b'S', "STRING", Line),
    (b'T', "BINSTRING", DataSigned),
    (b'U', "SHORT_BINSTRING", Data(1)),
    (b'B', "BINBYTES", Data(4)),
    (b'C', "SHORT_BINBYTES", Data(1)),
    (0x8e, "BINBYTES8", Data(8)),
    (0x96, "BYTEARRAY8", Data(8)),
    (0x97, "NEXT_BUFFER", Nothing),
    (0x98, "READONLY_BUFFER", Nothing),
    (b'N', "NONE", Nothing),
    (0x88, "NEWTRUE", Nothing),
    (0x89, "NEWFALSE", Nothing),
    (b'V', "UNICODE", Line),
    (0x8c, "SHORT_BINUNICODE", Text(1)),
    (b'X', "BINUNICODE", Text(4)),
    (0x8d, "BINUNICODE8", Text(8)),
    (b'F', "FLOAT", Line),
    (b'G', "BINFLOAT", Float8),
    (b']', "EMPTY_LIST", Nothing),
    (b'a', "APPEND", Nothing),
    (b'e', "APPENDS", Nothing),
    (b'l', "LIST", Nothing),
    (b')', "EMPTY_TUPLE", Nothing),
    (b't', "TUPLE", Nothing),
    (0x85, "TUPLE1", Nothing),
    (0x86, "TUPLE2", Nothing),
    (0x87, "TUPLE3", Nothing),
    (b'}', "EMPTY_DICT", Nothing),
    (b'd', "DICT", Nothing),
    (b's', "SETITEM", Nothing),
    (b'u', "SETITEMS", Nothing),
    (0x8f, "EMPTY_SET", Nothing),
    (0x90, "ADDITEMS", Nothing),
    (0x91, "FROZENSET", Nothing),
    (b'0', "POP", Nothing),
    (b'2', "DUP", Nothing),
    (b'(', "MARK", Nothing),
    (b'1', "POP_MARK", Nothing),
    (b'g', "GET", Line),
    (b'h', "BINGET", Unsigned(1)),
    (b'j', "LONG_BINGET", Unsigned(4)),
    (b'p', "PUT", Line),
    (b'q', "BINPUT", Unsigned(1)),
    (b'r', "LONG_BINPUT", Unsigned(4)),
    (0x94, "MEMOIZE", Nothing),
    (0x82, "EXT1", Unsigned(1)),
    (0x83, "EXT2", Unsigned(2)),
    (0x84, "EXT4", Int4),
    (b'c', "GLOBAL", TwoLines),
    (0x93, "STACK_GLOBAL", Nothing),
    (b'R', "REDUCE", Nothing),
    (b'b', "BUILD", Nothing),
    (b'i', "INST", TwoLines),
    (b'o', "OBJ", Nothing),
    (0x81, "NEWOBJ", Nothing),
    (0x92, "NEWOBJ_EX", Nothing),
    (0x80, "PROTO", Unsigned(1)),
    (b'.', "STOP", Nothing),
    (0x95, "FRAME", Unsigned(8)),
    (b'P', "PERSID", Line),
    (b'Q', "BINPERSID", Nothing),
];

/// The row of each code in [`TABLE`], plus one; 0 for codes that are no operation.
const ROWS: [u8; 256] = {
    let mut rows = [0; 256];
    let mut row = 0;
    while row < TABLE.len() {
        rows[TABLE[row].0 as usize] = row as u8 + 1;
        row += 1;
    }
    rows
};

/// One operation of a pickle.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Operation {
    /// Where its code is in the source.
    pub(crate) position: u64,
    pub(crate) code: u8,
    pub(crate) argument: Argument,
}

/// The name that Python gives a code; `None` for codes that are no operation.
pub(crate) fn name_of(code: u8) -> Option<&'static str> {
    let row = ROWS[usize::from(code)].checked_sub(1)?;
    Some(TABLE[usize::from(row)].1)
}

impl Operation {
    /// The next operation of a stream.
    ///
    /// # Errors
    /// `ForeignFormat` for a code that is no operation, `Truncated` at the end, `Overflow` past a limit.
    pub(crate) fn read(stream: &mut Stream<'_>, limits: &Limits) -> Result<Operation> {
        let position = stream.position();
        let (code, written) = read_code(stream)?;
        let argument = read_argument(written, stream, limits)?;
        Ok(Operation {
            position,
            code,
            argument,
        })
    }

    /// Passes over the next operation of a stream, whatever the size of its argument.
    ///
    /// # Errors
    /// `ForeignFormat` for a code that is no operation, or a negative size; `Truncated` at the end.
    pub(crate) fn pass(stream: &mut Stream<'_>) -> Result<()> {
        let (_, written) = read_code(stream)?;
        let n_bytes = match written {
            Nothing => 0,
            Unsigned(width) => u64::from(width),
            Int4 => 4,
            Float8 => 8,
            Text(width) | Data(width) | Long(width) => read_unsigned(stream, width)?,
            DataSigned => read_signed(stream)?,
            Line => return stream.pass_line(),
            TwoLines => return stream.pass_line().and_then(|()| stream.pass_line()),
        };
        stream.skip(n_bytes).map(drop)
    }
}

fn read_code(stream: &mut Stream<'_>) -> Result<(u8, Written)> {
    let position = stream.position();
    let code = stream.byte()?;
    match ROWS[usize::from(code)].checked_sub(1) {
        Some(row) => Ok((code, TABLE[usize::from(row)].2)),
        None => Err(Error::new(
            ErrorKind::ForeignFormat,
            format!("byte {code:#04x} is no operation of a pickle"),
        )
        .with_bytes(ByteRange::new(position, position + 1))),
    }
}

fn read_argument(written: Written, stream: &mut Stream<'_>, limits: &Limits) -> Result<Argument> {
    Ok(match written {
        Nothing => Argument::None,
        Unsigned(width) => Argument::Number(read_unsigned(stream, width)?),
        Int4 => Argument::Int(i64::from(i32::from_le_bytes(stream.array()?))),
        Float8 => Argument::Float(f64::from_be_bytes(stream.array()?)),
        Text(width) => {
            let count = read_unsigned(stream, width)?;
            within(count, limits.text_bytes, "a text", stream)?;
            Argument::Bytes(stream.take(count)?)
        }
        Data(width) => {
            let count = read_unsigned(stream, width)?;
            read_data(stream, count)?
        }
        Long(width) => {
            let count = read_unsigned(stream, width)?;
            within(count, limits.integer_bytes, "an integer", stream)?;
            Argument::Bytes(stream.take(count)?)
        }
        DataSigned => {
            let count = read_signed(stream)?;
            read_data(stream, count)?
        }
        Line => Argument::Bytes(stream.line(limits.text_bytes)?),
        TwoLines => Argument::Lines(stream.line(SMALL_BYTES)?, stream.line(SMALL_BYTES)?),
    })
}

fn read_data(stream: &mut Stream<'_>, count: u64) -> Result<Argument> {
    if count > SMALL_BYTES {
        return Ok(Argument::Left(stream.skip(count)?));
    }
    Ok(Argument::Bytes(stream.take(count)?))
}

fn read_signed(stream: &mut Stream<'_>) -> Result<u64> {
    let count = i32::from_le_bytes(stream.array()?);
    u64::try_from(count).map_err(|_| negative(stream))
}

fn read_unsigned(stream: &mut Stream<'_>, width: u8) -> Result<u64> {
    Ok(match width {
        1 => u64::from(stream.byte()?),
        2 => u64::from(u16::from_le_bytes(stream.array()?)),
        4 => u64::from(u32::from_le_bytes(stream.array()?)),
        _ => u64::from_le_bytes(stream.array()?),
    })
}

fn within(count: u64, limit: u64, what: &str, stream: &Stream<'_>) -> Result<()> {
    if count > stream.left() {
        let size = stream.position() + stream.left();
        return Err(Error::truncated(stream.position(), count, size));
    }
    if count > limit {
        return Err(Error::new(
            ErrorKind::Overflow,
            format!("{what} of {count} bytes in a pickle is over the limit of {limit}"),
        )
        .with_bytes(ByteRange::new(stream.position(), stream.position() + count)));
    }
    Ok(())
}

fn negative(stream: &Stream<'_>) -> Error {
    Error::new(
        ErrorKind::ForeignFormat,
        "a pickle has a text of negative length",
    )
    .with_bytes(ByteRange::new(stream.position() - 4, stream.position()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_begin_where_pickletools_sees_them_begin() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let table = std::fs::read(folder.join("pickles.json")).unwrap();
        let table: serde_json::Value = serde_json::from_slice(&table).unwrap();
        let mut codes = std::collections::BTreeSet::new();
        for (name, case) in table.as_object().unwrap() {
            let Some(expected) = case["operations"].as_array() else {
                continue;
            };
            let file = std::fs::read(folder.join("pickles").join(name)).unwrap();
            let file = file.as_slice();
            let range = ByteRange::new(0, file.len() as u64);
            let mut stream = Stream::new(&file, range).unwrap();
            for expected in expected {
                let operation = Operation::read(&mut stream, &Limits::default()).unwrap();
                let code = name_of(operation.code).unwrap();
                let found = serde_json::json!([operation.position, code]);
                assert_eq!(found, *expected, "{name}");
                codes.insert(code);
            }
        }
        assert_eq!(codes.len(), TABLE.len(), "{codes:?}");
    }
}
