//! What the ranks of a mesh hold of a checkpoint.

mod rules;

use tensorhold_core::{Held, LoadPlan, ParallelRules, Request, Result};
use tensorhold_io::Way;

use crate::checkpoint::Checkpoint;
use crate::transfer::cut_for;

pub use rules::{CheckpointRules, NamedHeld};

/// What one rank holds of a checkpoint, and what it has to read for that, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankPlan {
    /// The rank.
    pub rank: u64,
    /// Where it stands on each axis of the mesh.
    pub coordinates: Vec<u64>,
    /// The number of tensors of which it holds something.
    pub n_tensors: u64,
    /// The bytes that it holds.
    pub held_bytes: u64,
    /// The bytes that it reads of each file, with gaps that are too small to be passed over.
    pub read_bytes: Vec<u64>,
}

impl Checkpoint {
    /// The rules as they are for the tensors of the checkpoint, in their order. Rules name quantized weights as without quantization.
    ///
    /// # Errors
    /// Those of [`ParallelRules::bind`] and of [`quantization`](Checkpoint::quantization).
    pub fn bind<'a>(&'a self, rules: &'a ParallelRules) -> Result<CheckpointRules<'a>> {
        CheckpointRules::bind(self, rules, &[])
    }

    /// What `rank` holds and reads by `rules`, which are [bound](Checkpoint::bind) to this checkpoint.
    ///
    /// # Errors
    /// Those of [`CheckpointRules::held`] and of [`plan_held`](Checkpoint::plan_held).
    pub fn rank_plan(&self, rules: &CheckpointRules<'_>, rank: u64) -> Result<RankPlan> {
        let plan = self.plan_held(&rules.held(rank)?)?;
        let mut read_bytes = vec![0; self.files().len()];
        for task in plan.tasks(|_| cut_for(Way::Buffered))?.tasks() {
            read_bytes[task.extent.file] += task.extent.range.len();
        }
        Ok(RankPlan {
            rank,
            coordinates: rules.mesh().coordinates(rank)?,
            n_tensors: plan.requests().len() as u64,
            held_bytes: plan.size_bytes(),
            read_bytes,
        })
    }

    /// What `rank` holds of each tensor by `rules`, in the order of [`tensors`](Checkpoint::tensors); `None` for tensors of which it
    /// holds nothing.
    ///
    /// # Errors
    /// Those of [`bind`](Checkpoint::bind) and of [`CheckpointRules::held`].
    pub fn held(&self, rules: &ParallelRules, rank: u64) -> Result<Vec<Option<Held>>> {
        self.bind(rules)?.held(rank)
    }

    /// A plan that reads what [`held`](Checkpoint::held) gives, each tensor into a buffer of its own.
    ///
    /// # Errors
    /// Those of [`Share::selection`](tensorhold_core::Share::selection), with the tensor.
    pub fn plan_held(&self, held: &[Option<Held>]) -> Result<LoadPlan> {
        let mut requests: Vec<Request> = Vec::new();
        for (tensor, held) in self.tensors().zip(held) {
            let Some(held) = held else {
                continue;
            };
            let info = tensor.info();
            let selection = held.share.selection(info.dtype);
            let selection = selection.map_err(|error| error.with_tensor(info.name))?;
            requests.push(match selection {
                Some(selection) => tensor.request().part(selection),
                None => tensor.request(),
            });
        }
        let mut plan = self.plan();
        plan.add_all_new(requests)?;
        Ok(plan)
    }
}
