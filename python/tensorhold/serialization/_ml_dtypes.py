"""Arrays of the types that the package `ml_dtypes` brings to NumPy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch

from tensorhold._errors import DtypeError
from tensorhold.serialization._words import wrong

__all__ = ["NAMES", "array", "stored_name"]

# Those that the format has, by the names of both packages.
_OF_FORMAT = frozenset((
    "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
    "float8_e8m0fnu",
))  # fmt: skip
# Those that have a byte for each element, and lie in one.
_IN_BYTES = frozenset((
    "int1", "uint1", "int2", "uint2", "int4", "uint4", "float4_e2m1fn", "float6_e2m3fn",
    "float6_e3m2fn", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz",
))  # fmt: skip

NAMES = _OF_FORMAT | _IN_BYTES


def stored_name(kind: Any) -> str | None:
    """The type in which a file holds elements of a dtype; None if it is none of `ml_dtypes`."""
    found = sys.modules.get("ml_dtypes")
    if found is None or kind.name not in NAMES or kind.type is not getattr(found, kind.name, None):
        return None
    name: str = kind.name
    return name if name in _OF_FORMAT else "uint8"


def array(stored: torch.Tensor, name: str, trail: Sequence[Any]) -> Any:
    """The array of a stored tensor, each of whose elements is one of the type that is called so."""
    held = name if name in _OF_FORMAT else "uint8"
    if stored.dtype is not getattr(torch, held):
        found = str(stored.dtype).removeprefix("torch.")
        wrong(trail, f"an array of {found} cannot be taken for one of {name}")
    try:
        kind = getattr(import_module("ml_dtypes"), name)
    except (ImportError, AttributeError):
        hint = "install `ml_dtypes`, which brings the type to NumPy"
        message = f"NumPy has no dtype `{name}` on its own\nhint: {hint}"
        raise DtypeError(message, kind="UnsupportedDtype", hint=hint) from None
    same = {1: torch.uint8, 2: torch.int16}[stored.element_size()]
    return stored.detach().cpu().view(same).numpy().view(kind)
