//! `tensorhold inspect`.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Map, Value, json};
use tensorhold::{
    Bytes, Checkpoint, Count, Dtype, Error, ErrorKind, Escaped, Exact, Module, OpenOptions,
    Quantization, Report, Row, Rules, Shape, Totals, rows,
};

use crate::FINE;
use crate::output::{BOLD, DIM, Done, counted, error_json, print_json, print_note, stdout};
use crate::quantized;

/// What fits on a screen beside the summary.
const SCREEN_ROWS: usize = 40;
/// Longer values of the metadata are cut.
const METADATA_CHARACTERS: usize = 72;

/// Shows what a checkpoint holds, from its headers alone
///
/// Tensors are summed up by module, and layers of the same structure folded into one: `model.layers.[0-35] ×36`. Quantized weights
/// are one each, with the parameters that they have and the bytes of all their parts.
#[derive(Args)]
#[command(after_help = "Example:\n  tensorhold inspect Meta-Llama-3-8B/")]
pub(crate) struct Inspect {
    /// Files, folders or `*.safetensors.index.json`
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// List every tensor with its file and the position of its bytes
    #[arg(long)]
    flat: bool,
    /// Open every module, also where more lines come than fit on a screen
    #[arg(long, conflicts_with = "flat")]
    all: bool,
    /// A file that says how weights are quantized, in place of those beside the tensors
    #[arg(long, value_name = "FILE")]
    quantization_config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(crate) fn run(&self) -> Done {
        let config = quantized::given_config(self.quantization_config.as_deref())?;
        let mut json = Vec::new();
        for (n, path) in self.paths.iter().enumerate() {
            let (checkpoint, refusal) = match open(path, Rules::Strict) {
                Ok(checkpoint) => (checkpoint, None),
                Err(refusal) => (open(path, Rules::Compatible)?, Some(refusal)),
            };
            let found = Found::of(checkpoint, config.as_ref())?;
            if self.json {
                json.push(describe(path, &found, refusal.as_ref()));
                continue;
            }
            let mut out = stdout();
            if n > 0 {
                writeln!(out)?;
            }
            self.show(&mut out, path, &found)?;
            out.flush()?;
            quantized::note_findings(&found.quantization);
            if let Some(error) = &found.unread {
                print_note(&format!("what is quantized cannot be said: {error}"));
            }
            if let Some(refusal) = refusal {
                print_note(&format!("the strict rules refuse this: {refusal}"));
            }
        }
        match (self.json, &json[..]) {
            (false, _) => {}
            (true, [one]) => print_json(one)?,
            (true, many) => print_json(&Value::from(many))?,
        }
        Ok(FINE)
    }

    fn show(&self, out: &mut impl Write, path: &Path, found: &Found) -> Done<()> {
        let Found {
            checkpoint, report, ..
        } = found;
        show_summary(out, path, checkpoint, report)?;
        match self.flat {
            true => show_flat(out, checkpoint),
            false => {
                let on_screen = std::io::stdout().is_terminal() && !self.all;
                let rows = rows(report, on_screen.then_some(SCREEN_ROWS));
                show_tree(out, &rows)?;
                show_rest(out, report, &rows)
            }
        }
    }
}

/// What is shown of a checkpoint.
struct Found {
    checkpoint: Checkpoint,
    quantization: Arc<Quantization>,
    report: Report,
    /// Why it cannot be said what is quantized.
    unread: Option<Error>,
}

impl Found {
    fn of(checkpoint: Checkpoint, config: Option<&String>) -> Result<Found, Error> {
        let checkpoint = match config {
            Some(config) => checkpoint.with_quantization_config(config.clone()),
            None => checkpoint,
        };
        let (quantization, unread) = match checkpoint.quantization() {
            Ok(quantization) => (quantization, None),
            Err(error) if error.kind() == ErrorKind::InvalidConfig => (Arc::default(), Some(error)),
            Err(error) => return Err(error),
        };
        Ok(Found {
            report: Report::logical(&checkpoint, &quantization),
            checkpoint,
            quantization,
            unread,
        })
    }
}

fn open(path: &Path, rules: Rules) -> Result<Checkpoint, Error> {
    Checkpoint::open(
        path,
        &OpenOptions {
            rules,
            ..OpenOptions::default()
        },
    )
}

fn show_summary(
    out: &mut impl Write,
    path: &Path,
    checkpoint: &Checkpoint,
    report: &Report,
) -> Done<()> {
    let Totals {
        n_tensors,
        n_elements,
        size_bytes,
    } = report.totals;
    writeln!(
        out,
        "{BOLD}{}{BOLD:#}: {}, {} parameters, {} ({}) in {}; {}",
        Escaped(&path.to_string_lossy()),
        counted(n_tensors, "tensor"),
        Count(n_elements),
        Bytes(size_bytes),
        counted(size_bytes, "byte"),
        counted(checkpoint.files().len() as u64, "file"),
        shares(report),
    )?;
    quantized::show_schemes(out, report)?;
    for (key, value) in checkpoint.metadata() {
        let cut: String = value.chars().take(METADATA_CHARACTERS).collect();
        let dots = if cut.len() < value.len() { "…" } else { "" };
        writeln!(
            out,
            "{DIM}{} = {}{dots}{DIM:#}",
            Escaped(key),
            Escaped(&cut)
        )?;
    }
    Ok(())
}

/// The dtypes, each with its part of the bytes.
fn shares(report: &Report) -> String {
    let total = report.totals.size_bytes.max(1) as f64;
    let share = |(dtype, totals): &(Dtype, Totals)| {
        format!("{dtype} {:.1} %", 100.0 * totals.size_bytes as f64 / total)
    };
    match &report.dtypes[..] {
        [] => "empty".to_owned(),
        [(dtype, _)] => format!("all {dtype}"),
        many => many.iter().map(share).collect::<Vec<_>>().join(", "),
    }
}

fn show_flat(out: &mut impl Write, checkpoint: &Checkpoint) -> Done<()> {
    for tensor in checkpoint.tensors() {
        let info = tensor.info();
        let position = tensor.file().header().data_start() + info.offsets.start;
        writeln!(
            out,
            "{}\t{}\t{:?}\t{}\t{}\t{position}",
            Escaped(info.name),
            info.dtype,
            info.shape,
            info.size_bytes(),
            Escaped(&tensor.file().path().to_string_lossy()),
        )?;
    }
    Ok(())
}

/// One line of the table.
struct Line {
    name: String,
    tensors: String,
    parameters: String,
    bytes: String,
    kind: String,
}

fn show_tree(out: &mut impl Write, rows: &[Row<'_>]) -> Done<()> {
    let lines: Vec<Line> = rows.iter().map(line).collect();
    let width = |cell: fn(&Line) -> &str, title: &str| {
        let widest = lines
            .iter()
            .map(|line| cell(line).chars().count())
            .max()
            .unwrap_or(0);
        widest.max(title.len())
    };
    let name = width(|line| &line.name, "module");
    let tensors = width(|line| &line.tensors, "tensors");
    let parameters = width(|line| &line.parameters, "parameters");
    let bytes = width(|line| &line.bytes, "size");
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "{DIM}{:name$}  {:>tensors$}  {:>parameters$}  {:>bytes$}  dtype and shape{DIM:#}",
        "module", "tensors", "parameters", "size"
    )?;
    for line in &lines {
        writeln!(
            out,
            "{:name$}  {:>tensors$}  {:>parameters$}  {:>bytes$}  {}",
            line.name, line.tensors, line.parameters, line.bytes, line.kind
        )?;
    }
    Ok(())
}

/// Says what was left out so that the tree fits.
fn show_rest(out: &mut impl Write, report: &Report, rows: &[Row<'_>]) -> Done<()> {
    let n_shown = rows.iter().filter(|row| row.depth == 0).count();
    let n_closed = rows.iter().filter(|row| row.is_closed).count();
    let left_out = match (report.modules.len() - n_shown, n_closed) {
        (0, 0) => return Ok(()),
        (0, n_closed) => format!("{} closed", counted(n_closed as u64, "module")),
        (n_more, _) => format!("{} more", counted(n_more as u64, "module")),
    };
    writeln!(out, "{DIM}… {left_out}: `--all` shows all{DIM:#}")?;
    Ok(())
}

fn line(row: &Row<'_>) -> Line {
    let Row {
        depth,
        module,
        is_closed,
    } = row;
    let folded = if module.n_folded > 1 {
        format!(" ×{}", module.n_folded)
    } else {
        String::new()
    };
    let more = if *is_closed { " …" } else { "" };
    Line {
        name: format!(
            "{:1$}{2}{folded}{more}",
            "",
            2 * depth,
            Escaped(&module.name)
        ),
        tensors: Exact(module.totals.n_tensors).to_string(),
        parameters: Count(module.totals.n_elements).to_string(),
        bytes: Bytes(module.totals.size_bytes).to_string(),
        kind: kind(module),
    }
}

/// The dtype and shape of a tensor; of several, and of modules, the dtypes.
fn kind(module: &Module) -> String {
    match &module.tensors[..] {
        [shape] => kind_of(shape),
        _ => {
            let schemes = module.schemes.iter().map(|scheme| scheme.name());
            let dtypes = module.dtypes.iter().map(|dtype| dtype.name());
            schemes.chain(dtypes).collect::<Vec<_>>().join(" ")
        }
    }
}

fn kind_of(shape: &Shape) -> String {
    let Shape {
        dtype,
        narrow,
        dims,
        scheme,
    } = shape;
    let dtype = match narrow {
        Some(narrow) => narrow.to_string(),
        None => dtype.to_string(),
    };
    match (scheme, dims) {
        (None, Some(dims)) => format!("{dtype} {dims:?}"),
        (Some(scheme), Some(dims)) => format!("{scheme} for {dtype} {dims:?}"),
        (Some(scheme), None) => format!("{scheme}, of unknown shape"),
        (None, None) => dtype,
    }
}

fn describe(path: &Path, found: &Found, refusal: Option<&Error>) -> Value {
    let Found {
        checkpoint,
        quantization,
        report,
        unread,
    } = found;
    let totals = |totals: &Totals| json!({"tensors": totals.n_tensors, "parameters": totals.n_elements, "bytes": totals.size_bytes});
    let dtypes: Map<String, Value> = report
        .dtypes
        .iter()
        .map(|(dtype, sums)| (dtype.name().to_owned(), totals(sums)))
        .collect();
    let file = |file: &tensorhold::File| json!({"path": file.path().to_string_lossy(), "bytes": file.header().file_size()});
    let tensor = |tensor: tensorhold::Tensor<'_>| {
        let info = tensor.info();
        json!({
            "name": info.name,
            "dtype": info.dtype.name(),
            "shape": info.shape,
            "bytes": info.size_bytes(),
            "file": tensor.file_index(),
            "position": tensor.file().header().data_start() + info.offsets.start,
        })
    };
    json!({
        "path": path.to_string_lossy(),
        "totals": totals(&report.totals),
        "dtypes": dtypes,
        "metadata": checkpoint.metadata(),
        "refused_by_strict_rules": refusal.map(error_json),
        "quantization": match unread {
            Some(error) => json!({"error": error_json(error)}),
            None if quantization.is_empty() => Value::Null,
            None => quantized::quantization_json(checkpoint, quantization, report),
        },
        "files": checkpoint.files().iter().map(file).collect::<Vec<_>>(),
        "tensors": checkpoint.tensors().map(tensor).collect::<Vec<_>>(),
    })
}
