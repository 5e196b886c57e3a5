//! Text from files made harmless for a terminal.

use core::fmt::{self, Write};

/// Text that prints without controlling the terminal that shows it.
///
/// Control characters (C0, DEL, C1), line and paragraph separators, bidirectional controls and
/// characters of no width print as `\u{..}`; everything else, the backslash too, prints as it is.
///
/// ```
/// # use tensorhold_core::Escaped;
/// assert_eq!(Escaped("red \u{1b}[31m").to_string(), r"red \u{1b}[31m");
/// assert_eq!(Escaped("poids.été").to_string(), "poids.été");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(is_harmful) {
            let (clean, tail) = rest.split_at(at);
            f.write_str(clean)?;
            let mut chars = tail.chars();
            if let Some(harmful) = chars.next() {
                write!(f, "{}", harmful.escape_unicode())?;
            }
            rest = chars.as_str();
        }
        f.write_str(rest)
    }
}

/// A name for the middle of a message: escaped, and cut where it is longer than a line.
#[derive(Clone, Copy)]
pub(crate) struct Named<'a>(pub &'a str);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 160;
        f.write_char('`')?;
        match self.0.char_indices().nth(LONGEST) {
            None => write!(f, "{}`", Escaped(self.0)),
            Some((end, _)) => {
                let (start, left) = self.0.split_at(end);
                write!(f, "{}…` ({} bytes more)", Escaped(start), left.len())
            }
        }
    }
}

fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' // soft hyphen
            | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
            | '\u{180e}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}'
            | '\u{2028}' | '\u{2029}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn controls_bidi_and_invisible_characters_print_as_escapes() {
        for (text, expected) in [
            ("a\nb\0", r"a\u{a}b\u{0}"),
            ("\u{7f}\u{9b}", r"\u{7f}\u{9b}"),
            ("\u{202e}gpj.exe\u{2069}", r"\u{202e}gpj.exe\u{2069}"),
            ("x\u{200b}\u{feff}\u{2028}", r"x\u{200b}\u{feff}\u{2028}"),
            (r"back\slash", r"back\slash"),
            ("层.0 ü 🙂", "层.0 ü 🙂"),
        ] {
            assert_eq!(Escaped(text).to_string(), expected);
        }
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let name = "é".repeat(200);
        let shown = Named(&name).to_string();
        assert_eq!(
            shown,
            alloc::format!("`{}…` (80 bytes more)", "é".repeat(160))
        );
    }
}
