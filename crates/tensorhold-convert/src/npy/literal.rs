//! The Python dict that an array's header is: `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.

/// The three things that a header says.
pub(super) struct Fields {
    /// The type, as NumPy's `str` of it; `[` for a list, which stands for a structure.
    pub descr: String,
    pub is_fortran: bool,
    pub shape: Vec<u64>,
}

/// The fields of a header: each once, in any order, and nothing after them but white space.
pub(super) fn parse(text: &[u8]) -> Result<Fields, &'static str> {
    let mut cursor = Cursor { rest: text };
    let mut said = Said::default();
    cursor.expect(b'{')?;
    while !cursor.accept(b'}') {
        said.read(&mut cursor)?;
        if said.descr.as_deref() == Some("[") {
            // What else stands there is of no use: no structure is read.
            return Ok(Fields {
                descr: "[".to_owned(),
                is_fortran: false,
                shape: Vec::new(),
            });
        }
        if !cursor.accept(b',') {
            cursor.expect(b'}')?;
            break;
        }
    }
    if !cursor.rest.trim_ascii().is_empty() {
        return Err("its header goes on after its end");
    }
    match (said.descr, said.is_fortran, said.shape) {
        (Some(descr), Some(is_fortran), Some(shape)) => Ok(Fields {
            descr,
            is_fortran,
            shape,
        }),
        _ => Err("its header lacks the type, the order or the shape"),
    }
}

/// The fields that were read.
#[derive(Default)]
struct Said {
    descr: Option<String>,
    is_fortran: Option<bool>,
    shape: Option<Vec<u64>>,
}

impl Said {
    /// Reads a key and its value.
    fn read(&mut self, cursor: &mut Cursor<'_>) -> Result<(), &'static str> {
        let key = cursor.string()?;
        cursor.expect(b':')?;
        let is_again = match key {
            "descr" => self.descr.replace(cursor.descr()?).is_some(),
            "fortran_order" => self.is_fortran.replace(cursor.truth()?).is_some(),
            "shape" => self.shape.replace(cursor.shape()?).is_some(),
            _ => return Err("its header has a key that no array has"),
        };
        match is_again {
            false => Ok(()),
            true => Err("its header has a key twice"),
        }
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
}

const BROKEN: &str = "its header is no dict of a type, an order and a shape";

impl<'a> Cursor<'a> {
    fn accept(&mut self, wanted: u8) -> bool {
        self.rest = self.rest.trim_ascii_start();
        match self.rest.split_first() {
            Some((first, rest)) if *first == wanted => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, wanted: u8) -> Result<(), &'static str> {
        self.accept(wanted).then_some(()).ok_or(BROKEN)
    }

    fn word(&mut self, word: &[u8]) -> bool {
        self.rest = self.rest.trim_ascii_start();
        match self.rest.strip_prefix(word) {
            Some(rest)
                if !rest
                    .first()
                    .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') =>
            {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// A string without escapes, in either kind of quotes.
    fn string(&mut self) -> Result<&'a str, &'static str> {
        let quote = if self.accept(b'\'') {
            b'\''
        } else {
            self.expect(b'"')?;
            b'"'
        };
        let end = self
            .rest
            .iter()
            .position(|byte| *byte == quote)
            .ok_or(BROKEN)?;
        let (string, rest) = (&self.rest[..end], &self.rest[end + 1..]);
        self.rest = rest;
        let is_plain = string
            .iter()
            .all(|byte| (b' '..=b'~').contains(byte) && *byte != b'\\');
        let string = std::str::from_utf8(string).ok().filter(|_| is_plain);
        string.ok_or("its header has text with escapes or beyond ASCII")
    }

    fn descr(&mut self) -> Result<String, &'static str> {
        if self.accept(b'[') {
            return Ok("[".to_owned());
        }
        self.string().map(str::to_owned)
    }

    fn truth(&mut self) -> Result<bool, &'static str> {
        if self.word(b"True") {
            Ok(true)
        } else if self.word(b"False") {
            Ok(false)
        } else {
            Err(BROKEN)
        }
    }

    /// A tuple of integers; one of a single integer has a comma after it.
    fn shape(&mut self) -> Result<Vec<u64>, &'static str> {
        self.expect(b'(')?;
        let mut shape = Vec::new();
        while !self.accept(b')') {
            shape.push(self.integer()?);
            if !self.accept(b',') {
                self.expect(b')')?;
                if shape.len() == 1 {
                    return Err("its header has a shape that is no tuple");
                }
                break;
            }
        }
        Ok(shape)
    }

    /// A decimal integer; Python 2 wrote an `L` after a long one.
    fn integer(&mut self) -> Result<u64, &'static str> {
        self.rest = self.rest.trim_ascii_start();
        let n_digits = self
            .rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let (digits, rest) = self.rest.split_at(n_digits);
        self.rest = rest.strip_prefix(b"L").unwrap_or(rest);
        let has_leading_zero = digits.len() > 1 && digits[0] == b'0';
        let digits = std::str::from_utf8(digits)
            .ok()
            .filter(|_| !has_leading_zero);
        digits
            .and_then(|digits| digits.parse().ok())
            .ok_or("its header has an extent that is no size")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape_of(text: &str) -> Result<Vec<u64>, &'static str> {
        let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {text}, }}   \n");
        parse(text.as_bytes()).map(|fields| fields.shape)
    }

    #[test]
    fn shapes_are_tuples_of_sizes() {
        for (text, shape) in [
            ("()", vec![]),
            ("(3,)", vec![3]),
            ("(3, 4)", vec![3, 4]),
            ("(3,4,)", vec![3, 4]),
            ("(3L, 0L)", vec![3, 0]),
            ("(18446744073709551615,)", vec![u64::MAX]),
        ] {
            assert_eq!(shape_of(text), Ok(shape), "{text}");
        }
        for text in [
            "3",
            "(3)",
            "[3]",
            "(-1,)",
            "(3.0,)",
            "(1e3,)",
            "(,)",
            "(3,,4)",
            "(3 4)",
            "(03,)",
            "(0x3,)",
            "(3_0,)",
            "(18446744073709551616,)",
            "(True,)",
            "((3,),)",
            "(3,",
            "",
        ] {
            assert!(shape_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_stand_once_and_are_those_of_arrays() {
        let good = "{\"shape\": (2,), 'fortran_order': True, \"descr\": '|u1'}";
        let fields = parse(good.as_bytes()).unwrap();
        assert_eq!((fields.descr.as_str(), fields.is_fortran), ("|u1", true));
        for text in [
            "{}",
            "{'descr': '<f4', 'fortran_order': False}",
            "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (), 'more': 1}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': ()} # a comment",
            "{'descr': '<f4', 'fortran_order': False, 'shape': ()}}",
            "{'descr': '\\x3cf4', 'fortran_order': False, 'shape': ()}",
            "{'descr': u'<f4', 'fortran_order': False, 'shape': ()}",
            "{'descr': '<f4' 'fortran_order': False, 'shape': ()}",
            "{'descr': __import__('os'), 'fortran_order': False, 'shape': ()}",
            "{'descr': '<f4', 'fortran_order': Falsey, 'shape': ()}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': ()}",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
