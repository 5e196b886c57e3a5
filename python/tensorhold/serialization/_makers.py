"""Values of everything that nodes can say, by their tags."""

from __future__ import annotations

import base64
import binascii
import ctypes
import keyword
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import GeneratorType
from typing import TYPE_CHECKING, Any

import torch

from tensorhold.serialization import _numpy, _rebuild, _stored
from tensorhold.serialization._register import class_of, is_named_tuple
from tensorhold.serialization._words import (
    DTYPES,
    FACTORIES,
    LARGE_BYTES,
    LAYOUTS,
    MAX_FIELDS,
    MEMORY_FORMATS,
    QSCHEMES,
    Attribute,
    Opaque,
    float_from_node,
    int_from_text,
    wrong,
)

if TYPE_CHECKING:
    from tensorhold.serialization._decode import Decoder
    from tensorhold.serialization._walk import Steps

__all__ = ["TAGS", "items_of", "plain_dict"]


def items_of(decoder: Decoder, node: list[Any]) -> Any:
    """The list of a list of nodes, or what makes it."""
    kinds = set(map(type, node))
    if kinds <= {str, bool, type(None)}:
        return node
    if kinds == {int} and min(node) > -(2**63) and max(node) < 2**63:
        return node
    return _items(decoder, node)


def _items(decoder: Decoder, nodes: list[Any]) -> Steps:
    made = []
    trail, begin = decoder.trail, decoder.begin
    for number, node in enumerate(nodes):
        trail.append(number)
        value = begin(node)
        made.append((yield value) if type(value) is GeneratorType else value)
        trail.pop()
    return made


def plain_dict(decoder: Decoder, node: dict[str, Any]) -> Steps:
    """The dict of an object without a tag."""
    made = {}
    trail, begin = decoder.trail, decoder.begin
    for key, item in node.items():
        if key[:1] == "$":
            wrong(trail, f"`{key}` stands in an object, and is not its first member")
        trail.append(key)
        value = begin(item)
        made[key] = (yield value) if type(value) is GeneratorType else value
        trail.pop()
    return made


def _dict(decoder: Decoder, node: Any) -> Steps:
    """The dict of a DICT node, which stands in another one."""
    if type(node) is not dict:
        wrong(decoder.trail, "this is no dict")
    if next(iter(node), "")[:1] != "$":
        return (yield from plain_dict(decoder, node))
    if node.keys() != {"$dict"}:
        wrong(decoder.trail, "this is no dict")
    return (yield from _pairs(decoder, node))


def _pairs(decoder: Decoder, node: dict[str, Any]) -> Steps:
    made: dict[Any, Any] = {}
    pairs = _array(decoder, node["$dict"])
    for pair in pairs:
        if type(pair) is not list or len(pair) != 2:
            wrong(decoder.trail, "an item of a dict is no pair")
        key = yield Attribute("<key>"), pair[0]
        # Before it is a step of the path, which would be printed.
        decoder.check_key(key)
        made[key] = yield key, pair[1]
    if len(made) != len(pairs):
        wrong(decoder.trail, "two keys of a dict are equal")
    return made


def _array(decoder: Decoder, found: Any) -> list[Any]:
    if type(found) is not list:
        wrong(decoder.trail, "this is no list of nodes")
    return found


def _tuple(decoder: Decoder, node: dict[str, Any]) -> Any:
    items = items_of(decoder, _array(decoder, node["$tuple"]))
    is_plain = type(items) is not GeneratorType
    return decoder.weighed(tuple(items), items) if is_plain else _made(decoder, items)


def _made(decoder: Decoder, steps: Steps) -> Steps:
    items = yield from steps
    return decoder.weighed(tuple(items), items)


def _set(tag: str, kind: Callable[[Any], Any]) -> Callable[[Decoder, dict[str, Any]], Steps]:
    def steps(decoder: Decoder, node: dict[str, Any]) -> Steps:
        items = yield from _items(decoder, _array(decoder, node[tag]))
        for item in items:
            decoder.check_key(item)
        made = kind(items)
        if len(made) != len(items):
            wrong(decoder.trail, "two items of a set are equal")
        return made

    return steps


def _ordered(decoder: Decoder, node: dict[str, Any]) -> Steps:
    made = OrderedDict((yield from _dict(decoder, node["$ordered"])))
    if "attributes" in node:
        yield from attributes(decoder, node["attributes"], made)
    return made


def attributes(decoder: Decoder, node: Any, owner: Any) -> Steps:
    """Gives a value what its `__dict__` is to have."""
    found = yield from _dict(decoder, node)
    for name in found:
        if type(name) is not str or hasattr(type(owner), name):
            wrong(decoder.trail, f"an attribute cannot be called {name!r}")
    vars(owner).update(found)


def _counter(decoder: Decoder, node: dict[str, Any]) -> Steps:
    made: Counter[Any] = Counter()
    # `Counter(...)` would add to what is there.
    dict.update(made, (yield from _dict(decoder, node["$counter"])))
    return made


def _defaultdict(decoder: Decoder, node: dict[str, Any]) -> Steps:
    name = node["factory"]
    if name is not None and (type(name) is not str or name not in FACTORIES):
        wrong(decoder.trail, f"{name!r} is no factory of a defaultdict that a tree can have")
    factory = None if name is None else FACTORIES[name]
    return defaultdict(factory, (yield from _dict(decoder, node["$defaultdict"])))


def _named_tuple(decoder: Decoder, node: dict[str, Any]) -> Steps:
    name, fields, values = node["$namedtuple"], [], []
    for pair in _array(decoder, node["fields"]):
        if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str:
            wrong(decoder.trail, "a field of a named tuple is no pair of a name and a value")
        fields.append(pair[0])
        values.append((yield Attribute(pair[0]), pair[1]))
    known = class_of(name) if type(name) is str else None
    if known is not None and is_named_tuple(known):
        if known._fields != tuple(fields):
            wrong(decoder.trail, f"the fields of `{name}` are {known._fields}, not {fields}")
        return decoder.weighed(known(*values), values)
    words = [name.rpartition(".")[2] if type(name) is str else "", *fields]
    is_right = all(word.isidentifier() and not keyword.iskeyword(word) for word in words)
    if not is_right or any(field[0] == "_" for field in fields) or len(fields) > MAX_FIELDS:
        wrong(decoder.trail, f"{words} are no names of a named tuple and its fields")
    if len(set(fields)) != len(fields):
        wrong(decoder.trail, "two fields of a named tuple have one name")
    return decoder.weighed(_class_of(words[0], tuple(fields))(*values), values)


@lru_cache(maxsize=256)
def _class_of(name: str, fields: tuple[str, ...]) -> Any:
    return namedtuple(name, fields)


def _octets(tag: str, kind: Callable[[Any], Any]) -> Callable[[Decoder, dict[str, Any]], Any]:
    def value(decoder: Decoder, node: dict[str, Any]) -> Any:
        found = node[tag]
        if type(found) is str and len(found) <= 2 * LARGE_BYTES:
            try:
                return kind(base64.b64decode(found, validate=True))
            except (binascii.Error, ValueError):
                wrong(decoder.trail, "bytes are no base64")
        if type(found) is not dict or found.keys() != {"$tensor"}:
            wrong(decoder.trail, "these are no bytes")
        stored, _ = decoder.stored(found["$tensor"])
        if stored.dtype != torch.uint8 or stored.dim() != 1:
            wrong(decoder.trail, "bytes lie in a tensor of one dimension and type `U8`")
        stored = stored.cpu().contiguous()
        return kind(ctypes.string_at(stored.data_ptr(), len(stored)))

    return value


def _int(decoder: Decoder, node: dict[str, Any]) -> int:
    return int_from_text(node["$int"], decoder.trail)


def _complex(decoder: Decoder, node: dict[str, Any]) -> complex:
    parts = _array(decoder, node["$complex"])
    if len(parts) != 2:
        wrong(decoder.trail, "a complex number has two parts")
    return complex(*(float_from_node(part, decoder.trail) for part in parts))


def _slice(decoder: Decoder, node: dict[str, Any]) -> Steps:
    parts = yield from _items(decoder, _array(decoder, node["$slice"]))
    if len(parts) != 3:
        wrong(decoder.trail, "a slice has three parts")
    return decoder.weighed(slice(*parts), parts)


def _range(decoder: Decoder, node: dict[str, Any]) -> Steps:
    numbers = yield from _items(decoder, _array(decoder, node["$range"]))
    if len(numbers) != 3 or any(type(n) is not int for n in numbers) or numbers[2] == 0:
        wrong(decoder.trail, "a range is three integers, and its step is not 0")
    return range(*numbers)


def _ellipsis(decoder: Decoder, node: dict[str, Any]) -> Any:
    return ... if node["$ellipsis"] is True else wrong(decoder.trail, "`$ellipsis` is not true")


def _size(decoder: Decoder, node: dict[str, Any]) -> torch.Size:
    found = _array(decoder, node["$size"])
    if any(type(n) is not int or not -(2**63) <= n < 2**63 for n in found):
        wrong(decoder.trail, "a size is no list of integers")
    return torch.Size(found)


def _named(tag: str, known: Mapping[str, Any]) -> Callable[[Decoder, dict[str, Any]], Any]:
    def value(decoder: Decoder, node: dict[str, Any]) -> Any:
        name = node[tag]
        if type(name) is not str or name not in known:
            wrong(decoder.trail, f"this torch, {torch.__version__}, has no {tag[1:]} {name!r}")
        return known[name]

    return value


def _device(decoder: Decoder, node: dict[str, Any]) -> torch.device:
    name = node["$device"]
    try:
        return torch.device(name if type(name) is str else "")
    except RuntimeError:
        wrong(decoder.trail, f"{name!r} is no device")


def _tensor(decoder: Decoder, node: dict[str, Any]) -> Any:
    stored, want = decoder.stored(node["$tensor"])
    made = _stored.stored_tensor(stored, want, node, decoder.trail)
    if len(node) == 1:
        return made
    made = _stored.finished(made, node, decoder.trail)
    return _with_attributes(decoder, node, made) if "attributes" in node else made


def _meta(decoder: Decoder, node: dict[str, Any]) -> Any:
    made = _stored.finished(_stored.meta(node, decoder.trail), node, decoder.trail)
    return _with_attributes(decoder, node, made) if "attributes" in node else made


def _with_attributes(decoder: Decoder, node: dict[str, Any], made: torch.Tensor) -> Steps:
    yield from attributes(decoder, node["attributes"], made)
    return made


def _ndarray(decoder: Decoder, node: dict[str, Any]) -> Any:
    stored, _ = decoder.stored(node["$ndarray"])
    return _numpy.array(stored, node, decoder.trail)


def _opaque(decoder: Decoder, node: dict[str, Any]) -> Any:
    name = node["$opaque"]
    if type(name) is not str:
        wrong(decoder.trail, "`$opaque` is no name")
    if not decoder.keeps_opaque:
        hint = 'give `opaque="keep"` for an inert record of it'
        wrong(decoder.trail, f"the pickle had a `{name}` here, which nobody knows", hint)
    return _record(decoder, node)


def _record(decoder: Decoder, node: dict[str, Any]) -> Steps:
    parts = {}
    for member in ("callee", "args", "kwargs", "state", "items", "pairs"):
        if member in node:
            parts[member] = yield Attribute(member), node[member]
    return Opaque(node["$opaque"], parts.pop("args", None), **parts)


def _tag(handler: Any, tag: str, required: str = "", optional: str = "") -> tuple[str, Any]:
    needed = frozenset((tag, *required.split()))
    return tag, (handler, needed, needed | set(optional.split()))


_FLAGS = "requires_grad parameter"
_TENSOR = f"dtype shape stride offset layout_stride buffer conj neg device attributes {_FLAGS}"
_PARTS = "indices values coalesced compressed plain shape"
_QUANTIZED = "shape stride scale zero_point scales zero_points axis"
_NESTED = "sizes strides offsets lengths ragged_dim"

TAGS: dict[str, Any] = dict(
    (
        _tag(lambda decoder, node: decoder.shared(node["$shared"]), "$shared"),
        _tag(_int, "$int"),
        _tag(lambda decoder, node: float_from_node(node, decoder.trail), "$float"),
        _tag(_complex, "$complex"),
        _tag(_pairs, "$dict"),
        _tag(_tuple, "$tuple"),
        _tag(_set("$set", set), "$set"),
        _tag(_set("$frozenset", frozenset), "$frozenset"),
        _tag(_ordered, "$ordered", optional="attributes"),
        _tag(_counter, "$counter"),
        _tag(_defaultdict, "$defaultdict", "factory"),
        _tag(_named_tuple, "$namedtuple", "fields"),
        _tag(_octets("$bytes", bytes), "$bytes"),
        _tag(_octets("$bytearray", bytearray), "$bytearray"),
        _tag(_slice, "$slice"),
        _tag(_range, "$range"),
        _tag(_ellipsis, "$ellipsis"),
        _tag(_size, "$size"),
        _tag(_named("$dtype", DTYPES), "$dtype"),
        _tag(_device, "$device"),
        _tag(_named("$layout", LAYOUTS), "$layout"),
        _tag(_named("$memory_format", MEMORY_FORMATS), "$memory_format"),
        _tag(_named("$qscheme", QSCHEMES), "$qscheme"),
        _tag(lambda decoder, node: _numpy.scalar(node, decoder.trail), "$scalar", "value"),
        _tag(lambda decoder, node: _numpy.dtype(node["$npdtype"], decoder.trail), "$npdtype"),
        _tag(_tensor, "$tensor", optional=_TENSOR),
        _tag(_meta, "$meta", "shape", f"stride buffer attributes {_FLAGS}"),
        _tag(_ndarray, "$ndarray", optional="dtype shape fortran"),
        _tag(_rebuild.sparse, "$sparse", "values shape", f"{_PARTS} {_FLAGS}"),
        _tag(_rebuild.quantized, "$quantized", "ints dtype", f"{_QUANTIZED} {_FLAGS}"),
        _tag(_rebuild.nested, "$nested", "values offsets", f"{_NESTED} {_FLAGS}"),
        _tag(_rebuild.dtensor, "$dtensor", "mesh placements shape stride", _FLAGS),
        _tag(_rebuild.subclass, "$subclass", "parts context shape stride", _FLAGS),
        _tag(_opaque, "$opaque", optional="callee args kwargs state items pairs"),
    )
)
