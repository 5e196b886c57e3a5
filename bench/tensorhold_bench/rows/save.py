"""Files, saved: to a new name, on a disk that has nothing else left to write."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy

from tensorhold_bench import digest, files
from tensorhold_bench.row import BARE, OURS, PEER, Row, Work, add, module, row

N_LAYERS = 200
PEAK_BYTES = 64 << 20


@row("`save_file`, torch, 100 000 tensors of 16 bytes", target=4)
def save_tiny_torch(package: str) -> Work:
    return _save(package, "torch", _of_torch(files.tiny()))


@row("`save_file`, numpy, 100 000 tensors of 16 bytes", target=4)
def save_tiny_numpy(package: str) -> Work:
    return _save(package, "numpy", _of_numpy(files.tiny()))


@save_tiny_torch.bare("the same bytes written at once")
@save_tiny_numpy.bare("the same bytes written at once")
def _() -> Work:
    data = files.tiny().read_bytes()
    return _time_save(BARE, lambda target: _write([data], target))


@row("`save_file`, torch, 2 GB, until it returns", target=1.2, peak_target_bytes=PEAK_BYTES)
def save_layers(package: str) -> Work:
    return _save(package, "torch", _of_torch(files.layers(N_LAYERS)))


@save_layers.bare("each tensor's bytes written")
def _() -> Work:
    tensors = _of_numpy(files.layers(N_LAYERS)).values()
    return _time_save(BARE, lambda target: _write(tensors, target))


save_layers_synced = add(
    Row(
        "save_layers_synced",
        '2 GB, torch, until on disk: `save_file` + `fsync` against `save(durability="data")`',
        target=1.1,
        peak_target_bytes=PEAK_BYTES,
    )
)


@save_layers_synced.side(PEER)
def _() -> Work:
    tensors, save_file = _of_torch(files.layers(N_LAYERS)), module(PEER, "torch").save_file

    def save(target: Path) -> None:
        save_file(tensors, target)
        _sync(target)

    return _time_save(PEER, save)


@save_layers_synced.side(OURS)
def _() -> Work:
    import tensorhold

    tensors = _of_torch(files.layers(N_LAYERS))
    return _time_save(OURS, lambda target: tensorhold.save(tensors, target, durability="data"))


@save_layers_synced.bare("each tensor's bytes written, `fsync`")
def _() -> Work:
    tensors = _of_numpy(files.layers(N_LAYERS)).values()

    def save(target: Path) -> None:
        _write(tensors, target)
        _sync(target)

    return _time_save(BARE, save)


def _save(package: str, framework: str, tensors: dict[str, Any]) -> Work:
    save_file = module(package, framework).save_file
    few = dict(list(tensors.items())[:1])
    save_file(few, files.target(package))
    return _time_save(package, lambda target: save_file(tensors, target))


def _time_save(side: str, save: Callable[[Path], object]) -> Work:
    target = files.target(side)
    yield lambda: save(target)
    saved = None if side == BARE else digest.of_file(target)
    target.unlink()
    return saved


def _write(data: Iterable[Any], target: Path) -> None:
    with target.open("wb", buffering=0) as file:
        for piece in data:
            file.write(piece)


def _sync(target: Path) -> None:
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _of_torch(path: Path) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(array) for name, array in _of_numpy(path).items()}


def _of_numpy(path: Path) -> dict[str, Any]:
    """The arrays of a file, each in memory of its own."""
    dtypes = {"F16": numpy.float16, "F32": numpy.float32}
    tensors, start = files.read_header(path)
    arrays = {}
    with path.open("rb") as file:
        for name, (dtype, shape, (first, last)) in tensors.items():
            array = numpy.empty(shape, dtypes[dtype])
            file.seek(start + first)
            if file.readinto(array.data.cast("B")) != last - first:
                raise EOFError(f"{path} ends in `{name}`")
            arrays[name] = array
    return arrays
