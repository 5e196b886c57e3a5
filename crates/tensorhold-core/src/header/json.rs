//! A cursor over JSON text: reads what the caller expects, builds no tree.
//!
//! It accepts exactly the texts that RFC 8259 allows, with two bounds of the program that the
//! verdicts must equal: at most 127 levels of nesting, and no number beyond the range of an `f64`.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;

use crate::error::{Error, ErrorKind, Result};
use crate::escape::Named;
use crate::extent::ByteRange;

use super::number;

/// The deepest nesting of objects and arrays.
///
/// # Source
/// The recursion limit of crate `serde_json` 1.0.
const MAX_DEPTH: u32 = 127;

/// Runs of this many bytes are searched without a call; names are seldom longer.
const SHORT: usize = 120;

/// A place in a JSON text. Every method first passes over whitespace.
pub(crate) struct Cursor<'a> {
    text: &'a str,
    position: usize,
    kind: ErrorKind,
    text_position: u64,
}

/// A string as it stands in the text: between its quotes, its escapes checked but not resolved.
#[derive(Clone, Copy)]
pub(crate) struct JsonStr<'a> {
    raw: &'a str,
    /// Where it starts in the text, doubled, plus one if it has escapes: without padding, so that
    /// it is copied in whole words.
    start_and_escapes: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `text`, which stands at `text_position` in its file; errors are of
    /// `kind`.
    pub fn new(text: &'a str, text_position: u64, kind: ErrorKind) -> Cursor<'a> {
        Cursor {
            text,
            position: 0,
            kind,
            text_position,
        }
    }

    /// The bytes of the text that are behind the cursor.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The next byte that is no whitespace; the cursor stops before it.
    #[inline(always)]
    pub fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.as_bytes().get(self.position) {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.position += 1,
                byte => return byte.copied(),
            }
        }
    }

    /// Passes over `byte`, which `what` names for an error.
    #[inline(always)]
    pub fn expect(&mut self, byte: u8, what: &'static str) -> Result<()> {
        if self.peek() != Some(byte) {
            return Err(self.expected(what));
        }
        self.position += 1;
        Ok(())
    }

    /// The next key of the object whose `{` is behind, with its `:` passed, or `None` after the
    /// closing `}`. `first` starts as `true`.
    #[inline(always)]
    pub fn next_key(&mut self, first: &mut bool) -> Result<Option<JsonStr<'a>>> {
        match self.peek() {
            Some(b'}') => {
                self.position += 1;
                return Ok(None);
            }
            Some(b',') if !*first => self.position += 1,
            _ if *first => {}
            _ => return Err(self.expected("`,` or `}`")),
        }
        *first = false;
        let key = self.string("a key in double quotes")?;
        self.expect(b':', "`:` after the key")?;
        Ok(Some(key))
    }

    /// Whether another item of the array whose `[` is behind follows; `false` passes over the `]`.
    /// `first` starts as `true`.
    #[inline]
    pub fn next_item(&mut self, first: &mut bool) -> Result<bool> {
        match self.peek() {
            Some(b']') => {
                self.position += 1;
                return Ok(false);
            }
            Some(b',') if !*first => {
                self.position += 1;
                if self.peek() == Some(b']') {
                    return Err(self.expected("a value after `,`"));
                }
            }
            _ if *first => {}
            _ => return Err(self.expected("`,` or `]`")),
        }
        *first = false;
        Ok(true)
    }

    /// The next string, which `what` names for an error.
    #[inline(always)]
    pub fn string(&mut self, what: &'static str) -> Result<JsonStr<'a>> {
        self.expect(b'"', what)?;
        let start = self.position;
        let end = start + self.plain_run()?;
        if self.text.as_bytes()[end] == b'"' {
            self.position = end + 1;
            return Ok(JsonStr {
                raw: &self.text[start..end],
                start_and_escapes: start << 1,
            });
        }
        self.string_with_escapes(start, end)
    }

    /// The next value as a number from 0 to 2^64 - 1, which `what` names for an error.
    #[inline]
    pub fn unsigned(&mut self, what: &'static str) -> Result<u64> {
        self.peek();
        let bytes = self.text.as_bytes();
        let start = self.position;
        let mut end = start;
        let mut value = 0_u64;
        while let Some(digit @ b'0'..=b'9') = bytes.get(end) {
            value = match value
                .checked_mul(10)
                .and_then(|v| v.checked_add(u64::from(digit - b'0')))
            {
                Some(value) => value,
                None => return Err(self.expected(what)),
            };
            end += 1;
        }
        let has_leading_zero = end - start > 1 && bytes[start] == b'0';
        if end == start || has_leading_zero || matches!(bytes.get(end), Some(b'.' | b'e' | b'E')) {
            return Err(self.expected(what));
        }
        self.position = end;
        Ok(value)
    }

    /// Passes over `null`, `true` or `false`.
    pub fn literal(&mut self, word: &'static str) -> Result<()> {
        self.peek();
        if !self.text[self.position..].starts_with(word) {
            return Err(self.expected("a value"));
        }
        self.position += word.len();
        Ok(())
    }

    /// Passes over one value of any kind; `depth` objects and arrays are open around it.
    pub fn skip_value(&mut self, depth: u32) -> Result<()> {
        let mut open = Open {
            is_object: 0,
            depth: 0,
        };
        loop {
            let mut more = match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    if depth + open.depth >= MAX_DEPTH {
                        return Err(self.fault("nested more than 127 levels deep"));
                    }
                    self.position += 1;
                    open.push(bracket == b'{');
                    self.next_in(&open, true)?
                }
                _ => {
                    self.scalar()?;
                    if open.depth == 0 {
                        return Ok(());
                    }
                    self.next_in(&open, false)?
                }
            };
            while !more {
                open.pop();
                if open.depth == 0 {
                    return Ok(());
                }
                more = self.next_in(&open, false)?;
            }
        }
    }

    /// Checks that nothing but whitespace is left.
    pub fn end(&mut self) -> Result<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("nothing after the closing brace")),
        }
    }

    /// What is left of the text.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.position..]
    }

    /// Moves the cursor to where `rest`, the end of the text, begins.
    #[inline]
    pub fn move_to(&mut self, rest: &[u8]) {
        self.position = self.text.len() - rest.len();
    }

    /// An error that says what should stand at the cursor, and what does.
    #[cold]
    pub fn expected(&self, what: &'static str) -> Error {
        match self.word() {
            "" => self.fault(format!("expected {what}, found the end of the text")),
            word => self.fault(format!("expected {what}, found {}", Named(word))),
        }
    }

    /// What stands at the cursor: a run that looks like one number or word, or else a character.
    fn word(&self) -> &'a str {
        let rest = self.text.get(self.position..).unwrap_or_default();
        let in_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_');
        match rest.find(|c| !in_word(c)) {
            Some(0) => &rest[..rest.chars().next().map_or(0, char::len_utf8)],
            Some(end) => &rest[..end],
            None => rest,
        }
    }

    /// An error of the cursor's kind at the cursor.
    #[cold]
    pub fn fault(&self, message: impl Into<Cow<'static, str>>) -> Error {
        self.fault_at(self.position, message)
    }

    /// An error of the cursor's kind at the byte `position` of the text.
    #[cold]
    pub fn fault_at(&self, position: usize, message: impl Into<Cow<'static, str>>) -> Error {
        let start = self.text_position + position as u64;
        let end = start + u64::from(position < self.text.len());
        Error::new(self.kind, message).with_bytes(ByteRange { start, end })
    }

    /// Whether another value follows in the innermost open bracket.
    fn next_in(&mut self, open: &Open, mut first: bool) -> Result<bool> {
        if open.is_object & 1 == 1 {
            Ok(self.next_key(&mut first)?.is_some())
        } else {
            self.next_item(&mut first)
        }
    }

    fn scalar(&mut self) -> Result<()> {
        match self.peek() {
            Some(b'"') => self.string("a string").map(|_| ()),
            Some(b'n') => self.literal("null"),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'-' | b'0'..=b'9') => {
                let bytes = &self.text.as_bytes()[self.position..];
                let length = number::length(bytes)
                    .map_err(|(at, problem)| self.fault_at(self.position + at, problem))?;
                self.position += length;
                Ok(())
            }
            _ => Err(self.expected("a value")),
        }
    }

    /// How many bytes from the cursor stand before the next quote or backslash.
    #[inline(always)]
    fn plain_run(&self) -> Result<usize> {
        let run = &self.text.as_bytes()[self.position..];
        let mut rest = run;
        while let Some((word, tail)) = rest.split_first_chunk::<8>() {
            let stops = stops(u64::from_le_bytes(*word));
            if stops != 0 {
                let length = run.len() - rest.len() + (stops.trailing_zeros() / 8) as usize;
                return if run[length] < b' ' {
                    Err(self.raw_control(run))
                } else {
                    Ok(length)
                };
            }
            rest = tail;
            if run.len() - rest.len() > SHORT {
                break;
            }
        }
        self.long_run(run, run.len() - rest.len())
    }

    /// Finds the end of a run whose first `seen` bytes belong to it.
    #[cold]
    fn long_run(&self, run: &[u8], seen: usize) -> Result<usize> {
        let Some(length) = memchr::memchr2(b'"', b'\\', &run[seen..]) else {
            return Err(self.fault_at(self.text.len(), "a string is not closed"));
        };
        let length = seen + length;
        // A fold without an early exit is what the compiler turns into vector code.
        let has_control = run[..length]
            .iter()
            .fold(false, |found, &byte| found | (byte < b' '));
        if has_control {
            Err(self.raw_control(run))
        } else {
            Ok(length)
        }
    }

    #[cold]
    fn raw_control(&self, run: &[u8]) -> Error {
        let at = run.iter().position(|&byte| byte < b' ').unwrap_or(0);
        let message = format!("control character 0x{:02x} in a string", run[at]);
        self.fault_at(self.position + at, message)
    }

    /// Reads on from the first backslash, at `end`.
    #[cold]
    fn string_with_escapes(&mut self, start: usize, mut end: usize) -> Result<JsonStr<'a>> {
        let bytes = self.text.as_bytes();
        while bytes[end] == b'\\' {
            let Some((_, length)) = escape(&bytes[end..]) else {
                return Err(self.fault_at(end, "a backslash begins no valid escape"));
            };
            self.position = end + length;
            end = self.position + self.plain_run()?;
        }
        self.position = end + 1;
        Ok(JsonStr {
            raw: &self.text[start..end],
            start_and_escapes: start << 1 | 1,
        })
    }
}

/// The high bit of every byte of `word` that is a quote, a backslash or a control character. Bits
/// above the lowest one that is set may be wrong.
#[inline]
fn stops(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let equals = |byte: u8| {
        let zeros = word ^ (ONES * u64::from(byte));
        zeros.wrapping_sub(ONES) & !zeros
    };
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (equals(b'"') | equals(b'\\') | control) & (ONES << 7)
}

/// The brackets that are open around a value, one bit each, innermost last.
struct Open {
    is_object: u128,
    depth: u32,
}

impl Open {
    fn push(&mut self, is_object: bool) {
        self.is_object = self.is_object << 1 | u128::from(is_object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.is_object >>= 1;
        self.depth -= 1;
    }
}

impl<'a> JsonStr<'a> {
    /// The string, if it has no escapes.
    #[inline]
    pub fn plain(self) -> Option<&'a str> {
        (self.start_and_escapes & 1 == 0).then_some(self.raw)
    }

    /// Where the string starts in the text, after its quote.
    #[inline]
    pub fn start(self) -> usize {
        self.start_and_escapes >> 1
    }

    /// The string with its escapes resolved.
    pub fn resolve(self) -> Cow<'a, str> {
        match self.plain() {
            Some(plain) => Cow::Borrowed(plain),
            None => {
                let mut resolved = String::new();
                self.resolve_into(&mut resolved);
                Cow::Owned(resolved)
            }
        }
    }

    /// Appends the string with its escapes resolved.
    pub fn resolve_into(self, into: &mut String) {
        if into.capacity() - into.len() < self.raw.len() {
            into.reserve_exact(self.raw.len().max(into.len() / 16));
        }
        let mut rest = self.raw;
        while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
            into.push_str(&rest[..at]);
            let (character, length) =
                escape(&rest.as_bytes()[at..]).expect("a JsonStr's escapes have been checked");
            into.push(character);
            rest = &rest[at + length..];
        }
        into.push_str(rest);
    }
}

/// The character that the escape at the start of `bytes` stands for, and the escape's length.
fn escape(bytes: &[u8]) -> Option<(char, usize)> {
    let simple = match bytes.get(1)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(bytes),
        _ => return None,
    };
    Some((simple, 2))
}

fn unicode_escape(bytes: &[u8]) -> Option<(char, usize)> {
    let unit = hex(bytes.get(2..6)?)?;
    if let Some(character) = char::from_u32(unit) {
        return Some((character, 6));
    }
    let is_pair = unit < 0xDC00 && bytes.get(6..8)? == br"\u";
    let low = hex(bytes.get(8..12)?)?;
    if !is_pair || !(0xDC00..0xE000).contains(&low) {
        return None;
    }
    let character = char::from_u32(0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00))?;
    Some((character, 12))
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, &digit| {
        Some(value << 4 | char::from(digit).to_digit(16)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(text: &str) -> Cursor<'_> {
        Cursor::new(text, 0, ErrorKind::InvalidIndex)
    }

    fn string(text: &str) -> Result<String> {
        let mut cursor = cursor(text);
        let string = cursor.string("a string")?.resolve().into_owned();
        cursor.end()?;
        Ok(string)
    }

    #[test]
    fn escapes_are_resolved() {
        assert_eq!(
            string(r#" "a\"\\\/\b\f\n\r\t" "#).unwrap(),
            "a\"\\/\u{8}\u{c}\n\r\t"
        );
        assert_eq!(string(r#""\u00e9\uD83d\uDe00x""#).unwrap(), "é😀x");
        for wrong in [
            r#""\ud83d""#,
            r#""\ude00""#,
            r#""\ud83d\u0041""#,
            r#""\u12""#,
            r#""\a""#,
        ] {
            let message = "a backslash begins no valid escape";
            assert_eq!(string(wrong).unwrap_err().message(), message, "{wrong}");
        }
    }

    #[test]
    fn the_end_of_a_string_is_found_wherever_it_lies() {
        for length in 0..300 {
            let body = "é".repeat(length / 2) + &"x".repeat(length % 2);
            assert_eq!(string(&format!("\"{body}\"")).unwrap(), body);
            assert_eq!(
                string(&format!("\"{body}\\n{body}\"")).unwrap(),
                format!("{body}\n{body}")
            );
            let error = string(&format!("\"{body}\u{1f}{body}\"")).unwrap_err();
            assert_eq!(
                error.bytes(),
                Some(ByteRange::new(body.len() as u64 + 1, body.len() as u64 + 2))
            );
            assert_eq!(
                string(&format!("\"{body}")).unwrap_err().message(),
                "a string is not closed"
            );
        }
    }

    #[test]
    fn any_value_can_be_passed_over() {
        for value in [
            "1",
            "-0.5e+3",
            "null",
            "\"]\"",
            "[]",
            "{}",
            r#"[{"a":[1,{"b":null}]},[],true]"#,
        ] {
            let text = format!("[ {value} , 7]");
            let mut cursor = cursor(&text);
            let mut first = true;
            cursor.expect(b'[', "`[`").unwrap();
            assert!(cursor.next_item(&mut first).unwrap());
            cursor.skip_value(1).unwrap();
            assert!(cursor.next_item(&mut first).unwrap());
            assert_eq!(cursor.unsigned("a number").unwrap(), 7);
            assert!(!cursor.next_item(&mut first).unwrap());
            cursor.end().unwrap();
        }
    }
}
