//! Whether a file that is something else is also a pickle that runs something.
//!
//! Python's `pickle` takes any file whose first byte is one of its operations, and runs on until an operation makes no sense. So the
//! bytes of another format can be a program as well. A pickle harms by what it imports: the machine follows it up to the
//! first name that an unpickler could find.
//!
//! # Source
//! CPython 3.13, `Modules/_pickle.c`: whatever it lets pass passes here. `tests/imports.rs` compares the two.

use tensorhold_core::{ByteRange, Error, ErrorKind, Result, Source};

use super::machine::Machine;
use super::opcodes::{Argument, Operation, SMALL_BYTES};
use super::read::NoPersistent;
use super::stream::Stream;
use crate::builder::Builder;
use crate::limits::Limits;

/// A file that begins with so many operations of a pickle is nothing else.
const MOST_OPERATIONS: u64 = 1 << 20;

/// Nor is one whose operations come with so many bytes that are kept.
const MOST_BYTES: u64 = 16 << 20;

/// Operations that fail where nothing was imported: calls, for want of something to call; persistent ids, buffers and registered
/// extensions, for want of a program that gives them a meaning.
const FAILING: [u8; 10] = [b'R', b'o', 0x81, 0x92, b'P', b'Q', 0x82, 0x83, 0x84, 0x97];

/// The operation with which a file, taken for a pickle, imports something; `None` if it comes to none. Of a pickle that goes on and on,
/// or that readers understand differently, it is all that was followed.
///
/// # Errors
/// What the source refuses with.
pub fn first_import(source: &dyn Source) -> Result<Option<ByteRange>> {
    let limits = Limits {
        operations: MOST_OPERATIONS,
        text_bytes: SMALL_BYTES,
        integer_bytes: SMALL_BYTES,
        ..Limits::default()
    };
    let mut stream = Stream::new(source, ByteRange::new(0, source.size_bytes()))?;
    let mut builder = Builder::new(source, &limits);
    let mut nothing = NoPersistent;
    let mut machine = Machine::new(&mut builder, &mut nothing, Some(0));
    let mut kept = 0;
    while kept < MOST_BYTES {
        let start = stream.position();
        match follow_one(&mut machine, &mut stream, &limits) {
            Ok(Step::Next) => kept += (stream.position() - start).min(SMALL_BYTES),
            Ok(Step::Stop) => return Ok(None),
            Ok(Step::Torn) => return Ok(Some(ByteRange::new(0, stream.position()))),
            Ok(Step::Import) => return Ok(Some(ByteRange::new(start, stream.position()))),
            Err(error) => match error.kind() {
                ErrorKind::ForeignFormat | ErrorKind::Truncated => return Ok(None),
                ErrorKind::Overflow => return Ok(Some(ByteRange::new(0, stream.position()))),
                _ => return Err(error),
            },
        }
    }
    Ok(Some(ByteRange::new(0, stream.position())))
}

enum Step {
    Next,
    /// The end of the pickle, or an operation that fails.
    Stop,
    /// An operation behind which readers go on at different bytes.
    Torn,
    Import,
}

fn follow_one(
    machine: &mut Machine<'_, '_>,
    stream: &mut Stream<'_>,
    limits: &Limits,
) -> Result<Step> {
    machine.builder.charge_operation()?;
    let code = stream.peek()?;
    if code == b'.' || FAILING.contains(&code) {
        return Ok(Step::Stop);
    }
    let operation = read(stream, limits)?;
    if machine.tears_frame(&operation, stream) {
        return Ok(Step::Torn);
    }
    machine.step(operation, stream)?;
    let is_name = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
    Ok(match &machine.builder.globals[..] {
        [] => Step::Next,
        [name, ..] if is_name(&name.module) && is_name(&name.name) => Step::Import,
        _ => Step::Stop,
    })
}

/// The next operation; where its argument is too long to be kept, it has one with which the machine does the same.
fn read(stream: &mut Stream<'_>, limits: &Limits) -> Result<Operation> {
    let position = stream.position();
    match Operation::read(stream, limits) {
        Err(error) if error.kind() == ErrorKind::Overflow => {
            stream.seek(position);
            cut(stream)
        }
        read => read,
    }
}

fn cut(stream: &mut Stream<'_>) -> Result<Operation> {
    let position = stream.position();
    let code = stream.byte()?;
    let start = stream.take(stream.left().min(SMALL_BYTES))?;
    stream.seek(position);
    Operation::pass(stream)?;
    let long = vec![b'x'; SMALL_BYTES as usize + 1];
    let argument = match (code, start.first()) {
        (b'c' | b'i', _) => return Err(long_name(&start)),
        // What has a value has it by its first bytes.
        (b'I' | b'L' | b'F' | b'p' | b'g', _) => start,
        (b'S', Some(&quote)) => [&[quote][..], &long, &[quote]].concat(),
        // An integer, or a text that is too long for a name.
        _ => long,
    };
    Ok(Operation {
        position,
        code,
        argument: Argument::Bytes(argument),
    })
}

/// Refuses lines of which one is longer than any name; as a name if it could be one.
fn long_name(start: &[u8]) -> Error {
    let mut lines = start.split(|byte| *byte == b'\n');
    let is_name = lines.all(|line| !line.iter().any(u8::is_ascii_control));
    let kind = match is_name {
        true => ErrorKind::Overflow,
        false => ErrorKind::ForeignFormat,
    };
    Error::new(kind, "a name in a pickle is longer than any")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import_of(pickle: &[u8]) -> Option<(u64, u64)> {
        let found = first_import(&pickle).unwrap();
        found.map(|range| (range.start, range.end))
    }

    #[test]
    fn the_first_import_is_found() {
        for (pickle, expected) in [
            (&b"cos\nsystem\n(S'id'\ntR."[..], (0, 11)),
            (b"(S'id'\nios\nsystem\n.", (7, 18)),
            (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", (14, 15)),
            (b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x02os\x94\x8c\x06system\x94\x93\x8c\x02id\x85R.", (25, 26)),
            (b"X\x04\0\0\0\0\0\0{q\0h\x000N200cos\nsystem\n", (18, 29)),
            (b"\x8c\x02os\x942h\x000\x93", (9, 10)),
            (b"I\0\0\0any\ncos\nsystem\n", (8, 19)),
            (b"\x8c\x02osp7\n0g7\nV6\x31\n\x93", (15, 16)),
        ] {
            assert_eq!(import_of(pickle), Some(expected), "{}", pickle.escape_ascii());
        }
    }

    #[test]
    fn what_fails_before_an_import_imports_nothing() {
        for pickle in [
            &b""[..],
            b"N.cos\nsystem\n",
            b"0cos\nsystem\n",
            b"(12cos\nsystem\n",
            b"h\0cos\nsystem\n",
            b"g7\ncos\nsystem\n",
            b"Pid\ncos\nsystem\n",
            b"NQcos\nsystem\n",
            b"N)Rcos\nsystem\n",
            b"\x82\x01cos\nsystem\n",
            b"Sbare\ncos\nsystem\n",
            b"\x80\x06cos\nsystem\n",
            b"\x95\xff\0\0\0\0\0\0\0cos\nsystem\n",
            b"X\xff\xff\xff\xffcos\nsystem\n",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffcos\nsystem\n",
            b"cos\nsystem",
            b"c\n\n",
            b"c\0\0\nsystem\n",
            b"c\xff\nsystem\n",
            b"NN\x93",
            b"\x8c\x02os(\x8c\x06system\x93",
        ] {
            assert_eq!(import_of(pickle), None, "{}", pickle.escape_ascii());
        }
    }

    #[test]
    fn what_is_too_long_to_be_kept_is_followed() {
        let long = "x".repeat(200_000);
        let then = "cos\nsystem\n";
        for (pickle, before) in [
            (format!("V{long}\n{then}"), 200_002),
            (format!("S'{long}'\n{then}"), 200_004),
            (format!("I7\0{long}\n{then}"), 200_004),
            (format!("Np7\0{long}\n0g7\n{then}"), 200_009),
            (format!("X\x40\x0d\x03\0{long}{then}"), 200_005),
        ] {
            let start = pickle.chars().take(9).collect::<String>();
            assert_eq!(
                import_of(pickle.as_bytes()),
                Some((before, before + 11)),
                "{start:?}"
            );
        }
    }

    #[test]
    fn a_name_longer_than_any_is_taken_for_one() {
        let long = "path.os.".repeat(1000);
        for pickle in [
            format!("cos\n{long}system\n"),
            format!("Vos\nV{long}system\n\u{93}"),
        ] {
            // What is past ASCII is one byte each.
            let pickle: Vec<u8> = pickle.chars().map(|letter| letter as u8).collect();
            assert!(import_of(&pickle).is_some());
        }
        assert_eq!(import_of(format!("c\0{long}\nsystem\n").as_bytes()), None);
        assert_eq!(import_of(format!("S{long}\n{long}").as_bytes()), None);
    }

    #[test]
    fn a_frame_that_ends_inside_of_an_operation_is_taken_for_a_pickle() {
        let torn = b"\x95\x03\0\0\0\0\0\0\0\x8a\x08builtinst(ios\nsystem\n.";
        assert_eq!(import_of(torn), Some((0, 19)));
        let nested =
            b"\x95\x20\0\0\0\0\0\0\0N\x95\x01\0\0\0\0\0\0\0NNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNN";
        assert_eq!(import_of(nested), Some((0, 19)));
    }

    #[test]
    fn a_pickle_without_an_end_is_taken_for_one() {
        assert!(import_of(&vec![b'N'; 1 << 21]).is_some());
        assert_eq!(import_of(&vec![b'N'; 1 << 19]), None);
        let line = [&b"V"[..], &[b'x'; 4000], b"\n"].concat();
        assert!(import_of(&line.repeat(5_000)).is_some());
        assert_eq!(import_of(&line.repeat(3_000)), None);
    }
}
