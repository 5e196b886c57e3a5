"""Files, saved: to a new name, on a disk that has nothing else left to write."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy

from tensorhold_bench import digest, files
from tensorhold_bench.places import DISK, Place
from tensorhold_bench.row import BARE, OURS, PEER, Row, Work, add, module, row
from tensorhold_bench.rows import bare

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
    return _time_save(BARE, lambda target: _write([data], target), lambda _: None)


def _large_row(name: str, title: str, target: float, synced: bool, place: Place = DISK) -> Row:
    where = f"{place.title}: " if place.title else ""
    row = Row(
        name,
        f"2 GB, torch, {where}{title}",
        group="engine",
        target=target,
        bare_target=0.9 if synced else None,
        peak_target_bytes=PEAK_BYTES,
        size_bytes=lambda: _large().stat().st_size,
        fresh_bytes=lambda: _large().stat().st_size * 5 // 4,
        place=place,
        most_samples=place.most_samples,
    )
    bare.add_writers(row, _large, synced)
    return add(row)


def _large() -> Path:
    return files.layers(N_LAYERS)


def _until_it_returns(place: Place = DISK) -> None:
    name = f"save_layers{place.suffix}"
    row = _large_row(name, "`save_file`, until it returns", 1.2, synced=False, place=place)
    for package in (PEER, OURS):
        row.sides[package] = partial(_save_large, package, place)


def _save_large(package: str, place: Place) -> Work:
    tensors, save_file = _of_torch(_large()), module(package, "torch").save_file
    save_file(_few(tensors), files.target(package, place))
    return _time_save(package, partial(save_file, tensors), _compared(tensors), place)


def _until_on_disk(place: Place = DISK) -> None:
    name = f"save_layers_synced{place.suffix}"
    title = 'until on disk: `save_file` + `fsync` against `save(durability="data")`'
    row = _large_row(name, title, 1.1, synced=True, place=place)
    row.sides[PEER] = partial(_save_and_sync, place)
    row.sides[OURS] = partial(_save_durably, place)


def _save_and_sync(place: Place) -> Work:
    tensors, save_file = _of_torch(_large()), module(PEER, "torch").save_file

    def save(target: Path) -> None:
        save_file(tensors, target)
        _sync(target)

    save_file(_few(tensors), files.target(PEER, place))
    return _time_save(PEER, save, _compared(tensors), place)


def _save_durably(place: Place) -> Work:
    import tensorhold

    def save(tensors: dict[str, Any], target: Path) -> object:
        return tensorhold.save(tensors, target, durability="data")

    tensors = _of_torch(_large())
    save(_few(tensors), files.target(OURS, place))
    return _time_save(OURS, partial(save, tensors), _compared(tensors), place)


_until_it_returns()
_until_on_disk()


def save_elsewhere(place: Place) -> None:
    """The rows of a place that is not the disk."""
    _until_it_returns(place)
    if place.is_cold:
        _until_on_disk(place)


def _save(package: str, framework: str, tensors: dict[str, Any]) -> Work:
    save_file = module(package, framework).save_file
    save_file(_few(tensors), files.target(package))
    return _time_save(package, partial(save_file, tensors), digest.of_file)


def _few(tensors: dict[str, Any]) -> dict[str, Any]:
    return dict(list(tensors.items())[:1])


def _time_save(
    side: str,
    save: Callable[[Path], object],
    look_at: Callable[[Path], str | None],
    place: Place = DISK,
) -> Work:
    target = files.target(side, place)
    yield lambda: save(target)
    saved = look_at(target)
    target.unlink()
    return saved


def _compared(tensors: dict[str, Any]) -> Callable[[Path], str]:
    return lambda target: digest.against_files(tensors, [target])


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
