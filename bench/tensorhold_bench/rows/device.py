"""Onto a device that is none: the stand-in for CUDA's runtime, which copies on its own threads.

It says how well a pipeline keeps reading and copying at the same time, and what it does beside
that. It says nothing of a bus or a device. All sides call the same runtime, whose memory, like
what they pinned, is there from a first load, as a device's is.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tensorhold_bench import digest, files
from tensorhold_bench.cache import Cache
from tensorhold_bench.loaders import CANDIDATE, INSTANT, use_candidate
from tensorhold_bench.row import OURS, Row, Work, add

# By this name it is taken for CUDA's.
_RUNTIME = Path(__file__).parents[2] / "target" / "double" / "libcudart.so.13"
# Where a tensor of a capsule says what device it is on: the host is 1, and its number 0.
_DEVICE_AT, _HOST = 8, 1
_DEVICE_BYTES = 16 << 30
_CHUNK_BYTES = 2 << 20

Tensors = dict[str, Any]
Prefetch = Callable[[Path], Tensors]


def _runtime() -> ctypes.CDLL:
    os.environ["TENSORHOLD_DOUBLE"] = "devices=1,reuse=1"
    os.environ["TENSORHOLD_RUNTIME"] = str(_RUNTIME)
    return ctypes.CDLL(str(_RUNTIME))


def _take_for_host() -> None:
    """Lets PyTorch take tensors of the stand-in, whose memory is the host's, for the host's."""
    import torch
    from torch.utils.dlpack import from_dlpack

    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]

    def from_double(capsule: object) -> torch.Tensor:
        # PyTorch would ask the real driver for memory that is the host's.
        place = pointer_of(capsule, b"dltensor") + _DEVICE_AT
        (ctypes.c_int32 * 2).from_address(place)[:] = [_HOST, 0]
        return from_dlpack(capsule)

    setattr(torch, "from_dlpack", from_double)  # noqa: B010 (its type is another)


def _prefetch(safe_open: Any, runtime: ctypes.CDLL, path: Path) -> Tensors:
    with safe_open(path, "pt", backend="pread") as file, file.prefetch(device="cuda:0") as loader:
        tensors = dict(loader)
    runtime.cudaDeviceSynchronize()
    return tensors


def _candidate() -> Prefetch:
    use_candidate()
    runtime = _runtime()
    import torch
    from safetensors import safe_open

    _take_for_host()
    torch._C._cuda_getCurrentRawStream = lambda device: 0
    return partial(_prefetch, safe_open, runtime)


def _tensorhold() -> Prefetch:
    runtime = _runtime()
    import torch  # noqa: F401 (awake before the clock starts)

    from tensorhold import safe_open

    return partial(_prefetch, safe_open, runtime)


_SIDES: dict[str, Callable[[], Prefetch]] = {CANDIDATE: _candidate, OURS: _tensorhold}


def _instant(path_of: Callable[[], Path]) -> Work:
    """InstantTensor as is best for it here.

    What it asks PyTorch's CUDA for is answered by the stand-in. Its tensors are views of a buffer
    that all of them fit in, as copying them out of it is little on a device and much on a stand-in.
    """
    import torch

    runtime, path = _runtime(), path_of()
    _take_for_host()
    cuda: Any = torch.cuda
    cuda.get_device_properties = lambda device: SimpleNamespace(is_integrated=False)
    cuda.mem_get_info = lambda device: (_DEVICE_BYTES, _DEVICE_BYTES)
    cuda.current_stream = lambda: SimpleNamespace(synchronize=runtime.cudaDeviceSynchronize)
    library = import_module("instanttensor")
    n_threads = os.cpu_count() or 1
    options: dict[str, Any] = {
        "backend": library.Backend.MMAP,
        "concurrency": n_threads,
        "io_depth": 3 * n_threads,
        "copy": False,
    }
    # No more than all tensors have together, or it says that it takes less; what it reads ahead
    # has room in its own choice for few.
    if (data_bytes := _data_bytes(path)) > options["io_depth"] * _CHUNK_BYTES:
        options["buffer_size"] = data_bytes

    def opened() -> Any:
        return library.safe_open([str(path)], framework="pt", device=0, **options)

    with opened() as file:
        dict(file.tensors())
    kept = []

    def timed() -> Tensors:
        kept.append(opened().__enter__())
        tensors = dict(kept[0].tensors())
        runtime.cudaDeviceSynchronize()
        return tensors

    tensors = yield timed
    found = digest.of_torch(tensors)
    kept[0].__exit__(None, None, None)
    return found


def _data_bytes(path: Path) -> int:
    described, _ = files.read_header(path)
    return max(end for _, _, (_, end) in described.values())


def _row(name: str, title: str, path_of: Callable[[], Path], **more: Any) -> None:
    row = Row(
        name,
        f"{title}, `prefetch` onto the stand-in for a device, warm",
        group="device",
        target=1.3,
        fresh_bytes=lambda: 2 * path_of().stat().st_size,
        cache=Cache.WARM,
        inputs=lambda: [path_of()],
        **more,
    )
    row.sides |= {side: partial(_load, awake, path_of) for side, awake in _SIDES.items()}
    row.sides[INSTANT] = partial(_instant, path_of)
    add(row)


def _load(awake: Callable[[], Prefetch], path_of: Callable[[], Path]) -> Work:
    prefetch, path = awake(), path_of()
    prefetch(path)
    tensors = yield lambda: prefetch(path)
    return digest.of_torch(tensors)


def _size_of_llama() -> int:
    return files.llama().stat().st_size


_row("double_whole", "2.2 GB", files.llama, size_bytes=_size_of_llama)
_row("double_tiny", "100 000 tensors of 16 bytes", files.tiny)
