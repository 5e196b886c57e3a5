//! Every file of the corpus gets the verdict, the table and the message that `testdata/corpus.toml` states.
//!
//! `TENSORHOLD_BLESS=1 cargo test -p tensorhold --test corpus` pins the messages as they are now; the difference is
//! then there to review.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs;
use std::path::{Path, PathBuf};

use tensorhold::{Backend, Checkpoint, Error, File, OpenOptions, Result, Rules};
use toml_edit::{DocumentMut, Table, value};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata")
        .canonicalize()
        .unwrap()
}

fn table() -> DocumentMut {
    fs::read_to_string(testdata().join("corpus.toml"))
        .unwrap()
        .parse()
        .unwrap()
}

fn text<'a>(table: &'a Table, key: &str) -> Option<&'a str> {
    table.get(key)?.as_str()
}

#[test]
fn every_file_gets_its_verdict_table_and_message() {
    let mut corpus = table();
    let scratch = tempfile::tempdir().unwrap();
    let mut faults = Vec::new();
    let mut n_cases = 0;
    for case in corpus["case"].as_array_of_tables_mut().unwrap().iter_mut() {
        let name = text(case, "file").unwrap().to_owned();
        let folder = match case.contains_key("generate") {
            true => generate(case, &name, scratch.path()),
            false => testdata(),
        };
        for (rules, key) in [(Rules::Compatible, "compatible"), (Rules::Strict, "strict")] {
            for backend in [Backend::Mmap, Backend::Pread] {
                let opened = File::open(&folder.join(&name), &OpenOptions { rules, backend });
                let expected = text(case, key).unwrap().to_owned();
                let message = format!("{key}_message");
                check(
                    case,
                    &name,
                    &expected,
                    &message,
                    &folder,
                    opened,
                    &mut faults,
                );
            }
            n_cases += 1;
        }
    }
    finish(&corpus, faults, n_cases, 900);
}

#[test]
fn every_index_gets_its_verdict_and_message() {
    let mut corpus = table();
    let mut faults = Vec::new();
    let mut n_cases = 0;
    for case in corpus["index"].as_array_of_tables_mut().unwrap().iter_mut() {
        let folder = text(case, "folder").unwrap().to_owned();
        let path = testdata()
            .join(&folder)
            .join("model.safetensors.index.json");
        for rules in [Rules::Compatible, Rules::Strict] {
            let options = OpenOptions {
                rules,
                backend: Backend::Auto,
            };
            let opened = Checkpoint::open(&path, &options);
            let verdict = text(case, "verdict").unwrap().to_owned();
            if let Ok(checkpoint) = &opened {
                let n_listed = case["weight_map"].as_inline_table().unwrap().len();
                assert_eq!(checkpoint.n_tensors(), n_listed, "{folder}");
            }
            compare(
                case,
                &folder,
                &verdict,
                "message",
                &testdata(),
                opened.err(),
                &mut faults,
            );
        }
        n_cases += 1;
    }
    finish(&corpus, faults, n_cases, 40);
}

fn check(
    case: &mut Table,
    name: &str,
    expected: &str,
    message: &str,
    folder: &Path,
    opened: Result<File>,
    faults: &mut Vec<String>,
) {
    let error = match opened {
        Ok(file) => {
            if let Some(difference) = difference(case, &file) {
                faults.push(format!("{name}: {difference}"));
            }
            None
        }
        Err(error) => Some(error),
    };
    compare(case, name, expected, message, folder, error, faults);
}

/// Compares the kind, and the message with the one that is pinned; blesses it where asked to.
fn compare(
    case: &mut Table,
    name: &str,
    expected: &str,
    message: &str,
    folder: &Path,
    error: Option<Error>,
    faults: &mut Vec<String>,
) {
    let found = error
        .as_ref()
        .map_or("accept".to_owned(), |error| format!("{:?}", error.kind()));
    if found != expected {
        faults.push(format!(
            "{name}: expected {expected}, found {found}: {error:?}"
        ));
        return;
    }
    let Some(error) = error else { return };
    let said = error
        .to_string()
        .replace(&format!("{}/", folder.display()), "");
    if text(case, message) == Some(&said) {
        return;
    }
    match is_blessing() {
        true => case[message] = value(said),
        false => faults.push(format!(
            "{name}: {message} is now\n{said}\nand was\n{:?}",
            text(case, message)
        )),
    }
}

fn is_blessing() -> bool {
    std::env::var_os("TENSORHOLD_BLESS").is_some()
}

/// What differs between the table in the corpus and the header that was read.
fn difference(case: &Table, file: &File) -> Option<String> {
    let header = file.header();
    let n_expected = case["n_tensors"].as_integer().unwrap();
    if header.len() as i64 != n_expected {
        return Some(format!("{} tensors instead of {n_expected}", header.len()));
    }
    let tensors = case.get("tensors").and_then(|tensors| tensors.as_array())?;
    for (expected, found) in tensors.iter().zip(header.tensors()) {
        let expected = expected.as_inline_table().unwrap();
        let numbers = |key: &str| -> Vec<u64> {
            let array = expected[key].as_array().unwrap();
            array
                .iter()
                .map(|number| number.as_integer().unwrap() as u64)
                .collect()
        };
        let same = expected["name"].as_str() == Some(found.name)
            && expected["dtype"].as_str() == Some(found.dtype.name())
            && numbers("shape") == found.shape
            && numbers("offsets") == [found.offsets.start, found.offsets.end];
        if !same {
            return Some(format!("{expected} was read as {found:?}"));
        }
    }
    metadata_difference(case, file)
}

fn metadata_difference(case: &Table, file: &File) -> Option<String> {
    let expected = case.get("metadata")?.as_inline_table()?;
    let Some(found) = file.header().metadata() else {
        return Some("the metadata was not read".to_owned());
    };
    let same = found.len() == expected.len()
        && expected
            .iter()
            .all(|(key, value)| found.get(key) == value.as_str());
    (!same).then(|| format!("metadata {expected} was read otherwise"))
}

/// Makes a file that is too big to store; gives the folder it is in.
fn generate(case: &Table, name: &str, scratch: &Path) -> PathBuf {
    let n = usize::try_from(case["n"].as_integer().unwrap()).unwrap();
    let mut header = match text(case, "generate").unwrap() {
        "padded_header" => "{}".to_owned(),
        "empty_tensors" => {
            let tensor = |i| {
                format!(
                    "\"t{i}\":{}",
                    r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#
                )
            };
            format!("{{{}}}", (0..n).map(tensor).collect::<Vec<_>>().join(","))
        }
        "long_name" => {
            format!(
                "{{\"{}\":{}}}",
                "x".repeat(n),
                r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#
            )
        }
        "long_metadata" => format!("{{\"__metadata__\":{{\"k\":\"{}\"}}}}", "x".repeat(n)),
        other => panic!("no recipe is named {other}"),
    };
    if text(case, "generate") == Some("padded_header") {
        header.extend(std::iter::repeat_n(' ', n - header.len()));
    }
    let path = scratch.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    fs::write(path, file).unwrap();
    scratch.to_owned()
}

fn finish(corpus: &DocumentMut, faults: Vec<String>, n_cases: usize, at_least: usize) {
    assert!(n_cases >= at_least, "only {n_cases} cases were found");
    assert!(
        faults.is_empty(),
        "{} of {n_cases}:\n{}",
        faults.len(),
        faults.join("\n")
    );
    if is_blessing() {
        fs::write(testdata().join("corpus.toml"), corpus.to_string()).unwrap();
    }
}
