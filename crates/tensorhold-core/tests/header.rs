//! What a header says about its file, and what it says when it cannot.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tensorhold_core::{
    ByteRange, Dtype, Error, ErrorKind, Header, LENGTH_BYTES, MAX_HEADER_BYTES, Result, Rules,
    Source, header_length,
};

fn file(text: &str, data_size: usize) -> Vec<u8> {
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(text.as_bytes());
    file.resize(file.len() + data_size, 0);
    file
}

fn refused(file: &[u8], rules: Rules) -> (ErrorKind, String) {
    let error = Header::parse_file(file, rules).expect_err("the file is refused");
    (error.kind(), error.to_string())
}

/// A header of one tensor, the dtype's field and the rest as given.
fn one(dtype: &str, rest: &str) -> String {
    format!(r#"{{"a":{{"dtype":{dtype},{rest}}}}}"#)
}

#[test]
fn a_header_tells_all_about_its_tensors() {
    let text = r#"{"__metadata__":{"format":"pt","":"\u00e9"},"w.\u0031":{"shape":[2,3],"dtype":"F16","data_offsets":[8,20]},"b":{"dtype":"F64","shape":[],"data_offsets":[0,8]}} "#;
    let header = Header::parse_file(&file(text, 20), Rules::Strict).unwrap();
    assert_eq!((header.len(), header.is_empty()), (2, false));
    assert_eq!(header.data_start(), LENGTH_BYTES + text.len() as u64);
    assert_eq!(header.data_size(), 20);
    assert_eq!(header.file_size(), header.data_start() + 20);
    let names: Vec<&str> = header.tensors().map(|tensor| tensor.name).collect();
    assert_eq!(names, ["b", "w.1"]);
    let tensor = header.tensor("w.1").unwrap();
    assert_eq!((tensor.dtype, tensor.shape), (Dtype::F16, &[2, 3][..]));
    assert_eq!(tensor.offsets, ByteRange::new(8, 20));
    assert_eq!((tensor.n_elements(), tensor.size_bytes()), (6, 12));
    assert_eq!(header.tensor("b").unwrap().n_elements(), 1);
    assert_eq!(header.index_of("w.1"), Some(1));
    assert_eq!(header.tensor_at(1), Some(tensor));
    assert_eq!(
        (header.tensor_at(2), header.tensor("w"), header.index_of("")),
        (None, None, None)
    );
    let metadata = header.metadata().unwrap();
    assert_eq!((metadata.len(), metadata.is_empty()), (2, false));
    assert_eq!(
        (metadata.get("format"), metadata.get(""), metadata.get("x")),
        (Some("pt"), Some("é"), None)
    );
    assert_eq!(
        metadata.iter().collect::<Vec<_>>(),
        [("format", "pt"), ("", "é")]
    );
}

#[test]
fn of_a_metadata_key_that_stands_twice_the_last_value_counts() {
    let text = r#"{"__metadata__":{"a":"1","b":"2","a":"3","c":"4","b":"5","a":"6"}}"#;
    let header = Header::parse_file(&file(text, 0), Rules::Compatible).unwrap();
    let pairs: Vec<_> = header.metadata().unwrap().iter().collect();
    assert_eq!(pairs, [("c", "4"), ("b", "5"), ("a", "6")]);
}

#[test]
fn empty_tensors_at_one_place_keep_the_order_of_the_text() {
    let empty =
        |name: &str| format!(r#""{name}":{{"dtype":"U8","shape":[0],"data_offsets":[1,1]}}"#);
    let text = format!(
        r#"{{{},{},"first":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}},{}}}"#,
        empty("z"),
        empty("\\u0079"),
        empty("x")
    );
    let header = Header::parse_file(&file(&text, 1), Rules::Strict).unwrap();
    let names: Vec<&str> = header.tensors().map(|tensor| tensor.name).collect();
    assert_eq!(names, ["first", "z", "y", "x"]);
}

#[test]
fn a_shape_of_any_length_is_read_from_any_thread() {
    for rank in [15, 16, 17, 64, 65, 5000] {
        for (comma, open) in [(",", "["), (" ,\n", " [ ")] {
            let mut sizes = vec!["1"; rank];
            sizes[rank / 2] = "3";
            let shape = format!(r#""shape":{open}{}]"#, sizes.join(comma));
            let text = one("\"U8\"", &format!(r#"{shape},"data_offsets":[0,3]"#));
            let header = Header::parse_file(&file(&text, 3), Rules::Strict).unwrap();
            let mut expected = vec![1; rank];
            expected[rank / 2] = 3;
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| assert_eq!(header.tensor("a").unwrap().shape, expected));
                }
            });
        }
    }
}

#[test]
fn a_shape_too_long_to_keep_is_checked_like_any_other() {
    let text = |dtype: &str, sizes: &str| {
        one(
            dtype,
            &format!(
                r#""shape":[{}{sizes}],"data_offsets":[0,0]"#,
                "1,".repeat(1000)
            ),
        )
    };
    for (dtype, sizes, kind, message) in [
        (
            "\"U8\"",
            "4294967296,4294967296",
            ErrorKind::Overflow,
            "the size of the shape in U8 passes 2^64 bits",
        ),
        (
            "\"F4\"",
            "3",
            ErrorKind::Misaligned,
            "the shape in F4 takes 12 bits, which is no whole number of bytes",
        ),
        (
            "\"U8\"",
            "3",
            ErrorKind::SizeMismatch,
            "tensor `a` takes 3 bytes by its shape in U8, but its offsets 0..0 hold 0",
        ),
    ] {
        let error =
            Header::parse_file(&file(&text(dtype, sizes), 0), Rules::Compatible).unwrap_err();
        assert_eq!((error.kind(), error.message()), (kind, message));
    }
}

#[test]
fn json_faults_say_what_was_expected_where() {
    let rest = r#""shape":[1],"data_offsets":[0,4]"#;
    for (text, message) in [
        (
            "{]".into(),
            "expected a key in double quotes, found `]` (bytes 9..10)",
        ),
        (
            "{".into(),
            "expected a key in double quotes, found the end of the text (bytes 9..9)",
        ),
        ("{\"a".into(), "a string is not closed (bytes 11..11)"),
        (
            "{} x".into(),
            "expected nothing after the closing brace, found `x` (bytes 11..12)",
        ),
        (
            "\u{feff}{}".into(),
            r"expected `{`, found `\u{feff}` (bytes 8..9)",
        ),
        (
            "{\"a\nb\":1}".into(),
            "control character 0x0a in a string (bytes 11..12)",
        ),
        (
            r#"{"\ud800":1}"#.into(),
            "a backslash begins no valid escape (bytes 10..11)",
        ),
        (
            r#"{"a":1}"#.into(),
            "expected an object that describes the tensor, found `1` (tensor `a`, bytes 13..14)",
        ),
        (
            r#"{"a":{}}"#.into(),
            "the field `dtype` is missing (tensor `a`, bytes 13..14)",
        ),
        (
            one("\"f32\"", rest),
            "unknown dtype `f32` (tensor `a`, bytes 23..24)",
        ),
        (
            one("null", rest),
            "expected a dtype in double quotes, found `null` (tensor `a`, bytes 22..23)",
        ),
        (
            one("\"F32\"", r#""shape":[-1],"data_offsets":[0,4]"#),
            "expected a size from 0 to 2^64 - 1, found `-1` (tensor `a`, bytes 37..38)",
        ),
        (
            one("\"F32\"", r#""shape":[1.5],"data_offsets":[0,4]"#),
            "expected a size from 0 to 2^64 - 1, found `1.5` (tensor `a`, bytes 37..38)",
        ),
        (
            one("\"F32\"", r#""shape":[1],"data_offsets":[0]"#),
            "expected `,` and a second offset, found `]` (tensor `a`, bytes 57..58)",
        ),
        (
            one("\"F32\"", r#""shape":[],"shape":[]"#),
            "the field `shape` stands twice (tensor `a`, bytes 40..41)",
        ),
        (
            one("\"F32\"", r#""x":-,"shape":[]"#),
            "not a number (tensor `a`, bytes 33..34)",
        ),
        (
            one("\"F32\"", r#""x":1e999,"shape":[]"#),
            "a number beyond the range of a float (tensor `a`, bytes 32..33)",
        ),
        (
            one("\"F32\"", &format!("\"x\":{}", "[".repeat(200))),
            "nested more than 127 levels deep (tensor `a`, bytes 157..158)",
        ),
        (
            r#"{"__metadata__":{"a":1}}"#.into(),
            "expected a string, as all values of `__metadata__` are, found `1` (bytes 29..30)",
        ),
        (
            r#"{"__metadata__":{},"\u005f_metadata__":{}}"#.into(),
            "`__metadata__` stands twice (bytes 28..29)",
        ),
    ] {
        let text: String = text;
        let expected = (ErrorKind::HeaderJson, message.to_owned());
        assert_eq!(
            refused(&file(&text, 4), Rules::Compatible),
            expected,
            "{text}"
        );
    }
}

#[test]
fn offset_faults_give_the_real_numbers() {
    let two = |first: &str, second: &str| {
        format!(
            r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":{first}}},"b":{{"dtype":"F32","shape":[1],"data_offsets":{second}}}}}"#
        )
    };
    use ErrorKind::*;
    for (text, kind, message) in [
        (
            two("[0,8]", "[12,16]"),
            InvalidOffset,
            "tensor `b` starts at byte 12 of the data, 4 bytes after the end of `a` at 8: a hole (bytes 63..64)",
        ),
        (
            two("[0,8]", "[4,8]"),
            InvalidOffset,
            "tensor `b` starts at byte 4 of the data, 4 bytes before the end of `a` at 8: an overlap (bytes 63..64)",
        ),
        (
            two("[5,13]", "[1,5]"),
            InvalidOffset,
            "tensor `b` starts at byte 1 of the data, 1 byte after the start of the data at 0: a hole (bytes 64..65)",
        ),
        (
            two("[8,0]", "[8,12]"),
            InvalidOffset,
            "tensor `a` ends at byte 0 of the data, before its start at 8 (bytes 10..11)",
        ),
        (
            two("[0,9]", "[9,13]"),
            SizeMismatch,
            "tensor `a` takes 8 bytes by its shape in F32, but its offsets 0..9 hold 9 (bytes 10..11)",
        ),
        (
            two("[0,8]", "[8,12]").replace("\"b\"", "\"\\u0061\""),
            DuplicateTensor,
            "the name `a` stands twice, for the bytes 0..8 and 8..12 of the data",
        ),
        (
            two("[8,16]", "[8,12]").replace("\"b\"", "\"a\""),
            DuplicateTensor,
            "the name `a` stands twice, for the bytes 8..12 and 8..16 of the data (bytes 10..11)",
        ),
        (
            one(
                "\"F32\"",
                r#""shape":[4294967296,4294967296],"data_offsets":[0,0]"#,
            ),
            Overflow,
            "the size of shape [4294967296, 4294967296] in F32 passes 2^64 bits (tensor `a`, bytes 10..11)",
        ),
        (
            one("\"F6_E2M3\"", r#""shape":[3],"data_offsets":[0,2]"#),
            Misaligned,
            "shape [3] in F6_E2M3 takes 18 bits, which is no whole number of bytes (tensor `a`, bytes 10..11)",
        ),
    ] {
        let expected = (kind, message.to_owned());
        assert_eq!(
            refused(&file(&text, 16), Rules::Compatible),
            expected,
            "{text}"
        );
    }
}

#[test]
fn strict_rules_refuse_the_traps() {
    let rest = r#""shape":[],"data_offsets":[0,4]"#;
    let named = |name: &str| one("\"F32\"", rest).replace("\"a\"", name);
    for (text, message) in [
        (
            format!(" {}", one("\"F32\"", rest)),
            "the header does not begin with `{` (bytes 8..9)",
        ),
        (
            format!("{} \n ", one("\"F32\"", rest)),
            "the header does not end with `}` and spaces (bytes 62..63)",
        ),
        (
            one("{\"F32\":null}", rest),
            "a dtype is given as an object, not as a string (tensor `a`, bytes 22..23)",
        ),
        (
            one("\"F32\"", &format!("\"x\":0,{rest}")),
            "the field `x` is unknown (tensor `a`, bytes 29..30)",
        ),
        (
            r#"{"a":["F32",[],[0,4]]}"#.into(),
            "a tensor is described by an array (tensor `a`, bytes 13..14)",
        ),
        (
            named("\"\""),
            "a tensor has an empty name (tensor ``, bytes 10..11)",
        ),
        (
            named(r#""a\u0000""#),
            r"the name `a\u{0}` holds a control character (bytes 10..11)",
        ),
        (
            named("\"\u{7f}\""),
            r"the name `\u{7f}` holds a control character (bytes 10..11)",
        ),
        (
            named("\"é\u{9b}\""),
            r"the name `é\u{9b}` holds a control character (bytes 10..11)",
        ),
        (
            one("\"F32\"", rest).replacen('{', r#"{"__metadata__":null,"#, 1),
            "`__metadata__` is null (bytes 24..25)",
        ),
    ] {
        let text: String = text;
        let file = file(&text, 4);
        assert!(
            Header::parse_file(&file, Rules::Compatible).is_ok(),
            "{text}"
        );
        let expected = (ErrorKind::Forbidden, message.to_owned());
        assert_eq!(refused(&file, Rules::Strict), expected, "{text}");
    }
    let twice = file(r#"{"__metadata__":{"a":"","b":"","a":""}}"#, 0);
    let message = "the key `a` of `__metadata__` stands twice (bytes 24..25)";
    assert_eq!(
        refused(&twice, Rules::Strict),
        (ErrorKind::DuplicateKey, message.into())
    );
    assert!(Header::parse_file(&file(&named("\"层.é\""), 4), Rules::Strict).is_ok());
}

#[test]
fn strict_rules_refuse_a_header_length_that_begins_a_zip_archive() {
    let mut text = String::from("{}");
    text.extend(std::iter::repeat_n(' ', 0x0403_4B50 - 2));
    let file = file(&text, 0);
    assert!(file.starts_with(b"PK\x03\x04"));
    assert!(Header::parse_file(&file, Rules::Compatible).is_ok());
    let message = "header length 67324752 is the magic number of a zip archive, so the file can pass for both (bytes 0..8)";
    assert_eq!(
        refused(&file, Rules::Strict),
        (ErrorKind::Forbidden, message.into())
    );
}

#[test]
fn a_file_of_the_wrong_size_says_by_how_much() {
    let text = one("\"F32\"", r#""shape":[1],"data_offsets":[0,4]"#);
    let (kind, message) = refused(&file(&text, 1), Rules::Compatible);
    assert_eq!(kind, ErrorKind::NotCovered);
    assert_eq!(
        message,
        "the file has 63 bytes, 3 fewer than the 66 that its header asks for (bytes 63..66)\n\
         hint: missing at the end: 3 bytes, as after a download or copy that broke off; fetch the file again"
    );
    let (kind, message) = refused(&file(&text, 5), Rules::Compatible);
    assert_eq!(kind, ErrorKind::NotCovered);
    assert_eq!(
        message,
        "the file has 67 bytes, 1 more than the 66 that its header asks for (bytes 66..67)\n\
         hint: left over at the end: 1 byte of no tensor; something was appended, or the header is another file's"
    );
    let (kind, message) = refused(&file(&text, 0)[..20], Rules::Compatible);
    assert_eq!(kind, ErrorKind::HeaderLength);
    assert_eq!(
        message,
        "the header of 54 bytes passes the end of the file at byte 20 (bytes 0..8)\n\
         hint: the file ends inside its header, as after a download or copy that broke off; fetch it again"
    );
}

#[test]
fn a_header_length_is_checked_before_anything_is_read() {
    let length = |length: u64, file_size: u64| header_length(&length.to_le_bytes(), file_size);
    assert_eq!(length(2, 10).unwrap(), 2);
    assert_eq!(
        length(MAX_HEADER_BYTES, MAX_HEADER_BYTES + 8).unwrap(),
        100_000_000
    );
    for (result, kind, message) in [
        (
            header_length(b"1234567", 7),
            ErrorKind::HeaderTooSmall,
            "the file has 7 bytes, fewer than the 8 of the header length",
        ),
        (
            length(u64::MAX, 20),
            ErrorKind::HeaderTooLarge,
            "header length 18446744073709551615 is over the limit of 100000000 (bytes 0..8)",
        ),
        (
            length(MAX_HEADER_BYTES + 1, u64::MAX),
            ErrorKind::HeaderTooLarge,
            "header length 100000001 is over the limit of 100000000 (bytes 0..8)",
        ),
        (
            length(3, 10),
            ErrorKind::HeaderLength,
            "the header of 3 bytes passes the end of the file at byte 10 (bytes 0..8)",
        ),
    ] {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (kind, message));
    }
}

#[test]
fn another_format_is_named_and_the_first_fault_kept() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    let error = Header::parse_file(pointer, Rules::Compatible).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ForeignFormat);
    assert_eq!(
        error.to_string(),
        "a git-lfs pointer and no safetensors file: header length 2336927755350992246 is over the limit of 100000000 (bytes 0..8)\n\
         hint: this is a git-lfs pointer, not the weights; run `git lfs pull`"
    );
    let first = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Error>());
    assert_eq!(first.map(Error::kind), Some(ErrorKind::HeaderTooLarge));
}

/// A file that fails to be read from a position on, and counts the bytes read.
struct Failing {
    file: Vec<u8>,
    from: u64,
    read_bytes: AtomicU64,
}

impl Source for Failing {
    fn size_bytes(&self) -> u64 {
        self.file.len() as u64
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> Result<()> {
        self.read_bytes
            .fetch_add(into.len() as u64, Ordering::Relaxed);
        if position + into.len() as u64 > self.from {
            return Err(Error::new(ErrorKind::Io, "the disk is on fire"));
        }
        self.file[..].read_at(position, into)
    }
}

#[test]
fn a_failing_disk_is_not_taken_for_a_wrong_file() {
    let good = file("{}", 0);
    for from in [0, 9] {
        let source = Failing {
            file: good.clone(),
            from,
            read_bytes: AtomicU64::new(0),
        };
        let error = Header::read(&source, Rules::Strict).unwrap_err();
        assert_eq!(
            (error.kind(), error.message()),
            (ErrorKind::Io, "the disk is on fire")
        );
    }
}

#[test]
fn only_the_header_of_a_file_is_read() {
    let text = one("\"U8\"", r#""shape":[100000],"data_offsets":[0,100000]"#);
    let from = LENGTH_BYTES + text.len() as u64;
    let source = Failing {
        file: file(&text, 100_000),
        from,
        read_bytes: AtomicU64::new(0),
    };
    assert_eq!(Header::read(&source, Rules::Strict).unwrap().len(), 1);
    assert_eq!(source.read_bytes.into_inner(), from);
}
