"""Tensors of the caller's that a load fills, in place or by copies.

The engine fills dense memory in place. Whatever else can be written to, such as a view of some
columns, is given a copy once its tensor is complete, and the memory of that goes back at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

from tensorhold import _native
from tensorhold._errors import ArgumentError

__all__ = ["Given", "Place", "View", "given", "span"]

# A description, what keeps the memory alive, the front end, what copies a tensor of it there,
# whether that is to be done, and the device, if it is not the host.
Given = tuple[_native.TensorSpec, object, str, Callable[[Any], object], bool, str | None]

# Whether two views that lie between each other share an element can be hard to say. After so many
# steps nobody knows, and they are let through: each is filled by itself.
_MOST_STEPS = 100_000


class Place(NamedTuple):
    """Where the elements of a view lie: strides in bytes, from the address of the first on."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int


class View(NamedTuple):
    """A tensor that can be written to: by the engine where it is dense, by `fill` in any case.

    `device` is the one that the engine copies to, `None` where it writes to the host's memory.
    """

    spec: _native.TensorSpec
    place: Place
    is_dense: bool
    fill: Callable[[Any], object]
    device: str | None = None


@dataclass(slots=True)
class _Target:
    name: str
    tensor: object
    front_end: str
    place: Place
    spec: _native.TensorSpec
    fill: Callable[[Any], object]
    is_copied: bool
    device: str | None


def given(into: Mapping[str, Any], front_end_of: Callable[[Any], str | None]) -> dict[str, Given]:
    """What the engine needs to know of the tensors to fill.

    Raises:
        ValueError: One of them cannot be filled, or two share memory.
    """
    targets = [_target(name, tensor, front_end_of(tensor)) for name, tensor in into.items()]
    for one, other in _neighbours(targets):
        if one.device != other.device:
            # Addresses of two devices may be the same.
            continue
        # What lies between elements of a view is filled as the view is, one after the other.
        if one.is_copied or other.is_copied:
            _refuse_shared(one, other)
            one.is_copied = other.is_copied = True
    return {
        target.name: (
            target.spec,
            target.tensor,
            target.front_end,
            target.fill,
            target.is_copied,
            target.device,
        )
        for target in targets
    }


def span(place: Place) -> tuple[int, int]:
    """The addresses of the first byte of a view, and behind its last."""
    if 0 in place.shape:
        return place.address, place.address
    reach = [(size - 1) * stride for size, stride in zip(place.shape, place.strides, strict=True)]
    first = place.address + sum(step for step in reach if step < 0)
    return first, place.address + sum(step for step in reach if step > 0) + place.itemsize


def _target(name: str, tensor: Any, front_end: str | None) -> _Target:
    module = None if front_end is None else import_module(f"tensorhold.{front_end}")
    describe = getattr(module, "_describe_writable", None)
    if front_end is None or describe is None:
        raise _refused(name, f"is {type(tensor)}, which cannot be written to")
    view: View | None = describe(name, tensor)
    if view is None:
        raise _refused(name, "is no memory that can be written to")
    if _meets_itself(view.place):
        raise _refused(
            name,
            "has more than one element in a single place of memory",
            "give a tensor of which each element has its own, such as a `clone` of it",
        )
    return _Target(
        name,
        tensor,
        front_end,
        view.place,
        view.spec,
        view.fill,
        is_copied=not view.is_dense,
        device=view.device,
    )


def _meets_itself(place: Place) -> bool:
    """Whether two elements may lie in one place: no dimension steps over those that it is over."""
    if 0 in place.shape:
        return False
    reach = place.itemsize
    steps = zip(place.strides, place.shape, strict=True)
    for stride, size in sorted((abs(stride), size) for stride, size in steps if size > 1):
        if stride < reach:
            return True
        reach += (size - 1) * stride
    return False


def _neighbours(targets: list[_Target]) -> Iterator[tuple[_Target, _Target]]:
    """The pairs of which one begins before the other ends."""
    spans = [(span(target.place), target) for target in targets]
    spans = [(reach, target) for reach, target in spans if reach[0] < reach[1]]
    spans.sort(key=lambda item: item[0])
    is_any_copied = any(target.is_copied for target in targets)
    open_spans: list[tuple[int, _Target]] = []
    for (first, end), target in spans if is_any_copied else []:
        open_spans = [item for item in open_spans if item[0] > first]
        yield from ((other, target) for _, other in open_spans)
        open_spans.append((end, target))


def _refuse_shared(one: _Target, other: _Target) -> None:
    try:
        shares_memory: Any = import_module("numpy").shares_memory
        is_shared = shares_memory(_bytes(one), _bytes(other), max_work=_MOST_STEPS)
    except (ImportError, RuntimeError):
        # There is no NumPy beside PyTorch, or it took too many steps.
        is_shared = False
    if is_shared:
        raise ArgumentError(
            f"two of the tensors to fill share memory: `{one.name}` and `{other.name}`",
            kind="InvalidArgument",
            tensor=other.name,
        )


def _bytes(target: _Target) -> Any:
    """The bytes of a view, to ask NumPy about them."""
    place = target.place
    interface = {
        "version": 3,
        "typestr": "|u1",
        "data": (place.address, True),
        "shape": (*place.shape, place.itemsize),
        "strides": (*place.strides, 1),
    }
    return import_module("numpy").asarray(type("_Bytes", (), {"__array_interface__": interface})())


def _refused(name: str, what: str, hint: str | None = None) -> ArgumentError:
    message = f"`{name}` of `into` {what}"
    if hint is not None:
        message += f"\nhint: {hint}"
    return ArgumentError(message, kind="InvalidArgument", tensor=name, hint=hint)
