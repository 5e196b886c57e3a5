//! `tensorhold plan`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tensorhold::{Bytes, Checkpoint, Error, Escaped, Held, MeshAxis, OpenOptions, RankPlan, Rules};

use crate::FINE;
use crate::division::Division;
use crate::output::{BOLD, Done, counted, print_json, stdout};

/// Says what each rank of a mesh holds of a checkpoint, and how much it reads, from headers alone
///
/// Rules go from patterns of names to what is done along an axis of the mesh: the styles of a `tp_plan` of transformers
/// (`colwise`, `rowwise`, ...), `stages`, `first_stage` and `last_stage` of a pipeline, `experts`, or a placement such as
/// `Shard(0)`. `*` is one part of a name, or letters of it, `**` any number of parts.
#[derive(Args)]
#[command(
    after_help = "Example:\n  tensorhold plan model/ --mesh pp=2,tp=4 --rule 'model.layers=stages' \
    --rule '**.q_proj=colwise' --rule '**.o_proj=rowwise'"
)]
pub(crate) struct Plan {
    /// A file, a folder or an `*.safetensors.index.json`
    path: PathBuf,
    #[command(flatten)]
    division: Division,
    /// List what this rank holds
    #[arg(long)]
    rank: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Plan {
    pub(crate) fn run(&self) -> Done {
        let rules = self.division.rules()?;
        let options = OpenOptions {
            rules: Rules::Compatible,
            ..OpenOptions::default()
        };
        let checkpoint = Checkpoint::open(&self.path, &options)?;
        if let Some(rank) = self.rank {
            let held = checkpoint.held(&rules, rank)?;
            return match self.json {
                true => print_json(&tensors_json(&checkpoint, &held)),
                false => show_tensors(&checkpoint, &held),
            }
            .map(|()| FINE);
        }
        let rules = checkpoint.bind(&rules)?;
        let plans =
            (0..self.division.mesh.n_ranks()).map(|rank| checkpoint.rank_plan(&rules, rank));
        let plans: Vec<RankPlan> = plans.collect::<Result<_, Error>>()?;
        match self.json {
            true => print_json(&json!({
                "mesh": self.division.mesh.to_string(),
                "size_bytes": checkpoint.size_bytes(),
                "ranks": plans.iter().map(|plan| rank_json(&checkpoint, plan)).collect::<Vec<_>>(),
            }))?,
            false => self.show(&checkpoint, &plans)?,
        }
        Ok(FINE)
    }

    fn show(&self, checkpoint: &Checkpoint, plans: &[RankPlan]) -> Done<()> {
        let mut out = stdout();
        let n_ranks = counted(plans.len() as u64, "rank");
        let path = self.path.to_string_lossy();
        writeln!(
            out,
            "{BOLD}{}{BOLD:#}: {}, {} in {}; {n_ranks} in {}",
            Escaped(&path),
            counted(checkpoint.n_tensors() as u64, "tensor"),
            Bytes(checkpoint.size_bytes()),
            counted(checkpoint.files().len() as u64, "file"),
            self.division.mesh,
        )?;
        let held = |plan: &RankPlan| plan.held_bytes;
        for plan in plans {
            let seat = self.division.mesh.axes().iter().zip(&plan.coordinates);
            let seat: Vec<String> = seat
                .map(|(MeshAxis { name, .. }, at)| format!("{name} {at}"))
                .collect();
            let n_files = plan.read_bytes.iter().filter(|&&bytes| bytes > 0).count();
            writeln!(
                out,
                "  rank {:>4}  {:<24} {:>16}  holds {:>10}  reads {:>10} of {}",
                plan.rank,
                seat.join(", "),
                counted(plan.n_tensors, "tensor"),
                Bytes(plan.held_bytes).to_string(),
                Bytes(plan.read_bytes.iter().sum()).to_string(),
                counted(n_files as u64, "file"),
            )?;
        }
        let total: u64 = plans.iter().map(held).sum();
        let most = plans.iter().map(held).max().unwrap_or(0);
        writeln!(
            out,
            "all ranks hold {}, {:.2} times the checkpoint; the fullest {}",
            Bytes(total),
            total as f64 / checkpoint.size_bytes().max(1) as f64,
            Bytes(most),
        )?;
        Ok(out.flush()?)
    }
}

fn rank_json(checkpoint: &Checkpoint, plan: &RankPlan) -> Value {
    let files = checkpoint.files().iter().zip(&plan.read_bytes);
    let files: BTreeMap<String, u64> = files
        .map(|(file, &bytes)| (file.path().to_string_lossy().into_owned(), bytes))
        .collect();
    json!({
        "rank": plan.rank,
        "coordinates": plan.coordinates,
        "n_tensors": plan.n_tensors,
        "held_bytes": plan.held_bytes,
        "read_bytes": files,
    })
}

fn placements(held: &Held) -> String {
    let texts: Vec<String> = held.placements.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

fn show_tensors(checkpoint: &Checkpoint, held: &[Option<Held>]) -> Done<()> {
    let mut out = stdout();
    for (tensor, held) in checkpoint.tensors().zip(held) {
        let Some(held) = held else {
            continue;
        };
        let info = tensor.info();
        writeln!(
            out,
            "{}  {} {:?} of {:?}  by {}  in {}",
            Escaped(info.name),
            info.dtype,
            held.share.shape(),
            info.shape,
            placements(held),
            Escaped(&tensor.file().path().to_string_lossy()),
        )?;
    }
    Ok(out.flush()?)
}

fn tensors_json(checkpoint: &Checkpoint, held: &[Option<Held>]) -> Value {
    let tensors = checkpoint.tensors().zip(held).filter_map(|(tensor, held)| {
        let (held, info) = (held.as_ref()?, tensor.info());
        let ranges = held.share.ranges().iter();
        let pairs = |of_dim: &Vec<std::ops::Range<u64>>| -> Vec<[u64; 2]> {
            of_dim
                .iter()
                .map(|range| [range.start, range.end])
                .collect()
        };
        Some(json!({
            "name": info.name,
            "dtype": info.dtype.name(),
            "shape": held.share.shape(),
            "full_shape": info.shape,
            "ranges": ranges.map(pairs).collect::<Vec<_>>(),
            "placements": held.placements.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "file": tensor.file().path().to_string_lossy(),
        }))
    });
    Value::from(tensors.collect::<Vec<_>>())
}
