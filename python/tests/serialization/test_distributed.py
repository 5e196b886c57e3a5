"""DTensors: what a rank holds, with its placement."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed"
)

COMMON = """
import os, sys, torch, torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from tensorhold import serialization

def is_same(found, local, placements):
    assert type(found) is DTensor or isinstance(found, torch.nn.Parameter), type(found)
    assert torch.equal(found.to_local(), local)
    assert tuple(found.placements) == tuple(placements), found.placements
"""

SAVE = """
rank = int(sys.argv[1])
store = "file://" + os.path.abspath("store")
dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("dp", "tp"))
full = torch.arange(10.0).reshape(5, 2)
state = {
    "w": distribute_tensor(full, mesh, [Shard(0), Shard(1)]),
    "p": torch.nn.Parameter(distribute_tensor(full, mesh, [Replicate(), Shard(0)])),
    "t": DTensor.from_local(torch.full((2,), float(rank)), mesh["tp"], [Shard(0)]),
    "s": DTensor.from_local(torch.ones(2), mesh, [Partial("sum"), Replicate()]),
}
serialization.save(state, f"rank{rank}.safetensors")
found = serialization.load(f"rank{rank}.safetensors")
is_same(found["w"], full[:3] if rank == 0 else full[3:], [Shard(0), Shard(1)])
assert found["w"].shape == (5, 2) and found["w"].stride() == (2, 1)
assert torch.equal(found["w"].full_tensor(), full)
is_same(found["t"], torch.full((2,), float(rank)), [Shard(0)])
assert found["t"].device_mesh.mesh.tolist() == [rank]
assert found["s"].full_tensor().tolist() == [2, 2]
assert isinstance(found["p"], torch.nn.Parameter) and found["p"].requires_grad
assert found["w"].device_mesh is found["s"].device_mesh
assert found["w"].device_mesh.mesh_dim_names == ("dp", "tp")
dist.destroy_process_group()
"""

ALONE = """
found = serialization.load("rank1.safetensors")
is_same(found["w"], torch.arange(6.0, 10.0).reshape(2, 2), [Shard(0), Shard(1)])
assert found["w"].shape == (5, 2)
assert found["w"].device_mesh.get_coordinate() == (1, 0)
"""


SHARDED = """
from torch.distributed.fsdp import fully_shard

rank = int(sys.argv[1])
store = "file://" + os.path.abspath("store")
dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("dp",))

def make():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    fully_shard(model[0], mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model, torch.optim.Adam(model.parameters())

def train(model, optimizer, seed):
    torch.manual_seed(seed + rank)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(3, 4)).pow(2).mean().backward()
        optimizer.step()

model, optimizer = make()
train(model, optimizer, 5)
path = f"run{rank}.safetensors"
serialization.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
train(model, optimizer, 9)
other, resumed = make()
state = serialization.load(path)
assert type(state["optimizer"]["state"][0]["exp_avg"]) is DTensor
other.load_state_dict(state["model"])
resumed.load_state_dict(state["optimizer"])
train(other, resumed, 9)
for one, two in zip(model.parameters(), other.parameters(), strict=True):
    assert torch.equal(one.to_local(), two.to_local())
dist.destroy_process_group()
"""


def test_ranks_keep_what_they_hold() -> None:
    _run_ranks(COMMON + SAVE)
    alone = subprocess.run([sys.executable, "-c", COMMON + ALONE], capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr


def test_a_resumed_run_of_sharded_modules_is_an_uninterrupted_one() -> None:
    _run_ranks(COMMON + SHARDED)


def _run_ranks(program: str) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    for rank in ranks:
        said, _ = rank.communicate(timeout=120)
        assert rank.returncode == 0, said.decode()
