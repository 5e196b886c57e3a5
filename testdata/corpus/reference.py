"""The verdict of the reference, `safetensors` 0.8.0, found by running it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors

VERSION = "0.8.0"

_deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize

# The start of each message of the reference, and the kind of error that it stands for.
KINDS = (
    ("header too small", "HeaderTooSmall"),
    ("header too large", "HeaderTooLarge"),
    ("invalid header length", "HeaderLength"),
    ("invalid UTF-8 in header", "HeaderUtf8"),
    ("invalid JSON in header", "HeaderJson"),
    ("invalid offset for tensor", "InvalidOffset"),
    ("invalid shape, data type, or offset", "SizeMismatch"),
    ("overflow computing buffer size", "Overflow"),
    ("The slice is slicing for subbytes dtypes", "Misaligned"),
    ("incomplete metadata, file not fully covered", "NotCovered"),
)


def require_version() -> None:
    """Stops the program unless the reference is the one whose verdicts are recorded."""
    if safetensors.__version__ != VERSION:
        raise SystemExit(f"error: safetensors {VERSION} is needed, {safetensors.__version__} is installed")


def message_on(data: bytes) -> str | None:
    """The message with which the reference refuses these bytes, or None if it accepts them."""
    try:
        _deserialize(data)
    except safetensors.SafetensorError as error:
        message = str(error).removeprefix("Error while deserializing: ")
        # Which of two tensors with the same offsets is blamed is a matter of chance there.
        return re.sub(r"(invalid offset for tensor) `.*`", r"\1", message, flags=re.DOTALL)
    return None


def message_on_opening(path: Path) -> str | None:
    """The message with which the reference refuses to open this file, or None if it opens."""
    try:
        with safetensors.safe_open(path, "numpy") as handle:
            handle.keys()
    except Exception as error:
        return str(error)
    return None


def kind_of(message: str | None) -> str:
    """`accept`, or the kind of error that a message of the reference stands for."""
    if message is None:
        return "accept"
    return next(kind for start, kind in KINDS if message.startswith(start))


def tensors_of(data: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    """The tensors that the reference finds: dtype, shape and bytes by name."""
    found = _deserialize(data)
    return {name: (info["dtype"], info["shape"], bytes(info["data"])) for name, info in found}
