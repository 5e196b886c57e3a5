"""Zip archives that say one thing here and another there, made byte by byte."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Entry:
    """A file of an archive; `local` and `central` are what only one of its two headers says."""

    name: bytes
    data: bytes
    local: dict[str, Any] = field(default_factory=dict)
    central: dict[str, Any] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """What both headers say."""
        size = len(self.data)
        return {
            "name": self.name,
            "flags": 0,
            "method": 0,
            "crc": zlib.crc32(self.data),
            "packed": size,
            "size": size,
            "extra": b"",
        }


def zip_of(entries: list[Entry], **end: Any) -> bytes:
    """The archive; `end` is what its end says wrongly, or has `before` and `after` it."""
    out, directory = bytearray(end.get("before", b"")), b""
    for entry in entries:
        position = len(out)
        out += _local(entry.fields() | entry.local) + entry.data
        directory += _central({"position": position} | entry.fields() | entry.central)
    start, count = end.get("start", len(out)), end.get("count", len(entries))
    comment = end.get("comment", b"")
    out += directory + end.get("between", b"")
    size = end.get("size", len(directory))
    fields = (b"PK\5\6", 0, 0, min(count, 0xFFFF), min(count, 0xFFFF), size, start, len(comment))
    out += struct.pack("<4sHHHHIIH", *fields) + comment
    return bytes(out) + end.get("after", b"")


def zip64_end(position: int, n_entries: int, size: int, start: int) -> bytes:
    """The end of an archive of 64 bits, at `position`, and what says where it is."""
    end = struct.pack(
        "<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, n_entries, n_entries, size, start
    )
    return end + struct.pack("<4sIQI", b"PK\6\7", 0, position, 1)


def _local(says: dict[str, Any]) -> bytes:
    numbers = (says["crc"], says["packed"], says["size"], len(says["name"]), len(says["extra"]))
    head = struct.pack("<4sHHHHH", b"PK\3\4", 20, says["flags"], says["method"], 0, 33)
    return head + struct.pack("<IIIHH", *numbers) + says["name"] + says["extra"]


def _central(says: dict[str, Any]) -> bytes:
    numbers = (says["crc"], says["packed"], says["size"], len(says["name"]), len(says["extra"]))
    head = struct.pack("<4sHHHHHH", b"PK\1\2", 20, 20, says["flags"], says["method"], 0, 33)
    tail = struct.pack("<HHHII", 0, 0, 0, 0, says["position"])
    return head + struct.pack("<IIIHH", *numbers) + tail + says["name"] + says["extra"]
