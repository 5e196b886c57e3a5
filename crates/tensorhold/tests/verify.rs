//! What `verify` says of files, folders and indexes.

// The lint's exception for tests knows only the functions that are tests themselves.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use tensorhold::{
    Dtype, ErrorKind, NarrowInt, NarrowTensor, Outcome, Rules, SaveOptions, ShardIndex, TensorSpec,
    Verdict, VerifyEvent, save_file, save_shards, verify,
};
use toml_edit::DocumentMut;

fn verdicts(path: &Path, rules: Rules) -> (Outcome, Vec<Verdict>) {
    let mut verdicts = Vec::new();
    let outcome = verify(path, rules, &mut |event| {
        if let VerifyEvent::Done(verdict) = event {
            verdicts.push(verdict);
        }
    });
    (outcome, verdicts)
}

/// The names of what was verified, each with the kind of what is wrong with it.
fn summary(path: &Path, rules: Rules) -> (Outcome, Vec<String>) {
    let (outcome, verdicts) = verdicts(path, rules);
    let show = |verdict: Verdict| {
        let name = verdict
            .path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        match verdict.found {
            Ok(holding) => format!("{name} {}", holding.n_tensors),
            Err(error) => format!("{name} {:?}", error.kind()),
        }
    };
    (outcome, verdicts.into_iter().map(show).collect())
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

fn corpus(of: &str) -> Vec<toml_edit::Table> {
    let text = fs::read_to_string(testdata().join("corpus.toml")).unwrap();
    let corpus: DocumentMut = text.parse().unwrap();
    corpus[of]
        .as_array_of_tables()
        .unwrap()
        .iter()
        .cloned()
        .collect()
}

fn expected(case: &toml_edit::Table, opened: &str) -> String {
    let verdict = case.get("verify").unwrap_or(&case[opened]);
    verdict.as_str().unwrap().to_owned()
}

fn found(verdict: &Verdict) -> String {
    match &verdict.found {
        Ok(_) => "accept".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

#[test]
fn every_file_of_the_corpus_gets_its_verdict() {
    let mut n_files = 0;
    for case in corpus("case") {
        if case.contains_key("generate") {
            continue;
        }
        n_files += 1;
        let file = case["file"].as_str().unwrap();
        let path = testdata().join(file);
        let (_, strict) = verdicts(&path, Rules::Strict);
        assert_eq!(
            found(&strict[0]),
            expected(&case, "strict"),
            "{file}: {strict:?}"
        );
        let (_, compatible) = verdicts(&path, Rules::Compatible);
        assert_eq!(
            found(&compatible[0]),
            case["compatible"].as_str().unwrap(),
            "{file}"
        );
    }
    assert!(n_files > 400, "only {n_files} files were found");
}

#[test]
fn every_index_of_the_corpus_gets_its_verdict() {
    let cases = corpus("index");
    assert!(cases.len() > 30, "only {} indexes were found", cases.len());
    for case in cases {
        let folder = case["folder"].as_str().unwrap();
        let path = testdata().join(folder).join("model.safetensors.index.json");
        let (outcome, verdicts) = verdicts(&path, Rules::Strict);
        let expected = expected(&case, "verdict");
        assert_eq!(
            found(verdicts.last().unwrap()),
            expected,
            "{folder}: {verdicts:?}"
        );
        assert_eq!(outcome == Outcome::Fine, expected == "accept", "{folder}");
    }
}

#[test]
fn what_the_data_hides_is_told_with_its_place() {
    for (file, message) in [
        (
            "bool_bytes",
            "element 2 of a BOOL tensor is 2, neither 0 nor 1 (tensor `a`, bytes 66..67)",
        ),
        (
            "zip_tail",
            "the file ends as a zip archive does, so it can pass for both (bytes 220..242)\n\
             hint: somebody made this file to be taken for two things; do not give it to programs that open the other",
        ),
        (
            "pickle_that_calls",
            "the file is also a pickle, which imports something when it is loaded (bytes 1376..1390)\n\
             hint: somebody made this file to be taken for two things; do not give it to programs that open the other",
        ),
    ] {
        let path = testdata().join(format!("valid/{file}.safetensors"));
        let (outcome, verdicts) = verdicts(&path, Rules::Strict);
        let error = verdicts.into_iter().next().unwrap().found.unwrap_err();
        assert_eq!(error.to_string(), format!("{}: {message}", path.display()));
        assert_eq!(outcome, Outcome::Wrong);
        assert_eq!(summary(&path, Rules::Compatible).0, Outcome::Fine);
    }
}

fn save(path: &Path, names: &[&str]) {
    let spec = |name| TensorSpec {
        name,
        dtype: Dtype::U8,
        shape: &[4],
    };
    let tensors: Vec<TensorSpec<'_>> = names.iter().map(|&name| spec(name)).collect();
    let bytes = |_| Ok(vec![1; 4].into());
    save_file(path, &tensors, None, &SaveOptions::default(), bytes).unwrap();
}

/// Two shards of one tensor each and their index.
fn shards(folder: &Path) {
    let spec = |name| TensorSpec {
        name,
        dtype: Dtype::U8,
        shape: &[4],
    };
    let target = folder.join("model.safetensors");
    let bytes = |_| Ok(vec![1; 4].into());
    save_shards(
        target,
        &[spec("a"), spec("b")],
        None,
        4,
        &SaveOptions::default(),
        bytes,
    )
    .unwrap();
}

#[test]
fn a_folder_is_verified_file_by_file_then_index_by_index() {
    let folder = tempfile::tempdir().unwrap();
    shards(folder.path());
    save(&folder.path().join("adapter.safetensors"), &["a"]);
    fs::write(folder.path().join("broken.safetensors"), [1; 4]).unwrap();
    fs::write(folder.path().join("notes.txt"), "no weights").unwrap();
    assert_eq!(
        summary(folder.path(), Rules::Strict),
        (
            Outcome::Wrong,
            [
                "adapter.safetensors 1",
                "broken.safetensors HeaderTooSmall",
                "model-00001-of-00002.safetensors 1",
                "model-00002-of-00002.safetensors 1",
                "model.safetensors.index.json 2",
            ]
            .map(str::to_owned)
            .to_vec()
        )
    );
}

#[test]
fn an_index_is_verified_with_its_shards() {
    let folder = tempfile::tempdir().unwrap();
    shards(folder.path());
    let index = folder.path().join("model.safetensors.index.json");
    assert_eq!(summary(&index, Rules::Strict).0, Outcome::Fine);
    assert_eq!(summary(&index, Rules::Strict).1.len(), 3);

    fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).unwrap();
    let (outcome, verdicts) = summary(&index, Rules::Strict);
    assert_eq!(outcome, Outcome::Wrong);
    assert_eq!(
        verdicts,
        [
            "model-00001-of-00002.safetensors 1",
            "model.safetensors.index.json InvalidIndex"
        ]
    );
}

#[test]
fn a_tensor_in_another_shard_than_listed_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    save(&folder.path().join("1.safetensors"), &["a"]);
    save(&folder.path().join("2.safetensors"), &["b"]);
    let entries = [("a", "2.safetensors"), ("b", "1.safetensors")];
    let json = ShardIndex::to_json(entries.into_iter(), 8, &[]);
    fs::write(folder.path().join("x.safetensors.index.json"), json).unwrap();
    let (outcome, verdicts) = summary(folder.path(), Rules::Compatible);
    assert_eq!(outcome, Outcome::Wrong);
    assert_eq!(verdicts[2], "x.safetensors.index.json InvalidIndex");
}

#[test]
fn what_cannot_be_read_is_worse_than_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.safetensors");
    let (outcome, verdicts) = verdicts(&missing, Rules::Strict);
    assert_eq!(outcome, Outcome::Unreadable);
    assert_eq!(
        verdicts[0].found.as_ref().unwrap_err().kind(),
        ErrorKind::NotFound
    );

    let (outcome, verdicts) = summary(folder.path(), Rules::Strict);
    assert_eq!(outcome, Outcome::Unreadable, "{verdicts:?}");
    assert!(Outcome::Unreadable > Outcome::Wrong && Outcome::Wrong > Outcome::Fine);
}

#[test]
fn the_bytes_of_bool_tensors_and_no_others_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mask.safetensors");
    let tensors = [
        TensorSpec {
            name: "mask",
            dtype: Dtype::BOOL,
            shape: &[3 << 20],
        },
        TensorSpec {
            name: "w",
            dtype: Dtype::U8,
            shape: &[5 << 20],
        },
    ];
    let bytes = |n: usize| Ok(vec![1; (3 + 2 * n) << 20].into());
    save_file(&path, &tensors, None, &SaveOptions::default(), bytes).unwrap();
    let mut n_read = 0;
    let outcome = verify(&path, Rules::Strict, &mut |event| {
        if let VerifyEvent::Read(n_bytes) = event {
            n_read += n_bytes;
        }
    });
    assert_eq!((outcome, n_read), (Outcome::Fine, 3 << 20));
}

/// A file with one tensor of `I3` of the shape `[3, 3]`, each line of which ends in `behind` behind its integers.
fn narrow(path: &Path, behind: u8) {
    let stored = NarrowTensor::new(NarrowInt::from_name("I3").unwrap(), &[3, 3]).unwrap();
    let tensors = [TensorSpec {
        name: "codes",
        dtype: Dtype::U8,
        shape: stored.stored_shape(),
    }];
    let (key, description) = (NarrowTensor::key("codes"), stored.description());
    let metadata = [(&*key, &*description)];
    let lines = [[0xff, 0x01], [0x49, 0x00], [0x00, behind | 0x01]];
    let bytes = |_| Ok(lines.as_flattened().to_vec().into());
    save_file(
        path,
        &tensors,
        Some(&metadata),
        &SaveOptions::default(),
        bytes,
    )
    .unwrap();
}

#[test]
fn bits_behind_the_integers_of_a_line_are_told_with_their_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("narrow.safetensors");
    narrow(&path, 0);
    assert_eq!(summary(&path, Rules::Strict).0, Outcome::Fine);

    narrow(&path, 0x20);
    let (outcome, verdicts) = verdicts(&path, Rules::Strict);
    let error = verdicts.into_iter().next().unwrap().found.unwrap_err();
    assert_eq!(
        (outcome, error.kind()),
        (Outcome::Wrong, ErrorKind::Forbidden)
    );
    let end = fs::metadata(&path).unwrap().len();
    assert_eq!(
        error.to_string(),
        format!(
            "{}: byte 5 is 0x21, but its bits from 1 on are behind the last I3 of line 2 and must be 0 \
             (tensor `codes`, bytes {}..{end})\n\
             hint: readers pass over these bits; save the tensor anew to clear them",
            path.display(),
            end - 1
        )
    );
    assert_eq!(summary(&path, Rules::Compatible).0, Outcome::Fine);
}

#[test]
fn lines_longer_than_what_is_read_at_once_are_looked_at_to_their_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.safetensors");
    let line = 3 << 20;
    let stored =
        NarrowTensor::new(NarrowInt::from_name("U1").unwrap(), &[2, line * 8 - 1]).unwrap();
    let tensors = [TensorSpec {
        name: "mask",
        dtype: Dtype::U8,
        shape: stored.stored_shape(),
    }];
    let (key, description) = (NarrowTensor::key("mask"), stored.description());
    let metadata = [(&*key, &*description)];
    for last in [0x7f, 0xff] {
        let mut bytes = vec![0xff; 2 * line as usize];
        bytes[line as usize - 1] = 0x7f;
        bytes[2 * line as usize - 1] = last;
        let bytes = |_| Ok(bytes.clone().into());
        let options = SaveOptions::default();
        save_file(&path, &tensors, Some(&metadata), &options, bytes).unwrap();
        let (outcome, found) = verdicts(&path, Rules::Strict);
        assert_eq!(outcome == Outcome::Fine, last == 0x7f, "{found:?}");
    }
    let error = verdicts(&path, Rules::Strict)
        .1
        .remove(0)
        .found
        .unwrap_err();
    let place = format!("byte {} is 0xff", 2 * line - 1);
    assert!(error.message().starts_with(&place), "{error}");
}
