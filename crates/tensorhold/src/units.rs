//! Sizes and counts as people write and read them.

use std::fmt;

use tensorhold_core::{Error, ErrorKind, Escaped, Result};

/// A number of bytes that prints in the decimal unit that fits: `16.1 GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// A count that prints short, in the words of model cards: `8.03B`, `525M`, `4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub u64);

/// A number that prints whole, its digits in groups of three: `8,030,261,248`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exact(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = match scaled(self.0, 1000) {
            (digits, 0) => format!("{digits} B"),
            (digits, power) => format!("{digits} {}B", &"kMGTPE"[power - 1..power]),
        };
        f.pad(&short)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = match scaled(self.0, 10_000) {
            (digits, 0) => digits,
            (digits, power) => format!("{digits}{}", ["K", "M", "B", "T", "Qa", "Qi"][power - 1]),
        };
        f.pad(&short)
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
        for (n, digit) in digits.chars().enumerate() {
            if n > 0 && (digits.len() - n).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        f.pad(&grouped)
    }
}

/// Three digits of `number`, and the power of 1000 they are of. Numbers below `whole_below` stay whole.
fn scaled(number: u64, whole_below: u64) -> (String, usize) {
    if number < whole_below {
        return (number.to_string(), 0);
    }
    let (mut value, mut power) = (number as f64, 0);
    // 999.5 is shown as 1.00 of the next unit.
    while value >= 999.5 {
        value /= 1000.0;
        power += 1;
    }
    let digits = match value {
        v if v < 9.995 => format!("{value:.2}"),
        v if v < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    (digits, power)
}

/// The number of bytes that `text` stands for: `5GB` (1000³), `5GiB` (1024³), `500 MB`, `1.5G`, `4096`.
///
/// # Errors
/// `InvalidArgument` for anything else, for zero and for what passes 2^64.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let refused = || {
        let message = format!("`{}` is no size in bytes", Escaped(text));
        Error::new(ErrorKind::InvalidArgument, message)
            .with_hint("write a number and a unit, as `5GB`, `500MB`, `4GiB` or `4096`")
    };
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let unit = unit_bytes(text[end..].trim_start()).ok_or_else(refused)?;
    let (whole, fraction) = text[..end].split_once('.').unwrap_or((&text[..end], ""));
    let whole: u128 = whole.parse().map_err(|_| refused())?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused());
    }
    let fraction: f64 = format!("0.{fraction}").parse().map_err(|_| refused())?;
    let size = whole
        .checked_mul(unit)
        .and_then(|size| size.checked_add((fraction * unit as f64) as u128))
        .ok_or_else(refused)?;
    match u64::try_from(size) {
        Ok(size) if size > 0 => Ok(size),
        _ => Err(refused()),
    }
}

fn unit_bytes(unit: &str) -> Option<u128> {
    let unit = unit.to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let (letter, base) = match unit.strip_suffix('i') {
        Some(letter) => (letter, 1024u128),
        None => (unit, 1000),
    };
    let power = match letter {
        "" if base == 1000 => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    Some(base.pow(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_print_in_the_unit_that_fits() {
        for (bytes, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (1536, "1.54 kB"),
            (9_996, "10.0 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (16_060_522_496, "16.1 GB"),
            (688_586_727_753, "689 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), expected);
        }
    }

    #[test]
    fn counts_below_ten_thousand_print_whole() {
        for (count, expected) in [
            (7168, "7168"),
            (10_000, "10.0K"),
            (525_336_576, "525M"),
            (8_030_261_248, "8.03B"),
            (u64::MAX, "18.4Qi"),
        ] {
            assert_eq!(Count(count).to_string(), expected);
        }
    }

    #[test]
    fn exact_numbers_have_their_digits_in_threes() {
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (16_060_522_496, "16,060,522,496"),
        ] {
            assert_eq!(Exact(number).to_string(), expected);
        }
    }

    #[test]
    fn sizes_are_read_in_decimal_and_binary_units() {
        for (text, expected) in [
            ("4096", 4096),
            ("1b", 1),
            ("5GB", 5_000_000_000),
            ("5gb", 5_000_000_000),
            ("5 G", 5_000_000_000),
            ("5GiB", 5 << 30),
            ("1.5GB", 1_500_000_000),
            ("0.25MiB", 1 << 18),
            ("2TB", 2_000_000_000_000),
        ] {
            assert_eq!(parse_bytes(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_an_example() {
        for text in [
            "",
            "GB",
            "0",
            "-1",
            "5XB",
            "5iB",
            "1.2.3GB",
            ".5GB",
            "99999999PB",
            "1e3",
        ] {
            let error = parse_bytes(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}");
            assert!(error.hint().unwrap().contains("`5GB`"), "{text}");
        }
    }
}
