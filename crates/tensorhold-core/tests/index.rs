//! The index of a checkpoint in several files.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use tensorhold_core::{Error, ErrorKind, ShardIndex};

fn refused(text: &str) -> Error {
    let error = ShardIndex::parse(text.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidIndex, "{text}");
    error
}

#[test]
fn an_index_as_hugging_face_writes_it_is_read() {
    let text = br#"{
  "metadata": {
    "total_parameters": 12,
    "total_size": 24
  },
  "weight_map": {
    "lm_head.weight": "model-00002-of-00002.safetensors",
    "model.embed_tokens.weight": "model-00001-of-00002.safetensors",
    "model.norm.weight": "model-00002-of-00002.safetensors"
  }
}
"#;
    let index = ShardIndex::parse(text).unwrap();
    let shards = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    assert_eq!(index.shards(), shards);
    assert_eq!(index.total_size(), Some(24));
    assert_eq!(index.shard_of("model.embed_tokens.weight"), Some(0));
    assert_eq!(index.shard_of("model.norm"), None);
    let entries: Vec<_> = index.entries().collect();
    assert_eq!(
        entries,
        [
            ("lm_head.weight", 1),
            ("model.embed_tokens.weight", 0),
            ("model.norm.weight", 1)
        ]
    );
    assert_eq!(
        index.metadata(),
        Some("{\n    \"total_parameters\": 12,\n    \"total_size\": 24\n  }")
    );
}

#[test]
fn metadata_may_be_anything_or_missing() {
    for (metadata, total_size) in [
        ("", None),
        (r#""metadata": null,"#, None),
        (r#""metadata": [1],"#, None),
        (r#""metadata": {},"#, None),
        (r#""metadata": {"total_size": 1.5e3},"#, None),
        (r#""metadata": {"total_size": "12"},"#, None),
        (r#""metadata": {"a": {"total_size": 1}},"#, None),
        (r#""metadata": {"total_size": 18446744073709551616},"#, None),
        (
            r#""metadata": {"total_size": 18446744073709551615},"#,
            Some(u64::MAX),
        ),
        (
            r#""more": [{}], "metadata" : { "total_size" : 7 } ,"#,
            Some(7),
        ),
    ] {
        let text = format!(r#"{{{metadata}"weight_map":{{"a":"f"}}}}"#);
        let index = ShardIndex::parse(text.as_bytes()).unwrap();
        assert_eq!(index.total_size(), total_size, "{text}");
    }
}

#[test]
fn shards_outside_of_the_folder_are_refused_by_name() {
    for (shard, expected) in [
        ("", "the shard `` has no name"),
        (".", "the shard `.` is a folder"),
        ("..", "the shard `..` is a folder"),
        ("/etc/passwd", "the shard `/etc/passwd` is an absolute path"),
        (
            r"\\\\host\\share",
            r"the shard `\\host\share` is an absolute path",
        ),
        ("C:x", "the shard `C:x` is an absolute path"),
        ("../x", "the shard `../x` is a path through folders"),
        ("a/b", "the shard `a/b` is a path through folders"),
        (r"a\\b", r"the shard `a\b` is a path through folders"),
        (r"a\u002fb", "the shard `a/b` is a path through folders"),
        (r"a\u0000", r"the shard `a\u{0}` has a NUL in its name"),
        (
            r"\u001b[2J/",
            r"the shard `\u{1b}[2J/` is a path through folders",
        ),
    ] {
        let error = refused(&format!(r#"{{"weight_map":{{"w":"ok","x.y":"{shard}"}}}}"#));
        assert_eq!(error.message(), expected);
        assert_eq!(error.tensor(), Some("x.y"));
        assert!(error.hint().is_some());
    }
}

#[test]
fn what_stands_twice_is_refused_by_name() {
    let error = refused(r#"{"weight_map":{"w":"f","v":"f","\u0077":"g"}}"#);
    assert_eq!(error.message(), "the tensor `w` stands twice in the index");
    assert_eq!(error.tensor(), Some("w"));
    let error = refused(r#"{"weight_map":{},"weight_map":{}}"#);
    assert_eq!(error.message(), "the key `weight_map` stands twice");
    let error = refused(r#"{"metadata":null,"weight_map":{},"metadata":{}}"#);
    assert_eq!(error.message(), "the key `metadata` stands twice");
}

#[test]
fn what_is_no_index_is_refused_with_its_place() {
    for (text, expected) in [
        ("", "expected `{`, found the end of the text (bytes 0..0)"),
        ("[]", "expected `{`, found `[` (bytes 0..1)"),
        ("{}", "the index has no `weight_map`"),
        (
            r#"{"weight_map":[]}"#,
            "expected an object from tensors to files, found `[` (bytes 14..15)",
        ),
        (
            r#"{"weight_map":{"w":3}}"#,
            "expected the name of a file, found `3` (tensor `w`, bytes 19..20)",
        ),
        (
            r#"{"weight_map":{"w":"f"},}"#,
            "expected a key in double quotes, found `}` (bytes 24..25)",
        ),
        (
            r#"{"weight_map":{"w":"f"}} x"#,
            "expected nothing after the closing brace, found `x` (bytes 25..26)",
        ),
    ] {
        assert_eq!(refused(text).to_string(), expected);
    }
    let error = ShardIndex::parse(b"{\"\xff\"}").unwrap_err();
    assert_eq!(error.to_string(), "the index is no UTF-8 (bytes 2..3)");
}

#[test]
fn the_text_is_what_python_writes() {
    let entries = [
        ("b", "model-00002-of-00002.safetensors"),
        ("\u{d7ff}層/\t\u{1}\u{2028}", "m.safetensors"),
        ("a.\"q\"\\", "model-00001-of-00002.safetensors"),
    ];
    let metadata = [("é\n", "\u{7f}🙂"), ("format", "pt")];
    let expected = r#"{
  "metadata": {
    "format": "pt",
    "total_size": 12,
    "\u00e9\n": "\u007f\ud83d\ude42"
  },
  "weight_map": {
    "a.\"q\"\\": "model-00001-of-00002.safetensors",
    "b": "model-00002-of-00002.safetensors",
    "\ud7ff\u5c64/\t\u0001\u2028": "m.safetensors"
  }
}
"#;
    assert_eq!(
        ShardIndex::to_json(entries.into_iter(), 12, &metadata),
        expected
    );
    assert_eq!(
        ShardIndex::to_json([].into_iter(), 0, &[]),
        "{\n  \"metadata\": {\n    \"total_size\": 0\n  },\n  \"weight_map\": {}\n}\n"
    );
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        entries in proptest::collection::btree_map(any::<String>(), "[^/\\\\\0:.]{1,9}", 0..20),
        total_size: u64,
    ) {
        let pairs = entries.iter().map(|(tensor, shard)| (tensor.as_str(), shard.as_str()));
        let text = ShardIndex::to_json(pairs.clone(), total_size, &[]);
        prop_assert!(text.is_ascii());
        let index = ShardIndex::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(index.total_size(), Some(total_size));
        prop_assert!(index.shards().is_sorted_by(|left, right| left < right));
        let read = index.entries().map(|(tensor, shard)| (tensor, index.shards()[shard].as_str()));
        prop_assert!(read.eq(pairs.clone()));
        for (tensor, shard) in pairs {
            let place = index.shard_of(tensor).unwrap();
            prop_assert_eq!(&index.shards()[place], shard);
        }
    }
}
