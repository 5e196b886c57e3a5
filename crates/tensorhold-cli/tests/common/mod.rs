//! The command, and a small checkpoint for it.

use std::path::Path;
use std::process::{Command, Output};

use tensorhold::{Dtype, SaveOptions, TensorSpec, save_file};

pub fn tensorhold(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tensorhold"))
        .args(arguments)
        .output()
        .unwrap()
}

/// Exit code and stdout; stderr where stdout is empty.
pub fn run(arguments: &[&str]) -> (i32, String) {
    let output = tensorhold(arguments);
    let shown = if output.stdout.is_empty() {
        output.stderr
    } else {
        output.stdout
    };
    (
        output.status.code().unwrap(),
        String::from_utf8(shown).unwrap(),
    )
}

pub fn save(
    path: &Path,
    tensors: &[(&str, Dtype, &[u64])],
    metadata: &[(&str, &str)],
    fill: u8,
) -> String {
    let specs: Vec<TensorSpec<'_>> = tensors
        .iter()
        .map(|&(name, dtype, shape)| TensorSpec { name, dtype, shape })
        .collect();
    let bytes = |index: usize| {
        let size = tensorhold::shape_size_bytes(specs[index].dtype, specs[index].shape)?;
        Ok(vec![fill; usize::try_from(size).unwrap()].into())
    };
    save_file(path, &specs, Some(metadata), &SaveOptions::default(), bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

pub fn model(folder: &Path) -> String {
    let mut names = vec![("embed.weight".to_owned(), vec![100, 8])];
    for layer in 0..4 {
        names.push((format!("layers.{layer}.q.weight"), vec![8, 8]));
        names.push((format!("layers.{layer}.q.bias"), vec![8]));
    }
    let tensors: Vec<(&str, Dtype, &[u64])> = names
        .iter()
        .map(|(name, shape)| (name.as_str(), Dtype::BF16, &shape[..]))
        .collect();
    save(
        &folder.join("model.safetensors"),
        &tensors,
        &[("format", "pt")],
        1,
    )
}
