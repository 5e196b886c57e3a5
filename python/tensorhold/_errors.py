"""The exceptions: one root, `SafetensorError`, and under it one class for each way to fail.

Each class derives from the builtin that a program would catch as well: `except FileNotFoundError`
works as `except SafetensorError` does.
"""

from __future__ import annotations

import os
from typing import Any


class SafetensorError(Exception):
    """Something is wrong with a file, a tensor or a request.

    Attributes:
        kind: The name of what went wrong, such as `"HeaderTooSmall"`; `None` when unknown.
        path: The file it happened in.
        tensor: The name of the tensor it is about.
        bytes: The first byte and the byte after the last one, counted from the start of the file.
        hint: What to do about it.

    Example:
        >>> error = SafetensorError("header too small", kind="HeaderTooSmall", path="a.safetensors")
        >>> str(error), error.kind, error.tensor
        ('header too small', 'HeaderTooSmall', None)
    """

    def __init__(
        self,
        *args: object,
        kind: str | None = None,
        path: str | None = None,
        tensor: str | None = None,
        bytes: tuple[int, int] | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(*args)
        self.kind = kind
        self.path = path
        self.tensor = tensor
        self.bytes = bytes
        self.hint = hint

    def __str__(self) -> str:
        return str(self.args[0]) if len(self.args) == 1 else Exception.__str__(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # OSError's own way of pickling would give its constructor positional errno and path.
        return _rebuild, (type(self), self.args, self.__dict__, _os_parts(self))


class HeaderError(SafetensorError, ValueError):
    """The file's header is not what the format asks for."""


class TensorNotFoundError(SafetensorError, KeyError):
    """No tensor has this name."""


class SliceError(SafetensorError, IndexError):
    """The index does not fit the tensor."""


class ShardIndexError(SafetensorError, ValueError):
    """An index file is not as it must be, or disagrees with its shards."""


class InvalidTensorError(SafetensorError, ValueError):
    """A tensor cannot be stored as it is, or the parts of a quantized weight do not fit."""


class ConfigError(SafetensorError, ValueError):
    """A configuration of quantized weights is not as it must be."""


class UnsupportedError(SafetensorError, NotImplementedError):
    """It is known what this is, but it is not read."""


class DtypeError(SafetensorError, KeyError, TypeError):
    """The format or the framework has no such element type."""


class ArgumentError(SafetensorError, ValueError):
    """An argument has a value that is not allowed."""


class ClosedError(SafetensorError, ValueError):
    """The handle was closed."""


class SourceError(SafetensorError, OSError):
    """The operating system refused, or the path leads to no regular file."""


class SourceNotFoundError(SourceError, FileNotFoundError):
    """No file is there."""


class SourcePermissionError(SourceError, PermissionError):
    """The system does not let us read or write there."""


class OutOfMemoryError(SafetensorError, MemoryError):
    """There is no memory for a tensor."""


class DeviceError(SafetensorError, RuntimeError):
    """A device, or the runtime that it is used by, is not there or refused."""


_CLASSES: dict[str, type[SafetensorError]] = {
    "TensorNotFound": TensorNotFoundError,
    "InvalidSlice": SliceError,
    "InvalidIndex": ShardIndexError,
    "InvalidTensor": InvalidTensorError,
    "InvalidConfig": ConfigError,
    "Unsupported": UnsupportedError,
    "InvalidArgument": ArgumentError,
    "UnsupportedDtype": DtypeError,
    "Closed": ClosedError,
    "NotFound": SourceNotFoundError,
    "PermissionDenied": SourcePermissionError,
    "NotRegularFile": SourceError,
    "Truncated": SourceError,
    "Io": SourceError,
    "NoMemory": OutOfMemoryError,
    "Device": DeviceError,
} | dict.fromkeys(
    (
        "HeaderTooSmall",
        "HeaderTooLarge",
        "HeaderLength",
        "HeaderUtf8",
        "HeaderJson",
        "DuplicateTensor",
        "DuplicateKey",
        "InvalidOffset",
        "SizeMismatch",
        "Overflow",
        "Misaligned",
        "NotCovered",
        "Forbidden",
        "ForeignFormat",
    ),
    HeaderError,
)


def from_native(
    kind: str,
    message: str,
    path: str | None = None,
    tensor: str | None = None,
    bytes: tuple[int, int] | None = None,
    hint: str | None = None,
    os_error: int | None = None,
) -> SafetensorError:
    """The exception for an error of the extension module, ready to be raised."""
    error = _CLASSES.get(kind, SafetensorError)(
        message, kind=kind, path=path, tensor=tensor, bytes=bytes, hint=hint
    )
    if isinstance(error, OSError):
        error.errno = os_error
        error.strerror = None if os_error is None else os.strerror(os_error)
        error.filename = path
    return error


def _os_parts(error: SafetensorError) -> tuple[int | None, str | None, Any] | None:
    if isinstance(error, OSError):
        return error.errno, error.strerror, error.filename
    return None


def _rebuild(
    cls: type[SafetensorError],
    args: tuple[object, ...],
    state: dict[str, Any],
    os_parts: tuple[int | None, str | None, Any] | None,
) -> SafetensorError:
    error = cls(*args)
    error.__dict__.update(state)
    if os_parts is not None and isinstance(error, OSError):
        error.errno, error.strerror, error.filename = os_parts
    return error
