"""What arguments mean: tensors of any framework, names of dtypes, sizes, boundaries."""

from __future__ import annotations

import json
import operator
import re
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tensorhold._errors import ArgumentError, InvalidTensorError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tensorhold import _native

# The top package of a tensor's class, and the front end that knows it.
_FRONT_ENDS = {
    "torch": "torch",
    "numpy": "numpy",
    "jax": "flax",
    "jaxlib": "flax",
    "tensorflow": "tensorflow",
    "mlx": "mlx",
    "paddle": "paddle",
}

_UNITS = {"": 1, "b": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("kmgt", 1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}

# What the writer counts bytes and boundaries with.
_MAX_SHARD_BYTES = 2**64 - 1
_MAX_ALIGN = 2**32 - 1


def to_item(name: str, tensor: Any) -> tuple[str, _native.TensorSpec, object]:
    front_end = front_end_of(tensor)
    if front_end is None:
        raise InvalidTensorError(
            f"`{name}` is no tensor of a framework that is known, but {type(tensor)}",
            kind="InvalidTensor",
            tensor=name,
        )
    spec, hold = import_module(f"tensorhold.{front_end}")._describe(name, tensor)
    return name, spec, hold


def front_end_of(tensor: Any) -> str | None:
    """The name of the front end that knows `tensor`."""
    for cls in type(tensor).__mro__:
        front_end = _FRONT_ENDS.get(cls.__module__.partition(".")[0])
        if front_end is not None:
            return front_end
    return None


def to_dtype_name(dtype: Any) -> str | None:
    """The name of a dtype of any framework, or of ours."""
    if dtype is None or isinstance(dtype, str):
        return dtype
    if isinstance(dtype, type):
        # numpy.float32, jax.numpy.bfloat16
        return dtype.__name__
    name = getattr(dtype, "name", None)
    return name if isinstance(name, str) else str(dtype).rpartition(".")[2]


def to_size_bytes(size: int | str, least: int = 1) -> int:
    """The bytes that `5GB`, `4GiB` or a number stand for."""
    text = size.lower() if isinstance(size, str) else _digits(size)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text)
    unit = None if match is None else _UNITS.get(match[2])
    size_bytes = -1 if match is None or unit is None else int(Decimal(match[1]) * unit)
    if not least <= size_bytes <= _MAX_SHARD_BYTES:
        raise ArgumentError(
            f"`{size}` is no size: give a whole number of bytes from {least} to 2^64 - 1, or one"
            " with a unit such as `5GB` or `4GiB`",
            kind="InvalidArgument",
        )
    return size_bytes


def _digits(number: object) -> str:
    """The decimal digits of a whole number; nothing where it is none."""
    if isinstance(number, bool) or not hasattr(number, "__index__"):
        return ""
    return str(operator.index(number))


def to_boundary(align: int) -> int:
    """`align`, where it is a number that the writer can judge."""
    boundary = operator.index(align)
    if not 0 <= boundary <= _MAX_ALIGN:
        raise ArgumentError(
            f"alignment {boundary} is no power of two from 8 to 2^31", kind="InvalidArgument"
        )
    return boundary


def to_config_text(config: Mapping[str, Any] | str | None) -> str | None:
    """A configuration as the text of a file."""
    return config if config is None or isinstance(config, str) else json.dumps(dict(config))
