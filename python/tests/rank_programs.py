"""What each rank of a group does in the tests of parallel loading.

It is a module of its own, since the processes of the ranks import it.
"""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

import tensorhold
from tensorhold import parallel
from tensorhold.dcp import StorageReader, StorageWriter

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


def divided_state(shape: tuple[int, int], blank: bool) -> dict[str, torch.Tensor]:
    """Tensors that are divided in several ways, the same on any mesh."""
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("dp", "tp"))
    torch.manual_seed(3)
    ways = {
        "rows": (torch.randn(7, 6), [Replicate(), Shard(0)]),
        "columns": (torch.randn(7, 6), [Replicate(), Shard(1)]),
        "both": (torch.randn(7, 6), [Shard(0), Shard(1)]),
        "twice": (torch.arange(40).reshape(10, 4), [Shard(0), Shard(0)]),
        "same": (torch.randn(5).bfloat16(), [Replicate(), Replicate()]),
    }
    made = {}
    for name, (tensor, placements) in ways.items():
        whole = torch.zeros_like(tensor) if blank else tensor
        made[name] = distribute_tensor(whole, mesh, placements)
    return made


def _shape() -> tuple[int, int]:
    return (2, dist.get_world_size() // 2)


def save_divided(rank: int, path: str, by: str) -> None:
    if by == "ours":
        writer = StorageWriter(path, save_distributed=True)
    else:
        writer = HuggingFaceStorageWriter(path, save_distributed=True)
    dcp.save(divided_state(_shape(), blank=False), storage_writer=writer)


def load_resharded(rank: int, path: str, by: str) -> None:
    expected = divided_state(_shape(), blank=False)
    found = divided_state(_shape(), blank=True)
    if by == "ours":
        places = {name: tensor.to_local().data_ptr() for name, tensor in found.items()}
        dcp.load(found, storage_reader=StorageReader(path))
        assert places == {name: tensor.to_local().data_ptr() for name, tensor in found.items()}
    else:
        dcp.load(found, storage_reader=HuggingFaceStorageReader(path))
    for name, tensor in expected.items():
        assert torch.equal(found[name].to_local(), tensor.to_local()), name


def _trained(mesh, steps: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(4)
    model = divided(Net(), mesh, "fsdp and tp")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(steps):
        model(torch.ones(2, 8)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def save_and_load_divided(rank: int, path: str) -> None:
    mesh = init_device_mesh("cpu", _shape(), mesh_dim_names=("fsdp", "tp"))
    model, optimizer = _trained(mesh, steps=2)
    parts = get_state_dict(model, optimizer)
    dcp.save(
        {"model": parts[0], "optimizer": parts[1]},
        storage_writer=StorageWriter(path, save_distributed=True),
    )
    other, other_optimizer = _trained(mesh, steps=1)
    found = dict(zip(("model", "optimizer"), get_state_dict(other, other_optimizer), strict=True))
    dcp.load(found, storage_reader=StorageReader(path))
    set_state_dict(
        other,
        other_optimizer,
        model_state_dict=found["model"],
        optim_state_dict=found["optimizer"],
    )
    for one, two in ((model, optimizer), (other, other_optimizer)):
        two.zero_grad()
        one(torch.ones(2, 8)).sum().backward()
        two.step()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one.to_local(), two.to_local())


def save_async_and_load(rank: int, path: str) -> None:
    state = divided_state(_shape(), blank=False)
    dcp.async_save(state, storage_writer=StorageWriter(path, save_distributed=True)).result()
    load_resharded(rank, path, "ours")


def awkward_state(blank: bool) -> dict[str, torch.Tensor]:
    """Tensors that PyTorch cannot put together out of what ranks have saved."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("tp",))
    ways = {
        "integers": (torch.arange(35).reshape(7, 5), Shard(0)),
        "flags": (torch.arange(11) % 3 == 0, Shard(0)),
        "scalar": (torch.tensor(3.5), Replicate()),
        "columns": (torch.arange(21.0).bfloat16().reshape(3, 7), Shard(1)),
        "bytes": (torch.arange(9, dtype=torch.uint8).view(torch.float8_e8m0fnu), Replicate()),
    }
    made = {}
    for name, (tensor, placement) in ways.items():
        whole = torch.zeros_like(tensor) if blank else tensor
        made[name] = distribute_tensor(whole, mesh, [placement], src_data_rank=None)
    return made


def save_awkward(rank: int, path: str) -> None:
    writer = HuggingFaceStorageWriter(path, save_distributed=True)
    dcp.save(awkward_state(blank=False), storage_writer=writer)


def load_awkward(rank: int, path: str, by: str) -> None:
    expected, found = awkward_state(blank=False), awkward_state(blank=True)
    if by == "theirs":
        # Its reader has no word for this type.
        del expected["bytes"], found["bytes"]
    reader = StorageReader(path) if by == "ours" else HuggingFaceStorageReader(path)
    dcp.load(found, storage_reader=reader)
    for name, tensor in expected.items():
        one, other = found[name].to_local(), tensor.to_local()
        assert torch.equal(one.flatten().view(torch.uint8), other.flatten().view(torch.uint8)), name
