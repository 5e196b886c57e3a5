"""What a file of a distributed checkpoint says beside its tensors, and how its files are called."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tensorhold._errors import HeaderError, InvalidTensorError
from tensorhold.torch import _TYPES

__all__ = [
    "FORMAT",
    "INDEX",
    "OFFSETS",
    "SAVE",
    "SHARDING",
    "VALUES",
    "VERSION",
    "file_name",
    "in_file",
    "in_torch",
    "is_of_a_save",
    "sharding_to_text",
    "values_from_text",
    "values_to_text",
]

# PyTorch's: for each tensor of the file, where in the whole one the piece lies.
SHARDING, VERSION, FORMAT = "DCP_SHARDING_INFO", "DCP_VERSION", "format"
OFFSETS = "saved_offsets"
INDEX = "model.safetensors.index.json"

# Ours, which PyTorch's reader passes over: the shape of the whole tensor, values that are no
# tensors, and a text that all files of one save have in common.
SHAPE = "global_shape"
VALUES, SAVE = "TENSORHOLD_VALUES", "TENSORHOLD_SAVE"

_NAME = r"(shard-\d{5,}-)?model-\d{5,}-of-\d{5,}(-part-\d{5,})?\.safetensors"
# With what a save adds until it is complete; where it has failed, that stays.
_FILE = re.compile(rf"{_NAME}|\.{_NAME}\.[0-9a-f]{{32}}")


def file_name(number: int, n_files: int, rank: int | None, part: int) -> str:
    """The name of a file, as PyTorch gives it; more pieces of a tensor have files of their own."""
    shard = "" if rank is None else f"shard-{rank + 1:05}-"
    more = "" if part == 0 else f"-part-{part:05}"
    return f"{shard}model-{number:05}-of-{n_files:05}{more}.safetensors"


def is_of_a_save(name: str) -> bool:
    """Whether a file has a name that a save gives, or has given before it failed."""
    return _FILE.fullmatch(name) is not None


def values_to_text(values: Mapping[str, Any]) -> str:
    """Values that are no tensors, by name.

    Raises:
        ValueError: One is something else than numbers, texts, None, and lists, tuples and dicts of
            these.
    """
    return json.dumps({name: _encoded(name, value) for name, value in values.items()})


def values_from_text(file: str, text: str) -> dict[str, Any]:
    """What `values_to_text` was given."""
    try:
        return {name: _decoded(value) for name, value in _object(file, VALUES, text).items()}
    except (KeyError, TypeError, RecursionError):
        raise _wrong(file, VALUES, "holds something that is no value") from None


def _encoded(name: str, value: Any) -> Any:
    """Lists as they are, tuples and dicts in objects that say which."""
    if type(value) in (list, tuple):
        items = [_encoded(name, item) for item in value]
        return items if type(value) is list else {"tuple": items}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": {key: _encoded(name, item) for key, item in value.items()}}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise InvalidTensorError(
        f"`{name}` holds a {type(value).__qualname__}, which a file of tensors cannot keep",
        kind="InvalidTensor",
        tensor=name,
        hint="numbers, texts, None, and lists, tuples and dicts of these can be kept",
    )


def _decoded(found: Any) -> Any:
    if isinstance(found, list):
        return [_decoded(item) for item in found]
    if not isinstance(found, dict):
        return found
    if "tuple" in found:
        return tuple(_decoded(list(found["tuple"])))
    return {key: _decoded(item) for key, item in dict(found["dict"]).items()}


def in_file(dtype: Any, dims: Sequence[int]) -> list[int]:
    """Sizes or offsets as the file counts them: PyTorch counts two elements of 4 bits as one."""
    return [*dims[:-1], *(dim * _packed(dtype) for dim in dims[-1:])]


def in_torch(dtype: Any, dims: Sequence[int]) -> list[int]:
    """The same as PyTorch counts them."""
    return [*dims[:-1], *(dim // _packed(dtype) for dim in dims[-1:])]


def _packed(dtype: Any) -> int:
    return 2 if dtype is not None and dtype == _TYPES.get("F4") else 1


def sharding_to_text(pieces: Mapping[str, tuple[Sequence[int], Sequence[int]]]) -> str:
    """Of each tensor of a file where its piece begins, and the shape of the whole."""
    said = {name: {OFFSETS: list(at), SHAPE: list(shape)} for name, (at, shape) in pieces.items()}
    return json.dumps(said)


def _object(file: str, key: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _wrong(file, key, "is no JSON object")
    return found


def _wrong(file: str, key: str, what: str) -> HeaderError:
    return HeaderError(f"{file}: the metadata `{key}` {what}", kind="InvalidMetadata")
