//! Values as JSON, exactly.

use crate::tree::Text;

/// Writes a string with its quotes; a lone surrogate as its escape.
pub(super) fn push_text(out: &mut String, text: &Text) {
    out.push('"');
    let mut rest = text.as_bytes();
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                push_escaped(out, valid);
                break;
            }
            Err(error) => {
                let (valid, after) = rest.split_at(error.valid_up_to());
                push_escaped(out, std::str::from_utf8(valid).unwrap_or_default());
                // A surrogate, in three bytes as other characters of its size are.
                let (surrogate, later) = after.split_at(after.len().min(3));
                let bits = surrogate
                    .iter()
                    .fold(0, |bits, &byte| bits << 6 | u32::from(byte & 0x3f));
                out.push_str(&format!("\\u{:04x}", bits & 0xffff));
                rest = later;
            }
        }
    }
    out.push('"');
}

/// Writes a string that has no lone surrogates, with its quotes.
pub(super) fn push_str(out: &mut String, text: &str) {
    out.push('"');
    push_escaped(out, text);
    out.push('"');
}

fn push_escaped(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\0'..='\x1f' | '\x7f' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => out.push(character),
        }
    }
}

/// Writes a float such that reading it gives the same bits.
pub(super) fn push_float(out: &mut String, float: f64) {
    const PLAIN_NAN: u64 = 0x7ff8_0000_0000_0000;
    let special = match float {
        _ if float.is_finite() => return out.push_str(&format!("{float:?}")),
        f64::INFINITY => "inf".to_owned(),
        f64::NEG_INFINITY => "-inf".to_owned(),
        _ if float.to_bits() == PLAIN_NAN => "nan".to_owned(),
        _ => format!("0x{:016x}", float.to_bits()),
    };
    out.push_str(&format!("{{\"$float\":\"{special}\"}}"));
}

/// Writes a list of numbers.
pub(super) fn push_numbers(out: &mut String, numbers: &[u64]) {
    out.push('[');
    for (index, number) in numbers.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&number.to_string());
    }
    out.push(']');
}

/// The decimal digits of a two's complement number, least byte first.
pub(super) fn decimal(bytes: &[u8]) -> String {
    const CHUNK: u64 = 1_000_000_000;
    let is_negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut words = words_of(bytes, is_negative);
    let mut chunks = Vec::new();
    while !words.is_empty() {
        let mut remainder = 0u64;
        for word in words.iter_mut().rev() {
            let value = remainder << 32 | u64::from(*word);
            *word = (value / CHUNK) as u32;
            remainder = value % CHUNK;
        }
        chunks.push(remainder);
        while words.last() == Some(&0) {
            words.pop();
        }
    }
    let mut text = String::from(if is_negative { "-" } else { "" });
    text.push_str(&chunks.pop().unwrap_or(0).to_string());
    for chunk in chunks.iter().rev() {
        text.push_str(&format!("{chunk:09}"));
    }
    text
}

/// The magnitude in words of 32 bits, least first, without leading zeros.
fn words_of(bytes: &[u8], is_negative: bool) -> Vec<u32> {
    let fill = if is_negative { 0xff } else { 0 };
    let word = |chunk: &[u8]| {
        let mut word = [fill; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        u32::from_le_bytes(word)
    };
    let mut words: Vec<u32> = bytes.chunks(4).map(word).collect();
    if is_negative {
        let mut carry = true;
        for word in &mut words {
            (*word, carry) = (!*word).overflowing_add(u32::from(carry));
        }
        if carry {
            words.push(1);
        }
    }
    while words.last() == Some(&0) {
        words.pop();
    }
    words
}

/// Bytes as base64, with padding.
pub(super) fn push_base64(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let byte = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * n) & 63) as usize];
            out.push(if n <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(push: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        push(&mut out);
        out
    }

    #[test]
    fn integers_of_any_size_are_decimal() {
        let cases: [(&[u8], &str); 8] = [
            (&[], "0"),
            (&[0], "0"),
            (&[0xff], "-1"),
            (&[0x80], "-128"),
            (&[0, 0x80], "-32768"),
            (&[0, 0, 0, 0, 0, 0, 0, 0, 1], "18446744073709551616"),
            (&[0, 0, 0, 0, 0, 0, 0, 0, 0xff], "-18446744073709551616"),
            (&[0, 202, 154, 59], "1000000000"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(decimal(bytes), expected);
        }
    }

    #[test]
    fn floats_keep_their_bits() {
        for float in [0.1, -0.0, 1.0, 1e16, 1e-310, f64::MAX, 5e-324] {
            let text = written(|out| push_float(out, float));
            assert_eq!(text.parse::<f64>().map(f64::to_bits), Ok(float.to_bits()));
            assert!(text.contains(['.', 'e']), "{text}");
        }
        let nan = f64::from_bits(0xfff8_0000_0000_0001);
        let text = written(|out| push_float(out, nan));
        assert_eq!(text, r#"{"$float":"0xfff8000000000001"}"#);
    }

    #[test]
    fn texts_are_escaped_and_surrogates_kept() {
        let text = Text::from_bytes(b"a\"\\\n\xed\xa0\x80\xc3\xa9".to_vec());
        let text = text.expect("it is UTF-8 but for a surrogate");
        let written = written(|out| push_text(out, &text));
        assert_eq!(written, "\"a\\\"\\\\\\u000a\\ud800é\"");
    }

    #[test]
    fn base64_has_padding() {
        for (bytes, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
            assert_eq!(written(|out| push_base64(out, bytes.as_bytes())), expected);
        }
    }
}
