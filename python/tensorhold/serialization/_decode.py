"""Nodes to values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from types import GeneratorType
from typing import Any, Literal

import torch

from tensorhold.serialization import _makers, _rebuild
from tensorhold.serialization._json import from_text
from tensorhold.serialization._stored import Want
from tensorhold.serialization._walk import Steps, Walk
from tensorhold.serialization._words import DTYPES, MAX_DEPTH, VERSION, wrong

__all__ = ["Decoder", "Document"]

_MISSING: Any = object()
_OPEN: Any = object()
# In all, for keys and items of sets; the text is the limit for those that are no references.
_MOST_STEPS = 100_000_000


class Document:
    """The JSON of a tree, and what it wants of each tensor."""

    def __init__(self, text: str) -> None:
        self.wants: dict[str, Want] = {}
        try:
            found = from_text(text, self._made)
        except ValueError as error:
            wrong((), f"it is not the JSON that a tree is: {error}")
        members = found.keys() if type(found) is dict else set()
        if type(found) is not dict or not {"version", "root"} <= members:
            wrong((), "it has no version and root")
        if type(found["version"]) is not int or found["version"] != VERSION:
            version = json.dumps(found["version"])[:40]
            hint = "a newer tensorhold may read it"
            wrong((), f"it is of version {version}, and only {VERSION} is known", hint)
        shared = found.get("shared", [])
        if type(shared) is not list or members - {"version", "root", "shared"}:
            wrong((), "it has members that no tree has")
        self.root = found["root"]
        self.shared = shared

    def _made(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """An object, and what it wants."""
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a member stands twice in an object")
        tag, name = pairs[0] if pairs else ("", None)
        if tag == "$tensor" and type(name) is str:
            want = self.wants.setdefault(name, Want())
            want.n_tensors += 1
            if want.location is None:
                location = made.get("device", "cpu")
                want.location = location if type(location) is str else "cpu"
            dtype = made.get("dtype")
            if type(dtype) is str and dtype in DTYPES:
                want.width_bytes = max(want.width_bytes, DTYPES[dtype].itemsize)
        elif tag == "$ndarray" and type(name) is str:
            self.wants.setdefault(name, Want()).n_arrays += 1
        elif tag in ("$bytes", "$bytearray") and type(name) is dict:
            self._is_for_bytes(name)
        return made

    def _is_for_bytes(self, node: dict[str, Any]) -> None:
        name = node.get("$tensor")
        want = self.wants.get(name) if type(name) is str else None
        if want is not None:
            want.n_tensors -= 1
            want.n_arrays += 1
            want.location = want.location if want.n_tensors else None


class Decoder(Walk):
    """Makes the values of nodes, given the tensors of the file by name."""

    def __init__(
        self,
        document: Document,
        tensors: Mapping[str, torch.Tensor],
        opaque: Literal["refuse", "keep"] = "refuse",
    ) -> None:
        super().__init__()
        self.keeps_opaque = opaque == "keep"
        self._wants = document.wants
        self._tensors = tensors
        self._nodes = document.shared
        self._shared = [_MISSING] * len(document.shared)
        self._meshes: dict[str, Any] = {}
        # Of tuples and slices that hold such, in how many steps they are hashed.
        self._weights: dict[int, int] = {}
        self._room = _MOST_STEPS

    def begin(self, node: Any) -> Any:
        kind = type(node)
        if kind is str or kind is bool or node is None:
            return node
        if kind is int:
            if not -(2**63) < node < 2**63:
                wrong(self.trail, f"the integer {node} stands outside of a `$int`")
            return node
        if kind is float:
            return node if math.isfinite(node) else wrong(self.trail, "a number is too large")
        if kind is list:
            return _makers.items_of(self, node)
        tag = next(iter(node), "")
        if tag[:1] != "$":
            return _makers.plain_dict(self, node)
        known = _makers.TAGS.get(tag)
        if known is None:
            wrong(self.trail, f"the tag `{tag}` is unknown", "a newer tensorhold may know it")
        handler, required, allowed = known
        members = node.keys()
        if len(node) != 1 or len(required) != 1:
            if not members <= allowed:
                also = sorted(members - allowed)
                wrong(self.trail, f"`{tag}` has the members {also}, which it cannot have")
            if not required <= members:
                wrong(self.trail, f"`{tag}` has no {sorted(required - members)}")
        return handler(self, node)

    def too_deep(self) -> None:
        wrong(self.trail[:3], f"there are more than {MAX_DEPTH} containers, one in another")

    def shared(self, number: Any) -> Any:
        """The value of an item of `shared`."""
        if type(number) is not int or not 0 <= number < len(self._shared):
            wrong(self.trail, f"there is no shared value {number!r}")
        known = self._shared[number]
        if known is _OPEN:
            wrong(self.trail, "a value contains itself")
        if known is not _MISSING:
            return known
        self._shared[number] = _OPEN
        made = self.begin(self._nodes[number])
        if type(made) is GeneratorType:
            return self._remember(number, made)
        self._shared[number] = made
        return made

    def _remember(self, number: int, steps: Steps) -> Steps:
        made = yield from steps
        self._shared[number] = made
        return made

    def weighed(self, made: Any, items: Iterable[Any]) -> Any:
        """Remembers how many steps it takes to hash a value, which are those of all its items.

        A few references, one in another, can stand for more items than anybody can count.
        """
        weights = self._weights
        weights[id(made)] = 1 + sum(weights.get(id(item), 1) for item in items)
        return made

    def check_key(self, value: Any) -> None:
        """Raises unless a value can be a key, and all keys so far can be hashed in time."""
        self._room -= self._weights.get(id(value), 1)
        if self._room < 0:
            wrong(self.trail, "keys and items of sets have more parts than can be looked at")
        try:
            hash(value)
        except (TypeError, RecursionError):
            wrong(self.trail, f"a {type(value).__name__} can neither be a key nor in a set")

    def stored(self, name: Any) -> tuple[torch.Tensor, Want]:
        """The tensor of the file that has a name."""
        if type(name) is not str or name not in self._tensors:
            wrong(self.trail, f"the file has no tensor {name!r}")
        return self._tensors[name], self._wants[name]

    def mesh(self, node: Any) -> Any:
        """The mesh that a node says, one for all that say the same."""
        key = json.dumps(node, sort_keys=True)
        if key not in self._meshes:
            self._meshes[key] = _rebuild.make_mesh(node, self.trail)
        return self._meshes[key]
