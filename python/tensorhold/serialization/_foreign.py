"""Checkpoints of other formats, such as pickles, as files with trees; nothing in them is run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tensorhold import _native
from tensorhold.checkpoint import Checkpoint

__all__ = ["Foreign", "spooled"]


class Foreign:
    """Tensors of a file of another format."""

    def __init__(self, native: _native.Checkpoint, rest: bytes, is_mapped: bool) -> None:
        self._checkpoint = Checkpoint._of(native, native.files())
        # What lies in the file otherwise than in memory: big-endian, compressed, in a pickle.
        self._rest: dict[str, torch.Tensor] = _native.load_bytes(bytearray(rest), "pt", "cpu")
        self._is_mapped = is_mapped
        self.metadata = self._checkpoint.metadata
        self.names = {*self._checkpoint, *self._rest}

    @classmethod
    def open(cls, path: str | os.PathLike[str], is_mapped: bool) -> Foreign | None:
        """The tensors of a file; None if it is of no format that is known."""
        found = _native.open_foreign(path, "pt", "cpu", "auto")
        return None if found is None else cls(*found, is_mapped)

    def close(self) -> None:
        self._checkpoint.close()

    def tensors(self, names: list[str], device: Any) -> dict[str, torch.Tensor]:
        found = {name: self._rest[name].to(device) for name in names if name in self._rest}
        placed = [name for name in names if name not in found]
        if self._is_mapped and torch.device(device).type == "cpu":
            return found | {name: self._checkpoint[name] for name in placed}
        return found | self._checkpoint.load(placed, device=device)


@contextmanager
def spooled(data: Any) -> Iterator[str]:
    """The path of a file that has these bytes, for as long as it is needed."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.name
