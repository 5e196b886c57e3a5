"""Files that do harm where they are loaded by what runs pickles: here they would make a folder.

Nothing of it is kept: the tests write the files, and say beforehand where the folder would be.
"""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from convert import assembler as asm
from convert.assembler import (
    BUILD,
    DICT,
    DUP,
    LIST,
    MARK,
    MEMOIZE,
    NEW,
    NEW_WITH_NAMES,
    NO_ITEMS,
    OBJECT,
    PERSISTENT,
    POP,
    REDUCE,
    STOP,
    TUPLE_OF_ONE,
    TUPLE_OF_TWO,
    call,
    get,
    integer,
    named,
    proto,
    put,
    raw,
    several,
    stacked,
    text,
)
from convert.lying_zips import Entry, zip_of


@dataclass(frozen=True)
class Attack:
    """A file and what a scan has to say of it."""

    name: str
    data: bytes
    # The names that a scan has to list.
    names: frozenset[str] = frozenset()
    # What runs it: `pickle`, `torch` or `numpy`; nothing where none does.
    loader: str = ""


# What is given the path of the folder, and gives a pickle without its end.
Pickled = Callable[[bytes], bytes]
_MKDIR = named("posix.mkdir")


def _evaluated(path: bytes) -> bytes:
    return text(f"__import__('os').mkdir({path[5:].decode()!r})")


_SERIALIZED: dict[str, tuple[Pickled, str]] = {
    "reduce": (lambda path: call(_MKDIR, path), "posix.mkdir"),
    "reduce-of-os": (lambda path: call(named("os.mkdir"), path), "os.mkdir"),
    "reduce-protocol-0": (lambda path: b"cos\nmkdir\n(V" + path[5:] + b"\ntR", "os.mkdir"),
    "inst": (lambda path: b"(V" + path[5:] + b"\niposix\nmkdir\n", "posix.mkdir"),
    "obj": (lambda path: MARK + _MKDIR + path + OBJECT, "posix.mkdir"),
    "stack-global": (
        lambda path: proto(4) + stacked("posix", "mkdir") + path + TUPLE_OF_ONE + REDUCE,
        "posix.mkdir",
    ),
    "eval": (lambda path: call(named("builtins.eval"), _evaluated(path)), "builtins.eval"),
    "exec-of-python-2": (
        lambda path: proto(2) + call(named("__builtin__.eval"), _evaluated(path)),
        "__builtin__.eval",
    ),
    "import-and-getattr": (
        lambda path: call(
            call(named("builtins.getattr"), call(named("builtins.__import__"), text("os")), _NAME),
            path,
        ),
        "builtins.getattr builtins.__import__",
    ),
    "importlib": (
        lambda path: call(
            call(named("operator.attrgetter"), _NAME)
            + several(call(named("importlib.import_module"), text("os")))
            + REDUCE,
            path,
        ),
        "operator.attrgetter importlib.import_module",
    ),
    "method-caller": (
        lambda path: call(
            call(named("operator.methodcaller"), _NAME, path),
            call(named("builtins.__import__"), text("os")),
        ),
        "operator.methodcaller builtins.__import__",
    ),
    "dotted-in-torch": (
        lambda path: proto(4) + call(stacked("torch", "serialization.os.mkdir"), path),
        "torch.serialization.os.mkdir",
    ),
    "dotted-in-logging": (
        lambda path: proto(4) + call(stacked("logging", "os.mkdir"), path),
        "logging.os.mkdir",
    ),
    "globals-of-a-rebuilder": (
        lambda path: (
            proto(4)
            + call(
                call(
                    stacked("torch._utils", "_rebuild_tensor_v2.__globals__.get"),
                    text("__builtins__"),
                ),
                path,
            )
        ),
        "torch._utils._rebuild_tensor_v2.__globals__.get",
    ),
    "partial": (
        lambda path: named("functools.partial") + several(_MKDIR) + NEW + several(path) + REDUCE,
        "functools.partial posix.mkdir",
    ),
    "build": (
        lambda path: (
            named("functools.partial")
            + several(named("builtins.print"))
            + NEW
            + several(_MKDIR, several(path), DICT, DICT)
            + BUILD
            + NO_ITEMS
            + REDUCE
        ),
        "functools.partial builtins.print posix.mkdir",
    ),
    "newobj-ex": (
        lambda path: (
            named("functools.partial")
            + several(_MKDIR, path)
            + DICT
            + NEW_WITH_NAMES
            + NO_ITEMS
            + REDUCE
        ),
        "functools.partial posix.mkdir",
    ),
    "list-of-map": (
        lambda path: call(
            named("builtins.list"), call(named("builtins.map"), _MKDIR, LIST + path + b"a")
        ),
        "builtins.map posix.mkdir",
    ),
    "counter-of-map": (
        lambda path: call(
            named("collections.Counter"), call(named("builtins.map"), _MKDIR, LIST + path + b"a")
        ),
        "builtins.map posix.mkdir",
    ),
    "memo": (
        lambda path: _MKDIR + put(77) + POP + get(77) + several(path) + REDUCE,
        "posix.mkdir",
    ),
    "dup": (lambda path: _MKDIR + DUP + several(path) + REDUCE, "posix.mkdir"),
    "names-out-of-the-memo": (
        lambda path: (
            proto(4)
            + b"".join(text(name) + MEMOIZE + POP for name in ("mkdir", "harmless", "posix"))
            + call(get(2) + get(0) + b"\x93", path)
        ),
        "posix.mkdir",
    ),
    "names-by-old-strings": (
        lambda path: proto(4) + call(b"S'posix'\nU\x05mkdir\x93", path),
        "posix.mkdir",
    ),
    "names-by-escapes": (
        lambda path: proto(4) + call(b"V\\u0070osix\nVmk\\u0064ir\n\x93", path),
        "posix.mkdir",
    ),
    "name-that-is-computed": (
        lambda path: (
            proto(4)
            + call(
                call(named("builtins.str"), raw(b"posix"), text("ascii")) + _NAME + b"\x93", path
            )
        ),
        "",
    ),
    "in-a-key": (lambda path: DICT + call(_MKDIR, path) + b"Ns", "posix.mkdir"),
    "in-a-set": (lambda path: b"\x8f(" + call(_MKDIR, path) + b"\x90", "posix.mkdir"),
    "in-a-state": (
        lambda path: (
            call(named("collections.OrderedDict"))
            + (DICT + text("x") + call(_MKDIR, path) + b"s")
            + BUILD
        ),
        "posix.mkdir",
    ),
    "in-a-dropped-value": (lambda path: call(_MKDIR, path) + POP + b"N", "posix.mkdir"),
    "before-a-mark-that-is-dropped": (
        lambda path: MARK + call(_MKDIR, path) + b"1N",
        "posix.mkdir",
    ),
    "extension": (
        lambda path: (
            call(named("copyreg.add_extension"), text("posix"), text("mkdir"), integer(57))
            + POP
            + call(b"\x8239"[:1] + bytes([57]), path)
        ),
        "copyreg.add_extension",
    ),
    "pickle-in-bytes": (
        lambda path: call(named("_pickle.loads"), raw(call(_MKDIR, path) + STOP)),
        "_pickle.loads posix.mkdir",
    ),
    "pickle-in-encoded-bytes": (
        lambda path: call(
            named("pickle.loads"),
            call(
                named("_codecs.encode"), text((call(_MKDIR, path) + STOP).decode()), text("latin1")
            ),
        ),
        "pickle.loads posix.mkdir",
    ),
    "pickle-in-a-pickle-in-a-pickle": (
        lambda path: call(
            named("pickle.loads"),
            raw(call(named("pickle.loads"), raw(call(_MKDIR, path) + STOP)) + STOP),
        ),
        "pickle.loads posix.mkdir",
    ),
    "archive-in-bytes": (
        lambda path: call(
            named("torch.storage._load_from_bytes"),
            raw(asm.archive(proto(2) + call(_MKDIR, path) + STOP)),
        ),
        "posix.mkdir",
    ),
    "stream-in-bytes": (
        lambda path: call(
            named("torch.storage._load_from_bytes"),
            raw(asm.stream(proto(2) + call(_MKDIR, path) + STOP)),
        ),
        "posix.mkdir",
    ),
    "rebuilt-from-a-function": (
        lambda path: call(
            named("torch._tensor._rebuild_from_type_v2"),
            _MKDIR,
            named("torch.Tensor"),
            several(path),
            NO_ITEMS,
        ),
        "posix.mkdir",
    ),
}
_NAME = text("mkdir")
# What no Python runs to the end as it is, though it names what it wants.
_UNFINISHED = {"globals-of-a-rebuilder"}


def running(folder: Path) -> Iterator[Attack]:
    """Files that make a folder in `folder`, of their own name, by what is named with them."""
    for name, (pickled, names) in _SERIALIZED.items():
        wanted = frozenset(names.split())
        for ending, wrap, loader in _WRAPPED:
            if wrap is _as_tar and name == "reduce-protocol-0":
                continue
            full = f"{name}.{ending}"
            path = text(str(folder / full))
            data = wrap(pickled(path) + STOP)
            yield Attack(full, data, wanted, "" if name in _UNFINISHED else loader)
    yield from _elsewhere(folder)


def _as_tar(pickled: bytes, **others: bytes) -> bytes:
    buffer = io.BytesIO()
    members = {"sys_info": b"}.", "pickle": pickled, "tensors": b"K\0.", "storages": b"K\0.]."}
    with tarfile.open(fileobj=buffer, mode="w:", format=tarfile.PAX_FORMAT) as tar:
        for name, data in (members | others).items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


_WRAPPED: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("pkl", lambda pickled: pickled, "pickle"),
    ("pt", asm.archive, "torch"),
    ("bin", asm.stream, "torch"),
    ("tar", _as_tar, "torch"),
]


def _elsewhere(folder: Path) -> Iterator[Attack]:
    """The same call at other places of a file."""

    def made(name: str) -> bytes:
        return proto(2) + call(_MKDIR, text(str(folder / name))) + STOP

    wanted = frozenset({"posix.mkdir"})
    for part in ("number", "info", "keys"):
        name = f"stream-{part}.bin"
        yield Attack(name, asm.stream(b"N.", **{part: made(name)}), wanted, "torch")
    for part in ("tensors", "storages"):
        name = f"tar-{part}.tar"
        yield Attack(name, _as_tar(b"N.", **{part: made(name)}), wanted, "torch")
    for name, pickled in _persistent(folder):
        yield Attack(name, asm.archive(proto(2) + pickled + STOP), wanted, "torch")
    name = "constants.pt"
    yield Attack(name, asm.archive(b"N.", {"constants.pkl": made(name)}), wanted)
    name = "objects.npy"
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|O", "fortran_order": False, "shape": (1,)}
    )
    yield Attack(name, buffer.getvalue() + made(name), wanted, "numpy")
    name = "objects.npz"
    inner = buffer.getvalue() + made(name)
    yield Attack(name, asm.zipped({"a.npy": inner}), wanted, "numpy")
    name = "archive-and-safetensors.pt"
    yield Attack(name, archive_and_safetensors(made(name)), wanted, "torch")
    name = "pickle-and-safetensors.safetensors"
    yield Attack(name, pickle_and_safetensors(made(name)), wanted, "pickle")


def _persistent(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Calls in what names a storage."""

    def run(name: str) -> bytes:
        return call(_MKDIR, text(str(folder / name)))

    head, tail = text("storage") + named("torch.FloatStorage"), text("cpu") + integer(4)
    name = "call-for-a-key.pt"
    yield name, MARK + head + run(name) + tail + b"t" + PERSISTENT
    name = "call-for-a-class.pt"
    yield name, MARK + text("storage") + run(name) + text("0") + tail + b"t" + PERSISTENT
    name = "call-for-a-size.pt"
    yield name, MARK + head + text("0") + text("cpu") + run(name) + b"t" + PERSISTENT
    name = "call-beside.pt"
    yield name, run(name) + asm.storage() + TUPLE_OF_TWO


def safetensors(data: bytes, header_bytes: int = 0) -> bytes:
    """A file of this format with one tensor of bytes."""
    tensors = {"t": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}
    header = json.dumps(tensors).encode()
    header = header.ljust(header_bytes or -(-len(header) // 8) * 8)
    return struct.pack("<Q", len(header)) + header + data


def archive_and_safetensors(pickled: bytes) -> bytes:
    """A file of this format whose length is how an archive begins, which lies in its tensor."""
    header_bytes = int.from_bytes(b"PK\3\4", "little")
    before = bytes(8 + header_bytes)
    names = {"data.pkl": pickled, "version": b"3\n"}
    entries = [Entry(f"archive/{name}".encode(), data) for name, data in names.items()]
    return safetensors(zip_of(entries, before=before)[len(before) :], header_bytes)


def pickle_and_safetensors(pickled: bytes) -> bytes:
    """A file of this format, whose length and first key are a pickle that leads to its tensor.

    The length begins with BINUNICODE, whose text ends where the first key begins; the key is
    texts, the last of which ends where the tensor begins.
    """
    size = 5 * 256 + ord("X")
    tail = f'":{{"dtype":"U8","shape":[{len(pickled)}],"data_offsets":[0,{len(pickled)}]}}}}'
    n_left = size - len('{"') - len(tail)
    hop, key = "U~" + "a" * 126, ""
    while n_left - len(key) > 126 - len(tail) + 2:
        key += hop
    n_over = n_left - len(key)
    if n_over < 2:
        raise ValueError("the last text has no room")
    key += "U" + chr(n_over - 2 + len(tail)) + "a" * (n_over - 2)
    header = ('{"' + key + tail).encode()
    assert len(header) == size
    return size.to_bytes(8, "little") + header + pickled
