"""The types of the format and files to hold them, made without the code under test."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

# Code in the file: width in bits, and the name that `TensorSpec` of safetensors 0.8.0 takes.
DTYPES = {
    "BOOL": (8, "bool"),
    "F4": (4, "float4_e2m1fn_x2"),
    "F6_E2M3": (6, None),
    "F6_E3M2": (6, None),
    "U8": (8, "uint8"),
    "I8": (8, "int8"),
    "F8_E5M2": (8, "float8_e5m2"),
    "F8_E4M3": (8, "float8_e4m3fn"),
    "F8_E8M0": (8, "float8_e8m0fnu"),
    "F8_E4M3FNUZ": (8, "float8_e4m3fnuz"),
    "F8_E5M2FNUZ": (8, "float8_e5m2fnuz"),
    "I16": (16, "int16"),
    "U16": (16, "uint16"),
    "F16": (16, "float16"),
    "BF16": (16, "bfloat16"),
    "I32": (32, "int32"),
    "U32": (32, "uint32"),
    "F32": (32, "float32"),
    "C64": (64, "complex64"),
    "F64": (64, "float64"),
    "I64": (64, "int64"),
    "U64": (64, "uint64"),
}

SHAPES = [(2, 4), (8,), (0, 4), (1, 2, 4)]


def values(code: str, n_elements: int) -> bytes:
    """Packed bytes of `n_elements`, all of them numbers: BOOL must be 0 or 1, floats no NaN."""
    size_bytes = n_elements * DTYPES[code][0] // 8
    if code == "BOOL":
        return bytes(i % 2 for i in range(size_bytes))
    return bytes(0x10 + i % 0x30 for i in range(size_bytes))


def n_elements(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def file_bytes(
    tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]],
    metadata: dict[str, str] | None = None,
) -> bytes:
    """A file with the tensors in the order given, laid out by hand."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    position = 0
    for name, (code, shape, data) in tensors.items():
        offsets = [position, position + len(data)]
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": offsets}
        position += len(data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(data for _, _, data in tensors.values())
    return struct.pack("<Q", len(text)) + text + data


def one(code: str, shape: tuple[int, ...], name: str = "t") -> bytes:
    """A file with one tensor of the type and shape."""
    return file_bytes({name: (code, shape, values(code, n_elements(shape)))})
