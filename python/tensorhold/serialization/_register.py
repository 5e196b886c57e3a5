"""The classes that a program says trees may hold."""

from __future__ import annotations

from typing import Any

import torch

from tensorhold._errors import ArgumentError

__all__ = ["class_of", "name_of", "register"]

_names: dict[type, str] = {}
_classes: dict[str, type] = {}


def register(cls: type, name: str | None = None) -> type:
    """Lets trees hold values of a class: a named tuple, or a subclass of `torch.Tensor`.

    A file has the name only. A class is never looked for: what loads must have registered it, too.

    Args:
        cls: A named tuple, or a tensor subclass with `__tensor_flatten__` and
            `__tensor_unflatten__`, whose context is a value that trees can hold.
        name: What it is called in files; the module and name of the class where it is None.

    Returns:
        The class, so that this can decorate it.

    Raises:
        ValueError: The class is of neither kind, or the name is another class's.

    Example:
        >>> from collections import namedtuple
        >>> Point = register(namedtuple("Point", "x y"), "geometry.Point")
    """
    name = f"{cls.__module__}.{cls.__qualname__}" if name is None else name
    if not (is_named_tuple(cls) or is_flattened(cls)):
        raise ArgumentError(
            f"{cls} is neither a named tuple nor a tensor with `__tensor_flatten__` and"
            " `__tensor_unflatten__`",
            kind="InvalidArgument",
        )
    if _classes.get(name, cls) is not cls:
        raise ArgumentError(
            f"the name `{name}` is registered for {_classes[name]}", kind="InvalidArgument"
        )
    _names[cls] = name
    _classes[name] = cls
    return cls


def name_of(cls: type) -> str | None:
    """The name that a class is registered under."""
    return _names.get(cls)


def class_of(name: str) -> Any:
    """The class that is registered under a name; None where there is none."""
    return _classes.get(name)


def is_named_tuple(cls: type) -> bool:
    """Whether a class is a tuple with names for its fields."""
    return issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)


def is_flattened(cls: type) -> bool:
    """Whether a class is a tensor that says what it is made of."""
    return (
        issubclass(cls, torch.Tensor)
        and callable(getattr(cls, "__tensor_flatten__", None))
        and callable(getattr(cls, "__tensor_unflatten__", None))
    )
