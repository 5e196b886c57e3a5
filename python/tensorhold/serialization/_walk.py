"""A walk over a tree without recursion, which knows at each moment where it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from types import GeneratorType
from typing import Any

from tensorhold.serialization._words import MAX_DEPTH

__all__ = ["Steps", "Walk"]

# What goes over the parts of a value, and ends with what is made of it. For a part it gives either
# a step and the part, or, having taken the step itself, what `begin` has given; and gets what was
# made of the part.
Steps = Generator[Any, Any, Any]


class Walk(ABC):
    """Makes something of a value by making something of its parts.

    `trail` are the steps from the root to where the walk is.
    """

    def __init__(self) -> None:
        self.trail: list[Any] = []

    @abstractmethod
    def begin(self, value: Any) -> Any:
        """What is made of a value, or `Steps` that go over its parts and end with it."""

    @abstractmethod
    def too_deep(self) -> None:
        """Raises, since the value has more levels than a tree may have."""

    def run(self, value: Any) -> Any:
        """What is made of a value."""
        trail = self.trail
        begin = self.begin
        # What is open, and whether a step back is to be taken at its end.
        stack: list[tuple[Steps, bool]] = []
        made, is_step = begin(value), False
        while True:
            if type(made) is GeneratorType:
                if len(stack) >= MAX_DEPTH:
                    self.too_deep()
                stack.append((made, is_step))
                made = None
            elif is_step:
                trail.pop()
            if not stack:
                return made
            try:
                part = stack[-1][0].send(made)
            except StopIteration as end:
                made = end.value
                is_step = stack.pop()[1]
                continue
            if type(part) is GeneratorType:
                made, is_step = part, False
            else:
                trail.append(part[0])
                made, is_step = begin(part[1]), True
