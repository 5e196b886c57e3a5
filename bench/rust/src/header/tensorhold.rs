//! `tensorhold-core`.

use std::error::Error;
use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tensorhold_core::{ErrorKind, Header, Rules, Source};

use crate::table::Table;
use bench_programs::clock::Sample;

/// From bytes in memory to the table.
pub fn parse(path: &Path) -> Result<Sample, Box<dyn Error>> {
    let bytes = fs::read(path)?;
    Ok(Sample::take(|| look_up(header(&bytes)), digest))
}

/// From bytes in memory to what each tensor is.
pub fn walk(path: &Path) -> Result<Sample, Box<dyn Error>> {
    let bytes = fs::read(path)?;
    let work = || {
        let header = look_up(header(&bytes));
        for tensor in header.tensors() {
            black_box(tensor);
        }
        header
    };
    Ok(Sample::take(work, digest))
}

/// From a file to the table.
pub fn open(path: &Path) -> Result<Sample, Box<dyn Error>> {
    let work = || {
        let source = OpenFile::new(path).expect("the file was generated");
        look_up(Header::read(&source, Rules::Compatible).expect("the file is valid"))
    };
    Ok(Sample::take(work, digest))
}

fn header(bytes: &[u8]) -> Header {
    Header::parse_file(bytes, Rules::Compatible).expect("the file is valid")
}

fn look_up(header: Header) -> Header {
    black_box(header.tensor("last").expect("each file ends with it"));
    header
}

fn digest(header: &Header) -> Option<u64> {
    let mut table = Table::default();
    for tensor in header.tensors() {
        let dtype = tensor.dtype.to_string();
        table.add(
            tensor.name,
            &dtype,
            tensor.shape.iter().copied(),
            tensor.offsets.end,
        );
    }
    Some(table.digest())
}

struct OpenFile {
    file: File,
    size_bytes: u64,
}

impl OpenFile {
    fn new(path: &Path) -> std::io::Result<OpenFile> {
        let file = File::open(path)?;
        let size_bytes = file.metadata()?.len();
        Ok(OpenFile { file, size_bytes })
    }
}

impl Source for OpenFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> tensorhold_core::Result<()> {
        let failed =
            |error: std::io::Error| tensorhold_core::Error::new(ErrorKind::Io, error.to_string());
        self.file.read_exact_at(into, position).map_err(failed)
    }
}
