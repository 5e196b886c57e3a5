//! `tensorhold diff`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tensorhold::{
    Backend, Change, Checkpoint, DiffEvent, Dtype, Escaped, OpenOptions, Rules, TensorChange,
};

use crate::output::{Done, GOOD, WRONG, counted, note_ambiguous_metadata, print_json, stdout};
use crate::progress::Progress;
use crate::{DIFFERENT, FINE};

/// Says what differs between two checkpoints
///
/// Tensors are equal if dtype, shape and bytes are, wherever they lie: a file is equal to its shards.
#[derive(Args)]
#[command(after_help = "Example:\n  tensorhold diff model.safetensors shards/")]
pub(crate) struct Diff {
    /// A file, a folder or an `*.safetensors.index.json`
    left: PathBuf,
    /// What to compare it with
    right: PathBuf,
    /// Compare tensors only
    #[arg(long)]
    ignore_metadata: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Diff {
    pub(crate) fn run(&self) -> Done {
        let options = OpenOptions {
            rules: Rules::Compatible,
            // A file that is cut while it is compared is to be an error, not a signal.
            backend: Backend::Pread,
        };
        let (left, right) = (
            Checkpoint::open(&self.left, &options)?,
            Checkpoint::open(&self.right, &options)?,
        );
        if !self.ignore_metadata {
            note_ambiguous_metadata(&self.left, &left);
            note_ambiguous_metadata(&self.right, &right);
        }
        let mut progress = Progress::new(left.size_bytes());
        let mut lines = Vec::new();
        let mut values = Vec::new();
        tensorhold::diff(&left, &right, &mut |event| match event {
            DiffEvent::Compared(bytes) => progress.add(bytes),
            DiffEvent::Metadata { .. } if self.ignore_metadata => {}
            event if self.json => values.push(describe(&event)),
            event => lines.push(line(&event)),
        })?;
        drop(progress);
        if self.json {
            let is_same = values.is_empty();
            print_json(&json!({"same": is_same, "differences": values}))?;
            return Ok(if is_same { FINE } else { DIFFERENT });
        }
        let mut out = stdout();
        for line in &lines {
            writeln!(out, "{line}")?;
        }
        if lines.is_empty() {
            let n_tensors = counted(left.n_tensors() as u64, "tensor");
            let size = counted(left.size_bytes(), "byte");
            writeln!(out, "{GOOD}the same{GOOD:#}: {n_tensors}, {size}")?;
        }
        out.flush()?;
        Ok(if lines.is_empty() { FINE } else { DIFFERENT })
    }
}

fn line(event: &DiffEvent<'_>) -> String {
    match event {
        DiffEvent::Tensor { name, change } => {
            let name = Escaped(name);
            match change {
                Change::Added => format!("{GOOD}added{GOOD:#}    {name}"),
                Change::Removed => format!("{WRONG}removed{WRONG:#}  {name}"),
                Change::Changed(change) => {
                    format!("{WRONG}changed{WRONG:#}  {name}: {}", words(change))
                }
            }
        }
        DiffEvent::Metadata { key, change } => {
            let key = Escaped(key);
            match change {
                Change::Added => format!("{GOOD}added{GOOD:#}    metadata `{key}`"),
                Change::Removed => format!("{WRONG}removed{WRONG:#}  metadata `{key}`"),
                Change::Changed((left, right)) => format!(
                    "{WRONG}changed{WRONG:#}  metadata `{key}`: `{}` became `{}`",
                    Escaped(left),
                    Escaped(right)
                ),
            }
        }
        DiffEvent::Compared(_) => String::new(),
    }
}

fn words(change: &TensorChange) -> String {
    match change {
        TensorChange::Kind { left, right } => {
            format!("{} {:?} became {} {:?}", left.0, left.1, right.0, right.1)
        }
        TensorChange::Bytes { first, size_bytes } => {
            format!("byte {first} of {size_bytes} is the first that differs")
        }
    }
}

fn describe(event: &DiffEvent<'_>) -> Value {
    let kind = |(dtype, shape): &(Dtype, Vec<u64>)| json!({"dtype": dtype.name(), "shape": shape});
    match event {
        DiffEvent::Tensor { name, change } => match change {
            Change::Added => json!({"tensor": name, "change": "added"}),
            Change::Removed => json!({"tensor": name, "change": "removed"}),
            Change::Changed(TensorChange::Kind { left, right }) => {
                json!({"tensor": name, "change": "kind", "left": kind(left), "right": kind(right)})
            }
            Change::Changed(TensorChange::Bytes { first, .. }) => {
                json!({"tensor": name, "change": "bytes", "first_byte": first})
            }
        },
        DiffEvent::Metadata { key, change } => match change {
            Change::Added => json!({"metadata": key, "change": "added"}),
            Change::Removed => json!({"metadata": key, "change": "removed"}),
            Change::Changed((left, right)) => {
                json!({"metadata": key, "change": "value", "left": left, "right": right})
            }
        },
        DiffEvent::Compared(_) => Value::Null,
    }
}
