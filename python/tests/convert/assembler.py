"""Pickles, put together operation by operation, as no pickler writes them."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

STOP = b"."
TUPLE_OF_ONE, TUPLE_OF_TWO, NO_ITEMS = b"\x85", b"\x86", b")"
REDUCE, BUILD, NEW, NEW_WITH_NAMES, OBJECT = b"R", b"b", b"\x81", b"\x92", b"o"
MARK, TUPLE, LIST, DICT, SET = b"(", b"t", b"]", b"}", b"\x8f"
POP, DUP, MEMOIZE, PERSISTENT = b"0", b"2", b"\x94", b"Q"
APPEND, SET_ITEM, ADD_ITEMS, FROZEN = b"a", b"s", b"\x90", b"\x91"


def proto(version: int) -> bytes:
    """Which protocol it says it is of."""
    return bytes([0x80, version])


def text(value: str) -> bytes:
    """A text."""
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def raw(value: bytes) -> bytes:
    """Bytes."""
    return b"B" + struct.pack("<I", len(value)) + value


def integer(value: int) -> bytes:
    """A number of 32 bits, or of any size."""
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def named(dotted: str) -> bytes:
    """What a dotted name stands for, by GLOBAL."""
    module, _, name = dotted.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def stacked(module: str, name: str) -> bytes:
    """What a name of a module stands for, by STACK_GLOBAL."""
    return text(module) + text(name) + b"\x93"


def several(*values: bytes) -> bytes:
    """A tuple."""
    return MARK + b"".join(values) + TUPLE


def call(callee: bytes, *arguments: bytes) -> bytes:
    """What `callee` returns."""
    return callee + several(*arguments) + REDUCE


def get(number: int) -> bytes:
    """A value of the memo."""
    return b"j" + struct.pack("<I", number)


def put(number: int) -> bytes:
    """Keeps the top of the stack in the memo."""
    return b"r" + struct.pack("<I", number)


def storage(key: str = "0", n_elements: int = 4, kind: bytes = b"ctorch\nFloatStorage\n") -> bytes:
    """A storage of an archive of PyTorch's."""
    identity = (text("storage"), kind, text(key), text("cpu"), integer(n_elements))
    return several(*identity) + PERSISTENT


def tensor(size: int = 4, stride: int = 1, offset: int = 0, of: bytes = b"") -> bytes:
    """A tensor of one dimension of a storage."""
    hooks = call(named("collections.OrderedDict"))
    sizes = (several(integer(size)), several(integer(stride)))
    return call(
        named("torch._utils._rebuild_tensor_v2"),
        of or storage(),
        integer(offset),
        *sizes,
        b"\x89",
        hooks,
    )


def archive(pickled: bytes, more: dict[str, bytes] | None = None) -> bytes:
    """An archive of PyTorch's around a pickle and one storage of 16 bytes."""
    entries = {"data.pkl": pickled, "byteorder": b"little", "data/0": bytes(16), "version": b"3\n"}
    return zipped({f"archive/{name}": data for name, data in (entries | (more or {})).items()})


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in entries.items():
            file.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def stream(value: bytes, **others: bytes) -> bytes:
    """Five pickles, as PyTorch wrote them before 1.6; `others` take the place of some."""
    parts = {
        "number": pickle.dumps(0x1950A86A20F9469CFC6C, 2),
        "version": pickle.dumps(1001, 2),
        "info": pickle.dumps({"protocol_version": 1001, "little_endian": True}, 2),
        "value": value,
        "keys": pickle.dumps([], 2),
    }
    return b"".join((parts | others).values())
