"""A walk over a tree without recursion, which knows at each moment where it is."""

from __future__ import annotations

from collections.abc import Generator
from types import GeneratorType
from typing import Any

from tensorhold.serialization._words import MAX_DEPTH

__all__ = ["Steps", "Walk"]

# What goes over the parts of a value: gives a step and a part, and gets what was made of the part.
Steps = Generator[tuple[Any, Any], Any, Any]


class Walk:
    """Makes something of a value by making something of its parts.

    `trail` are the steps from the root to where the walk is.
    """

    def __init__(self) -> None:
        self.trail: list[Any] = []

    def begin(self, value: Any) -> Any:
        """What is made of a value, or `Steps` that go over its parts and end with it."""
        raise NotImplementedError

    def too_deep(self) -> None:
        """Raises, since the value has more levels than a tree may have."""
        raise NotImplementedError

    def run(self, value: Any) -> Any:
        """What is made of a value."""
        trail = self.trail
        stack: list[Steps] = []
        made = self.begin(value)
        while True:
            if type(made) is GeneratorType:
                if len(stack) >= MAX_DEPTH:
                    self.too_deep()
                stack.append(made)
                made = None
            elif stack:
                trail.pop()
            else:
                return made
            try:
                step, part = stack[-1].send(made)
            except StopIteration as end:
                stack.pop()
                made = end.value
                continue
            trail.append(step)
            made = self.begin(part)
