//! The crate `safetensors`.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::Metadata;

use crate::table::Table;
use bench_programs::clock::Sample;

/// From bytes in memory to the table.
pub fn parse(path: &Path) -> Result<Sample, Box<dyn Error>> {
    let bytes = fs::read(path)?;
    Ok(Sample::take(|| look_up(metadata(&bytes)), digest))
}

/// From bytes in memory to what each tensor is.
pub fn walk(path: &Path) -> Result<Sample, Box<dyn Error>> {
    let bytes = fs::read(path)?;
    let work = || {
        let metadata = look_up(metadata(&bytes));
        for name in metadata.offset_keys() {
            black_box(metadata.info(&name));
        }
        metadata
    };
    Ok(Sample::take(work, digest))
}

/// From a file to the table. The crate wants the whole file in memory; the files timed here are nearly all header.
pub fn open(path: &Path) -> Result<Sample, Box<dyn Error>> {
    let work = || {
        let bytes = fs::read(path).expect("the file was generated");
        (look_up(metadata(&bytes)), bytes)
    };
    Ok(Sample::take(work, |(metadata, _)| digest(metadata)))
}

fn metadata(bytes: &[u8]) -> Metadata {
    SafeTensors::read_metadata(bytes)
        .expect("the file is valid")
        .1
}

fn look_up(metadata: Metadata) -> Metadata {
    black_box(metadata.info("last").expect("each file ends with it"));
    metadata
}

fn digest(metadata: &Metadata) -> Option<u64> {
    let mut table = Table::default();
    for name in metadata.offset_keys() {
        let tensor = metadata.info(&name)?;
        let shape = tensor.shape.iter().map(|&dim| dim as u64);
        table.add(
            &name,
            &tensor.dtype.to_string(),
            shape,
            tensor.data_offsets.1 as u64,
        );
    }
    Some(table.digest())
}
