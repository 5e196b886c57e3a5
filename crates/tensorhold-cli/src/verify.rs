//! `tensorhold verify`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tensorhold::{Bytes, Escaped, Outcome, Rules, Verdict, VerifyEvent, verify_as};

use crate::output::{Done, GOOD, WRONG, counted, error_json, print_json, stdout};
use crate::progress::Progress;
use crate::quantized;
use crate::{DIFFERENT, FAILED, FINE};

/// Says of each file whether it is what it must be
///
/// By the strict rules a file must also be free of what the published format forbids though readers take it, of
/// booleans other than 0 and 1, of bits behind integers narrower than a byte, and of bytes that let it pass for a zip
/// archive or a pickle. The parts of quantized weights must be there and fit each other, in whichever files they lie, and
/// their scales must be such as programs write.
#[derive(Args)]
#[command(after_help = "Example:\n  tensorhold verify downloads/ model.safetensors.index.json")]
pub(crate) struct Verify {
    /// Files, folders or `*.safetensors.index.json`, which is checked against its shards
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Refuse only what safetensors 0.8.0 refuses, and repeated names
    #[arg(long, conflicts_with = "strict")]
    compatible: bool,
    /// Refuse all that the format forbids (the default)
    #[arg(long)]
    strict: bool,
    /// A file that says how weights are quantized, in place of those beside the tensors
    #[arg(long, value_name = "FILE")]
    quantization_config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(crate) fn run(&self) -> Done {
        let rules = match self.compatible {
            true => Rules::Compatible,
            false => Rules::Strict,
        };
        let config = quantized::given_config(self.quantization_config.as_deref())?;
        let mut progress = Progress::new(0);
        let mut verdicts = Vec::new();
        let mut outcome = Outcome::Fine;
        let mut printed = Ok(());
        for path in &self.paths {
            let tell = &mut |event| match event {
                VerifyEvent::Read(bytes) => progress.add(bytes),
                VerifyEvent::Done(verdict) if self.json => verdicts.push(describe(&verdict)),
                VerifyEvent::Proven(proof) if self.json => {
                    verdicts.push(quantized::describe(&proof))
                }
                VerifyEvent::Proven(proof) => {
                    keep_first(&mut printed, progress.aside(|| quantized::show(&proof)));
                }
                VerifyEvent::Done(verdict) => {
                    keep_first(&mut printed, progress.aside(|| show(&verdict)));
                }
            };
            outcome = outcome.max(verify_as(path, rules, config.as_deref(), tell));
        }
        printed?;
        if self.json {
            print_json(&Value::from(verdicts))?;
        }
        Ok(match outcome {
            Outcome::Fine => FINE,
            Outcome::Wrong => DIFFERENT,
            Outcome::Unreadable => FAILED,
        })
    }
}

/// Remembers the first failure to print.
fn keep_first(printed: &mut Done<()>, next: Done<()>) {
    if printed.is_ok() {
        *printed = next;
    }
}

fn show(verdict: &Verdict) -> Done<()> {
    let mut out = stdout();
    match &verdict.found {
        Ok(holding) => writeln!(
            out,
            "{GOOD}ok{GOOD:#}     {}: {}, {}",
            Escaped(&verdict.path.to_string_lossy()),
            counted(holding.n_tensors, "tensor"),
            Bytes(holding.size_bytes)
        )?,
        Err(error) => {
            let text = error.to_string().replace('\n', "\n       ");
            writeln!(out, "{WRONG}wrong{WRONG:#}  {text}")?;
        }
    }
    Ok(out.flush()?)
}

fn describe(verdict: &Verdict) -> Value {
    let path = verdict.path.to_string_lossy();
    match &verdict.found {
        Ok(holding) => json!({
            "path": path,
            "ok": true,
            "tensors": holding.n_tensors,
            "bytes": holding.size_bytes,
        }),
        Err(error) => json!({"path": path, "ok": false, "error": error_json(error)}),
    }
}
