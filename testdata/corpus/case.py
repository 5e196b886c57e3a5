"""A case of the corpus, and the few words in which its bytes are written down."""

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LENGTH_BYTES = 8

# Bits of one element, in the order in which the reference's writer places tensors, last to first.
WIDTH_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


@dataclass(frozen=True)
class Recipe:
    """A file too big to store: what makes it, and how big."""

    name: str
    n: int


@dataclass(frozen=True)
class Case:
    """A file and what is claimed about it.

    The verdict of the compatible rules follows from the reference's and needs no word here, but where the
    two differ. The strict verdict follows from the compatible one where `strict` is not given. A file whose true
    kind `names` is refused as foreign by both.
    """

    file: str
    about: str
    rule: str
    data: bytes | Recipe
    compatible: str | None = None
    strict: str | None = None
    verify: str | None = None
    names: str | None = None

    def content(self) -> bytes:
        """The bytes of the file, made if they are not stored."""
        return make(self.data) if isinstance(self.data, Recipe) else self.data


def make(recipe: Recipe) -> bytes:
    """The bytes of a file that is not stored."""
    return RECIPES[recipe.name](recipe.n)


def file(header: str | bytes, data: bytes = b"") -> bytes:
    """The bytes of a file: the length of `header`, `header` as it is, `data`."""
    text = header.encode() if isinstance(header, str) else header
    return length(len(text)) + text + data


def padded(header: str, data: bytes = b"", align: int = 8) -> bytes:
    """The bytes of a file whose data begins at a multiple of `align`, as writers do it."""
    text = header.encode()
    return file(text + b" " * (-(len(text) + LENGTH_BYTES) % align), data)


def length(n: int) -> bytes:
    """A header length as it stands at the start of a file."""
    return struct.pack("<Q", n)


def tensor(dtype: str, shape: Sequence[int], begin: int, end: int) -> str:
    """The compact JSON of one tensor."""
    value = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    return json.dumps(value, separators=(",", ":"))


def table(*entries: tuple[str, str]) -> str:
    """The compact JSON of a header: names as they stand between quotes, values as JSON."""
    return "{" + ",".join(f'"{name}":{value}' for name, value in entries) + "}"


def pattern(n: int) -> bytes:
    """`n` bytes of data in which neighbours differ."""
    return bytes((37 * i + 11) % 256 for i in range(n))


def size_bytes(dtype: str, shape: Sequence[int]) -> int:
    """How many bytes a tensor takes."""
    n_elements = 1
    for dim in shape:
        n_elements *= dim
    return n_elements * WIDTH_BITS[dtype] // 8


def laid_out(*tensors: tuple[str, str, Sequence[int]]) -> bytes:
    """A file with these tensors (name, dtype, shape), one after the other."""
    entries, end = [], 0
    for name, dtype, shape in tensors:
        begin, end = end, end + size_bytes(dtype, shape)
        entries.append((name, tensor(dtype, shape, begin, end)))
    return padded(table(*entries), data_of(tensors))


def data_of(tensors: Sequence[tuple[str, str, Sequence[int]]]) -> bytes:
    """Bytes for these tensors; truth values get 0 and 1 only."""
    parts = []
    for _, dtype, shape in tensors:
        part = pattern(size_bytes(dtype, shape))
        parts.append(bytes(byte % 2 for byte in part) if dtype == "BOOL" else part)
    return b"".join(parts)


def _padded_header(n: int) -> bytes:
    return length(n) + b"{}" + b" " * (n - 2)


def _empty_tensors(n: int) -> bytes:
    return file(table(*((f"t{i}", EMPTY) for i in range(n))))


def _long_name(n: int) -> bytes:
    return file(table(("x" * n, EMPTY)))


def _long_metadata(n: int) -> bytes:
    return file(table(("__metadata__", f'{{"k":"{"x" * n}"}}')))


ONE = tensor("U8", [1], 0, 1)
EMPTY = tensor("U8", [0], 0, 0)

RECIPES: dict[str, Callable[[int], bytes]] = {
    "padded_header": _padded_header,
    "empty_tensors": _empty_tensors,
    "long_name": _long_name,
    "long_metadata": _long_metadata,
}
