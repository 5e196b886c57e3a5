"""Ranks that load together: real processes, which get the same bytes, and the same errors."""

from __future__ import annotations

from pathlib import Path

import mode_programs as programs
import pytest
import torch
from ranks import World

import tensorhold
from tensorhold import parallel
from tensorhold.parallel import _together

MODES = ["own", "node", "broadcast", "scatter"]


@pytest.fixture
def path(tmp_path) -> str:
    torch.manual_seed(5)
    tensors = {"model.embed_tokens.weight": torch.randn(64, 32).bfloat16()}
    for layer in range(4):
        prefix = f"model.layers.{layer}"
        tensors |= {
            f"{prefix}.q_proj.weight": torch.randn(16, 32),
            f"{prefix}.k_proj.weight": torch.randn(4, 32),
            f"{prefix}.o_proj.weight": torch.randn(32, 16),
            f"{prefix}.o_proj.bias": torch.randn(32).half(),
            f"{prefix}.scale": torch.tensor(layer * 1.5),
            f"{prefix}.flags": torch.rand(5, 3) > 0.5,
            f"{prefix}.empty": torch.empty(0, 3),
            f"{prefix}.packed": torch.zeros(4, 4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        }
    tensors |= {"model.norm.weight": torch.randn(32), "lm_head.weight": torch.randn(64, 32)}
    tensorhold.save(tensors, tmp_path / "model", max_shard_size="16KB", durability="none")
    return str(tmp_path / "model")


@pytest.fixture
def single(path, tmp_path) -> str:
    """All in one file, with a head that is tied."""
    tensors = tensorhold.open(path).load()
    tensors.pop("lm_head.weight")
    tensorhold.save(tensors, tmp_path / "one.safetensors", durability="none")
    return str(tmp_path / "one.safetensors")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mesh", [{"tp": 2}, {"tp": 4}, {"pp": 2, "tp": 2}, {"pp": 4}])
def test_every_mode_gives_the_same_bytes(run, path, mesh, mode):
    run(programs.same_bytes, torch.Size(mesh.values()).numel(), path, mesh, mode, {})


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_casts_and_ties(run, single, mode):
    mesh = {"pp": 2, "tp": 2}
    options = {"tied": programs.TIED, "dtype": torch.float16}
    run(programs.same_bytes, 4, single, mesh, mode, options)


@pytest.mark.parametrize("mode", MODES[1:])
def test_an_error_of_one_rank_ends_all(run, single, mode):
    run(programs.own_error_reaches_all, 2, single, mode, 1)
    run(programs.own_error_reaches_all, 2, single, mode, 0)


@pytest.mark.parametrize("mode", MODES[1:])
def test_an_error_half_way_ends_all(run, single, mode):
    run(programs.late_error_reaches_all, 2, single, mode, 1)


@pytest.mark.parametrize("mode", MODES[1:])
def test_different_checkpoints_are_refused(run, path, tmp_path, mode):
    tensors = tensorhold.open(path).load()
    cases = {
        "lacks": "it lacks `model.norm.weight`",
        "more": "it has `more` as well",
        "dtype": "`model.norm.weight` has dtype F16, not F32",
        "shape": r"`model.norm.weight` has shape \[31\], not \[32\]",
    }
    norm = tensors["model.norm.weight"]
    for name, message in cases.items():
        other = dict(tensors)
        if name == "lacks":
            del other["model.norm.weight"]
        elif name == "more":
            other["more"] = norm.clone()
        else:
            other["model.norm.weight"] = norm.half() if name == "dtype" else norm[:31].clone()
        tensorhold.save(other, tmp_path / name, max_shard_size="16KB", durability="none")
        message = f"rank 1 has another checkpoint than rank 0: {message}"
        run(programs.others_are_refused, 2, path, str(tmp_path / name), mode, message)


@pytest.mark.parametrize("mode", MODES[1:])
def test_different_arguments_are_refused(run, path, mode):
    run(programs.other_arguments_are_refused, 2, path, mode)


@pytest.mark.parametrize("victim", [2, 0])
@pytest.mark.parametrize("mode", MODES[1:])
def test_a_killed_rank_ends_the_others_with_its_name(path, mode, victim):
    world = World(4)
    try:
        world.run_without(victim, programs.one_is_killed, path, mode, victim, 40.0)
    finally:
        world.end()


def test_auto_is_own_where_the_page_cache_has_it(run, path):
    run(programs.auto_says_why, 2, path)


def test_a_mode_needs_a_group_and_a_name(path):
    with pytest.raises(ValueError, match="there is no process group to load with"):
        parallel.load(path, mesh={"tp": 2}, rank=0, rules=programs.RULES, mode="node")
    with pytest.raises(ValueError, match="`mode` is 'all': give one of 'auto', 'own', 'node'"):
        parallel.load(path, mesh={"tp": 2}, rank=0, rules=programs.RULES, mode="all")


GIB = 1 << 30


@pytest.mark.parametrize(
    ("change", "mode", "why"),
    [
        ({}, "own", "the page cache gives what ranks share"),
        ({"wanted": 10 * GIB}, "own", "no byte is held by two ranks"),
        ({"cached": 0.99}, "own", "99% of the checkpoint is in the page cache"),
        ({"free": 5 * GIB}, "node", "a node holds 10.0 GiB and has 5.0 GiB of memory free"),
        (
            {"nodes": list("aabbccdd"), "by_node": [10 * GIB] * 4, "is_network": True,
             "backend": "nccl"},
            "broadcast",
            "network storage would give some bytes several times: 43.5 s by itself",
        ),
        (
            {"nodes": list("aabbccdd"), "by_node": [10 * GIB] * 4, "is_network": True},
            "broadcast",
            "over gloo",
        ),
    ],
)  # fmt: skip
def test_the_cost_model_says_why(change, mode, why):
    facts = {
        "nodes": ["a"] * 8,
        "wanted": 40 * GIB,
        "by_node": [10 * GIB],
        "once": 10 * GIB,
        "cached": 0.0,
        "is_network": False,
        "free": 100 * GIB,
        "backend": "gloo",
    }
    found = _together.choose(_together.Facts(**(facts | change)))
    assert found[0] == mode
    assert why in found[1]


def test_shared_memory_is_gone_with_the_ranks(run, path):
    before = set(Path("/dev/shm").iterdir())
    run(programs.same_bytes, 2, path, {"tp": 2}, "node", {})
    assert set(Path("/dev/shm").iterdir()) <= before
