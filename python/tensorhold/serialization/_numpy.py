"""Arrays, scalars and dtypes of NumPy in a tree."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch

from tensorhold._native import TensorSpec
from tensorhold.serialization import _ml_dtypes
from tensorhold.serialization._storages import Item
from tensorhold.serialization._words import (
    float_from_node,
    float_to_node,
    int_to_node,
    refuse,
    wrong,
)

__all__ = ["array", "array_node", "dtype", "dtype_node", "is_numpy", "scalar", "scalar_node"]

# By NumPy's kinds: the types that the format has, or holds in another.
_KINDS = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8, 16)}
_CODE = re.compile(r"[<>|=]([biufc])([0-9]{1,2})")
_SCALARS = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)")
_NATIVE = "<" if sys.byteorder == "little" else ">"
# Bits of the fraction, by the size of a float in bytes.
_FRACTIONS = {2: 10, 4: 23, 8: 52}


def is_numpy(kind: type) -> bool:
    """Whether a type is one of NumPy's, which need not be imported to say so."""
    return kind.__module__.partition(".")[0] == "numpy"


def array_node(name: str, value: Any, trail: Sequence[Any]) -> tuple[dict[str, Any], Item]:
    """The node of an array, and what is to be stored for it."""
    numpy = import_module("numpy")
    node: dict[str, Any] = {"$ndarray": name}
    kind = value.dtype
    stored = _ml_dtypes.stored_name(kind)
    if stored is None and not _is_kept(kind):
        hint = "give its numbers as an array of integers or floats, or its items as a list"
        refuse(trail, f"an array of dtype {kind} cannot be kept", hint)
    values = value
    if stored is not None:
        node["dtype"] = kind.name
    else:
        if kind.byteorder == ">" or (kind.byteorder == "=" and _NATIVE == ">"):
            node["dtype"] = kind.str
        values = value.astype(kind.newbyteorder("<"), order="C", copy=False)
    if value.ndim > 1 and value.flags.f_contiguous and not value.flags.c_contiguous:
        node["fortran"] = True
    shape = value.shape
    if kind.kind == "c" and kind.itemsize == 16:
        node |= {"dtype": kind.str, "shape": list(shape)}
        shape = (*shape, 2)
        stored = "float64"
    elif stored is None:
        stored = values.dtype.newbyteorder("=").name
    # `astype` gives back what is right already, which need not be contiguous in steps of 0.
    values = numpy.ascontiguousarray(values)
    address = values.__array_interface__["data"][0]
    spec = TensorSpec(dtype=stored, shape=shape, data_ptr=address, data_len=values.nbytes)
    return node, (name, spec, values)


def array(stored: torch.Tensor, node: dict[str, Any], trail: Sequence[Any]) -> Any:
    """The array that a node says."""
    numpy = import_module("numpy")
    name = node.get("dtype")
    is_of_ml_dtypes = False
    if type(name) is str and name in _ml_dtypes.NAMES:
        is_of_ml_dtypes = True
        values = _ml_dtypes.array(stored, name, trail)
    else:
        values = stored.detach().cpu().numpy()
    is_fortran = node.get("fortran", False)
    if type(is_fortran) is not bool:
        wrong(trail, "`fortran` is neither true nor false")
    if "dtype" in node and not is_of_ml_dtypes:
        kind = dtype(node["dtype"], trail)
        native = kind.newbyteorder("=")
        if native != values.dtype and (native.kind, values.dtype.name) != ("c", "float64"):
            wrong(trail, f"an array of {values.dtype} cannot be taken for one of {kind}")
        if native.kind == "c" and values.dtype.name == "float64":
            if native.itemsize != 16 or not values.shape or values.shape[-1] != 2:
                wrong(trail, f"an array of shape {values.shape} holds no complex numbers")
            values = values.view(native).reshape(values.shape[:-1])
        values = values.astype(kind, copy=False)
    if "shape" in node and list(values.shape) != node["shape"]:
        wrong(trail, f"the array has the shape {values.shape}, not {node['shape']}")
    return numpy.asfortranarray(values) if is_fortran else values


def dtype_node(value: Any, trail: Sequence[Any]) -> dict[str, Any]:
    """The node of a `numpy.dtype`."""
    if not _is_kept(value) or value.metadata:
        refuse(trail, f"the dtype {value} of NumPy cannot be kept")
    return {"$npdtype": value.str}


def dtype(text: Any, trail: Sequence[Any]) -> Any:
    """The `numpy.dtype` of a text."""
    match = _CODE.fullmatch(text) if type(text) is str else None
    if match is None or int(match[2]) not in _KINDS[match[1]]:
        wrong(trail, f"`{text}` is no dtype of NumPy that a tree can have")
    return import_module("numpy").dtype(text)


def _is_kept(kind: Any) -> bool:
    return (
        type(kind).__module__.partition(".")[0] == "numpy"
        and kind.kind in _KINDS
        and kind.itemsize in _KINDS[kind.kind]
        and kind.subdtype is None
    )


def scalar_node(value: Any, trail: Sequence[Any]) -> dict[str, Any]:
    """The node of a scalar."""
    kind = value.dtype
    if not _is_kept(kind) or not _SCALARS.fullmatch(kind.name):
        hint = "give it as a Python number or string"
        refuse(trail, f"a `{type(value).__name__}` of NumPy cannot be kept", hint)
    number: Any
    if kind.kind == "b":
        number = bool(value)
    elif kind.kind in "iu":
        number = int_to_node(int(value), trail)
    elif kind.kind == "f":
        number = float_to_node(_widened(value.tobytes()))
    else:
        half = kind.itemsize // 2
        data = value.tobytes()
        parts = (data[:half], data[half:])
        number = {"$complex": [float_to_node(_widened(part)) for part in parts]}
    return {"$scalar": kind.name, "value": number}


def scalar(node: dict[str, Any], trail: Sequence[Any]) -> Any:
    """The scalar that a node says."""
    name, given = node["$scalar"], node["value"]
    if type(name) is not str or not _SCALARS.fullmatch(name):
        wrong(trail, f"`{name}` is no scalar of NumPy that a tree can have")
    numpy = import_module("numpy")
    kind = numpy.dtype(name)
    if kind.kind == "b" and type(given) is bool:
        return kind.type(given)
    if kind.kind in "iu" and (number := _integer(given)) is not None:
        limits = numpy.iinfo(kind)
        if limits.min <= number <= limits.max:
            return kind.type(number)
    if kind.kind == "f":
        return _narrowed(float_from_node(given, trail), kind, trail)
    parts = given.get("$complex") if type(given) is dict and len(given) == 1 else None
    if kind.kind == "c" and type(parts) is list and len(parts) == 2:
        half = numpy.dtype(f"float{kind.itemsize * 4}")
        numbers = [_narrowed(float_from_node(part, trail), half, trail) for part in parts]
        return numpy.frombuffer(b"".join(number.tobytes() for number in numbers), kind)[0]
    wrong(trail, f"this is no value of a {name}")


def _integer(node: Any) -> int | None:
    if type(node) is int:
        return node
    text = node.get("$int") if type(node) is dict and len(node) == 1 else None
    return int(text) if type(text) is str and re.fullmatch("[0-9]{1,20}", text) else None


def _widened(data: bytes) -> float:
    """A float of 16, 32 or 64 bits; of a NaN all bits, which a conversion would change."""
    kind = {2: "e", 4: "f", 8: "d"}[len(data)]
    number: float = struct.unpack(f"={kind}", data)[0]
    if number == number:
        return number
    bits = int.from_bytes(data, sys.byteorder)
    fraction = _FRACTIONS[len(data)]
    sign, low = bits >> (len(data) * 8 - 1), bits & ((1 << fraction) - 1)
    wide = sign << 63 | 0x7FF << 52 | low << (52 - fraction)
    wide_number: float = struct.unpack("<d", wide.to_bytes(8, "little"))[0]
    return wide_number


def _narrowed(number: float, kind: Any, trail: Sequence[Any]) -> Any:
    """The reverse, as a scalar of NumPy."""
    numpy = import_module("numpy")
    if number == number:
        with numpy.errstate(over="ignore"):
            made = kind.type(number)
        if float(made) != number:
            wrong(trail, f"{number!r} is no value of a {kind.name}")
        return made
    bits = int.from_bytes(struct.pack("<d", number), "little")
    fraction = _FRACTIONS[kind.itemsize]
    low = (bits & ((1 << 52) - 1)) >> (52 - fraction)
    if low == 0 or low << (52 - fraction) != bits & ((1 << 52) - 1):
        wrong(trail, f"this is no NaN of a {kind.name}")
    exponent = ((1 << (kind.itemsize * 8 - 1 - fraction)) - 1) << fraction
    narrow = (bits >> 63) << (kind.itemsize * 8 - 1) | exponent | low
    return numpy.frombuffer(narrow.to_bytes(kind.itemsize, sys.byteorder), kind)[0]
