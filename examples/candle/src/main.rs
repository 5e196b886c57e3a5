//! Unchanged candle-core on tensorhold: saves, loads and compares, and fails on any difference.
//!
//! candle asks for `safetensors = "0.8"`; the `[patch.crates-io]` of this folder's Cargo.toml answers with
//! `compat/safetensors-rs`. Nothing here names tensorhold.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;

use candle_core::safetensors::{
    BufferedSafetensors, MmapedSafetensors, SliceSafetensors, load, save,
};
use candle_core::{DType, Device, Tensor};

type Tensors = HashMap<String, Tensor>;
type Result<T> = std::result::Result<T, Box<dyn Error>>;

const CPU: &Device = &Device::Cpu;

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.safetensors");
    every_reader_gives_what_was_saved(&path)?;
    several_files_are_one(folder.path())?;
    files_of_the_python_package_are_read()?;
    faults_are_named(&path)?;
    println!("candle on tensorhold: all tensors equal");
    Ok(())
}

fn every_reader_gives_what_was_saved(path: &Path) -> Result<()> {
    let saved = tensors()?;
    save(&saved, path)?;
    compare("load", &saved, &load(path, CPU)?)?;

    // SAFETY: nobody else knows the file, and it is not written while it is mapped.
    let mapped = unsafe { MmapedSafetensors::new(path)? };
    compare_each("MmapedSafetensors", &saved, |name| mapped.load(name, CPU))?;
    require("names", mapped.tensors().len(), saved.len())?;

    let bytes = std::fs::read(path)?;
    let slices = SliceSafetensors::new(&bytes)?;
    compare_each("SliceSafetensors", &saved, |name| slices.load(name, CPU))?;
    let buffered = BufferedSafetensors::new(bytes.clone())?;
    compare_each("BufferedSafetensors", &saved, |name| {
        buffered.load(name, CPU)
    })?;

    // Over a file that is mapped, from its own tensors: it stays whole for those who have it mapped.
    let again: Tensors = load(path, CPU)?;
    save(&again, path)?;
    compare_each("the map after a save", &saved, |name| {
        mapped.load(name, CPU)
    })?;
    require("bytes of a second save", std::fs::read(path)?, bytes)
}

fn several_files_are_one(folder: &Path) -> Result<()> {
    let saved = tensors()?;
    let mut paths = Vec::new();
    for (name, tensor) in &saved {
        let path = folder.join(format!("only-{name}.safetensors"));
        tensor.save_safetensors(name, &path)?;
        paths.push(path);
    }
    // SAFETY: as above.
    let mapped = unsafe { MmapedSafetensors::multi(&paths)? };
    compare_each("MmapedSafetensors::multi", &saved, |name| {
        mapped.load(name, CPU)
    })
}

fn files_of_the_python_package_are_read() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("from_python.safetensors");
    let embedding: Vec<f32> = (0..12u8).map(|n| f32::from(n) / 4.0).collect();
    let bias = Tensor::new(&[-1.5f32, 0.0, 2.5], CPU)?.to_dtype(DType::BF16)?;
    let expected = Tensors::from([
        (
            "embedding.weight".into(),
            Tensor::from_vec(embedding, (4, 3), CPU)?,
        ),
        ("layer.0.bias".into(), bias),
        ("layer.0.scale".into(), Tensor::new(0.125f64, CPU)?),
        (
            "positions".into(),
            Tensor::new(&[[1i64, -2], [3, -4]], CPU)?,
        ),
        ("mask".into(), Tensor::new(&[0u8, 255, 7], CPU)?),
        ("unused".into(), Tensor::zeros((0, 3), DType::F16, CPU)?),
    ]);
    compare("the file from Python", &expected, &load(&path, CPU)?)
}

fn faults_are_named(path: &Path) -> Result<()> {
    let bytes = std::fs::read(path)?;
    std::fs::write(path, &bytes[..bytes.len() - 1])?;
    let Err(error) = load(path, CPU) else {
        return Err("a truncated file was loaded".into());
    };
    let expected = "incomplete metadata, file not fully covered";
    require(
        "what a truncated file is called",
        error.to_string().contains(expected),
        true,
    )?;

    let missing = path.with_file_name("missing").join("model.safetensors");
    let Err(error) = save(&tensors()?, &missing) else {
        return Err("a file was saved in a folder that is not there".into());
    };
    require(
        "the path in the error of a save",
        error.to_string().contains(&*missing.to_string_lossy()),
        true,
    )
}

/// One tensor of each type that candle computes with, and shapes at the edges.
fn tensors() -> Result<Tensors> {
    let base = Tensor::arange(0f32, 24f32, CPU)?.reshape((2, 3, 4))?;
    let mut tensors = Tensors::new();
    for dtype in [
        DType::U8,
        DType::U32,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::BF16,
        DType::F16,
        DType::F32,
        DType::F64,
        DType::F8E4M3,
    ] {
        tensors.insert(dtype.as_str().into(), base.to_dtype(dtype)?);
    }
    tensors.insert("scalar".into(), Tensor::new(2.5f32, CPU)?);
    tensors.insert("empty".into(), Tensor::zeros((3, 0), DType::F32, CPU)?);
    // Not contiguous: what is saved are its elements in their order, not its storage.
    tensors.insert("transposed".into(), base.t()?);
    Ok(tensors)
}

fn compare(what: &str, expected: &Tensors, found: &Tensors) -> Result<()> {
    require(what, found.len(), expected.len())?;
    compare_each(what, expected, |name| {
        let missing = || candle_core::Error::Msg(format!("{what}: no tensor `{name}`"));
        found.get(name).cloned().ok_or_else(missing)
    })
}

fn compare_each(
    what: &str,
    expected: &Tensors,
    found: impl Fn(&str) -> candle_core::Result<Tensor>,
) -> Result<()> {
    for (name, expected) in expected {
        let found = found(name)?;
        let what = format!("{what}: `{name}`");
        require(&what, found.dtype(), expected.dtype())?;
        require(&what, found.dims(), expected.dims())?;
        require(&what, values(&found)?, values(expected)?)?;
    }
    Ok(())
}

/// The elements in a type that holds all of them exactly. It is not F64: candle 0.11 never returns from F8E4M3 to F64.
fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
}

fn require<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: {found:?}, but {expected:?} was expected").into())
}
