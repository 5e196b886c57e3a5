//! JSON numbers whose value is not wanted, only whether they may stand there.

use alloc::format;

/// The length of the number at the start of `bytes`, or where it goes wrong and how.
///
/// A number that no finite `f64` is near is refused, as the program whose verdicts we match does.
/// That program keeps the first digits that fit a `u64` as the significand and counts the rest into
/// the exponent; so does this.
///
/// # Source
/// The verdicts of crate `serde_json` 1.0 without its feature `float_roundtrip`.
pub(super) fn length(bytes: &[u8]) -> Result<usize, (usize, &'static str)> {
    let mut scan = Scan {
        bytes,
        at: usize::from(bytes.first() == Some(&b'-')),
    };
    let mut number = Decimal {
        significand: 0,
        exponent: 0,
        is_full: false,
    };
    let start = scan.at;
    scan.digits(|digit| number.integer_digit(digit));
    let has_leading_zero = scan.at - start > 1 && bytes[start] == b'0';
    if scan.at == start || has_leading_zero {
        return Err((scan.at, "not a number"));
    }
    if scan.passes(b".") {
        number.is_full = false;
        let start = scan.at;
        scan.digits(|digit| number.fraction_digit(digit));
        if scan.at == start {
            return Err((scan.at, "no digit after the decimal point"));
        }
    }
    if scan.passes(b"eE") {
        let is_negative = scan.passes(b"-");
        let _ = is_negative || scan.passes(b"+");
        let start = scan.at;
        let mut written = 0_i64;
        scan.digits(|digit| written = (written * 10 + i64::from(digit)).min(1 << 40));
        if scan.at == start {
            return Err((scan.at, "no digit in the exponent"));
        }
        number.exponent += if is_negative { -written } else { written };
    }
    if number.is_finite() {
        Ok(scan.at)
    } else {
        Err((0, "a number beyond the range of a float"))
    }
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn digits(&mut self, mut each: impl FnMut(u8)) {
        while let Some(digit @ b'0'..=b'9') = self.bytes.get(self.at) {
            each(digit - b'0');
            self.at += 1;
        }
    }

    fn passes(&mut self, any_of: &[u8]) -> bool {
        let is_there = self
            .bytes
            .get(self.at)
            .is_some_and(|byte| any_of.contains(byte));
        self.at += usize::from(is_there);
        is_there
    }
}

/// The number `significand * 10^exponent`.
struct Decimal {
    significand: u64,
    exponent: i64,
    is_full: bool,
}

impl Decimal {
    fn integer_digit(&mut self, digit: u8) {
        if !self.push(digit) {
            self.exponent += 1;
        }
    }

    fn fraction_digit(&mut self, digit: u8) {
        if self.push(digit) {
            self.exponent -= 1;
        }
    }

    fn push(&mut self, digit: u8) -> bool {
        let longer = self
            .significand
            .checked_mul(10)
            .and_then(|tenfold| tenfold.checked_add(u64::from(digit)))
            .filter(|_| !self.is_full);
        self.is_full = longer.is_none();
        self.significand = longer.unwrap_or(self.significand);
        longer.is_some()
    }

    fn is_finite(&self) -> bool {
        // No u64 times 10^288 passes the largest f64, about 1.8e308.
        if self.significand == 0 || self.exponent <= 288 {
            return true;
        }
        if self.exponent > 308 {
            return false;
        }
        let power: f64 = format!("1e{}", self.exponent)
            .parse()
            .unwrap_or(f64::INFINITY);
        (self.significand as f64 * power).is_finite()
    }
}
