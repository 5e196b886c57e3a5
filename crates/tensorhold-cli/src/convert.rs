//! `tensorhold convert`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use tensorhold::{
    Class, ConvertOptions, Converted, Dtype, Error, ErrorKind, Escaped, Values, parse_bytes,
};

use crate::FINE;
use crate::output::{Done, counted, is_there, list, print_note};
use crate::rewrite::with_progress;

/// Writes checkpoints of other formats as safetensors files, without running anything in them
///
/// Reads what `torch.save` and `torch.jit.save` write, of any age, pickles, NumPy's `.npy` and `.npz`, GGUF, the message packs of
/// Flax and the weights of Keras, by their content. Values that are no tensors are kept in the metadata, as the tree that `tensorhold.serialization` reads.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  tensorhold convert pytorch_model.bin model.safetensors\n  \
    tensorhold convert old/*.pt new/ --dtype bf16 --verify"
)]
pub(crate) struct Convert {
    /// Files, an `*.bin.index.json`, or a folder with one
    #[arg(required = true)]
    sources: Vec<PathBuf>,
    /// The file to write; a folder for several sources
    target: PathBuf,
    /// Write shards of at most so many bytes of tensors: 5GB, 500MB, 4GiB or a number
    #[arg(long, value_parser = parse_bytes)]
    max_shard_size: Option<u64>,
    /// What becomes of values that are no tensors
    #[arg(long, value_enum, default_value_t)]
    values: OtherValues,
    /// Cast floats: F32, bf16, float16 and so on
    #[arg(long, value_parser = parse_dtype)]
    dtype: Option<Dtype>,
    /// Convert only the value under these keys, such as `state_dict`
    #[arg(long)]
    root: Option<String>,
    /// Make numbers of the quantized blocks of GGUF
    #[arg(long)]
    dequantize: bool,
    /// Read what was written, and compare it with the source
    #[arg(long)]
    verify: bool,
    /// Replace a file that is there already
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum OtherValues {
    /// They are kept in the metadata
    #[default]
    Tree,
    /// They go to a JSON file beside the target
    Beside,
    /// They are left out
    Drop,
}

impl Convert {
    pub(crate) fn run(&self) -> Done {
        for (source, target) in self.pairs()? {
            if !self.force && target.symlink_metadata().is_ok() {
                return Err(is_there(&target).into());
            }
            let converted = with_progress(|progress| {
                tensorhold::convert(&source, &target, &self.options(), progress)
            })?;
            note(&source, &converted);
            list(&converted.paths)?;
        }
        Ok(FINE)
    }

    fn options(&self) -> ConvertOptions {
        ConvertOptions {
            max_shard_bytes: self.max_shard_size,
            values: match self.values {
                OtherValues::Tree => Values::Tree,
                OtherValues::Beside => Values::Beside,
                OtherValues::Drop => Values::Dropped,
            },
            dtype: self.dtype,
            root: self.root.clone(),
            dequantize: self.dequantize,
            verify: self.verify,
            ..ConvertOptions::default()
        }
    }

    /// Each source with its target.
    fn pairs(&self) -> Done<Vec<(PathBuf, PathBuf)>> {
        let is_folder = self.target.is_dir() || self.target.to_string_lossy().ends_with('/');
        if !is_folder && self.sources.len() > 1 {
            let error = Error::new(
                ErrorKind::InvalidArgument,
                "several sources need a folder to go to",
            );
            let error = error.with_file(self.target.to_string_lossy());
            return Err(error
                .with_hint("make the folder, or end its name with `/`")
                .into());
        }
        let in_folder = is_folder && self.max_shard_size.is_none();
        let target = |source: &Path| match in_folder {
            true => {
                let stem = source.file_name().unwrap_or_default();
                let name = Path::new(stem).with_extension("safetensors");
                self.target.join(name)
            }
            false => self.target.clone(),
        };
        if in_folder && !self.target.is_dir() {
            let made = std::fs::create_dir_all(&self.target);
            made.map_err(|error| {
                Error::new(ErrorKind::Io, format!("cannot make the folder: {error}"))
                    .with_file(self.target.to_string_lossy())
            })?;
        }
        let pairs = self
            .sources
            .iter()
            .map(|source| (source.clone(), target(source)));
        Ok(pairs.collect())
    }
}

/// Says what the file does not keep, or keeps without knowing what it is.
fn note(source: &Path, converted: &Converted) {
    let source = source.to_string_lossy();
    let source = Escaped(&source);
    if converted.n_dropped > 0 {
        let values = counted(converted.n_dropped, "value");
        print_note(&format!(
            "{source}: {values} that are no tensors are left out"
        ));
    }
    let odd = converted.findings.iter();
    for (path, finding) in odd.filter(|(_, finding)| finding.class > Class::Harmless) {
        let path = path.to_string_lossy();
        let at = finding.path.as_deref().unwrap_or("");
        print_note(&format!(
            "{}: {} {}",
            Escaped(&path),
            Escaped(&finding.message),
            Escaped(at)
        ));
    }
}

pub(crate) fn parse_dtype(name: &str) -> Result<Dtype, String> {
    let found = Dtype::from_name(name.to_uppercase().as_bytes());
    found
        .or_else(|| Dtype::from_framework_name(name))
        .ok_or_else(|| format!("`{name}` is no type of a tensor: F32, BF16 and F16 are some"))
}
