"""Placeholders by name, which read what is used of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tensorhold.checkpoint import Checkpoint

if TYPE_CHECKING:
    from os import PathLike

    from tensorhold.parallel._placeholder import Placeholder

__all__ = ["Placeholders", "lazy"]


def lazy(source: str | PathLike[str] | Sequence[str | PathLike[str]] | Checkpoint) -> Placeholders:
    """The tensors of a checkpoint by name, of which nothing is read before it is used.

    Each is a `torch.Tensor` that keeps a record of what is taken of it: by indices, `narrow`,
    `chunk`, `split`, `select`, `t`, `view`, `.to(dtype or device)`, and others that copy nothing.
    `copy_` into a tensor reads that part straight into it; any other function of PyTorch is given
    a tensor of it, which is read for that call and not kept. So a function that takes its shard of
    a whole weight reads its shard alone. To write to one, or to make it a parameter, `clone` it.

    Args:
        source: A file, a folder, an index, a list of files, or an open checkpoint.

    Raises:
        FileNotFoundError: There is no such file.
        SafetensorError: A file is no valid safetensors file.

    Example:
        >>> import torch, tensorhold
        >>> _ = tensorhold.save({"up": torch.arange(8.0).reshape(4, 2)}, "m.safetensors")
        >>> weights = lazy("m.safetensors")
        >>> shard = weights["up"].narrow(0, 2, 2)
        >>> shard
        placeholder of `up`, shape [2, 2], torch.float32
        >>> torch.empty(2, 2).copy_(shard)
        tensor([[4., 5.],
                [6., 7.]])
    """
    opened = source if isinstance(source, Checkpoint) else Checkpoint(source)
    return Placeholders(opened)


class Placeholders(Mapping[str, Any]):
    """A mapping from the names of a checkpoint to placeholders."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def __getitem__(self, name: str) -> Placeholder:
        # PyTorch is imported where it is needed.
        of: type[Placeholder] = import_module("tensorhold.parallel._placeholder").Placeholder
        return of.whole(self._checkpoint, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._checkpoint)

    def __len__(self) -> int:
        return len(self._checkpoint)

    def __contains__(self, name: object) -> bool:
        return name in self._checkpoint

    # A mapping compares by its values, which would be read.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"lazy({self._checkpoint!r})"
