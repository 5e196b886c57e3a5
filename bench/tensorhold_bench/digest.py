"""One digest for all tensors of a load or a file: equal for equal names, shapes and bytes."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorhold_bench.files import read_header


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


def of_bytes(data: bytes) -> str:
    """The digest of plain bytes."""
    return hashlib.sha256(data).hexdigest()


def _digest(tensors: Iterable[tuple[str, Sequence[int], Any]]) -> str:
    digest = hashlib.sha256()
    for name, shape, data in tensors:
        digest.update(f"{name}{list(shape)}".encode())
        digest.update(data)
    return digest.hexdigest()
