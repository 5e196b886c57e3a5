"""Nodes of everything that is no tensor, by the types of values."""

from __future__ import annotations

import base64
import ctypes
import enum
import math
import types
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from types import GeneratorType
from typing import TYPE_CHECKING, Any

import torch

from tensorhold._native import TensorSpec
from tensorhold.serialization import _numpy, _special
from tensorhold.serialization._register import is_named_tuple, name_of
from tensorhold.serialization._tensors import attributes_node, tensor_node
from tensorhold.serialization._words import (
    FACTORIES,
    LARGE_BYTES,
    Attribute,
    Opaque,
    float_to_node,
    int_to_node,
    refuse,
)

if TYPE_CHECKING:
    from tensorhold.serialization._encode import Encoder
    from tensorhold.serialization._walk import Steps

__all__ = ["handler_of"]

Handler = Callable[[Any, Any], Any]

_SCALARS = (str, int, float, bool, type(None), bytes, complex)


def handler_of(value: Any, trail: Sequence[Any]) -> Handler:
    """What makes the node of a value, given the encoder and the value.

    Raises:
        ValueError: Values of its type cannot be kept.
    """
    kind = type(value)
    known = _HANDLERS.get(kind)
    if known is not None:
        return known
    if issubclass(kind, torch.Tensor):
        is_known = name_of(kind) or _special.is_dtensor(value) or _special.is_jagged(value)
        if is_known:
            return _special.special_node
    elif is_named_tuple(kind):
        return _named_tuple
    elif _numpy.is_numpy(kind):
        numpy = __import__("numpy")
        if kind is numpy.ndarray:
            return _array
        if issubclass(kind, numpy.generic):
            return lambda encoder, scalar: _numpy.scalar_node(scalar, encoder.trail)
        if issubclass(kind, numpy.dtype):
            return lambda encoder, dtype: _numpy.dtype_node(dtype, encoder.trail)
    refuse(trail, f"{_called(value)} cannot be kept", _hint(value))


def _called(value: Any) -> str:
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
        return "a function"
    if isinstance(value, type):
        return f"a class (`{value.__qualname__}`)"
    kind = type(value)
    return f"a value of `{kind.__module__}.{kind.__qualname__}`"


def _hint(value: Any) -> str | None:
    """What could be kept in the place of a value."""
    for kinds, hint in _HINTS:
        if isinstance(value, kinds):
            return hint
    if type(value).__module__.partition(".")[0] in ("jax", "jaxlib"):
        return "give it as an array of NumPy, by `numpy.asarray`"
    if callable(getattr(value, "state_dict", None)):
        return "give its `state_dict()`"
    return None


def _array(encoder: Encoder, value: Any) -> Any:
    name = encoder.name()
    node, item = _numpy.array_node(name, value, encoder.trail)
    encoder.items.append(item)
    return encoder.keep(value, node)


def _sequence(tag: str | None) -> Callable[[Encoder, Any], Steps]:
    def steps(encoder: Encoder, value: Any) -> Steps:
        reference = encoder.open(value)
        items = _numbers(value)
        if items is None:
            items = []
            trail, begin = encoder.trail, encoder.begin
            for number, item in enumerate(value):
                trail.append(number)
                node = begin(item)
                items.append((yield node) if type(node) is GeneratorType else node)
                trail.pop()
        reference.node = items if tag is None else {tag: items}
        reference.is_open = False
        return reference

    return steps


def _numbers(items: Any) -> Any:
    """The nodes of nothing but small integers, or of nothing but finite floats."""
    kinds = set(map(type, items))
    if len(kinds) != 1:
        return None
    if int in kinds:
        is_written = min(items) > -(2**63) and max(items) < 2**63
    else:
        is_written = float in kinds and all(map(math.isfinite, items))
    return list(items) if is_written else None


def _tuple(encoder: Encoder, value: Any) -> Any:
    return _TUPLE(encoder, value) if value else {"$tuple": []}


def _set(tag: str) -> Callable[[Encoder, Any], Steps]:
    def steps(encoder: Encoder, value: Any) -> Steps:
        reference = encoder.open(value)
        items = []
        for number, item in enumerate(sorted(value, key=_order)):
            items.append((yield number, item))
        reference.node = {tag: items}
        reference.is_open = False
        return reference

    return steps


def _order(item: Any) -> tuple[str, str]:
    """What items of sets are sorted by; what cannot be sorted so stays in its order, behind."""
    is_plain = isinstance(item, _SCALARS) or (
        type(item) is tuple and all(isinstance(part, _SCALARS) for part in item)
    )
    return (type(item).__name__, repr(item)) if is_plain else ("~", "")


def _dict(encoder: Encoder, value: Any) -> Steps:
    reference = encoder.open(value)
    reference.node = yield from _items(encoder, value)
    reference.is_open = False
    return reference


def _items(encoder: Encoder, value: dict[Any, Any]) -> Steps:
    """The node of the items of a dict."""
    if all(type(key) is str and key[:1] != "$" for key in value):
        made = {}
        trail, begin = encoder.trail, encoder.begin
        for key, item in value.items():
            trail.append(key)
            node = begin(item)
            made[key] = (yield node) if type(node) is GeneratorType else node
            trail.pop()
        return made
    pairs = []
    for key, item in value.items():
        key_node = yield key, key
        pairs.append([key_node, (yield key, item)])
    return {"$dict": pairs}


def _ordered(encoder: Encoder, value: Any) -> Steps:
    reference = encoder.open(value)
    node = {"$ordered": (yield from _items(encoder, value))}
    if vars(value):
        node["attributes"] = yield from attributes_node(encoder, value, vars(value))
    reference.node = node
    reference.is_open = False
    return reference


def _counter(encoder: Encoder, value: Any) -> Steps:
    reference = encoder.open(value)
    reference.node = {"$counter": (yield from _items(encoder, value))}
    reference.is_open = False
    return reference


def _defaultdict(encoder: Encoder, value: Any) -> Steps:
    factory = value.default_factory
    name = None if factory is None else getattr(factory, "__name__", "")
    if name is not None and FACTORIES.get(name) is not factory:
        hint = f"give it one of {', '.join(FACTORIES)} for its factory, or make a dict of it"
        refuse(encoder.trail, f"a defaultdict of {factory!r} cannot be kept", hint)
    reference = encoder.open(value)
    node = {"$defaultdict": (yield from _items(encoder, value)), "factory": name}
    reference.node = node
    reference.is_open = False
    return reference


def _named_tuple(encoder: Encoder, value: Any) -> Steps:
    reference = encoder.open(value)
    kind = type(value)
    fields = []
    for field, item in zip(kind._fields, value, strict=True):
        fields.append([field, (yield Attribute(field), item)])
    reference.node = {"$namedtuple": name_of(kind) or kind.__name__, "fields": fields}
    reference.is_open = False
    return reference


def _octets(tag: str) -> Callable[[Encoder, Any], Any]:
    def node(encoder: Encoder, value: Any) -> Any:
        if len(value) <= LARGE_BYTES:
            made: dict[str, Any] = {tag: base64.b64encode(value).decode()}
            return encoder.keep(value, made) if tag == "$bytearray" else made
        held: Any = value
        if tag == "$bytes":
            address = ctypes.cast(ctypes.c_char_p(value), ctypes.c_void_p).value or 0
        else:
            held = (ctypes.c_char * len(value)).from_buffer(value)
            address = ctypes.addressof(held)
        size = len(value)
        spec = TensorSpec(dtype="uint8", shape=(size,), data_ptr=address, data_len=size)
        name = encoder.name()
        encoder.items.append((name, spec, held))
        return encoder.keep(value, {tag: {"$tensor": name}})

    return node


def _complex(_encoder: Encoder, value: complex) -> dict[str, Any]:
    return {"$complex": [float_to_node(value.real), float_to_node(value.imag)]}


def _slice(_encoder: Encoder, value: slice) -> Steps:
    parts = []
    for name in ("start", "stop", "step"):
        parts.append((yield Attribute(name), getattr(value, name)))
    return {"$slice": parts}


def _range(encoder: Encoder, value: range) -> dict[str, Any]:
    numbers = (value.start, value.stop, value.step)
    return {"$range": [int_to_node(number, encoder.trail) for number in numbers]}


def _by_name(tag: str) -> Callable[[Encoder, Any], dict[str, Any]]:
    return lambda _encoder, value: {tag: str(value).removeprefix("torch.")}


def _opaque(_encoder: Encoder, value: Opaque) -> Steps:
    node: dict[str, Any] = {"$opaque": value.name}
    for name in ("callee", "args", "kwargs", "state", "items", "pairs"):
        part = getattr(value, name)
        part = [list(pair) for pair in part] if name == "pairs" and part is not None else part
        if part is not None:
            node[name] = yield Attribute(name), part
    return node


_TUPLE = _sequence("$tuple")

# The first that fits a value says what could be given for it.
_HINTS: list[tuple[Any, str]] = [
    (torch.nn.Module, "give its `state_dict()`"),
    (torch.Tensor, "let trees hold its class by `tensorhold.serialization.register`"),
    (torch.Generator, "give its `get_state()`"),
    (torch.UntypedStorage, "give a tensor of it"),
    (torch.TypedStorage, "give a tensor of it"),
    (enum.Enum, "give its `value` or `name`"),
    (str, "make a `str` of it"),
    (int, "make an `int` of it"),
    (float, "make a `float` of it"),
    (dict, "make a `dict` of it"),
    (list, "make a `list` of it"),
    (tuple, "make a `tuple` of it"),
]

_HANDLERS: dict[type, Handler] = {
    torch.Tensor: tensor_node,
    torch.nn.Parameter: tensor_node,
    dict: _dict,
    list: _sequence(None),
    tuple: _tuple,
    set: _set("$set"),
    frozenset: _set("$frozenset"),
    OrderedDict: _ordered,
    Counter: _counter,
    defaultdict: _defaultdict,
    complex: _complex,
    bytes: _octets("$bytes"),
    bytearray: _octets("$bytearray"),
    slice: _slice,
    range: _range,
    types.EllipsisType: lambda _encoder, _value: {"$ellipsis": True},
    torch.Size: lambda _encoder, value: {"$size": list(value)},
    torch.dtype: _by_name("$dtype"),
    torch.device: _by_name("$device"),
    torch.layout: _by_name("$layout"),
    torch.memory_format: _by_name("$memory_format"),
    torch.qscheme: _by_name("$qscheme"),
    Opaque: _opaque,
}
