"""The JSON of a tree: written and read without recursion, since values may be deep."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from json import decoder, encoder
from typing import Any

from tensorhold.serialization._words import MAX_DEPTH

__all__ = ["Reference", "from_text", "to_text"]

_quote: Callable[[str], str] = encoder.encode_basestring
_scan_string: Callable[[str, int], tuple[str, int]] = vars(decoder)["scanstring"]
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {"null": None, "true": True, "false": False}
_SCALARS = {None: "null", True: "true", False: "false"}
_CLOSING = {"[": "]", "{": "}"}
_END: Any = object()
# No container of a tree takes more than four levels of JSON, and some are above the root.
_MAX_LEVELS = 4 * MAX_DEPTH + 10


class Reference:
    """A node that may be wanted at several places, and what it is the node of."""

    __slots__ = ("count", "is_open", "node", "number", "value")

    def __init__(self, value: object, node: Any = None) -> None:
        self.value = value
        self.node = node
        self.count = 1
        self.is_open = node is None
        self.number = -1


def to_text(root: Any) -> tuple[str, list[str]]:
    """The text of a node, and those of what it refers to."""
    shared: list[Reference] = []
    try:
        return _texts(root, shared, _write_at_once)
    except RecursionError:
        for reference in shared:
            reference.number = -1
        shared.clear()
        return _texts(root, shared, _write)


def _texts(
    root: Any, shared: list[Reference], write: Callable[[Any, list[Reference]], str]
) -> tuple[str, list[str]]:
    text = write(root, shared)
    texts: list[str] = []
    while len(texts) < len(shared):
        texts.append(write(shared[len(texts)].node, shared))
    return text, texts


def _write_at_once(root: Any, shared: list[Reference]) -> str:
    """The text of a node that is no deeper than Python's writer goes."""

    def referred(reference: Reference) -> Any:
        if reference.count == 1:
            return reference.node
        if reference.number < 0:
            reference.number = len(shared)
            shared.append(reference)
        return {"$shared": reference.number}

    text = json.dumps(
        root,
        default=referred,
        ensure_ascii=False,
        check_circular=False,
        separators=(",", ":"),
    )
    # What is none of a string is of ASCII.
    return text if text.isascii() else _SURROGATE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _write(root: Any, shared: list[Reference]) -> str:
    out: list[str] = []
    stack: list[_Level] = []
    _begin(root, shared, out, stack)
    while stack:
        level = stack[-1]
        item = next(level.items, _END)
        if item is _END:
            out.append(level.end)
            stack.pop()
            continue
        out.append(level.separator)
        level.separator = ","
        if level.end == "}":
            key, item = item
            out.append(f"{_string(key)}:")
        _begin(item, shared, out, stack)
    return "".join(out)


class _Level:
    """An array or object that is being written."""

    __slots__ = ("end", "items", "separator")

    def __init__(self, items: Iterator[Any], end: str) -> None:
        self.items = items
        self.end = end
        self.separator = ""


def _begin(node: Any, shared: list[Reference], out: list[str], stack: list[_Level]) -> None:
    """Writes a scalar, or the beginning of what has items."""
    while type(node) is Reference and node.count == 1:
        node = node.node
    kind = type(node)
    if kind is str:
        out.append(_string(node))
    elif kind is dict:
        out.append("{")
        stack.append(_Level(iter(node.items()), "}"))
    elif kind is list:
        out.append("[")
        stack.append(_Level(iter(node), "]"))
    elif kind is Reference:
        if node.number < 0:
            node.number = len(shared)
            shared.append(node)
        out.append(f'{{"$shared":{node.number}}}')
    else:
        out.append(_SCALARS[node] if kind is bool or node is None else repr(node))


def _string(text: str) -> str:
    quoted = _quote(text)
    return quoted if quoted.isascii() else _SURROGATE.sub(_escaped, quoted)


def from_text(text: str, make: Callable[[list[tuple[str, Any]]], Any]) -> Any:
    """What a JSON text says, its objects made by `make` of their members.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=make, parse_constant=_refuse_constant)
    except RecursionError:
        return _read(text, make)


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"`{word}` is no JSON")


def _read(text: str, make: Callable[[list[tuple[str, Any]]], Any]) -> Any:
    """The same, for texts that are deeper than Python's reader goes."""
    # What is open: its items so far, and the key that the next one is for, if it is an object.
    stack: list[tuple[list[Any], str | None]] = []
    at = _skip(text, 0)
    while True:
        opened = text[at : at + 1]
        if opened in ("[", "{") and not text.startswith(_CLOSING[opened], _skip(text, at + 1)):
            at = _skip(text, at + 1)
            key, at = _key(text, at) if opened == "{" else (None, at)
            stack.append(([], key))
            if len(stack) > _MAX_LEVELS:
                raise ValueError(f"there are more than {MAX_DEPTH} containers, one in another")
            continue
        value, at = _scalar(text, at, make)
        while True:
            at = _skip(text, at)
            if not stack:
                if at != len(text):
                    raise ValueError(f"more text follows the value, from character {at} on")
                return value
            items, key = stack.pop()
            items.append(value if key is None else (key, value))
            mark = text[at : at + 1]
            at += 1
            if mark == ",":
                at = _skip(text, at)
                key, at = (None, at) if key is None else _key(text, at)
                stack.append((items, key))
                break
            if mark != ("]" if key is None else "}"):
                raise ValueError(f"character {at - 1} is none of JSON's")
            value = items if key is None else make(items)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _key(text: str, at: int) -> tuple[str, int]:
    if text[at : at + 1] != '"':
        raise ValueError(f"character {at} begins no key")
    key, at = _scan_string(text, at + 1)
    at = _skip(text, at)
    if text[at : at + 1] != ":":
        raise ValueError(f"no value follows the key before character {at}")
    return key, _skip(text, at + 1)


def _scalar(text: str, at: int, make: Callable[[list[tuple[str, Any]]], Any]) -> tuple[Any, int]:
    """A value without items, and where it ends."""
    first = text[at : at + 1]
    if first == '"':
        return _scan_string(text, at + 1)
    if first in ("[", "{") and first:
        return ([] if first == "[" else make([])), _skip(text, at + 1) + 1
    match = _NUMBER.match(text, at)
    if match is not None:
        is_float = match[1] is not None or match[2] is not None
        return (float if is_float else int)(match[0]), match.end()
    for word, value in _WORDS.items():
        if text.startswith(word, at):
            return value, at + len(word)
    raise ValueError(f"character {at} begins no value")
