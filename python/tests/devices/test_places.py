"""Where tensors go: one by one, by patterns of names, into tensors that are there already."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tensorhold
import tensorhold.torch

TENSORS = {
    "embed.weight": torch.arange(1_500_000, dtype=torch.int32).reshape(3000, 500),
    "layers.0.weight": torch.randn(800, 900).to(torch.bfloat16),
    "layers.0.bias": torch.randn(900),
    "layers.1.weight": torch.randn(800, 900).to(torch.bfloat16),
    "layers.1.bias": torch.randn(900),
    "head.scale": torch.tensor(2.5, dtype=torch.float64),
    "head.empty": torch.empty(0, 4),
}


@pytest.fixture
def path() -> str:
    tensorhold.save(TENSORS, "model.safetensors", durability="none")
    return "model.safetensors"


@pytest.fixture
def count(path: str) -> Callable[..., dict[str, int]]:
    """The bytes that a load brings to each device, which gives what is expected."""

    def loaded(**arguments: Any) -> dict[str, int]:
        with tensorhold.open(path) as checkpoint:
            found = checkpoint.load(**arguments)
            assert list(found) == list(arguments.get("names") or checkpoint)
            for name, tensor in found.items():
                assert torch.equal(tensor.cpu(), TENSORS[name]), name
            assert checkpoint.stats is not None
            return checkpoint.stats.device_bytes

    return loaded


def size_of(*names: str) -> int:
    return sum(TENSORS[name].nbytes for name in names)


@pytest.mark.parametrize("device", ["cuda:0", "cuda", 0, torch.device("cuda", 0)], ids=repr)
@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_the_drop_in_gives_each_tensor(device: Any, backend: str, path: str) -> None:
    with tensorhold.safe_open(path, "pt", device=device, backend=backend) as file:
        for name in file.offset_keys():
            assert torch.equal(file.get_tensor(name).cpu(), TENSORS[name])
        found = file.get_tensors()
        rows = file.get_slice("embed.weight")
        part = TENSORS["embed.weight"]
        assert torch.equal(rows[10:20].cpu(), part[10:20])
        assert torch.equal(rows[:, ::7].cpu(), part[:, ::7])
        assert torch.equal(rows[5, ..., 3].cpu(), part[5, ..., 3])
        assert torch.equal(rows[[3, 1]].cpu(), part[[3, 1]])
        assert torch.equal(rows[:].cpu(), part)
        with pytest.raises(ValueError, match="step must be greater than zero"):
            rows[::-1]
    assert all(torch.equal(found[name].cpu(), tensor) for name, tensor in TENSORS.items())


def test_threads_share_an_open_file(path: str, device: str) -> None:
    def compare(name: str) -> bool:
        return torch.equal(file.get_tensor(name).cpu(), TENSORS[name])

    with (
        tensorhold.safe_open(path, "pt", device=device) as file,
        ThreadPoolExecutor(6) as threads,
    ):
        assert all(threads.map(compare, list(TENSORS) * 10))


def test_load_file_and_load_model_go_to_the_device(path: str, device: str) -> None:
    found = tensorhold.torch.load_file(path, device=device)
    assert all(torch.equal(found[name].cpu(), tensor) for name, tensor in TENSORS.items())
    model = torch.nn.Linear(700, 900)
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensorhold.torch.save_model(model, "linear.safetensors")
    with torch.no_grad():
        model.weight.zero_()
    tensorhold.torch.load_model(model, "linear.safetensors", device=device)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())


def test_an_open_checkpoint_gives_tensors_and_slices(path: str, device: str) -> None:
    with tensorhold.open(path, device=device) as checkpoint:
        assert torch.equal(checkpoint["embed.weight"].cpu(), TENSORS["embed.weight"])
        part = checkpoint.slice("embed.weight")[::-3, 4]
        assert torch.equal(part.cpu(), TENSORS["embed.weight"][:, 4].flip(0)[::3])


def test_a_device_says_how_much_went_there(count: Callable[..., dict[str, int]]) -> None:
    assert count() == {}
    assert count(device="cuda:0") == {"cuda:0": size_of(*TENSORS)}


def test_the_first_pattern_that_matches_counts(count: Callable[..., dict[str, int]]) -> None:
    device = {"layers.*.bias": "cpu", "layers.*": 0, "*": "cpu"}
    assert count(device=device) == {"cuda:0": size_of("layers.0.weight", "layers.1.weight")}
    assert count(device={"head.*": "cpu", "": "cuda:0"}) == {
        "cuda:0": size_of(*TENSORS) - size_of("head.scale")
    }


def test_what_no_pattern_matches_goes_where_the_checkpoint_says(
    count: Callable[..., dict[str, int]],
) -> None:
    assert count(device={"embed.*": "cuda:0"}) == {"cuda:0": size_of("embed.weight")}
    assert count(device={"nothing": "cuda:0"}) == {}
    assert count(device={}) == {}


def test_streams_and_prefetches_take_patterns(path: str) -> None:
    device = {"*.weight": "cuda:0"}
    with tensorhold.open(path) as checkpoint:
        found = dict(checkpoint.stream(device=device))
        assert list(found) == list(checkpoint)
        assert checkpoint.stats is not None
        assert list(checkpoint.stats.device_bytes) == ["cuda:0"]
    with tensorhold.safe_open(path, "pt") as file, file.prefetch(device=device) as loader:
        found |= {"embed.weight": loader.take("embed.weight")} | dict(loader)
    assert all(torch.equal(found[name].cpu(), tensor) for name, tensor in TENSORS.items())


def test_a_pattern_to_no_device_is_refused(path: str) -> None:
    with tensorhold.open(path) as checkpoint:
        with pytest.raises(tensorhold.SafetensorError, match="device disk is invalid"):
            checkpoint.load(device={"*": "disk"})
        with pytest.raises(TypeError):
            checkpoint.load(device={1: "cpu"})


def test_other_frameworks_take_patterns_of_the_host(path: str) -> None:
    with tensorhold.open(path, framework="np") as checkpoint:
        scale = checkpoint.load(["head.scale"], device={"*": "cpu"})["head.scale"]
        assert scale == np.float64(2.5)
        with pytest.raises(ValueError, match="not supported for framework numpy"):
            checkpoint.load(device={"*": "cuda:0"})


def test_pinned_memory_is_told_limited_and_let_go_of(
    count: Callable[..., dict[str, int]],
) -> None:
    usual = tensorhold.pinned_memory().limit_bytes
    try:
        count(device="cuda:0")
        used = tensorhold.pinned_memory()
        assert 0 < used.pinned_bytes <= used.limit_bytes == usual
        assert 0 < used.peak_in_use_bytes <= usual
        assert "limit_bytes=" in repr(used)
        assert tensorhold.empty_cache() >= used.pinned_bytes
        assert tensorhold.pinned_memory().pinned_bytes == 0
        tensorhold.set_pinned_limit(16 << 20)
        count(device="cuda:0")
        assert tensorhold.pinned_memory().pinned_bytes <= 16 << 20
    finally:
        tensorhold.set_pinned_limit(usual)


# PyTorch cannot tell the double's tensors from the host's: there, what tells them apart says that
# all are the device's.
@pytest.fixture
def on_device(device: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., torch.Tensor]:
    if not torch.cuda.is_available():
        monkeypatch.setattr(tensorhold.torch, "_copied_to", lambda tensor: device)
        return lambda tensor: tensor.clone()
    return lambda tensor: tensor.to(device)


def test_dense_tensors_of_a_device_are_filled_in_place(
    path: str, on_device: Callable[..., torch.Tensor]
) -> None:
    into = {name: on_device(torch.zeros_like(tensor)) for name, tensor in TENSORS.items()}
    addresses = {name: tensor.data_ptr() for name, tensor in into.items()}
    with tensorhold.open(path) as checkpoint:
        found = checkpoint.load(into=into)
        assert checkpoint.stats is not None
        assert checkpoint.stats.device_bytes == {"cuda:0": size_of(*TENSORS)}
    for name, tensor in TENSORS.items():
        assert found[name] is into[name]
        assert found[name].data_ptr() == addresses[name]
        assert torch.equal(found[name].cpu(), tensor)


def test_views_of_a_device_are_filled_with_casts_and_parts(
    path: str, on_device: Callable[..., torch.Tensor]
) -> None:
    whole = on_device(torch.zeros(900, 800))
    rows = on_device(torch.zeros(5, 500, dtype=torch.int32))
    into = {"layers.0.weight": whole.T, "embed.weight": rows}
    with tensorhold.open(path) as checkpoint:
        found = checkpoint.load(
            {"layers.0.weight": None, "embed.weight": np.s_[7:12], "layers.1.bias": None},
            into=into,
        )
    assert found["layers.0.weight"] is into["layers.0.weight"]
    assert torch.equal(whole.T.cpu(), TENSORS["layers.0.weight"].float())
    assert torch.equal(rows.cpu(), TENSORS["embed.weight"][7:12])
    assert torch.equal(found["layers.1.bias"], TENSORS["layers.1.bias"])


def test_tensors_of_a_device_that_overlap_are_refused(
    path: str, on_device: Callable[..., torch.Tensor]
) -> None:
    shared = on_device(torch.zeros(900))
    with (
        tensorhold.open(path) as checkpoint,
        pytest.raises(ValueError, match="two of the tensors to fill share memory"),
    ):
        checkpoint.load(into={"layers.0.bias": shared, "layers.1.bias": shared})


def test_a_failing_load_leaves_the_tensors_to_fill(
    on_device: Callable[..., torch.Tensor],
) -> None:
    large = {"a": torch.arange(8_000_000, dtype=torch.int32)}
    tensorhold.save(large, "large.safetensors", durability="none")
    with tensorhold.open("large.safetensors", backend="pread") as checkpoint:
        with Path("large.safetensors").open("r+b") as file:
            file.truncate(1 << 20)
        into = on_device(torch.zeros_like(large["a"]))
        with pytest.raises(tensorhold.SafetensorError):
            checkpoint.load(into={"a": into})
    assert into.shape == (8_000_000,)


def test_a_small_model_pins_no_more_than_a_slot(device: str) -> None:
    tensors = {f"layers.{n}": torch.full((64, 64), float(n)) for n in range(100)}
    tensorhold.save(tensors, "small.safetensors")
    with tensorhold.open("small.safetensors", device=device) as checkpoint:
        loaded = checkpoint.load()
    assert all(torch.equal(loaded[name].cpu(), tensor) for name, tensor in tensors.items())
    assert tensorhold.pinned_memory().pinned_bytes == 8 << 20
