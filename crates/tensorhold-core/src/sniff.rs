//! Names what a file really is that was taken for a safetensors file.
//!
//! It is asked only after a header was refused, and answers only where the bytes leave no doubt:
//! a wrong name would be worse than none.

use crate::header::MAX_HEADER_BYTES;

/// A format that is not safetensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign {
    /// What the file is, with its article: `a git-lfs pointer`.
    pub name: &'static str,
    /// What the file is and what to do about it, as one sentence without a stop.
    pub hint: &'static str,
}

/// The real format of a file that begins with `head`, ends with `tail` and has `file_size` bytes;
/// `None` where that is not certain.
///
/// A few hundred bytes of head and a few thousand of tail are enough; with less, fewer formats are
/// told apart.
#[must_use]
pub fn sniff(head: &[u8], tail: &[u8], file_size: u64) -> Option<Foreign> {
    if file_size == 0 {
        return Some(EMPTY);
    }
    if has_plausible_header(head) {
        return None;
    }
    magic(head)
        .or_else(|| zip(head, tail))
        .or_else(|| pickle(head, tail))
        .or_else(|| text(head, file_size))
        .or_else(|| is_onnx(head).then_some(ONNX))
        .or_else(|| is_flax(head).then_some(FLAX))
        .or_else(|| is_zeros(head, tail).then_some(ZEROS))
}

/// Whether the file begins as safetensors files do: a length within the limit, then a brace. The
/// lengths of honest headers begin with every magic of two or four bytes.
fn has_plausible_header(head: &[u8]) -> bool {
    head.first_chunk()
        .is_some_and(|length| u64::from_le_bytes(*length) <= MAX_HEADER_BYTES)
        && head[8..].trim_ascii_start().first() == Some(&b'{')
}

const fn foreign(name: &'static str, hint: &'static str) -> Foreign {
    Foreign { name, hint }
}

const EMPTY: Foreign = foreign(
    "an empty file",
    "this file is empty: the download or copy did not begin; fetch it again",
);
const ZEROS: Foreign = foreign(
    "a file of zeros",
    "this file holds nothing but zeros: the download or copy was never filled in; fetch it again",
);
const LFS: Foreign = foreign(
    "a git-lfs pointer",
    "this is a git-lfs pointer, not the weights; run `git lfs pull`",
);
const ANNEX: Foreign = foreign(
    "a git-annex pointer",
    "this is a git-annex pointer, not the weights; run `git annex get`",
);
const XET: Foreign = foreign(
    "a git-xet pointer",
    "this is a git-xet pointer, not the weights; run `git xet checkout`",
);
const APPLE_DOUBLE: Foreign = foreign(
    "a macOS resource file",
    "this is a `._` file that macOS keeps beside the real one; open the file without the `._`",
);
const GGUF: Foreign = foreign(
    "a GGUF file",
    "this is a GGUF file, made for llama.cpp; open it there or run `tensorhold convert`",
);
const GGML: Foreign = foreign(
    "a GGML file",
    "this is a GGML file of the time before GGUF; fetch the safetensors version",
);
const HDF5: Foreign = foreign(
    "an HDF5 file",
    "this is an HDF5 file; if Keras wrote it, run `tensorhold convert`",
);
const NPY: Foreign = foreign(
    "a NumPy array",
    "this is a NumPy .npy array; open it with numpy.load or run `tensorhold convert`",
);
const NPZ: Foreign = foreign(
    "a NumPy archive",
    "this is a NumPy .npz archive; open it with numpy.load or run `tensorhold convert`",
);
const TORCH_ZIP: Foreign = foreign(
    "a PyTorch checkpoint",
    "this is a PyTorch zip checkpoint; run `tensorhold convert`, which runs nothing that is in it",
);
const TORCH_SCRIPT: Foreign = foreign(
    "a TorchScript program",
    "this is a TorchScript archive, which holds a program; run `tensorhold convert`, which takes its tensors and runs nothing",
);
const TORCH_LEGACY: Foreign = foreign(
    "a legacy PyTorch checkpoint",
    "this is a PyTorch checkpoint of the time before 1.6; run `tensorhold convert`, which runs nothing that is in it",
);
const KERAS: Foreign = foreign(
    "a Keras archive",
    "this is a .keras archive; run `tensorhold convert`",
);
const PICKLE: Foreign = foreign(
    "a pickle",
    "this is a Python pickle, which can run any program when it is loaded; look into it with `tensorhold scan`",
);
const ZIP: Foreign = foreign("a zip archive", "this is a zip archive; unpack it first");
const TAR: Foreign = foreign("a tar archive", "this is a tar archive; unpack it first");
const GZIP: Foreign = foreign("gzip data", "this is gzip data; unpack it with `gzip -d`");
const ZSTD: Foreign = foreign("zstd data", "this is zstd data; unpack it with `zstd -d`");
const XZ: Foreign = foreign("xz data", "this is xz data; unpack it with `xz -d`");
const BZIP2: Foreign = foreign(
    "bzip2 data",
    "this is bzip2 data; unpack it with `bzip2 -d`",
);
const LZ4: Foreign = foreign("lz4 data", "this is lz4 data; unpack it with `lz4 -d`");
const SEVEN_ZIP: Foreign = foreign("a 7z archive", "this is a 7z archive; unpack it first");
const TFLITE: Foreign = foreign(
    "a TensorFlow Lite model",
    "this is a TensorFlow Lite model; fetch the safetensors version",
);
const PARQUET: Foreign = foreign(
    "a Parquet file",
    "this is a Parquet file, a table and no weights",
);
const ONNX: Foreign = foreign(
    "an ONNX model",
    "this is an ONNX model; open it with onnx and save its initializers with tensorhold",
);
const FLAX: Foreign = foreign(
    "a Flax checkpoint",
    "this is a Flax msgpack checkpoint; open it with flax.serialization.msgpack_restore or run `tensorhold convert`",
);
const HTML: Foreign = foreign(
    "an HTML page",
    "this is an HTML page, not the weights: the download gave an error or a login page; fetch the \
     file's raw address",
);
const XML: Foreign = foreign(
    "an XML document",
    "this is an XML document, as object stores answer when they refuse; look into it for the reason",
);
const INDEX: Foreign = foreign(
    "the index of a checkpoint",
    "this is the index of a sharded checkpoint; open it or its folder with tensorhold.open, or name \
     one of its shards",
);
const JSON: Foreign = foreign(
    "a JSON document",
    "this is a JSON document, not the weights; if it was downloaded, look into it for an error",
);
const TEXT: Foreign = foreign(
    "a text file",
    "this is text, not the weights; if it was downloaded, read it: it may be an error message",
);

/// Bytes at a fixed place that no other file has there.
const MAGIC: [(usize, &[u8], Foreign); 24] = [
    (0, b"version https://git-lfs.github.com/spec/", LFS),
    (0, b"version https://hawser.github.com/spec/", LFS),
    (0, b"/annex/objects/", ANNEX),
    (0, b"# xet version", XET),
    (0, b"\x00\x05\x16\x07\x00\x02\x00\x00", APPLE_DOUBLE),
    (0, b"GGUF", GGUF),
    (0, b"lmgg", GGML),
    (0, b"fmgg", GGML),
    (0, b"tjgg", GGML),
    (0, b"\x89HDF\r\n\x1a\n", HDF5),
    (0, b"\x93NUMPY", NPY),
    // A pickled long: the first thing that torch.save wrote until 1.6.
    (
        0,
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19",
        TORCH_LEGACY,
    ),
    (257, b"ustar\x0000", TAR),
    (257, b"ustar  \x00", TAR),
    (0, b"\x1f\x8b\x08", GZIP),
    (0, b"\x28\xb5\x2f\xfd", ZSTD),
    (0, b"\xfd7zXZ\x00", XZ),
    (0, b"BZh11AY&SY", BZIP2),
    (0, b"BZh91AY&SY", BZIP2),
    (0, b"\x04\x22\x4d\x18", LZ4),
    (0, b"7z\xbc\xaf\x27\x1c", SEVEN_ZIP),
    (4, b"TFL3", TFLITE),
    (0, b"PAR1", PARQUET),
    (0, b"PK\x05\x06\x00\x00\x00\x00\x00\x00\x00\x00", ZIP),
];

fn magic(head: &[u8]) -> Option<Foreign> {
    MAGIC
        .into_iter()
        .find(|(at, bytes, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(bytes)))
        .map(|(_, _, foreign)| foreign)
}

/// A zip, told apart by the names in it: of the first member in the head, of the others in the
/// table at the end.
fn zip(head: &[u8], tail: &[u8]) -> Option<Foreign> {
    if !head.starts_with(b"PK\x03\x04") {
        return None;
    }
    let has = |name: &[u8]| contains(head, name) || contains(tail, name);
    let first = first_zip_name(head).unwrap_or(b"");
    Some(if has(b"/constants.pkl") || has(b"/code/") {
        TORCH_SCRIPT
    } else if has(b"/data.pkl") {
        TORCH_ZIP
    } else if first.ends_with(b".npy") {
        NPZ
    } else if has(b"model.weights.h5") {
        KERAS
    } else {
        ZIP
    })
}

fn first_zip_name(head: &[u8]) -> Option<&[u8]> {
    let length = u16::from_le_bytes(*head.get(26..)?.first_chunk()?);
    head.get(30..30 + usize::from(length))
}

/// A pickle stops with a full stop. Those of the binary protocols begin with their protocol; of the
/// first protocol, which is text, a dict and a list are known by their first lines.
fn pickle(head: &[u8], tail: &[u8]) -> Option<Foreign> {
    let is_binary = head.first() == Some(&0x80) && matches!(head.get(1), Some(2..=5));
    let is_text = head.starts_with(b"(dp0\n") || head.starts_with(b"(lp0\n");
    ((is_binary || is_text) && tail.last() == Some(&b'.')).then_some(PICKLE)
}

/// Whatever is meant for reading. Eight characters read as a header length are always over the
/// limit, so this can be no safetensors file.
fn text(head: &[u8], file_size: u64) -> Option<Foreign> {
    let begin = &head[..head.len().min(64)];
    let is_control = |byte: &u8| matches!(byte, 0..=8 | 11 | 12 | 14..=31 | 127);
    if begin.iter().any(is_control) {
        return None;
    }
    let body = head.strip_prefix("\u{feff}".as_bytes()).unwrap_or(head);
    let body = body.trim_ascii_start();
    let starts = |word: &str| {
        body.get(..word.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
    };
    if starts("<!doctype html") || starts("<html") || starts("<head") {
        Some(HTML)
    } else if starts("<?xml") || starts("<error>") {
        Some(XML)
    } else if starts("{") && contains(body, b"\"weight_map\"") {
        Some(INDEX)
    } else if starts("{") || starts("[{") {
        Some(JSON)
    } else {
        let is_ascii_whole = head.len() as u64 == file_size && head.is_ascii();
        (is_ascii_whole && !head.iter().any(is_control)).then_some(TEXT)
    }
}

/// A protobuf that begins with the two fields that ONNX exporters write first: the version of the
/// format, 1 to 15, and the name of the program.
fn is_onnx(head: &[u8]) -> bool {
    let [0x08, 1..=15, 0x12, length @ 1..=100, rest @ ..] = head else {
        return false;
    };
    let Some((name, rest)) = rest.split_at_checked(usize::from(*length)) else {
        return false;
    };
    let is_next_field = matches!(rest.first(), Some(0x1a | 0x22 | 0x28 | 0x32 | 0x3a));
    name.iter()
        .all(|byte| byte.is_ascii_graphic() || *byte == b' ')
        && is_next_field
}

/// A msgpack map that leads, by its first keys, to an array as Flax writes them (extension type 1).
fn is_flax(head: &[u8]) -> bool {
    let mut rest = head;
    for depth in 0..16 {
        let (is_map, value) = match *rest {
            [0x81..=0x8f, ref key @ ..] | [0xde, _, _, ref key @ ..] => (true, key),
            [0xc7, _, 1, ..] | [0xc8, _, _, 1, ..] | [0xc9, _, _, _, _, 1, ..] => (false, rest),
            _ => return false,
        };
        if !is_map {
            return depth > 0;
        }
        let (length, key) = match *value {
            [length @ 0xa1..=0xbf, ref key @ ..] => (length & 0x1f, key),
            [0xd9, length, ref key @ ..] => (length, key),
            _ => return false,
        };
        let Some((key, value)) = key.split_at_checked(usize::from(length)) else {
            return false;
        };
        if !key.iter().all(u8::is_ascii_graphic) {
            return false;
        }
        rest = value;
    }
    false
}

fn is_zeros(head: &[u8], tail: &[u8]) -> bool {
    !head.is_empty() && head.iter().chain(tail).all(|byte| *byte == 0)
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    memchr::memmem::find(bytes, wanted).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn name(head: &[u8], tail: &[u8]) -> Option<&'static str> {
        sniff(head, tail, 1 << 20).map(|foreign| foreign.name)
    }

    /// The beginnings (and, where they count, the ends) of files that the named programs wrote.
    const BINARY: [(&[u8], &[u8], &str); 24] = [
        (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ", b"", "a macOS resource file"),
        (b"GGUF\x03\x00\x00\x00\x23\x01\x00\x00\x00\x00\x00\x00", b"", "a GGUF file"),
        (b"tjgg\x03\x00\x00\x00\x00\x7d\x00\x00\x00\x10\x00\x00", b"", "a GGML file"),
        (b"\x89HDF\r\n\x1a\n\x00\x00\x00\x00\x00\x08\x08\x00", b"", "an HDF5 file"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_orde", b"", "a NumPy array"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\x00\x00\x83", b"", "gzip data"),
        (b"\x28\xb5\x2f\xfd\x04\x58\x09\x00\x00\x78\x23\x11\x04\x83", b"", "zstd data"),
        (b"\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x02\x00!\x01\x16", b"", "xz data"),
        (b"BZh91AY&SYwK\xb0\x14\x00\x00\x00\x00", b"", "bzip2 data"),
        (b"\x04\x22\x4d\x18\x64\x40\xa7\x01\x00\x00\x80\x78", b"", "lz4 data"),
        (b"7z\xbc\xaf\x27\x1c\x00\x04\x8d\x9b\xd5\x0f", b"", "a 7z archive"),
        (b"\x1c\x00\x00\x00TFL3\x14\x00\x20\x00", b"", "a TensorFlow Lite model"),
        (b"PAR1\x15\x04\x15\x10\x15\x14\x4c\x15\x02", b"PAR1", "a Parquet file"),
        (
            b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00(X\x10\x00",
            b"\x00\x00\x80?\x00\x00\x80?",
            "a legacy PyTorch checkpoint",
        ),
        (
            b"PK\x03\x04\x00\x00\x08\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
              \x00\x00\x00\x10\x00\x12\x00archive/data.pklFB\x0e\x00ZZZZZZZZZZZZZZ\x80\x02}q",
            b"\x00\x00PK\x05\x06\x00\x00\x00\x00\x07\x00\x07\x00",
            "a PyTorch checkpoint",
        ),
        (
            b"PK\x03\x04\x00\x00\x08\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
              \x00\x00\x00\x0e\x00\x14\x00archive/data/0FB\x10\x00ZZZZZZZZZZZZZZZZ\xc6t+?",
            b"archive/data.pklPK\x01\x02archive/constants.pklPK\x05\x06\x00\x00\x00\x00",
            "a TorchScript program",
        ),
        (
            b"PK\x03\x04-\x00\x00\x00\x00\x00\x00\x00!\x00t\xd6\xack\xff\xff\xff\xff\xff\xff\xff\xff\
              \x05\x00\x14\x00w.npy\x01\x00\x10\x00\x90\x00\x00\x00",
            b"pyPK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x003\x00\x00\x00\xc7\x00\x00\x00\x00\x00",
            "a NumPy archive",
        ),
        (
            b"PK\x03\x04\x14\x00\x00\x00\x00\x00\x00\x00!\x00A\x83\xde\xc2@\x00\x00\x00@\x00\x00\x00\
              \x0d\x00\x00\x00metadata.json{\"keras",
            b"\x00model.weights.h5PK\x05\x06\x00\x00",
            "a Keras archive",
        ),
        (
            b"PK\x03\x04\x0a\x00\x00\x00\x00\x00\x00\x00!\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
              \x00\x00\x01\x00\x00\x00aPK\x01\x02",
            b"PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00/\x00\x00\x00",
            "a zip archive",
        ),
        (b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01]q\x02(G", b"\x00\x00es.", "a pickle"),
        (b"\x80\x04\x95\x1a\x01\x00\x00\x00\x00\x00\x00}\x94\x8c", b"\x00\x00es.", "a pickle"),
        (b"(dp0\nVw\np1\n(lp2\nF1.0\na", b"F1.0\nas.", "a pickle"),
        (
            b"\x08\x07\x12\x07pytorch\x1a\x051.110:\xb3\x01\n\x1b\n\x01x\x12",
            b"",
            "an ONNX model",
        ),
        (
            b"\x81\xa6params\x81\xa7Dense_0\x81\xa6kernel\xc7\x1e\x01\x93\x92\x02\x02\xa7float32",
            b"",
            "a Flax checkpoint",
        ),
    ];

    #[test]
    fn foreign_formats_are_named_by_their_bytes() {
        for (head, tail, expected) in BINARY {
            assert_eq!(name(head, tail), Some(expected), "{}", head.escape_ascii());
        }
        let mut tar = vec![0; 257];
        tar[..8].copy_from_slice(b"data.bin");
        tar.extend(b"ustar\x0000\x00\x00");
        assert_eq!(name(&tar, &[]), Some("a tar archive"));
        assert_eq!(name(&[0; 512], &[0; 512]), Some("a file of zeros"));
        assert_eq!(sniff(&[], &[], 0).unwrap().name, "an empty file");
    }

    #[test]
    fn text_is_named_by_what_it_says() {
        for (text, expected) in [
            (
                "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb\
                 8f32b1258daaa5e2ca24d17e2393\nsize 12345\n",
                "a git-lfs pointer",
            ),
            (
                "/annex/objects/SHA256E-s5--2cf24dba.safetensors\n",
                "a git-annex pointer",
            ),
            (
                "# xet version 0\nfilesize = 5\nhash = 'a'\n",
                "a git-xet pointer",
            ),
            ("<!DOCTYPE html>\n<html class=\"\">", "an HTML page"),
            ("\u{feff}\r\n<HTML><HEAD>", "an HTML page"),
            (
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>AccessDenied</Code>",
                "an XML document",
            ),
            (
                "{\n  \"metadata\": {\n    \"total_size\": 8\n  },\n  \"weight_map\": {\n",
                "the index of a checkpoint",
            ),
            ("{\"error\":\"Repository not found\"}", "a JSON document"),
        ] {
            assert_eq!(name(text.as_bytes(), &[]), Some(expected), "{text}");
        }
        let message = b"Invalid username or password.";
        let foreign = sniff(message, message, message.len() as u64).unwrap();
        assert_eq!(foreign.name, "a text file");
    }

    #[test]
    fn a_pointer_says_how_to_get_the_weights() {
        assert_eq!(
            LFS.hint,
            "this is a git-lfs pointer, not the weights; run `git lfs pull`"
        );
    }

    #[test]
    fn nothing_that_begins_like_a_header_is_named() {
        for magic in [
            0x0280_u64,
            0x0480,
            0x0403_4B50,
            0x0008_8B1F,
            0x0,
            0x7B,
            0x2A,
        ] {
            for start in ["{\"a\":", " \n{", "{}"] {
                let head: Vec<u8> = magic
                    .to_le_bytes()
                    .into_iter()
                    .chain(start.bytes())
                    .collect();
                assert_eq!(sniff(&head, b".", 1 << 20), None, "{magic:#x}");
            }
        }
    }

    #[test]
    fn noise_is_not_named() {
        for noise in [
            &b"\x9c\x01\xff\xd0\x33\x81\x02\x03\x04\x05"[..],
            b"\x80",
            b"P",
            b"\x00\x01",
        ] {
            assert_eq!(name(noise, noise), None, "{}", noise.escape_ascii());
        }
        assert_eq!(sniff(b"text that goes on", b"", 1 << 20), None);
    }

    #[test]
    fn every_beginning_of_every_format_is_looked_at_without_a_panic() {
        for (head, tail, _) in BINARY {
            for end in 0..head.len() {
                let _ = sniff(&head[..end], tail, 1 << 20);
                let _ = sniff(&head[..end], &[], 1);
            }
        }
    }
}
