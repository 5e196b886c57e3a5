//! A header takes less than three times the memory of its text, whatever it is filled with.

mod counting;

use counting::{Counting, peak_of};
use tensorhold_core::{Header, Rules};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// `start`, then `unit` until the text has a megabyte, each `#` in it another number, then `end`.
fn file(start: &str, unit: &str, end: &str) -> Vec<u8> {
    let mut text = start.to_owned();
    for number in 0.. {
        if text.len() > 1 << 20 {
            break;
        }
        text += &unit.replace('#', &format!("{number:x}"));
    }
    text += end;
    let length = text.len() as u64;
    [&length.to_le_bytes()[..], text.as_bytes()].concat()
}

#[test]
fn large_headers_take_less_than_three_times_their_size() {
    let last = r#""z":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#;
    for (start, unit, end) in [
        (
            "{",
            r##""#":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"##,
            last,
        ),
        (
            "{",
            r##""#":{"dtype":"F32","shape":[0,9,9,9],"data_offsets":[0,0]},"##,
            last,
        ),
        ("{", r##""#":["U8",[0],[0,0]],"##, last),
        ("{", r##""#":["U8",[0,0],[0,0]],"##, last),
        ("{", r##""#":["U8",[0,0,0,0],[0,0]],"##, last),
        ("{", r##""#":["U8",[0,0,0,0,0,0,0,0,0],[0,0]],"##, last),
        (r#"{"a":["U8",[0"#, ",0", "],[0,0]]}"),
        (
            r#"{"a":{"dtype":"U8","shape":[0"#,
            ",9",
            r#"],"data_offsets":[0,0]}}"#,
        ),
        ("{", r##""\n#":["U8",[0],[0,0]],"##, last),
        (r#"{"a":["U8",["#, "0,", "0],[0,0]]}"),
        (r#"{"__metadata__":{"#, r##""#":"","##, r#""z":""}}"#),
        (r#"{"__metadata__":{"#, r##""\n#":"\n","##, r#""z":""}}"#),
        (r#"{"__metadata__":{"#, r##""key":"","##, r#""z":""}}"#),
    ] {
        let file = file(start, unit, end);
        let mut is_read = false;
        let peak = peak_of(|| is_read = Header::parse_file(&file, Rules::Compatible).is_ok());
        assert!(is_read, "{unit}");
        let ratio = peak as f64 / file.len() as f64;
        assert!(ratio < 3.0, "{ratio:.2} times the size for {unit}");
    }
}
