"""`tensorhold.save` and `tensorhold.save_async`, for tensors of any framework."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from tensorhold import _native
from tensorhold._arguments import front_end_of, to_boundary, to_item, to_size_bytes

if TYPE_CHECKING:
    from os import PathLike

    from tensorhold._native import SaveHandle


def save(
    tensors: Mapping[str, Any] | Iterable[tuple[str, Any]],
    target: str | PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
    max_shard_size: int | str | None = None,
    align: int = 4096,
    durability: Literal["none", "data", "full"] = "data",
    progress: Callable[[int, int | None], object] | None = None,
) -> list[str]:
    """Writes tensors to one file or to shards with an index, whole or not at all.

    A mapping is laid out at once. Pairs from an iterator are written one by one, so that a
    checkpoint larger than memory can be made: a tensor is let go of when the next one is asked for.

    Args:
        tensors: Tensors by name, or pairs of a name and a tensor, of any framework.
        target: The file. Shards and their index are named after it, or, given a folder, after
            `model.safetensors` in it.
        metadata: Texts to keep beside the tensors.
        max_shard_size: The most bytes of tensors in a file: a number, `"5GB"` or `"4GiB"`.
        align: The boundary on which the tensors' bytes begin in the file, a power of two.
        durability: What is on disk for sure on return: `"none"`, the `"data"`, or `"full"`, which
            includes the name in its folder.
        progress: Called now and then with the bytes done and the bytes in all, `None` if unknown.

    Returns:
        The paths written.

    Raises:
        ValueError: A value is no tensor that can be stored, or an argument is out of range.
        RuntimeError: PyTorch tensors share memory.
        OSError: The files cannot be written; what was there before is still there.

    Example:
        >>> import numpy as np
        >>> import tensorhold
        >>> pairs = ((f"layer.{i}", np.full(2, i)) for i in range(2))
        >>> save(pairs, "layers.safetensors", durability="none")
        ['layers.safetensors']
        >>> tensorhold.open("layers.safetensors", framework="np")["layer.1"]
        array([1, 1])
    """
    if isinstance(tensors, Mapping):
        _refuse_shared(tensors)
        items: Any = [to_item(name, tensor) for name, tensor in tensors.items()]
    else:
        items = _items(tensors)
    limit = None if max_shard_size is None else to_size_bytes(max_shard_size)
    boundary = to_boundary(align)
    written = _native.save(items, target, metadata, limit, boundary, durability, progress)
    return [str(path) for path in written]


def save_async(
    tensors: Mapping[str, Any] | Iterable[tuple[str, Any]],
    target: str | PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
    max_shard_size: int | str | None = None,
    align: int = 4096,
    durability: Literal["none", "data", "full"] = "data",
    progress: Callable[[int, int | None], object] | None = None,
    memory_limit: int | str | None = None,
) -> SaveHandle:
    """Begins a save that goes on in a thread of its own, as `save` does it, and returns a handle.

    When it returns, all tensors are copied or written: they may be changed, or let go of. What does
    not fit into `memory_limit` is not copied but written before it returns. Saves to one target
    take place in the order of their calls. At exit, the interpreter waits for saves that go on.

    Args:
        tensors: Tensors by name, or pairs of a name and a tensor, of any framework; pairs from an
            iterator are all taken before the first is copied.
        target: The file, or the folder or file that shards are named after.
        metadata: Texts to keep beside the tensors.
        max_shard_size: The most bytes of tensors in a file: a number, `"5GB"` or `"4GiB"`.
        align: The boundary on which the tensors' bytes begin in the file, a power of two.
        durability: What is on disk for sure when the save is done, as for `save`.
        progress: Called now and then, in whatever thread writes, with the bytes done and the bytes
            in all. What it raises ends the save, and is raised by `wait`.
        memory_limit: The most memory for copies: a number of bytes, `"5GB"` or `"4GiB"`; `0` for
            none. Half of the memory that is free where it is `None`. It is given back bit by bit
            while the copies are written.

    Returns:
        A handle. What goes wrong with the files is raised by its `wait`; where nobody waits, it
        goes to `sys.unraisablehook`.

    Raises:
        ValueError: A value is no tensor that can be stored, or an argument is out of range.
        RuntimeError: PyTorch tensors share memory.

    Example:
        >>> import numpy as np
        >>> import tensorhold
        >>> weight = np.ones(2)
        >>> handle = save_async({"weight": weight}, "later.safetensors")
        >>> weight[:] = 0  # it is copied by now
        >>> handle.wait()
        ['later.safetensors']
        >>> tensorhold.open("later.safetensors", framework="np")["weight"]
        array([1., 1.])
    """
    if isinstance(tensors, Mapping):
        _refuse_shared(tensors)
        tensors = tensors.items()
    items = [to_item(name, tensor) for name, tensor in tensors]
    limit = None if max_shard_size is None else to_size_bytes(max_shard_size)
    room = None if memory_limit is None else to_size_bytes(memory_limit, 0)
    boundary = to_boundary(align)
    return _native.save_async(items, target, metadata, limit, boundary, durability, progress, room)


atexit.register(_native.finish_saves)


def _items(
    tensors: Iterable[tuple[str, Any]],
) -> Iterator[tuple[str, _native.TensorSpec, object]]:
    for name, tensor in tensors:
        yield to_item(name, tensor)
        # The next tensor may need the room of this one.
        del tensor


def _refuse_shared(tensors: Mapping[str, Any]) -> None:
    """Raises where PyTorch tensors overlap in memory or are sparse, as `save_file` does."""
    of_torch = {name: tensor for name, tensor in tensors.items() if front_end_of(tensor) == "torch"}
    if of_torch:
        import_module("tensorhold.torch")._evaluate_tensors_for_save(of_torch)
