//! What the program that we match says for the same fault.

use alloc::format;
use alloc::string::String;

use crate::error::{Error, ErrorKind};

/// The words with which crate `safetensors` 0.8.0 reports the same fault; `None` where it reports
/// none.
///
/// # Source
/// The `Display` of its `SafeTensorError`, on which programs and tests depend.
#[must_use]
pub fn reference_message(error: &Error) -> Option<String> {
    let words = match error.kind() {
        ErrorKind::ForeignFormat => return reference_message(cause(error)?),
        ErrorKind::HeaderTooSmall => "header too small",
        ErrorKind::HeaderTooLarge => "header too large",
        ErrorKind::HeaderLength => "invalid header length",
        ErrorKind::HeaderUtf8 => "invalid UTF-8 in header",
        ErrorKind::HeaderJson => "invalid JSON in header",
        ErrorKind::InvalidOffset => {
            return Some(format!(
                "invalid offset for tensor `{}`",
                error.tensor().unwrap_or_default()
            ));
        }
        ErrorKind::SizeMismatch => "invalid shape, data type, or offset for tensor",
        ErrorKind::NotCovered => "incomplete metadata, file not fully covered",
        ErrorKind::Overflow => "overflow computing buffer size from shape and/or element type",
        ErrorKind::Misaligned => {
            "The slice is slicing for subbytes dtypes, and the slice does not end up at a byte boundary, this is invalid."
        }
        _ => return None,
    };
    Some(String::from(words))
}

fn cause(error: &Error) -> Option<&Error> {
    core::error::Error::source(error)?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::{Header, Rules};
    use safetensors::SafeTensors;
    use std::string::ToString;

    fn check(file: &[u8]) {
        let ours = Header::parse_file(file, Rules::Compatible).unwrap_err();
        let theirs = SafeTensors::read_metadata(file).unwrap_err().to_string();
        let words = reference_message(&ours).unwrap();
        assert!(
            theirs.starts_with(&words),
            "`{theirs}` does not start with `{words}`"
        );
    }

    fn check_header(text: &str, data_size: usize) {
        let mut file = (text.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(text.as_bytes());
        file.resize(file.len() + data_size, 0);
        check(&file);
    }

    #[test]
    fn every_fault_has_the_words_of_the_reference() {
        check(b"1234567");
        check(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
        check(b"\x09\0\0\0\0\0\0\0{}");
        check(b"\x02\0\0\0\0\0\0\0{\xff");
        check_header("{]", 0);
        check_header("{}", 1);
        let tensor = |rest: &str| std::format!(r#"{{"x":{{"dtype":"F32",{rest}}}}}"#);
        check_header(&tensor(r#""shape":[1],"data_offsets":[4,8]"#), 8);
        check_header(&tensor(r#""shape":[1],"data_offsets":[8,4]"#), 8);
        check_header(&tensor(r#""shape":[2],"data_offsets":[0,4]"#), 4);
        check_header(
            &tensor(r#""shape":[9223372036854775808,2],"data_offsets":[0,4]"#),
            4,
        );
        check_header(
            &tensor(r#""shape":[1],"data_offsets":[0,4]"#).replace("F32", "F4"),
            4,
        );
    }

    #[test]
    fn faults_that_the_reference_does_not_know_have_no_words_of_its() {
        let error = Error::new(ErrorKind::DuplicateTensor, "twice");
        assert_eq!(reference_message(&error), None);
    }
}
