"""One digest for all tensors of a load or a file: equal for equal names, shapes and bytes."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

from tensorhold_bench.files import read_header

_NAMES = {"BF16": "torch.bfloat16", "F16": "torch.float16", "F32": "torch.float32"}


def of_torch(tensors: Mapping[str, Any]) -> str:
    """The digest of PyTorch tensors by name."""
    import torch

    def data(tensor: Any) -> Any:
        return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()

    return _digest((name, tensor.shape, data(tensor)) for name, tensor in sorted(tensors.items()))


def of_numpy(tensors: Mapping[str, Any]) -> str:
    """The digest of NumPy arrays by name."""
    return _digest((name, array.shape, array.data) for name, array in sorted(tensors.items()))


def of_file(path: Path) -> str:
    """The digest of the tensors in a file, read by no library that is timed."""
    tensors, start = read_header(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        view = memoryview(data)
        digest = _digest(
            (name, shape, view[start + first : start + last])
            for name, (_, shape, (first, last)) in sorted(tensors.items())
        )
        view.release()
    return digest


def of_each(path: Path) -> dict[str, str]:
    """The digest of each tensor in a file, by name, read by no library that is timed."""
    tensors, start = read_header(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        view = memoryview(data)
        digests = {
            name: _digest([(name, shape, view[start + first : start + last])])
            for name, (_, shape, (first, last)) in tensors.items()
        }
        view.release()
    return digests


def against_files(tensors: Mapping[str, Any], paths: Iterable[Path]) -> str:
    """Whether PyTorch tensors have the bytes of those in files: the same words for all that do.

    Faster than a digest, where the tensors are large and the files are there to compare with.
    """
    equal = ctypes.CDLL(None).memcmp
    equal.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    names = set()
    for path in paths:
        described, start = read_header(path)
        data = numpy.memmap(path, numpy.uint8, "r").ctypes
        for name, (dtype, shape, (first, last)) in described.items():
            ours = tensors[name]
            whole = (
                ours.is_contiguous()
                and list(ours.shape) == shape
                and _NAMES[dtype] == str(ours.dtype)
            )
            if not whole or equal(ours.data_ptr(), data.data + start + first, last - first):
                return f"`{name}` is not as in {path}"
            names.add(name)
    return "as in the files" if names == set(tensors) else "other tensors than in the files"


def on_device(
    tensors: Mapping[str, Any], paths: Iterable[Path], share: Callable[[int], slice] | None
) -> str:
    """Whether tensors of a device have the bytes in files, or of a share of the columns there."""
    import torch

    n_left = len(tensors)
    for path in paths:
        described, start = read_header(path)
        for name, (dtype, shape, (first, last)) in described.items():
            data = numpy.fromfile(path, numpy.uint8, last - first, offset=start + first)
            expected = torch.from_numpy(data).view(torch.int16).reshape(shape)
            if share is not None:
                expected = expected[:, share(shape[1])]
            ours = tensors[name]
            is_right = _NAMES[dtype] == str(ours.dtype) and ours.shape == expected.shape
            there = expected.to(ours.device)
            if not is_right or not torch.equal(ours.contiguous().view(torch.int16), there):
                return f"`{name}` is not as in {path}"
            n_left -= 1
    return "other tensors than in the files" if n_left else "as in the files"


def of_bytes(data: bytes) -> str:
    """The digest of plain bytes."""
    return hashlib.sha256(data).hexdigest()


def _digest(tensors: Iterable[tuple[str, Sequence[int], Any]]) -> str:
    digest = hashlib.sha256()
    for name, shape, data in tensors:
        digest.update(f"{name}{list(shape)}".encode())
        digest.update(data)
    return digest.hexdigest()
