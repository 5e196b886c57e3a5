//! What protocol 0 writes as text.

/// The integer that decimal, octal, binary or hexadecimal digits stand for, as Python's `int(text, 0)` reads them:
/// two's complement, least byte first, no more bytes than it needs. `None` if it is none.
pub(crate) fn parse_integer(text: &[u8], base: u32) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match (base, digits.get(..2)) {
        (0, Some("0x" | "0X")) => (16, &digits[2..]),
        (0, Some("0o" | "0O")) => (8, &digits[2..]),
        (0, Some("0b" | "0B")) => (2, &digits[2..]),
        _ => (10, digits),
    };
    if base == 0 && radix == 10 && digits.len() > 1 && digits.starts_with('0') {
        digits.bytes().all(|digit| digit == b'0').then_some(())?;
    }
    let mut bytes = magnitude(digits, radix)?;
    if is_negative {
        negate(&mut bytes);
    }
    shorten(&mut bytes);
    Some(bytes)
}

/// The integer that octal digits after a 0 stand for, as C's `strtol` reads them.
pub(crate) fn parse_octal(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?.trim_start();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let mut bytes = magnitude(digits.strip_prefix('0')?, 8)?;
    if text.starts_with('-') {
        negate(&mut bytes);
    }
    shorten(&mut bytes);
    Some(bytes)
}

/// What a line is to functions of C, for which a text ends at a byte of zero.
pub(crate) fn of_c(line: &[u8]) -> &[u8] {
    line.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The number of digits, least byte first, with a zero byte at its end.
fn magnitude(digits: &str, radix: u32) -> Option<Vec<u8>> {
    let mut words = vec![0u32];
    let mut was_digit = false;
    for letter in digits.chars() {
        if letter == '_' && was_digit {
            was_digit = false;
            continue;
        }
        let mut carry = u64::from(letter.to_digit(radix)?);
        for word in &mut words {
            let product = u64::from(*word) * u64::from(radix) + carry;
            *word = product as u32;
            carry = product >> 32;
        }
        if carry > 0 {
            words.push(carry as u32);
        }
        was_digit = true;
    }
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.push(0);
    was_digit.then_some(bytes)
}

/// The two's complement of a number with its sign bit in the last byte.
fn negate(bytes: &mut [u8]) {
    let mut carry = true;
    for byte in bytes {
        (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
    }
}

/// Takes bytes away that say nothing but the sign again.
pub(crate) fn shorten(bytes: &mut Vec<u8>) {
    while let [.., before, last] = bytes[..] {
        let is_sign = (last == 0 && before < 0x80) || (last == 0xff && before >= 0x80);
        if !is_sign {
            return;
        }
        bytes.pop();
    }
}

/// The integer of two's complement bytes, least first, if it has at most 64 bits.
pub(crate) fn small_integer(bytes: &[u8]) -> Option<i64> {
    let sign = match bytes.last() {
        Some(&last) if last >= 0x80 => 0xff,
        _ => 0,
    };
    let mut word = [sign; 8];
    word.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(word))
}

/// The float of a line, as Python's `float` reads it.
pub(crate) fn parse_float(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// The bytes of a quoted string literal of Python 2, without its quotes.
pub(crate) fn unquote(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.trim_ascii_end();
    let (&quote, rest) = line.split_first()?;
    let (&last, inner) = rest.split_last()?;
    if quote != last || !matches!(quote, b'"' | b'\'') {
        return None;
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'\\' {
            rest = unescape(after, &mut bytes)?;
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

/// Adds what stands after a backslash, and gives the rest.
fn unescape<'a>(text: &'a [u8], bytes: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (&letter, rest) = text.split_first()?;
    let plain = match letter {
        b'\\' | b'\'' | b'"' => letter,
        b'a' => 7,
        b'b' => 8,
        b't' => 9,
        b'n' => 10,
        b'v' => 11,
        b'f' => 12,
        b'r' => 13,
        b'\n' => return Some(rest),
        b'x' => {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            return Some(&rest[2..]);
        }
        b'0'..=b'7' => {
            let is_octal = |byte: &&u8| matches!(byte, b'0'..=b'7');
            let count = text.iter().take(3).take_while(is_octal).count();
            let fold = |value: u32, &digit: &u8| value * 8 + u32::from(digit - b'0');
            bytes.push(text[..count].iter().fold(0, fold) as u8);
            return Some(&text[count..]);
        }
        _ => {
            bytes.extend([b'\\', letter]);
            return Some(rest);
        }
    };
    bytes.push(plain);
    Some(rest)
}

/// The text of a `raw-unicode-escape` line, as UTF-8 with surrogates as characters.
pub(crate) fn raw_unicode(line: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some((&byte, after)) = rest.split_first() {
        let width = match (byte, after.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => 0,
        };
        if width == 0 {
            // What a backslash is before is no escape's beginning.
            let end = after.len().min(usize::from(byte == b'\\'));
            push_code_point(u32::from(byte), &mut bytes)?;
            for &next in &after[..end] {
                push_code_point(u32::from(next), &mut bytes)?;
            }
            rest = &after[end..];
            continue;
        }
        let digits = std::str::from_utf8(after.get(1..=width)?).ok()?;
        push_code_point(u32::from_str_radix(digits, 16).ok()?, &mut bytes)?;
        rest = &after[1 + width..];
    }
    Some(bytes)
}

/// Adds a code point as UTF-8 would have it, surrogates too.
fn push_code_point(code: u32, bytes: &mut Vec<u8>) -> Option<()> {
    if let Some(letter) = char::from_u32(code) {
        bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
        return Some(());
    }
    if code > 0xdfff {
        return None;
    }
    let tail = |shift: u32| (code >> shift & 0x3f) as u8 | 0x80;
    bytes.extend([0xed, tail(6), tail(0)]);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_python_reads_them() {
        let cases: [(&str, &[u8]); 8] = [
            ("0", b"\0"),
            ("-1", b"\xff"),
            ("255", b"\xff\0"),
            ("-128", b"\x80"),
            ("0x1F", b"\x1f"),
            ("1_000", b"\xe8\x03"),
            ("18446744073709551616", b"\0\0\0\0\0\0\0\0\x01"),
            ("-18446744073709551616", b"\0\0\0\0\0\0\0\0\xff"),
        ];
        for (text, expected) in cases {
            assert_eq!(
                parse_integer(text.as_bytes(), 0).unwrap(),
                expected,
                "{text}"
            );
        }
        for text in ["", "-", "007", "0x", "1__0", "a", "1_"] {
            assert_eq!(parse_integer(text.as_bytes(), 0), None, "{text}");
        }
    }

    #[test]
    fn escapes_are_those_of_python() {
        assert_eq!(unquote(br"'a\n\x41\101\q'").unwrap(), b"a\nAA\\q");
        assert_eq!(unquote(b"'a\""), None);
        assert_eq!(
            raw_unicode(b"\\u00e9\xe9\\U0001F600").unwrap(),
            "éé😀".as_bytes()
        );
        assert_eq!(raw_unicode(b"\\ud800").unwrap(), [0xed, 0xa0, 0x80]);
        assert_eq!(raw_unicode(br"\\u00e9\a\").unwrap(), br"\\u00e9\a\");
    }
}
