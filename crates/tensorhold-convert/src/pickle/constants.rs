//! The values that stand in a pickle as they are.

use tensorhold_core::{Error, ErrorKind, Result};

use super::globals::Known;
use super::numbers::{
    of_c, parse_float, parse_integer, parse_octal, raw_unicode, shorten, small_integer, unquote,
};
use super::opcodes::Argument;
use crate::builder::Builder;
use crate::finding::GlobalId;
use crate::storage::{Place, Storage};
use crate::tree::{Data, Node, NodeId, Text};

/// Adds the value of an operation that has one.
///
/// # Errors
/// `ForeignFormat` if it is no value of its kind, `Overflow` past a limit.
pub(crate) fn push(builder: &mut Builder<'_>, code: u8, argument: Argument) -> Result<NodeId> {
    let node = match (code, argument) {
        (_, Argument::Number(number)) => Node::Int(i64::try_from(number).unwrap_or(i64::MAX)),
        (_, Argument::Int(number)) => Node::Int(number),
        (_, Argument::Float(number)) => Node::Float(number),
        (b'I' | b'L', Argument::Bytes(line)) => number_line(code, &line, builder)?,
        (0x8a | 0x8b, Argument::Bytes(bytes)) => integer(bytes),
        (b'F', Argument::Bytes(line)) => {
            Node::Float(parse_float(of_c(&line)).ok_or_else(|| wrong("FLOAT"))?)
        }
        (b'S', Argument::Bytes(line)) => old_text(unquote(&line).ok_or_else(|| wrong("STRING"))?),
        (b'V', Argument::Bytes(line)) => text(raw_unicode(&line).ok_or_else(|| wrong("UNICODE"))?)?,
        (b'T' | b'U', Argument::Bytes(bytes)) => old_text(bytes),
        (0x96, Argument::Bytes(bytes)) => Node::ByteArray(Data::Memory(bytes)),
        (b'B' | b'C' | 0x8e, Argument::Bytes(bytes)) => Node::Bytes(Data::Memory(bytes)),
        (_, Argument::Bytes(bytes)) => text(bytes)?,
        _ => return Err(wrong("an operation")),
    };
    builder.push(node)
}

/// Adds the value that a name is: for types and formats themselves, for everything else the name.
///
/// # Errors
/// `Overflow` past the limit of nodes.
pub(crate) fn push_global(builder: &mut Builder<'_>, global: GlobalId) -> Result<NodeId> {
    let node = match builder.known(global) {
        Known::Dtype(element) => Node::Dtype(element),
        Known::MemoryFormat(name) => Node::MemoryFormat(name),
        Known::Qscheme(name) => Node::Qscheme(name),
        Known::Ellipsis => Node::Ellipsis,
        _ => Node::Global(global),
    };
    builder.push(node)
}

/// A text.
///
/// # Errors
/// `ForeignFormat` if it is not UTF-8.
pub(crate) fn text(bytes: Vec<u8>) -> Result<Node> {
    let text = Text::from_bytes(bytes);
    let text = text.ok_or_else(|| Error::new(ErrorKind::ForeignFormat, "a text is not UTF-8"))?;
    Ok(Node::Str(text))
}

/// The integer of two's complement bytes, least first.
pub(crate) fn integer(mut bytes: Vec<u8>) -> Node {
    shorten(&mut bytes);
    small_integer(&bytes).map_or_else(|| Node::BigInt(bytes), Node::Int)
}

/// A `str` of Python 2: text if it is UTF-8, and else bytes.
fn old_text(bytes: Vec<u8>) -> Node {
    match String::from_utf8(bytes) {
        Ok(text) => Node::Str(Text::from(text.as_str())),
        Err(error) => Node::Bytes(Data::Memory(error.into_bytes())),
    }
}

fn number_line(code: u8, line: &[u8], builder: &Builder<'_>) -> Result<Node> {
    let limit = builder.limits.integer_bytes.saturating_mul(3);
    if line.len() as u64 > limit {
        let message = format!(
            "an integer of {} digits is over the limit of {limit}",
            line.len()
        );
        return Err(Error::new(ErrorKind::Overflow, message));
    }
    let digits = of_c(line);
    let bytes = match (code, line) {
        (b'I', b"00") => return Ok(Node::Bool(false)),
        (b'I', b"01") => return Ok(Node::Bool(true)),
        // C takes no digits at all for 0.
        (b'I', [0, ..]) => Some(vec![0]),
        (b'I', _) => parse_integer(digits, 0).or_else(|| parse_octal(digits)),
        _ => parse_integer(digits.strip_suffix(b"L").unwrap_or(digits), 0),
    };
    Ok(integer(bytes.ok_or_else(|| wrong("an integer"))?))
}

/// Adds the bytes of an operation that were left where they are.
///
/// # Errors
/// `Overflow` past a limit.
pub(crate) fn push_left(
    builder: &mut Builder<'_>,
    code: u8,
    place: Place,
    size_bytes: u64,
) -> Result<NodeId> {
    let name = match &place {
        Place::InFile(range) => format!("bytes at {}", range.start),
        _ => format!("bytes {}", builder.storages.len()),
    };
    let data = Data::Storage(builder.push_storage(Storage::new(name, place, size_bytes))?);
    builder.push(if code == 0x96 {
        Node::ByteArray(data)
    } else {
        Node::Bytes(data)
    })
}

fn wrong(what: &str) -> Error {
    Error::new(
        ErrorKind::ForeignFormat,
        format!("{what} in a pickle has no value"),
    )
}
