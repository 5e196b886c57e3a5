//! What the ranks of a mesh hold of a checkpoint.

use tensorhold_core::{Held, LoadPlan, ParallelRules, Request, Result};

use crate::checkpoint::Checkpoint;

impl Checkpoint {
    /// What `rank` holds of each tensor by `rules`, in the order of [`tensors`](Checkpoint::tensors); `None` for tensors of which it
    /// holds nothing. Nothing but headers is looked at.
    ///
    /// # Errors
    /// Those of [`ParallelRules::held`].
    pub fn held(&self, rules: &ParallelRules, rank: u64) -> Result<Vec<Option<Held>>> {
        let infos: Vec<_> = self.tensors().map(|tensor| tensor.info()).collect();
        rules.held(rank, infos.iter().map(|info| (info.name, info.shape)))
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
