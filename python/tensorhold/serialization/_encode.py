"""Values to nodes."""

from __future__ import annotations

import math
import re
from typing import Any

from tensorhold.serialization._json import Reference, to_text
from tensorhold.serialization._kinds import handler_of
from tensorhold.serialization._storages import Item, Use, plan
from tensorhold.serialization._walk import Walk
from tensorhold.serialization._words import (
    KEY,
    MAX_DEPTH,
    VERSION,
    float_to_node,
    int_to_node,
    refuse,
)

__all__ = ["Encoder", "encode"]

_UNCLEAN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SCALARS = (str, int, float, bool, type(None), bytes, complex)


def encode(value: Any) -> tuple[list[Item], dict[str, str]]:
    """The tensors and texts of the file that holds a value.

    Raises:
        ValueError: A part of it cannot be kept; the message says where it is, and why.
    """
    encoder = Encoder()
    node = encoder.run(value)
    metadata = {"format": "pt", KEY: ""}
    items = encoder.items + plan(encoder.uses, metadata)
    root, shared = to_text(node)
    also = f',"shared":[{",".join(shared)}]' if shared else ""
    metadata[KEY] = f'{{"version":{VERSION},"root":{root}{also}}}'
    return items, metadata


class Encoder(Walk):
    """Makes nodes of values, and collects the memory of their tensors."""

    def __init__(self) -> None:
        super().__init__()
        # What is stored that is no tensor of PyTorch's.
        self.items: list[Item] = []
        # By the storage that they lie in, all others.
        self.uses: dict[int, list[Use]] = {}
        self._references: dict[int, Reference] = {}
        self._names: set[str] = {"__metadata__"}
        self._numbers: dict[str, int] = {}

    def begin(self, value: Any) -> Any:
        kind = type(value)
        if kind is str or kind is bool or value is None:
            return value
        if kind is int:
            return int_to_node(value, self.trail)
        if kind is float:
            return value if math.isfinite(value) else float_to_node(value)
        known = self._references.get(id(value))
        if known is not None:
            if known.is_open:
                refuse(self.trail, f"a {kind.__name__} that contains itself cannot be kept")
            known.count += 1
            return known
        return handler_of(value, self.trail)(self, value)

    def too_deep(self) -> None:
        refuse(self.trail[:3], f"more than {MAX_DEPTH} containers, one in another, cannot be kept")

    def open(self, value: object) -> Reference:
        """Remembers a value, whose node is not complete."""
        reference = Reference(value)
        self._references[id(value)] = reference
        return reference

    def keep(self, value: object, node: Any) -> Reference:
        """Remembers a value and its node."""
        reference = Reference(value, node)
        self._references[id(value)] = reference
        return reference

    def name(self) -> str:
        """The name for what is stored of the value that the walk is at."""
        trail = self.trail
        parts = [step if isinstance(step, str) else _printed(step) for step in trail]
        name = ".".join(part or "_" for part in parts) if parts else "tensor"
        name = _UNCLEAN.sub("_", name)
        if name in self._names:
            number = self._numbers.get(name, 1)
            first = name
            while name in self._names:
                number += 1
                name = f"{first}#{number}"
            self._numbers[first] = number
        self._names.add(name)
        return name


def _printed(step: Any) -> str:
    """A key or number as it stands in a name."""
    if isinstance(step, _SCALARS):
        return repr(step)
    is_plain = type(step) is tuple and all(isinstance(item, _SCALARS) for item in step)
    return repr(step) if is_plain else type(step).__name__
