"""What each rank of a group does in the tests of parallel loading.

It is a module of its own, since the processes of the ranks import it.
"""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

import tensorhold
from tensorhold import parallel

RULES = {
    "layers.*.up": "colwise",
    "layers.*.down": "rowwise",
    "embedding": "embedding_rowwise",
    "layers.*.fused": "packed_colwise",
}


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Linear(8, 12)
        self.down = torch.nn.Linear(12, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(Block() for _ in range(2))
        self.register_buffer("scale", torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x * self.scale


def divided(model: torch.nn.Module, mesh, by: str) -> torch.nn.Module:
    if "tp" in by:
        plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
        for layer in model.layers:
            parallelize_module(layer, mesh["tp"], plan)
    if "fsdp" in by:
        for layer in model.layers:
            fully_shard(layer, mesh=mesh["fsdp"])
        fully_shard(model, mesh=mesh["fsdp"])
    return model


def load_dtensors(rank: int, path: str, shape: tuple[int, int]) -> None:
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("dp", "tp"))
    whole = tensorhold.open(path).load()
    held = parallel.load(path, mesh=mesh, rules=RULES, as_dtensor=True)
    assert held.keys() == whole.keys()
    for name, tensor in held.items():
        full = tensor.full_tensor()
        assert torch.equal(full, whole[name]), name
        assert tensor.to_local().numel() <= full.numel()


def fill_modules(rank: int, path: str, shape: tuple[int, int], by: str, meta: bool) -> None:
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("fsdp", "tp"))
    expected = Net()
    expected.load_state_dict(tensorhold.open(path).load())
    with torch.device("meta" if meta else "cpu"):
        model = Net()
    model = divided(model, mesh, by)
    before = [parameter.to_local().data_ptr() for parameter in model.parameters()]
    assert parallel.load_into(model, path) == ([], [])
    if not meta:
        assert before == [parameter.to_local().data_ptr() for parameter in model.parameters()]
    for (name, found), parameter in zip(
        model.named_parameters(), expected.parameters(), strict=True
    ):
        assert torch.equal(found.full_tensor(), parameter), name
        assert found.requires_grad
    torch.manual_seed(0)
    x = torch.randn(3, 8)
    torch.testing.assert_close(model(x), expected(x))


def refuse_other_worlds(rank: int, path: str) -> None:
    with pytest.raises(ValueError, match="the mesh tp=3 has 3 ranks, but the process group has 2"):
        parallel.load(path, mesh={"tp": 3}, rules=RULES)
    held = parallel.load(path, mesh={"tp": 2}, rules=RULES)
    assert held["embedding.weight"].shape == ((7, 5), (6, 5))[dist.get_rank()]
