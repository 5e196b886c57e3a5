"""Models of `transformers` with plans of their own: what the divided one computes is the oracle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from model_programs import MODELS, fill_model, load_by_plan, save, whole

from tensorhold import parallel


@pytest.fixture
def saved(tmp_path):
    def saved(name: str) -> str:
        save(name, str(tmp_path / name))
        return str(tmp_path / name)

    return saved


@pytest.mark.parametrize("n_ranks", [2, 4])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_divided_by_its_plan_computes_what_the_whole_one_does(run, saved, name, n_ranks):
    run(fill_model, n_ranks, name, saved(name), {"tp": n_ranks})


@pytest.mark.parametrize("n_ranks", [2, 4])
@pytest.mark.parametrize("name", ["llama", "tied", "mixtral"])
def test_stages_of_a_pipeline_compute_what_the_whole_model_does(run, saved, name, n_ranks):
    run(fill_model, n_ranks, name, saved(name), {"pp": n_ranks})


@pytest.mark.parametrize("n_ranks", [2, 4])
@pytest.mark.parametrize("name", MODELS)
def test_rules_of_a_model_divide_as_its_plan_does(run, saved, name, n_ranks):
    run(load_by_plan, n_ranks, name, saved(name), n_ranks)


@pytest.mark.parametrize("name", MODELS)
def test_stages_hold_the_layers_that_the_plan_says(saved, name):
    path, rules = saved(name), parallel.rules_of(whole(name))
    held = [parallel.shares(path, mesh={"pp": 4}, rank=rank, rules=rules) for rank in range(4)]
    for rank, names in enumerate(held):
        layers = {name.split(".")[2] for name in names if ".layers." in name}
        assert layers == {str(rank)}
        assert ("model.embed_tokens.weight" in names) == (rank == 0)
        assert ("model.norm.weight" in names) == (rank == 3)
        # Also where the checkpoint has it as the embedding.
        assert ("lm_head.weight" in names) == (rank == 3)


def test_both_ends_of_a_pipeline_have_their_shares_of_a_tied_weight(saved):
    path, grid = saved("tied"), {"pp": 2, "tp": 2}
    kept = whole("tied").state_dict()["model.embed_tokens.weight"]
    held = [parallel.load(path, mesh=grid, rank=rank) for rank in range(4)]
    names = ["model.embed_tokens.weight"] * 2 + ["lm_head.weight"] * 2
    for rank, name in enumerate(names):
        assert torch.equal(held[rank][name], kept.chunk(2)[rank % 2])
        assert set(names) & held[rank].keys() == {name}
        assert held[rank][f"model.layers.{rank}.mlp.down_proj.weight"].shape == (32, 24)


def test_without_rules_and_without_a_plan_it_says_what_to_give(saved):
    path = Path(saved("llama"))
    plan = parallel.shares(path, mesh={"tp": 2}, rank=0)
    assert plan["model.layers.0.mlp.up_proj.weight"].shape == (24, 32)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"architectures": ["Unheard"]}))
    with pytest.raises(ValueError, match="has no model `Unheard`\nhint: give `rules`"):
        parallel.shares(path, mesh={"tp": 2}, rank=0)
    (path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"there is no `config[.]json` beside"):
        parallel.shares(path, mesh={"tp": 2}, rank=0)
    assert parallel.shares(path, mesh={"tp": 1}, rank=0)
