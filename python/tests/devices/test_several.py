"""One load onto several of the double's devices."""

from __future__ import annotations

import torch
from devices.double import Double

import tensorhold


def test_two_devices_and_the_host_share_one_reading(double: Double) -> None:
    tensors = {f"layers.{n}.weight": torch.full((1000, 600), n) for n in range(9)}
    tensors |= {f"layers.{n}.bias": torch.full((600,), -n) for n in range(9)}
    tensorhold.save(tensors, "model.safetensors", durability="none")
    device = {"layers.[012].*": "cuda:0", "layers.[345].*": torch.device("cuda", 1), "": "cpu"}
    with tensorhold.open("model.safetensors") as checkpoint:
        found = checkpoint.load(device=device)
        stats = checkpoint.stats
        streamed = dict(checkpoint.stream(device=device))
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
        assert torch.equal(streamed[name], tensor)
    size_bytes = 3 * (1000 * 600 + 600) * 8
    assert stats is not None
    assert stats.device_bytes == {"cuda:0": size_bytes, "cuda:1": size_bytes}
    assert stats.read_bytes < 1.1 * stats.wanted_bytes
    assert double.report()["contexts"] == [0, 1]


def test_patterns_that_match_nothing_touch_no_device(double: Double) -> None:
    tensorhold.save({"a": torch.ones(3)}, "a.safetensors", durability="none")
    with tensorhold.open("a.safetensors") as checkpoint:
        checkpoint.load(device={"b*": "cuda:0", "c*": "cuda:1", "*": "cpu"})
    assert double.report()["contexts"] == []


def test_a_stream_takes_no_more_of_the_device_than_its_limit(double: Double) -> None:
    size_bytes = 4 << 20
    tensors = {f"t{n:02}": torch.full((size_bytes,), n, dtype=torch.uint8) for n in range(20)}
    tensorhold.save(tensors, "model.safetensors", durability="none")
    double.reset()
    with tensorhold.open("model.safetensors", device="cuda:0") as checkpoint:
        for n, (name, tensor) in enumerate(checkpoint.stream(memory_limit="12MiB")):
            assert torch.equal(tensor, tensors[name])
            assert name == f"t{n:02}"
    # One that was given out may live until the next one has come.
    assert double.report()["devices"][0]["peak_bytes"] <= (12 << 20) + 2 * size_bytes


def test_tensors_are_taken_in_any_order_within_a_limit() -> None:
    tensors = {f"t{n:02}": torch.full((300_000,), n) for n in range(20)}
    tensors |= {f"small{n}": torch.full((n,), n) for n in range(200)}
    tensorhold.save(tensors, "model.safetensors", durability="none")
    names = sorted(tensors, key=lambda name: name[::-1])
    device = {"t*": 0, "small1*": 1}
    with tensorhold.open("model.safetensors") as checkpoint:
        for limit in ["1", "3MB", "1GiB"]:
            stream = checkpoint.stream(names, device=device, memory_limit=limit)
            assert all(torch.equal(tensor, tensors[name]) for name, tensor in stream)
