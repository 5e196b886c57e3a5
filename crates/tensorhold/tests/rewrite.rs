//! What lies beside a checkpoint that is written anew, as a user of the facade finds it.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::tempdir;
use tensorhold::{
    Checkpoint, DequantizeOptions, Dtype, Error, ErrorKind, ExistingConfig, OpenOptions,
    QuantizeOptions, QuantizeScheme, RepackLayout, RepackOptions, RewriteOptions, SaveOptions,
    TensorSpec, companions, dequantize_checkpoint, existing_beside, quantize, repack,
};

/// Files of a model's folder that are copied, with their bytes.
const COPIED: [(&str, &[u8]); 7] = [
    ("1_Pooling/config.json", b"{}"),
    ("additional_chat_templates/tools.jinja", b"{{ tools }}\r\n"),
    ("chat_template.jinja", b"{{ messages }}"),
    ("generation_config.json", b"{ \"top_k\":  5}\n"),
    ("modules.json", b"[]"),
    ("tokenizer.json", b"\xef\xbb\xbf{}"),
    ("tokenizer.model", b"\x00\x01\xff"),
];

/// And such as are not.
const LEFT: [&str; 8] = [
    "1_Pooling/model.safetensors",
    "modeling_own.py",
    "pytorch_model.bin",
    "tokenizer.pkl",
    "training_args.bin",
    "README.md",
    "quantize_config.json",
    "optimizer.pt",
];

/// A folder with a weight of F32 and, where `is_full`, all that may lie beside it.
fn model(folder: &Path, is_full: bool) -> PathBuf {
    let source = folder.join("source");
    for inner in ["1_Pooling", "additional_chat_templates"] {
        fs::create_dir_all(source.join(inner)).unwrap();
    }
    let spec = TensorSpec {
        name: "up.weight",
        dtype: Dtype::F32,
        shape: &[64, 128],
    };
    let bytes = 0.5f32.to_le_bytes().repeat(64 * 128);
    let path = source.join("model.safetensors");
    let options = SaveOptions::default();
    tensorhold::save_file(path, &[spec], None, &options, |_| Ok((&bytes[..]).into())).unwrap();
    if is_full {
        for (name, bytes) in COPIED {
            fs::write(source.join(name), bytes).unwrap();
        }
        for name in LEFT {
            fs::write(source.join(name), "{}").unwrap();
        }
        fs::write(source.join("config.json"), "{\"hidden_size\": 128}").unwrap();
    }
    source
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path, &OpenOptions::default()).unwrap()
}

/// Quantizes, repacks and dequantizes, each what the one before wrote. Gives the folders with the names that were copied.
fn all(source: &Path, folder: &Path) -> Vec<(PathBuf, Vec<PathBuf>)> {
    let scheme = QuantizeScheme::named("int4", Some(64), None).unwrap();
    let [packed, gptq, plain] = ["packed", "gptq", "plain"].map(|name| folder.join(name));
    let mut tell = |_, _| Ok(());
    let first = quantize(source, &packed, &QuantizeOptions::new(scheme), &mut tell).unwrap();
    let options = RepackOptions::new(RepackLayout::Gptq);
    let second = repack(&packed, &gptq, &options, &mut tell).unwrap();
    let options = DequantizeOptions {
        rewrite: RewriteOptions {
            max_shard_bytes: Some(1 << 30),
            ..RewriteOptions::default()
        },
        ..DequantizeOptions::default()
    };
    let checkpoint = open(&gptq);
    let weights = &checkpoint.quantization().unwrap().weights;
    let third = dequantize_checkpoint(&checkpoint, weights, &plain, &options, &mut tell).unwrap();
    vec![
        (packed, first.copied),
        (gptq, second.copied),
        (plain, third.copied),
    ]
}

#[test]
fn small_files_of_a_model_go_with_it_byte_for_byte() {
    let folder = tempdir().unwrap();
    let source = model(folder.path(), true);
    for (written, copied) in all(&source, folder.path()) {
        let names = COPIED.map(|(name, _)| written.join(name));
        assert_eq!(copied, names);
        for (name, bytes) in COPIED {
            assert_eq!(fs::read(written.join(name)).unwrap(), bytes, "{name}");
        }
        for name in LEFT {
            assert!(!written.join(name).exists(), "{name}");
        }
    }
    let plain = fs::read_to_string(folder.path().join("plain/config.json")).unwrap();
    assert_eq!(plain, "{\n  \"hidden_size\": 128\n}\n");
    let found = companions(&open(&source)).unwrap();
    assert_eq!(found.code, [Path::new("modeling_own.py")]);
}

#[test]
fn a_folder_of_tensors_alone_gets_nothing_beside_them_but_the_configuration() {
    let folder = tempdir().unwrap();
    let source = model(folder.path(), false);
    for (written, copied) in all(&source, folder.path()) {
        assert!(copied.is_empty());
        let entries = fs::read_dir(&written).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["config.json", "model.safetensors"]);
    }
}

#[test]
fn files_that_differ_at_the_target_are_named_and_the_same_are_left() {
    let folder = tempdir().unwrap();
    let source = model(folder.path(), true);
    let target = folder.path().join("out");
    let there = |config| existing_beside(&open(&source), &target.join("model.safetensors"), config);
    assert_eq!(there(ExistingConfig::Replaced).unwrap(), None);
    fs::create_dir(&target).unwrap();
    fs::write(target.join("config.json"), "{}").unwrap();
    fs::write(target.join("tokenizer.json"), COPIED[5].1).unwrap();
    let config = Some(target.join("config.json"));
    assert_eq!(there(ExistingConfig::Replaced).unwrap(), config);
    assert_eq!(there(ExistingConfig::Kept).unwrap(), None);
    fs::write(target.join("tokenizer.model"), "another").unwrap();
    let other = Some(target.join("tokenizer.model"));
    assert_eq!(there(ExistingConfig::Kept).unwrap(), other);

    let scheme = QuantizeScheme::Fp8Channel;
    let options = QuantizeOptions::new(scheme);
    let done = quantize(&source, &target, &options, &mut |_, _| Ok(())).unwrap();
    let same = target.join("tokenizer.json");
    assert_eq!(done.copied.len(), COPIED.len() - 1);
    assert!(!done.copied.contains(&same));
    assert_eq!(
        fs::read(target.join("tokenizer.model")).unwrap(),
        COPIED[6].1
    );
}

#[test]
fn work_that_ends_early_leaves_no_file() {
    let folder = tempdir().unwrap();
    let source = model(folder.path(), true);
    let target = folder.path().join("out");
    let options = QuantizeOptions::new(QuantizeScheme::Fp8Channel);
    let mut end = |_, _| Err(Error::new(ErrorKind::Interrupted, "enough"));
    let error = quantize(&source, &target, &options, &mut end).unwrap_err();
    assert_eq!(error.message(), "enough");
    let files = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().path().is_file())
            .count()
    };
    assert_eq!(files(&target), 0);
    assert_eq!(files(&target.join("additional_chat_templates")), 0);
}

#[cfg(unix)]
#[test]
fn a_file_that_cannot_be_read_is_told_before_anything_is_written() {
    let folder = tempdir().unwrap();
    let source = model(folder.path(), true);
    let gone = source.join("vocab.txt");
    std::os::unix::fs::symlink(source.join("nowhere"), &gone).unwrap();
    let target = folder.path().join("out");
    let options = QuantizeOptions::new(QuantizeScheme::Fp8Channel);
    let error = quantize(&source, &target, &options, &mut |_, _| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.file(), Some(&*gone.to_string_lossy()));
    assert!(!target.join("model.safetensors").exists());
}
