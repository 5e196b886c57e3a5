"""`torch.save` and `torch.load` by way of safetensors files, in programs that call them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import torch

from tensorhold._errors import ArgumentError, InvalidTensorError
from tensorhold.serialization._files import load_as
from tensorhold.serialization._files import save as save_tree

__all__ = ["Installed", "install", "is_safetensors", "uninstall"]

_SUFFIX = ".safetensors"
_MAX_HEADER = 100_000_000
# Where each function stands in PyTorch.
_PLACES = {"save": (torch, torch.serialization), "load": (torch, torch.serialization)}


class Installed:
    """What `install` has done; as a context manager, undone at its end."""

    def __init__(self, before: tuple[str, ...] | None) -> None:
        self._before = before

    def __enter__(self) -> Installed:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is None:
            uninstall()
        else:
            _route.suffixes = self._before


class _Route:
    """Which saves go our way; none where `suffixes` is None. Loads go by what a file holds."""

    def __init__(self) -> None:
        self.suffixes: tuple[str, ...] | None = None
        self.originals: dict[str, Callable[..., Any]] = {}
        self.ours: dict[str, Callable[..., Any]] = {}


_route = _Route()


def install(suffixes: str | Iterable[str] = _SUFFIX) -> Installed:
    """Has `torch.save` write safetensors files by their suffix, and `torch.load` read them.

    `torch.save(value, "x.safetensors")` is then `serialization.save`, and `torch.load` of a path or
    file object that holds safetensors data is `serialization.load`, in libraries, too. All other
    calls go on to PyTorch unchanged. What a program took before by `from torch import save` stays
    PyTorch's own.

    Args:
        suffixes: Which paths are written as safetensors files. With others than `.safetensors`,
            such as `.pt`, libraries that choose their own names use them, too; what cannot be kept
            goes on to PyTorch under these.

    Returns:
        A context manager that undoes the call at its end.

    Raises:
        ValueError: A suffix does not begin with a point.

    Example:
        >>> import torch
        >>> with install():
        ...     torch.save({"step": 3}, "step.safetensors")
        ...     torch.load("step.safetensors")
        {'step': 3}
    """
    wanted = (suffixes,) if isinstance(suffixes, str) else tuple(suffixes)
    for suffix in wanted:
        if not suffix.startswith("."):
            message = f"`{suffix}` is no suffix: it does not begin with a point"
            raise ArgumentError(message, kind="InvalidArgument")
    before, _route.suffixes = _route.suffixes, wanted
    if before is None:
        for name, make in (("save", _saver), ("load", _loader)):
            original = getattr(torch, name)
            if original is _route.ours.get(name):
                # Somebody else's wrapper has kept ours where it was.
                continue
            _route.originals[name] = original
            _route.ours[name] = make(original)
            for module in _PLACES[name]:
                setattr(module, name, _route.ours[name])
    return Installed(before)


def uninstall() -> None:
    """Undoes `install`; `torch.save` and `torch.load` are PyTorch's own again.

    Example:
        >>> uninstall()
    """
    _route.suffixes = None
    for name, modules in _PLACES.items():
        for module in modules:
            # What somebody else has put there calls ours, which passes everything on from now on.
            if name in _route.ours and getattr(module, name) is _route.ours[name]:
                setattr(module, name, _route.originals[name])


def _saver(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def save(obj: Any, f: Any, *args: Any, **kwargs: Any) -> Any:
        path = os.fspath(f) if isinstance(f, (str, os.PathLike)) else None
        if _route.suffixes is None or path is None or not path.endswith(_route.suffixes):
            return original(obj, f, *args, **kwargs)
        try:
            return save_tree(obj, path)
        except InvalidTensorError:
            if path.endswith(_SUFFIX):
                raise
            return original(obj, f, *args, **kwargs)

    return save


def _loader(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def load(f: Any, *args: Any, **kwargs: Any) -> Any:
        if _route.suffixes is None or not is_safetensors(f):
            return original(f, *args, **kwargs)
        map_location = args[0] if args else kwargs.get("map_location")
        return load_as(f, map_location, kwargs.get("mmap"), "refuse", strict=False)

    return load


def is_safetensors(f: Any) -> bool:
    """Whether a path, or what follows in a file object, holds safetensors data."""
    try:
        if isinstance(f, (str, os.PathLike)):
            if not os.path.isfile(f):
                return False
            with open(f, "rb") as file:
                return _holds(file)
        return bool(f.seekable()) and _holds(f)
    except (AttributeError, OSError, ValueError):
        return False


def _holds(file: Any) -> bool:
    at = file.tell()
    try:
        head = file.read(9)
        if not isinstance(head, bytes) or len(head) < 9 or head.startswith(b"PK\x03\x04"):
            # A zip archive, which PyTorch's files are, may be safetensors data by its length only.
            return False
        size = int.from_bytes(head[:8], "little")
        if head[8:] != b"{" or size > _MAX_HEADER:
            return False
        file.seek(at + 8 + size - 1)
        return file.read(1) in (b"}", b" ", b"\n", b"\t", b"\r")
    finally:
        file.seek(at)
