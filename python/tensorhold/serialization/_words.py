"""The words of a tree: its tags, its limits, and what numbers and paths look like in it."""

from __future__ import annotations

import math
import re
import struct
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Any, NoReturn

import torch

from tensorhold._errors import HeaderError, InvalidTensorError

__all__ = [
    "DTYPES",
    "FACTORIES",
    "KEY",
    "LARGE_BYTES",
    "LAYOUTS",
    "MAX_DEPTH",
    "MAX_FIELDS",
    "MEMORY_FORMATS",
    "QSCHEMES",
    "VERSION",
    "Attribute",
    "Opaque",
    "float_from_node",
    "float_to_node",
    "int_from_text",
    "int_to_node",
    "refuse",
    "show",
    "wrong",
]

KEY = "TENSORHOLD_TREE"
VERSION = 1
MAX_DEPTH = 1000
MAX_FIELDS = 255
# Bytes beyond this lie in a tensor.
LARGE_BYTES = 4096

_MAX_DIGITS = 100_000
# Python turns no more digits than this into a number at once, unless it is told to.
_DIGITS_AT_ONCE = 4000
_NAN = struct.unpack("<Q", struct.pack("<d", math.nan))[0]
_HEX = re.compile(r"0x[0-9a-f]{16}")
_DECIMAL = re.compile(r"-?[1-9][0-9]*")


def _named(kind: type) -> dict[str, Any]:
    """What PyTorch has of one kind, by the names that it prints them with."""
    found = [value for value in vars(torch).values() if isinstance(value, kind)]
    return {str(value).removeprefix("torch."): value for value in found}


DTYPES: dict[str, torch.dtype] = _named(torch.dtype)
LAYOUTS: dict[str, torch.layout] = _named(torch.layout)
MEMORY_FORMATS: dict[str, torch.memory_format] = _named(torch.memory_format)
QSCHEMES: dict[str, Any] = _named(torch.qscheme)
FACTORIES: dict[str, type] = {
    kind.__name__: kind for kind in (list, dict, int, float, set, str, tuple)
}
DICTS = (dict, OrderedDict, Counter, defaultdict)


class Attribute(str):
    """A step of a path that is no key, but an attribute."""

    __slots__ = ()


class Opaque:
    """What a pickle said of a value that nobody knows: inert, never called.

    Attributes:
        name: The dotted name that would have been called.
        args: With which arguments.
        kwargs: With which arguments by name.
        callee: What would have been called, where that is a value without a name.
        state: What it would have been given as its state.
        items: What would have been appended to it.
        pairs: The keys and values that would have been set in it.

    Example:
        >>> Opaque("builtins.print", ["hello"])
        Opaque('builtins.print', ['hello'])
    """

    def __init__(
        self,
        name: str,
        args: list[Any] | None = None,
        *,
        kwargs: Any = None,
        callee: Any = None,
        state: Any = None,
        items: list[Any] | None = None,
        pairs: list[Any] | None = None,
    ) -> None:
        self.name = name
        self.args = args
        self.kwargs = kwargs
        self.callee = callee
        self.state = state
        self.items = items
        self.pairs = pairs

    def __repr__(self) -> str:
        return f"Opaque({self.name!r}, {self.args!r})"


def show(trail: Sequence[Any]) -> str:
    """A path as one would write it in Python: `root["optimizer"][0]`."""
    steps = []
    for step in trail:
        if type(step) is Attribute:
            steps.append(f".{step}")
        elif type(step) is str:
            quoted = step.replace("\\", "\\\\").replace('"', '\\"')
            steps.append(f'["{quoted.encode("utf-8", "backslashreplace").decode()}"]')
        else:
            steps.append(f"[{step!r}]" if isinstance(step, (int, float)) else f"[{_brief(step)}]")
    return "root" + "".join(steps)


def _brief(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def refuse(trail: Sequence[Any], what: str, hint: str | None = None) -> NoReturn:
    """Raises what a save raises of the value at a path."""
    where = show(trail)
    message = f"{where}: {what}" + ("" if hint is None else f"\nhint: {hint}")
    raise InvalidTensorError(message, kind="InvalidTensor", tensor=where, hint=hint)


def wrong(trail: Sequence[Any], what: str, hint: str | None = None) -> NoReturn:
    """Raises what a load raises of the node at a path."""
    message = f"the tree of the file is wrong at {show(trail)}: {what}"
    message += "" if hint is None else f"\nhint: {hint}"
    raise HeaderError(message, kind="InvalidMetadata", hint=hint)


def float_to_node(number: float) -> Any:
    """The node of a float."""
    if math.isfinite(number):
        return number
    if math.isinf(number):
        return {"$float": "inf" if number > 0 else "-inf"}
    bits = struct.unpack("<Q", struct.pack("<d", number))[0]
    return {"$float": "nan" if bits == _NAN else f"0x{bits:016x}"}


def float_from_node(node: Any, trail: Sequence[Any]) -> float:
    """The float of a node."""
    if type(node) is float and math.isfinite(node):
        return node
    text = node.get("$float") if type(node) is dict and len(node) == 1 else None
    if text in ("nan", "inf", "-inf"):
        return float(text)
    if type(text) is str and _HEX.fullmatch(text):
        number: float = struct.unpack("<d", struct.pack("<Q", int(text, 16)))[0]
        if math.isnan(number):
            return number
    wrong(trail, "this is no float")


def int_to_node(number: int, trail: Sequence[Any]) -> Any:
    """The node of an integer."""
    if -(2**63) < number < 2**63:
        return number
    if number.bit_length() > _MAX_DIGITS * 3.32:
        refuse(trail, f"an integer of more than {_MAX_DIGITS} digits cannot be kept")
    digits: list[str] = []
    rest = abs(number)
    step = 10**_DIGITS_AT_ONCE
    while rest >= step:
        rest, low = divmod(rest, step)
        digits.append(f"{low:0{_DIGITS_AT_ONCE}d}")
    sign = "-" if number < 0 else ""
    return {"$int": f"{sign}{rest}{''.join(reversed(digits))}"}


def int_from_text(text: Any, trail: Sequence[Any]) -> int:
    """The integer that an `$int` says."""
    if type(text) is not str or len(text) > _MAX_DIGITS + 1 or not _DECIMAL.fullmatch(text):
        wrong(trail, "this is no integer")
    digits = text.removeprefix("-")
    number = 0
    for first in range(0, len(digits), _DIGITS_AT_ONCE):
        part = digits[first : first + _DIGITS_AT_ONCE]
        number = number * 10 ** len(part) + int(part)
    if number < 2**63:
        wrong(trail, f"the integer {text} stands in a `$int`, which is for larger ones")
    return -number if text[0] == "-" else number
