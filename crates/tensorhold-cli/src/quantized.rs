//! Quantized weights, as `inspect` and `verify` show them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};
use tensorhold::{
    Bytes, Checkpoint, Count, Escaped, Exact, Proof, ProofNote, QuantFinding, QuantLayout,
    Quantization, QuantizedWeight, Report, SchemeTotals, n_elements, read_quantization_config,
};

use crate::output::{DIM, Done, GOOD, WRONG, counted, error_json, print_note, stdout};

/// What a file that was named says of quantization.
pub(crate) fn given_config(path: Option<&Path>) -> Done<Option<String>> {
    Ok(path.map(read_quantization_config).transpose()?)
}

/// The lines of `inspect` for what is quantized, one for each scheme.
pub(crate) fn show_schemes(out: &mut impl Write, report: &Report) -> Done<()> {
    for (scheme, totals) in &report.schemes {
        write!(
            out,
            "{DIM}{scheme}: {}, {} parameters in {}",
            counted(totals.n_weights, "weight"),
            Count(totals.n_elements),
            Bytes(totals.size_bytes),
        )?;
        if let Some(bits) = totals.bits_per_weight() {
            write!(out, ", {bits:.2} bits per weight")?;
        }
        if totals.n_unknown > 0 {
            write!(out, "; {} without a known shape", Exact(totals.n_unknown))?;
        }
        writeln!(out, "{DIM:#}")?;
    }
    Ok(())
}

/// Says on stderr what is worth knowing of quantized weights: the same of many once.
pub(crate) fn note_findings(quantization: &Quantization) {
    for finding in &quantization.findings {
        print_note(&Escaped(&finding.to_string()).to_string());
    }
    let mut notes: BTreeMap<String, (&str, u64)> = BTreeMap::new();
    for weight in &quantization.weights {
        let refused = weight
            .logical_shape()
            .err()
            .map(|error| error.message().to_owned());
        let told = weight
            .findings
            .iter()
            .map(ToString::to_string)
            .chain(refused);
        for text in told {
            notes.entry(text).or_insert((&weight.name, 0)).1 += 1;
        }
    }
    for (text, (first, n_weights)) in notes {
        print_note(&about(&text, Some(first), n_weights));
    }
}

/// A remark with the weights that it is about.
fn about(text: &str, first: Option<&str>, n_weights: u64) -> String {
    let text = Escaped(text);
    match (first, n_weights) {
        (None, _) => text.to_string(),
        (Some(first), 0 | 1) => format!("`{}`: {text}", Escaped(first)),
        (Some(first), _) => format!(
            "`{}` and {} more: {text}",
            Escaped(first),
            Exact(n_weights - 1)
        ),
    }
}

/// The lines of `verify` for the quantized weights of a checkpoint.
pub(crate) fn show(proof: &Proof) -> Done<()> {
    let mut out = stdout();
    let path = proof.path.to_string_lossy();
    let schemes = proof
        .schemes
        .iter()
        .map(|(scheme, n_weights)| format!("{} {scheme}", Exact(*n_weights)));
    let schemes: Vec<String> = schemes.collect();
    if proof.wrong.is_empty() {
        let n_weights = proof.schemes.values().sum();
        let colon = if schemes.is_empty() { "" } else { ": " };
        writeln!(
            out,
            "{GOOD}ok{GOOD:#}     {}: {}{colon}{}",
            Escaped(&path),
            counted(n_weights, "quantized weight"),
            schemes.join(", ")
        )?;
    }
    for error in &proof.wrong {
        let text = error.to_string().replace('\n', "\n       ");
        writeln!(out, "{WRONG}wrong{WRONG:#}  {text}")?;
    }
    out.flush()?;
    for ProofNote {
        finding,
        weight,
        n_weights,
    } in &proof.notes
    {
        print_note(&about(&finding.to_string(), weight.as_deref(), *n_weights));
    }
    Ok(())
}

/// What `verify --json` says of them.
pub(crate) fn describe(proof: &Proof) -> Value {
    let schemes: Map<String, Value> = proof
        .schemes
        .iter()
        .map(|(scheme, n_weights)| (scheme.to_string(), json!(n_weights)))
        .collect();
    let note = |note: &ProofNote| {
        let mut value = finding_json(&note.finding);
        value["weight"] = json!(note.weight);
        value["weights"] = json!(note.n_weights);
        value
    };
    json!({
        "path": proof.path.to_string_lossy(),
        "ok": proof.wrong.is_empty(),
        "quantized": schemes,
        "notes": proof.notes.iter().map(note).collect::<Vec<_>>(),
        "errors": proof.wrong.iter().map(error_json).collect::<Vec<_>>(),
    })
}

/// What `inspect --json` says of a checkpoint's quantization.
pub(crate) fn quantization_json(
    checkpoint: &Checkpoint,
    quantization: &Quantization,
    report: &Report,
) -> Value {
    let totals = |totals: &SchemeTotals| {
        json!({
            "weights": totals.n_weights,
            "weights_without_shape": totals.n_unknown,
            "parameters": totals.n_elements,
            "bytes": totals.size_bytes,
            "bits_per_weight": totals.bits_per_weight(),
        })
    };
    let schemes: Map<String, Value> = report
        .schemes
        .iter()
        .map(|(scheme, sums)| (scheme.to_string(), totals(sums)))
        .collect();
    let weights = quantization
        .weights
        .iter()
        .map(|weight| weight_json(checkpoint, weight));
    json!({
        "config": quantization.config,
        "schemes": schemes,
        "weights": weights.collect::<Vec<_>>(),
        "companions": quantization.companions,
        "findings": quantization.findings.iter().map(finding_json).collect::<Vec<_>>(),
    })
}

fn weight_json(checkpoint: &Checkpoint, weight: &QuantizedWeight) -> Value {
    let size_bytes = checkpoint.quantized_size_bytes(weight);
    let n_weights = weight
        .shape()
        .and_then(n_elements)
        .filter(|n_weights| *n_weights > 0);
    json!({
        "name": weight.name,
        "scheme": weight.scheme.name(),
        "dtype": weight.dtype.name(),
        "shape": weight.shape(),
        "bytes": size_bytes,
        "bits_per_weight": n_weights.map(|n_weights| size_bytes as f64 * 8.0 / n_weights as f64),
        "parts": weight.parts,
        "opaque": match &weight.layout {
            QuantLayout::Opaque(why) => Some(why),
            _ => None,
        },
        "error": match &weight.layout {
            QuantLayout::Broken(error) => Some(error_json(error)),
            _ => None,
        },
        "findings": weight.findings.iter().map(finding_json).collect::<Vec<_>>(),
    })
}

fn finding_json(finding: &QuantFinding) -> Value {
    json!({"kind": finding.kind.name(), "message": finding.message, "tensor": finding.tensor})
}
