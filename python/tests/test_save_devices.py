"""Saves from the memory of a device write the files that saves from the host's memory write.

With the double no tensor is on a device: those of the host are described as the first device's, of
which the double takes any address. It is named before a process begins, so each vendor's has one of
its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import tensorhold
from tensorhold import _native
from tensorhold._errors import DeviceError
from tensorhold.torch import _describe, _evaluate_tensors_for_save

DOUBLES = Path(__file__).parents[2] / "target" / "double"
FIRST_DEVICE = (0, 0)
# Where there is no other, this says that the test is right.
DEVICES = ["cpu", *(f"cuda:{ordinal}" for ordinal in range(torch.cuda.device_count()))]
OLD = b"what was there before"

Item = tuple[str, _native.TensorSpec, object]


@pytest.mark.parametrize("vendor", ["cuda", "hip"])
def test_saves_from_devices_write_what_saves_from_the_host_write(vendor: str) -> None:
    double = DOUBLES / f"libtensorhold_double_{vendor}.so"
    assert double.exists(), "`make double` builds it"
    environment = {
        **os.environ,
        "TENSORHOLD_RUNTIME": str(double),
        "TENSORHOLD_DOUBLE": "delay_us=200,seed=1",
    }
    ran = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("device", DEVICES)
def test_every_device_of_this_machine_saves_the_same_files(device: str, tmp_path: Path) -> None:
    on_host = {name: tensor.detach() + 1 for name, tensor in _tensors().items()}

    def on_device() -> dict[str, torch.Tensor]:
        # The last sum may not be there yet when the save is called.
        return {name: tensor.detach().to(device) + 1 for name, tensor in _tensors().items()}

    def file(name: str) -> bytes:
        return (tmp_path / name).read_bytes()

    assert tensorhold.torch.save(on_device()) == tensorhold.torch.save(on_host)
    tensorhold.torch.save_file(on_device(), tmp_path / "a")
    assert file("a") == tensorhold.torch.save(on_host)
    tensorhold.save(on_host, tmp_path / "host")
    tensorhold.save(on_device(), tmp_path / "b")
    assert file("b") == file("host")
    tensorhold.save(on_host.items(), tmp_path / "host")
    tensorhold.save(((name, tensor) for name, tensor in on_device().items()), tmp_path / "c")
    assert file("c") == file("host")
    tensorhold.save(on_host, tmp_path / "host")
    tensors = on_device()
    handle = tensorhold.save_async(tensors, tmp_path / "d")
    for tensor in tensors.values():
        tensor.zero_()
    handle.wait()
    assert file("d") == file("host")


def _tensors() -> dict[str, torch.Tensor]:
    return {
        "weight": torch.arange(5_000_000, dtype=torch.float32).reshape(1000, 5000),
        "bias": torch.arange(7, dtype=torch.bfloat16),
        "none": torch.empty(0, 3),
        "scalar": torch.tensor(3, dtype=torch.int64),
        "parameter": torch.nn.Parameter(torch.ones(300, 300)),
    }


def _items(tensors: dict[str, torch.Tensor], *, on_device: bool) -> list[Item]:
    place = FIRST_DEVICE if on_device else None
    return [(name, *_describe(name, tensor, place)) for name, tensor in tensors.items()]


def _specs(tensors: dict[str, torch.Tensor], *, on_device: bool) -> dict[str, _native.TensorSpec]:
    _evaluate_tensors_for_save(tensors)
    return {name: spec for name, spec, _ in _items(tensors, on_device=on_device)}


def _save(items: Any, folder: Path, shard_bytes: int | None = None) -> list[bytes]:
    folder.mkdir()
    target = folder / "model.safetensors"
    written = _native.save(items, target, {"a": "b"}, shard_bytes, 4096, "none", None)
    return [Path(path).read_bytes() for path in written]


def _save_async(items: list[Item], folder: Path, memory_limit: int | None) -> Any:
    folder.mkdir()
    target = folder / "model.safetensors"
    return _native.save_async(items, target, None, None, 4096, "none", None, memory_limit)


def _check_save(folder: Path) -> None:
    def all_ways(*, on_device: bool) -> list[list[bytes]]:
        within = folder / str(on_device)
        within.mkdir()
        items = _items(_tensors(), on_device=on_device)

        def stream() -> Iterator[Item]:
            for name, tensor in _tensors().items():
                yield _items({name: tensor}, on_device=on_device)[0]

        return [
            _save(items, within / "file"),
            _save(items, within / "shards", 10_000_000),
            _save(stream(), within / "stream"),
        ]

    assert all_ways(on_device=True) == all_ways(on_device=False)


def _check_save_async(folder: Path) -> None:
    for limit in (None, 0, 9_000_000):
        files = []
        for on_device in (True, False):
            tensors = _tensors()
            items = _items(tensors, on_device=on_device)
            handle = _save_async(items, folder / f"{limit}-{on_device}", limit)
            for tensor in tensors.values():
                tensor.detach().zero_()
            files += [Path(path).read_bytes() for path in handle.wait()]
        assert files[0] == files[1], limit


def _check_drop_in(folder: Path) -> None:
    tensors = _tensors()
    right = tensorhold.torch.save(tensors, {"a": "b"})
    specs = _specs(tensors, on_device=True)
    assert _native.serialize(specs, {"a": "b"}) == right
    _native.serialize_file(specs, folder / "a.safetensors", {"a": "b"})
    assert (folder / "a.safetensors").read_bytes() == right


def _check_failure(folder: Path, double: Any) -> None:
    target = folder / "a.safetensors"
    for nth in (1, 3):
        target.write_bytes(OLD)
        double.configure(f"fail=MemcpyAsync:{nth}:999")
        with pytest.raises(DeviceError, match=r"MemcpyAsync. failed on"):
            _native.serialize_file(_specs(_tensors(), on_device=True), target)
        double.configure("fail=")
        assert target.read_bytes() == OLD
        assert os.listdir(folder) == [target.name]


def main() -> None:
    from devices.double import Double

    double = Double(os.environ["TENSORHOLD_RUNTIME"])
    for check in (_check_save, _check_save_async, _check_drop_in):
        with tempfile.TemporaryDirectory() as folder:
            double.reset()
            check(Path(folder))
            # Some twenty megabytes come in pieces of the ring's slots.
            assert double.report()["calls"]["MemcpyAsync"] > 5, check
    with tempfile.TemporaryDirectory() as folder:
        _check_failure(Path(folder), double)
    report = double.report()
    assert report["violations"] == []
    assert report["under_way"] == 0
    assert report["streams"]["live"] == 0


if __name__ == "__main__":
    main()
