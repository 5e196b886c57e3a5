"""What ranks do in the tests of modes, in a module that their processes import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import tensorhold
from tensorhold import parallel
from tensorhold.parallel import _modes, _node

RULES = {
    "model.layers": parallel.Stages(),
    "model.embed_tokens": "first_stage",
    "model.norm": "last_stage",
    "lm_head": {"pp": "last_stage", "tp": "colwise"},
    "model.layers.*.q_proj": "colwise",
    "model.layers.*.k_proj": parallel.Heads(0, 2),
    "model.layers.*.o_proj": "rowwise",
}

TIED = {"lm_head.weight": "model.embed_tokens.weight"}


def small_windows() -> None:
    """Makes even a small checkpoint one of many windows."""
    _modes.WINDOW_BYTES = 1024
    _node.WINDOW_BYTES = 4096
    _modes._SMALL_BYTES = 512


def same_bytes(rank: int, path: str, mesh: dict[str, int], mode: str, options: Any) -> None:
    small_windows()
    n_ranks = torch.distributed.get_world_size()
    assert n_ranks == torch.Size(mesh.values()).numel()
    expected = parallel.load(path, mesh=mesh, rank=rank, rules=RULES, mode="own", **options)
    held = parallel.load(path, mesh=mesh, rules=RULES, mode=mode, **options)
    assert parallel.stats() == parallel.LoadStats(mode, "it was asked for")
    assert held.keys() == expected.keys()
    for name, tensor in expected.items():
        assert held[name].dtype == tensor.dtype, name
        assert torch.equal(as_bytes(held[name]), as_bytes(tensor)), name


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


def own_error_reaches_all(rank: int, path: str, mode: str, broken: int) -> None:
    small_windows()
    source = Path(path)
    if rank == broken:
        source = source.with_name("truncated.safetensors")
        source.write_bytes(Path(path).read_bytes()[:-7])
    started = time.monotonic()
    with pytest.raises(tensorhold.SafetensorError) as caught:
        parallel.load(source, mesh={"tp": 2}, rules=RULES, mode=mode, tied=TIED)
    assert time.monotonic() - started < 30
    if rank == broken:
        assert "truncated.safetensors" in str(caught.value)
    else:
        assert isinstance(caught.value, parallel.RankError)
        assert str(caught.value).startswith(f"rank {broken}: ")
    # The group is as good as before.
    parallel.load(path, mesh={"tp": 2}, rules=RULES, mode=mode, tied=TIED)


def late_error_reaches_all(rank: int, path: str, mode: str, broken: int) -> None:
    """The file loses its end after it was opened."""
    small_windows()
    mine = f"{path}.{rank}"
    Path(mine).write_bytes(Path(path).read_bytes())
    with tensorhold.open(mine, backend="pread") as checkpoint:
        if rank == broken:
            os.truncate(mine, os.path.getsize(mine) // 2)
        with pytest.raises(tensorhold.SafetensorError) as caught:
            parallel.load(checkpoint, mesh={"tp": 2}, rules=RULES, mode=mode, tied=TIED)
    if rank != broken:
        assert str(caught.value).startswith(f"rank {broken}: ")


def others_are_refused(rank: int, path: str, other: str, mode: str, message: str) -> None:
    source = other if rank == 1 else path
    with pytest.raises(ValueError, match=message):
        parallel.load(source, mesh={"tp": 2}, rules=RULES, mode=mode)


def other_arguments_are_refused(rank: int, path: str, mode: str) -> None:
    rules = RULES | ({"model.layers.*.q_proj": "rowwise"} if rank == 1 else {})
    with pytest.raises(ValueError, match=r"rank 1 has another `rules` than rank 0: .*q_proj"):
        parallel.load(path, mesh={"tp": 2}, rules=rules, mode=mode)
    mesh = {"tp": 2} if rank == 0 else {"pp": 1, "tp": 2}
    with pytest.raises(
        ValueError, match="rank 1 has another `mesh` than rank 0: pp=1,tp=2, not tp=2"
    ):
        parallel.load(path, mesh=mesh, rules=RULES, mode=mode)
    kind = torch.float32 if rank == 0 else torch.float16
    with pytest.raises(ValueError, match="rank 1 has another `dtype` than rank 0: float16"):
        parallel.load(path, mesh={"tp": 2}, rules=RULES, mode=mode, dtype=kind)


def one_is_killed(rank: int, path: str, mode: str, victim: int, limit: float) -> None:
    """One rank is killed in the middle of the load; the others have to name it."""
    small_windows()
    if rank == victim:
        kill_half_way()
    started = time.monotonic()
    with pytest.raises(parallel.RankError, match=rf"rank {victim}\b") as caught:
        parallel.load(path, mesh={"tp": 4}, rules=RULES, mode=mode)
    assert time.monotonic() - started < limit, str(caught.value)


def kill_half_way() -> None:
    load, n_loads = tensorhold.checkpoint.Checkpoint.load, []

    def fatal(*arguments: Any, **options: Any) -> Any:
        n_loads.append(1)
        if len(n_loads) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return load(*arguments, **options)

    tensorhold.checkpoint.Checkpoint.load = fatal


def auto_says_why(rank: int, path: str) -> None:
    group = torch.distributed.group.WORLD
    parallel.load(path, mesh={"tp": 2}, rules=RULES)
    assert parallel.stats().why == "no process group was given"
    parallel.load(path, mesh={"tp": 2}, rules=RULES, process_group=group)
    assert parallel.stats().mode == "own"
    assert "page cache" in parallel.stats().why
