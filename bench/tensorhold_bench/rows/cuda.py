"""Onto a CUDA device, out of the page cache: whole checkpoints, small tensors, a share of each.

Without a device the rows are skipped. Every byte is compared on the device with what the file says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from tensorhold_bench import digest, files
from tensorhold_bench.cache import Cache
from tensorhold_bench.loaders import (
    CANDIDATE,
    FASTSAFETENSORS,
    INSTANT,
    RUNAI,
    fastsafetensors,
    use_candidate,
)
from tensorhold_bench.places import CUDA
from tensorhold_bench.row import BARE, OURS, PEER, Row, Work, add

DEVICE = "cuda:0"
N_RANKS, RANK = 8, 3

Tensors = dict[str, Any]
Load = Callable[[list[Path]], Tensors]
# The columns of a matrix with so many.
Share = Callable[[int], slice]


def _safetensors() -> Load:
    load_file = import_module("safetensors.torch").load_file
    return lambda paths: {
        name: tensor for path in paths for name, tensor in load_file(path, device=DEVICE).items()
    }


def _candidate() -> Load:
    use_candidate()
    safe_open = import_module("safetensors").safe_open

    def load(paths: list[Path]) -> Tensors:
        tensors: Tensors = {}
        for path in paths:
            opened = safe_open(path, "pt", backend="pread")
            with opened as file, file.prefetch(device=DEVICE) as loader:
                tensors |= dict(loader)
        return tensors

    return load


def _runai() -> Load:
    streamer_of = import_module("runai_model_streamer").SafetensorsStreamer

    def load(paths: list[Path]) -> Tensors:
        with streamer_of() as streamer:
            # Its own way to a device is for several processes.
            streamer.stream_files([str(path) for path in paths], owned=False)
            return {name: tensor.to(DEVICE) for name, tensor in streamer.get_tensors()}

    return load


def _instant() -> Load:
    safe_open = import_module("instanttensor").safe_open

    def load(paths: list[Path]) -> Tensors:
        with safe_open([str(path) for path in paths], framework="pt", device=DEVICE) as file:
            return dict(file.tensors())

    return load


def _tensorhold() -> Load:
    tensorhold = import_module("tensorhold")

    def load(paths: list[Path]) -> Tensors:
        with tensorhold.open(paths, framework="pt") as checkpoint:
            tensors: Tensors = checkpoint.load(device=DEVICE)
            return tensors

    return load


def _share(n_columns: int) -> slice:
    return slice(n_columns * RANK // N_RANKS, n_columns * (RANK + 1) // N_RANKS)


def _cut(tensors: Tensors) -> Tensors:
    return {name: tensor[:, _share(tensor.shape[1])].clone() for name, tensor in tensors.items()}


def _after(awake: Callable[[], Load]) -> Load:
    """Whole tensors, of which the share is taken on the device."""
    load = awake()
    return lambda paths: _cut(load(paths))


def _safetensors_share() -> Load:
    safe_open = import_module("safetensors").safe_open

    def load(paths: list[Path]) -> Tensors:
        tensors: Tensors = {}
        for path in paths:
            with safe_open(path, "pt", device=DEVICE) as file:
                for name in file.keys():  # noqa: SIM118 (it is no mapping)
                    part = file.get_slice(name)
                    tensors[name] = part[:, _share(part.get_shape()[1])]
        return tensors

    return load


def _tensorhold_share() -> Load:
    tensorhold = import_module("tensorhold")

    def load(paths: list[Path]) -> Tensors:
        with tensorhold.open(paths, framework="pt") as checkpoint:
            parts = {
                name: (slice(None), _share(checkpoint.info(name).shape[1])) for name in checkpoint
            }
            tensors: Tensors = checkpoint.load(parts, device=DEVICE)
            return tensors

    return load


_WHOLE: dict[str, Callable[[], Load]] = {
    PEER: _safetensors,
    CANDIDATE: _candidate,
    FASTSAFETENSORS: partial(fastsafetensors, DEVICE),
    RUNAI: _runai,
    INSTANT: _instant,
    OURS: _tensorhold,
}
_SHARES: dict[str, Callable[[], Load]] = {
    PEER: _safetensors_share,
    CANDIDATE: partial(_after, _candidate),
    INSTANT: partial(_after, _instant),
    OURS: _tensorhold_share,
}

_BUS = f"{BARE} bus"
_PAGE_CACHE = f"{BARE} page cache"
_PINNED_BYTES = 256 << 20
_N_READERS = 8


def _row(
    name: str,
    title: str,
    paths: Callable[[], list[Path]],
    sides: dict[str, Callable[[], Load]],
    share: Share | None = None,
) -> None:
    def size_bytes() -> int:
        whole = sum(path.stat().st_size for path in paths())
        return whole // N_RANKS if share else whole

    row = Row(
        name,
        f"{title}, warm, onto a CUDA device",
        group="cuda",
        target=1,
        size_bytes=size_bytes,
        place=CUDA,
        most_samples=CUDA.most_samples,
        cache=Cache.WARM,
        inputs=paths,
    )
    row.sides = {side: partial(_load, awake, paths, share) for side, awake in sides.items()}
    row.bares = {
        _BUS: "as many bytes copied out of pinned memory, on two streams",
        _PAGE_CACHE: f"{_N_READERS} threads `pread` as many bytes into pinned memory",
    }
    row.sides |= {
        _BUS: partial(_copy, size_bytes),
        _PAGE_CACHE: partial(_read, paths, size_bytes),
    }
    row.bares_are_stages = True
    add(row)


def _load(awake: Callable[[], Load], paths: Callable[[], list[Path]], share: Share | None) -> Work:
    import torch

    load, inputs = awake(), paths()
    # The device is awake, and the library has done each thing once.
    warm_up = files.matrices("warm-up-matrices", 2, [64, 64])
    load([warm_up])
    torch.cuda.synchronize()

    def timed() -> Tensors:
        tensors = load(inputs)
        torch.cuda.synchronize()
        return tensors

    tensors = yield timed
    return digest.on_device(tensors, inputs, share)


def _copy(size_bytes: Callable[[], int]) -> Work:
    import torch

    pinned = [torch.empty(_PINNED_BYTES, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
    there = [torch.empty(_PINNED_BYTES, dtype=torch.uint8, device=DEVICE) for _ in range(2)]
    stream_of: Any = torch.cuda.Stream
    streams = [stream_of(DEVICE) for _ in range(2)]
    n_copies = max(1, size_bytes() // _PINNED_BYTES)
    torch.cuda.synchronize()

    def copy() -> None:
        for n in range(n_copies):
            with torch.cuda.stream(streams[n % 2]):
                there[n % 2].copy_(pinned[n % 2], non_blocking=True)
        torch.cuda.synchronize()

    yield copy
    return None


def _read(paths: Callable[[], list[Path]], size_bytes: Callable[[], int]) -> Work:
    import os
    from concurrent.futures import ThreadPoolExecutor

    import torch

    block = 8 << 20
    pinned: Any = torch.empty(_N_READERS * block, dtype=torch.uint8, pin_memory=True).numpy()
    descriptors = [os.open(path, os.O_RDONLY) for path in paths()]
    places = [
        (descriptor, at)
        for descriptor in descriptors
        for at in range(0, os.fstat(descriptor).st_size, block)
    ][: max(1, size_bytes() // block)]

    def read(reader: int) -> None:
        own = pinned[reader * block : (reader + 1) * block]
        for descriptor, at in places[reader::_N_READERS]:
            os.preadv(descriptor, [own], at)

    with ThreadPoolExecutor(_N_READERS) as pool:
        list(pool.map(time.sleep, [0.01] * _N_READERS))
        yield lambda: list(pool.map(read, range(_N_READERS)))
    return None


def _large() -> list[Path]:
    return [files.matrices(f"matrices-{n}-of-4", 40, [10240, 5120]) for n in range(4)]


def _small() -> list[Path]:
    return [files.matrices("matrices-small", 20_000, [64, 128])]


_row("cuda_large", "16.8 GB in 4 files, tensors of 105 MB", _large, _WHOLE)
_row("cuda_small", "20 000 tensors of 16 KB", _small, _WHOLE)
_row("cuda_share", "an eighth of the columns of 16.8 GB", _large, _SHARES, _share)
