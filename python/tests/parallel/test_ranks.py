"""Real processes: DTensors, and modules that PyTorch has divided."""

from __future__ import annotations

import pytest
import torch
from rank_programs import Net, fill_modules, load_dtensors, refuse_other_worlds

import tensorhold
from tensorhold import parallel


@pytest.fixture
def sharded(tmp_path) -> str:
    torch.manual_seed(1)
    tensors = {"embedding.weight": torch.randn(13, 5), "scale": torch.tensor(2.0)}
    for layer in range(2):
        for name in ("up", "down", "fused"):
            tensors[f"layers.{layer}.{name}.weight"] = torch.randn(12, 10)
            tensors[f"layers.{layer}.{name}.bias"] = torch.randn(12)
    tensorhold.save(tensors, tmp_path / "model", max_shard_size="1KB", durability="none")
    return str(tmp_path / "model")


@pytest.fixture
def net(tmp_path) -> str:
    torch.manual_seed(2)
    path = str(tmp_path / "net.safetensors")
    tensorhold.save(Net().state_dict(), path, durability="none")
    return path


@pytest.mark.parametrize("shape", [(1, 2), (2, 2), (1, 4), (2, 4)])
def test_dtensors_are_the_checkpoint_put_together(run, sharded, shape):
    run(load_dtensors, shape[0] * shape[1], sharded, shape)


@pytest.mark.parametrize("meta", [False, True])
@pytest.mark.parametrize(
    ("by", "shape"), [("tp", (1, 2)), ("fsdp", (2, 1)), ("fsdp and tp", (2, 2))]
)
def test_a_divided_module_computes_what_the_whole_one_does(run, net, by, shape, meta):
    run(fill_modules, shape[0] * shape[1], net, shape, by, meta)


def test_a_group_of_another_size_is_refused(run, sharded):
    run(refuse_other_worlds, 2, sharded)


def test_a_module_that_does_not_fit_is_left_as_it_is(net, tmp_path):
    model = Net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors = tensorhold.open(net).load()
    tensorhold.save(tensors | {"more": torch.ones(1)}, "more.safetensors")
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"more"'):
        parallel.load_into(model, "more.safetensors")
    assert parallel.load_into(Net(), "more.safetensors", strict=False) == ([], ["more"])
    del tensors["scale"]
    tensorhold.save(tensors, "less.safetensors")
    with pytest.raises(RuntimeError, match=r'Missing key.*"scale"'):
        parallel.load_into(model, "less.safetensors")
    tensorhold.save(tensors | {"scale": torch.ones(2)}, "other.safetensors")
    with pytest.raises(ValueError, match=r"`scale` has shape \[2\] in the checkpoint, but \[1\]"):
        parallel.load_into(model, "other.safetensors")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
