"""Whole files, loaded."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from tensorhold_bench import digest, files
from tensorhold_bench.row import Work, module, row

N_LAYERS = 360
PAGE_BYTES = 4096


@row("`load_file`, torch, 100 000 tensors of 16 bytes", target=7)
def load_tiny_torch(package: str) -> Work:
    library, path = module(package, "torch"), files.tiny()
    library.load_file(files.warm_up())
    tensors = yield lambda: library.load_file(path)
    return digest.of_torch(tensors)


@load_tiny_torch.bare("`detach` of one tensor, for each name")
def _() -> Work:
    import torch

    names = list(files.read_header(files.tiny())[0])
    tensor = torch.empty(4)
    yield lambda: {name: tensor.detach() for name in names}
    return None


@row("`load_file`, numpy, 100 000 tensors of 16 bytes", target=4)
def load_tiny_numpy(package: str) -> Work:
    library, path = module(package, "numpy"), files.tiny()
    library.load_file(files.warm_up())
    tensors = yield lambda: library.load_file(path)
    return digest.of_numpy(tensors)


@load_tiny_numpy.bare("`numpy.empty` for each")
def _() -> Work:
    import numpy

    names = list(files.read_header(files.tiny())[0])
    yield lambda: {name: numpy.empty(4, numpy.float32) for name in names}
    return None


@row("`load_file`, torch, 360 tensors of 10 MB, no page touched", target=2)
def load_layers(package: str) -> Work:
    library, path = module(package, "torch"), files.layers(N_LAYERS)
    library.load_file(files.warm_up())
    tensors = yield lambda: library.load_file(path)
    return digest.of_torch(tensors)


@load_layers.bare("the file mapped")
def _() -> Work:
    path = files.layers(N_LAYERS)
    _map(files.warm_up())
    yield lambda: _map(path)
    return None


@row("`load_file`, torch, 360 tensors of 10 MB, every page touched")
def load_layers_touched(package: str) -> Work:
    library, path = module(package, "torch"), files.layers(N_LAYERS)
    _touch_torch(library.load_file(files.warm_up()))
    tensors = yield lambda: _touch_torch(library.load_file(path))
    return digest.of_torch(tensors)


@load_layers_touched.bare("the file mapped, every page touched")
def _() -> Work:
    import numpy

    def touch(path: Path) -> object:
        return numpy.frombuffer(_map(path), numpy.uint8)[::PAGE_BYTES].sum()

    path = files.layers(N_LAYERS)
    touch(files.warm_up())
    yield lambda: touch(path)
    return None


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _touch_torch(tensors: dict[str, Any]) -> dict[str, Any]:
    import torch

    for tensor in tensors.values():
        tensor.view(-1).view(torch.uint8)[::PAGE_BYTES].sum()
    return tensors
