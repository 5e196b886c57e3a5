"""What a reader must find in an accepted file, by Python's own JSON: a table that no other parser had a hand in."""

import json
import struct
from dataclasses import dataclass
from typing import Any

from corpus.case import LENGTH_BYTES


@dataclass(frozen=True)
class Tensor:
    """One row of the table; offsets count from the start of the data."""

    name: str
    dtype: str
    shape: list[int]
    offsets: tuple[int, int]


@dataclass(frozen=True)
class Table:
    """The tensors in the order of their offsets, and the metadata."""

    tensors: list[Tensor]
    metadata: dict[str, str] | None
    data: bytes


def table_of(content: bytes) -> Table:
    """The table of a file that is known to be accepted; of repeated keys the last counts."""
    (n,) = struct.unpack_from("<Q", content)
    header = json.loads(content[LENGTH_BYTES : LENGTH_BYTES + n].decode())
    metadata = header.pop("__metadata__", None)
    tensors = sorted((_tensor(name, value) for name, value in header.items()), key=_place)
    return Table(tensors, metadata, content[LENGTH_BYTES + n :])


def _tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, list):
        dtype, shape, offsets = value
    else:
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if isinstance(dtype, dict):
        (dtype,) = dtype
    return Tensor(name, dtype, shape, (offsets[0], offsets[1]))


def _place(tensor: Tensor) -> tuple[int, int]:
    return tensor.offsets
