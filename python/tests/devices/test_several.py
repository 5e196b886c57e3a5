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
