"""One of two ranks, each on a host of its own: `tools/two-hosts.sh` starts them."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path

import mode_programs as programs
import torch
import torch.distributed as dist

import tensorhold
from tensorhold import parallel
from tensorhold.parallel import _modes

MIB = 1 << 20


def main(folder: str, mode: str, fate: str) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank = dist.get_rank()
    path = Path(folder) / "model.safetensors"
    if rank == 0 and not path.exists():
        tensors = {f"layers.{n}.up.weight": torch.randn(512, 512) for n in range(32)}
        tensorhold.save(tensors, path, durability="none")
    dist.barrier()
    _modes.WINDOW_BYTES = MIB
    programs._node.WINDOW_BYTES = 2 * MIB
    rules = {"layers.*.up": "colwise", "layers.1*.up": parallel.Replicate()}
    expected = parallel.load(path, mesh={"tp": 2}, rules=rules, mode="own")
    if rank == 1 and fate == "killed":
        programs.kill_half_way()
    started = time.monotonic()
    try:
        held = parallel.load(path, mesh={"tp": 2}, rules=rules, mode=mode)
    except parallel.RankError as error:
        seconds = time.monotonic() - started
        assert fate == "killed", error
        assert str(error).startswith("rank 1: "), error
        assert seconds < 60
        print(f"{mode}: ended after {seconds:.1f} s by `{error}`", flush=True)
        return
    assert fate == "lives", "the other rank was killed, and nobody saw it"
    assert held.keys() == expected.keys()
    assert all(torch.equal(held[name], tensor) for name, tensor in expected.items())
    print(f"{mode}: rank {rank} has {len(held)} tensors", flush=True)
    dist.barrier()


if __name__ == "__main__":
    main(*sys.argv[1:])
