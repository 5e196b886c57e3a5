"""Trees to files, and back."""

from __future__ import annotations

import gc
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Literal

import torch

from tensorhold import _native
from tensorhold._arguments import to_boundary
from tensorhold._errors import ArgumentError, DeviceError, HeaderError
from tensorhold.checkpoint import Checkpoint
from tensorhold.serialization._decode import Decoder, Document
from tensorhold.serialization._encode import encode
from tensorhold.serialization._foreign import Foreign, spooled
from tensorhold.serialization._stored import Want
from tensorhold.serialization._words import KEY, wrong

__all__ = ["MapLocation", "load", "save"]

MapLocation = Any


def save(
    obj: Any,
    f: str | os.PathLike[str] | io.IOBase | Any,
    *,
    durability: Literal["none", "data", "full"] = "data",
    align: int = 4096,
) -> None:
    """Writes a value, such as a whole training state, to a safetensors file.

    Dicts, lists, tuples, sets, numbers, texts, bytes, arrays of NumPy and tensors of every kind are
    kept as they are: their types, bits and strides, and what is shared. All tensors are ordinary
    tensors of the file; the rest is text beside them, and nothing in it is code.

    Args:
        obj: The value.
        f: The file, which is replaced when the new one is complete; or a file object to write to,
            for which all bytes are put together in memory first.
        durability: What is on disk for sure on return, as for `tensorhold.save`.
        align: The boundary on which the tensors' bytes begin in the file, a power of two.

    Raises:
        ValueError: A part of the value cannot be kept; the message says where it is.
        OSError: The file cannot be written; what was there before is still there.

    Example:
        >>> import torch
        >>> save({"step": 3, "weight": torch.ones(2)}, "state.safetensors")
        >>> load("state.safetensors")
        {'step': 3, 'weight': tensor([1., 1.])}
    """
    with _no_collections():
        items, metadata = encode(obj)
    if not isinstance(f, (str, os.PathLike)):
        if not callable(getattr(f, "write", None)):
            raise TypeError(f"`f` is neither a path nor a file to write to, but {type(f)}")
        specs = {name: spec for name, spec, _ in items}
        f.write(_native.serialize(specs, metadata))
        return
    _native.save(items, f, metadata, None, to_boundary(align), durability, None)


def load(
    f: str | os.PathLike[str] | io.IOBase | Any,
    map_location: MapLocation = None,
    mmap: bool | None = None,
    *,
    opaque: Literal["refuse", "keep"] = "refuse",
) -> Any:
    """The value that a safetensors file holds, or a checkpoint of another format.

    Of a safetensors file that `save` has not written it is the dict of its tensors by name. What
    `torch.save` has written, of any age, is read too, and so are pickles, NumPy's archives, GGUF,
    Flax and Keras: whatever `tensorhold.convert` takes. Of a pickled module, and of a TorchScript
    program, it is the state dict. Nothing in a file is run, and no name in one is looked up.
    Checksums of archives are looked at by `convert` only.

    Args:
        f: A file, a folder or an index; or bytes, or a file object to read the rest of.
        map_location: Where tensors are to be, as for `torch.load`: a device; a dict from devices to
            devices; or what is called with a storage and its device, and gives the storage to
            take. Where it is None, tensors go to where they were.
        mmap: Whether tensors on the host are views of a private map of the file, read when they
            are touched, rather than memory of their own.
        opaque: What to do about a value of a pickle that nobody knows: `"refuse"` it, or `"keep"`
            an `Opaque` record of it.

    Raises:
        FileNotFoundError: There is no such file.
        SafetensorError: It is no valid safetensors file, or its tree is wrong.

    Example:
        >>> import torch
        >>> save([torch.zeros(2), (1, None)], "list.safetensors")
        >>> load("list.safetensors", map_location="cpu")
        [tensor([0., 0.]), (1, None)]
    """
    return load_as(f, map_location, mmap, opaque, strict=True)


def load_as(
    f: Any, map_location: MapLocation, mmap: bool | None, opaque: Any, *, strict: bool
) -> Any:
    """The same, by the strict rules or by those of `safetensors`."""
    if opaque not in ("refuse", "keep"):
        message = f'`opaque` is "refuse" or "keep", not {opaque!r}'
        raise ArgumentError(message, kind="InvalidArgument")
    with _no_collections(), _opened(f, bool(mmap), strict) as source:
        text = source.metadata.get(KEY)
        if text is None:
            on_host = Want()
            on_host.location = "cpu"
            return _placed(source, dict.fromkeys(source.names, on_host), map_location)
        document = Document(text)
        for name in document.wants:
            if name not in source.names:
                wrong((), f"the file has no tensor {name!r}, which the tree names")
        tensors = _placed(source, document.wants, map_location)
        decoder = Decoder(document, tensors, opaque)
        return decoder.run(document.root)


class _File:
    """Tensors of files."""

    def __init__(self, checkpoint: Checkpoint, is_mapped: bool) -> None:
        self.metadata = checkpoint.metadata
        self.names = list(checkpoint) if KEY not in self.metadata else checkpoint
        self._checkpoint = checkpoint
        self._is_mapped = is_mapped

    def tensors(self, names: list[str], device: Any) -> dict[str, torch.Tensor]:
        if self._is_mapped and torch.device(device).type == "cpu":
            return {name: self._checkpoint[name] for name in names}
        return self._checkpoint.load(names, device=device)


class _Memory:
    """Tensors of bytes."""

    def __init__(self, data: Any) -> None:
        self._tensors: dict[str, torch.Tensor] = _native.load_bytes(data, "pt", "cpu")
        self.metadata = _metadata_of(data)
        self.names = self._tensors

    def tensors(self, names: list[str], device: Any) -> dict[str, torch.Tensor]:
        return {name: self._tensors[name].to(device) for name in names}


def _metadata_of(data: Any) -> dict[str, str]:
    """The texts beside the tensors of a file that is valid."""
    view = memoryview(data).cast("B")
    size = int.from_bytes(view[:8], "little")
    found = json.loads(bytes(view[8 : 8 + size])).get("__metadata__")
    return found or {}


@contextmanager
def _opened(f: Any, is_mapped: bool, strict: bool) -> Iterator[Any]:
    """What `f` is, open to take tensors from; errors of its tree name it."""
    path = f if isinstance(f, (str, os.PathLike)) else _path_of(f)
    try:
        with ExitStack() as stack:
            if path is not None:
                yield _at_path(path, is_mapped, strict, stack)
            else:
                yield _in_memory(_bytes_of(f, is_mapped), is_mapped, stack)
    except HeaderError as error:
        if error.kind != "InvalidMetadata" or path is None:
            raise
        name = os.fspath(path)
        message = f"{name}: {error}"
        raise HeaderError(message, kind=error.kind, path=name, hint=error.hint) from None


def _at_path(path: Any, is_mapped: bool, strict: bool, stack: ExitStack) -> _File | Foreign:
    try:
        return _File(stack.enter_context(Checkpoint(path, strict=strict)), is_mapped)
    except HeaderError:
        foreign = Foreign.open(path, is_mapped) if os.path.isfile(path) else None
        if foreign is None:
            raise
        return stack.enter_context(closing(foreign))


def _in_memory(data: Any, is_mapped: bool, stack: ExitStack) -> _Memory | Foreign:
    try:
        return _Memory(data)
    except HeaderError:
        foreign = Foreign.open(stack.enter_context(spooled(data)), is_mapped)
        if foreign is None:
            raise
        return stack.enter_context(closing(foreign))


def _bytes_of(f: Any, is_mapped: bool) -> Any:
    if isinstance(f, (bytes, bytearray, memoryview)):
        return f if is_mapped else memoryview(f).toreadonly()
    if callable(getattr(f, "read", None)):
        return _rest_of(f)
    message = f"`f` is neither a path, nor bytes, nor a file to read from, but {type(f)}"
    raise TypeError(message)


def _path_of(f: Any) -> str | None:
    """The path of an open file that nothing was read of yet, if it leads there still."""
    try:
        name, opened = f.name, os.fstat(f.fileno())
        is_there = isinstance(name, str) and f.tell() == 0
        return name if is_there and os.path.samestat(opened, os.stat(name)) else None
    except (AttributeError, OSError, ValueError, TypeError):
        return None


def _rest_of(f: Any) -> Any:
    """What follows in a file, as bytes that are nobody else's."""
    try:
        at = f.tell()
        data = bytearray(f.seek(0, os.SEEK_END) - at)
        f.seek(at)
        n_read, view = 0, memoryview(data)
        while n_read < len(data):
            n_bytes = f.readinto(view[n_read:])
            if not n_bytes:
                break
            n_read += n_bytes
        view.release()
        del data[n_read:]
        return data
    except (AttributeError, OSError):
        return f.read()


@contextmanager
def _no_collections() -> Iterator[None]:
    """What is made here has no cycles; looking for some takes as long as making it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _placed(
    source: Any, wants: dict[str, Want], map_location: MapLocation
) -> dict[str, torch.Tensor]:
    """The tensors that are wanted, each where it is to be."""
    by_device: dict[Any, list[str]] = {}
    for name, want in wants.items():
        is_on_host = want.location is None or callable(map_location)
        device = "cpu" if is_on_host else _device_for(want.location, map_location)
        by_device.setdefault(device, []).append(name)
    tensors: dict[str, torch.Tensor] = {}
    for device, names in by_device.items():
        try:
            tensors.update(source.tensors(names, device))
        except (DeviceError, AssertionError, RuntimeError) as error:
            if map_location is not None or torch.device(device).type == "cpu":
                raise
            hint = 'say where tensors are to be, such as `map_location="cpu"`'
            message = f"tensors were on {device}, where they cannot be now: {error}\nhint: {hint}"
            raise DeviceError(message, kind="Device", hint=hint) from error
    for name, want in wants.items():
        if callable(map_location) and want.location is not None:
            tensors[name] = _moved(tensors[name], want.location, map_location)
        if tensors[name].data_ptr() % want.width_bytes:
            tensors[name] = tensors[name].clone()
    return tensors


def _device_for(location: Any, map_location: MapLocation) -> Any:
    """Where a tensor is to be that was on the device `location`."""
    if map_location is None:
        wanted = location
    elif isinstance(map_location, Mapping):
        wanted = map_location.get(location, location)
    else:
        wanted = map_location
    try:
        return str(torch.device(wanted))
    except (RuntimeError, TypeError):
        wrong((), f"{wanted!r} is no device")


def _moved(tensor: torch.Tensor, location: str, move: Callable[[Any, str], Any]) -> torch.Tensor:
    """A tensor over the storage that the caller gives for its own."""
    storage = tensor.untyped_storage()
    moved = move(storage, location)
    if moved is storage:
        return tensor
    if moved is None:
        return tensor.to(_device_for(location, None))
    moved = getattr(moved, "_untyped_storage", moved)
    made = torch.empty(0, dtype=tensor.dtype, device=moved.device)
    place = tensor.storage_offset(), tensor.shape, tensor.stride()
    return made.set_(moved, *place)
