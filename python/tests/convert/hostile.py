"""Files that lie, or ask for more than there is; none of them may cost much."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Iterator

from convert import assembler as asm
from convert.assembler import (
    APPEND,
    BUILD,
    DICT,
    LIST,
    MARK,
    NO_ITEMS,
    PERSISTENT,
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
    storage,
    tensor,
    text,
)
from convert.attacks import Attack, safetensors
from convert.lying_zips import Entry, zip64_end, zip_of

_DEPTH = 100_000
_SYSTEM = call(named("posix.system"), text("true")) + STOP


def hostile() -> Iterator[Attack]:
    """Every such file."""
    for name, pickled in _pickles().items():
        yield Attack(f"{name}.pkl", pickled, _names_in(name))
        # What tears the archive's pickle in two tears the file too.
        yield Attack(f"{name}.pt", asm.archive(pickled), _names_in(name))
    for name, pickled in _archived().items():
        yield Attack(f"{name}.pt", asm.archive(pickled), _names_in(name))
    for name, data in (_zips() | _tars() | _others()).items():
        yield Attack(name, data)


def _names_in(name: str) -> frozenset[str]:
    return frozenset({_NAMES[name]} if name in _NAMES else ())


# Names that look like others, or that no Python can import: what a scan calls each.
_NAMES = {
    "trailing-pickle": "posix.system",
    "name-in-cyrillic": "\u043es.system",
    "name-with-a-carriage-return": "os\r.system\r",
    "name-with-a-space": "os .system",
    "name-in-capitals": "OS.System",
    "name-of-windows": "nt.system",
    "name-with-a-null": "os\0.system",
    "name-with-a-line-feed": "os\nsystem.x",
    "name-of-the-wrong-half": "torch.os.system",
    "empty-name": "os.",
    "empty-module": ".system",
    "only-named": "posix.system",
    "made-of-an-unknown-class": "mymodels.Thing",
    "factory-of-a-dict": "posix.system",
    "class-of-an-array": "posix.system",
    "class-to-be-reconstructed": "posix.system",
    "environment": "os.environ",
    "modules": "sys.modules",
    "unfinished": "posix.system",
}


# Files that ask for no name: they load, or are refused, without cost.
HARMLESS = {
    *("tuples-in-tuples-twice", "lists-in-lists-twice", "dicts-in-dicts-twice"),
    *("key-of-tuples-twice", "item-of-tuples-twice", "frozenset-of-tuples-twice"),
    *("deep-lists", "deep-tuples", "deep-dicts", "deep-marks", "deep-frozensets"),
    *("deep-ordered-dicts", "a-list-of-itself", "a-dict-of-itself", "a-tuple-of-itself"),
    *("many-gets", "memo-of-2-32", "protocols-twice", "frame-that-is-too-short"),
    *("float-of-a-million-digits", "dtype-that-lies", "array-that-lies"),
    *("parameter-with-a-class", "meta-of-2-124", "sparse-outside-its-shape"),
    *("tensor-expanded-to-2-60", "zip-bomb-of-a-storage"),
}


def _pickles() -> dict[str, bytes]:
    return {**_bombs(), **_lengths(), **_broken(), **_odd_names(), **_odd_calls()}


def _bombs() -> dict[str, bytes]:
    def doubled(start: bytes, step: bytes) -> bytes:
        return start + step * 300

    pair = put(0) + get(0) + TUPLE_OF_TWO
    lists = b"".join(LIST + put(n + 1) + MARK + get(n) + get(n) + b"e" for n in range(300))
    tuples = doubled(NO_ITEMS, pair)
    dicts = b"".join(
        DICT + put(n + 1) + MARK + text("a") + get(n) + text("b") + get(n) + b"u"
        for n in range(300)
    )
    return {
        "tuples-in-tuples-twice": tuples + STOP,
        "lists-in-lists-twice": LIST + put(0) + lists + STOP,
        "dicts-in-dicts-twice": DICT + put(0) + dicts + STOP,
        "key-of-tuples-twice": DICT + tuples + b"NsN" + b"0" + STOP,
        "item-of-tuples-twice": b"\x8f(" + tuples + b"\x90" + STOP,
        "frozenset-of-tuples-twice": MARK + tuples + b"\x91" + STOP,
        "deep-lists": LIST * _DEPTH + APPEND * (_DEPTH - 1) + STOP,
        "deep-tuples": NO_ITEMS + TUPLE_OF_ONE * _DEPTH + STOP,
        "deep-dicts": (DICT + b"N") * _DEPTH + b"N" + b"s" * _DEPTH + STOP,
        "deep-marks": MARK * _DEPTH + b"t" * _DEPTH + STOP,
        "deep-frozensets": MARK * _DEPTH + b"\x91" * _DEPTH + STOP,
        "deep-calls": named("a.b") + NO_ITEMS + (REDUCE + NO_ITEMS) * _DEPTH + REDUCE + STOP,
        "deep-ordered-dicts": (named("collections.OrderedDict") + NO_ITEMS + REDUCE + b"N") * 9999
        + b"N"
        + b"s" * 9999
        + STOP,
        "deep-states": (named("a.b") + NO_ITEMS + b"\x81") * 9999 + b"b" * 9998 + STOP,
        "a-list-of-itself": LIST + put(0) + get(0) + APPEND + STOP,
        "a-dict-of-itself": DICT + put(0) + text("x") + get(0) + b"s" + STOP,
        "a-tuple-of-itself": LIST
        + put(0)
        + TUPLE_OF_ONE
        + put(1)
        + get(0)
        + get(1)
        + APPEND
        + STOP,
        "an-object-of-itself": named("a.b") + NO_ITEMS + b"\x81" + put(0) + get(0) + BUILD + STOP,
        "many-marks": MARK * 1_000_000 + STOP,
        "many-gets": LIST + put(0) + MARK + get(0) * 100_000 + b"e" + STOP,
        "pickles-in-pickles": _in_each_other(),
    }


def _in_each_other() -> bytes:
    data = _SYSTEM
    for _ in range(60):
        data = call(named("pickle.loads"), raw(data)) + STOP
    return data


def _lengths() -> dict[str, bytes]:
    huge = struct.pack("<Q", 2**60)
    full = struct.pack("<Q", 2**64 - 1)
    return {
        "text-of-2-60-bytes": b"\x80\x04\x8d" + huge + b"x" + STOP,
        "bytes-of-2-60-bytes": b"\x80\x04\x8e" + huge + b"x" + STOP,
        "bytearray-of-2-60-bytes": b"\x80\x05\x96" + huge + b"x" + STOP,
        "text-of-2-64-bytes": b"\x80\x04\x8d" + full + b"x" + STOP,
        "text-of-4-GB": b"X\xff\xff\xff\xffx" + STOP,
        "bytes-of-4-GB": b"B\xff\xff\xff\xffx" + STOP,
        "string-of-minus-1": b"T\xff\xff\xff\xffx" + STOP,
        "integer-of-minus-1": b"\x8b\xff\xff\xff\xff" + STOP,
        "integer-of-2-GB": b"\x8b\xff\xff\xff\x7f" + STOP,
        "integer-of-1-MB": b"\x8b" + struct.pack("<I", 1 << 20) + b"\x7f" * (1 << 20) + STOP,
        "integer-of-a-million-digits": b"I" + b"9" * 1_000_000 + b"\n" + STOP,
        "long-of-a-million-digits": b"L" + b"9" * 1_000_000 + b"L\n" + STOP,
        "float-of-a-million-digits": b"F" + b"9" * 1_000_000 + b"\n" + STOP,
        "frame-of-2-63-bytes": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N" + STOP,
        "frame-that-is-too-short": b"\x80\x04\x95\1\0\0\0\0\0\0\0X\1\0\0\0x" + STOP,
        "frame-that-is-too-long": b"\x80\x04\x95\x40\0\0\0\0\0\0\0N" + STOP,
        "frames-in-frames": b"\x80\x04" + b"\x95\x20\0\0\0\0\0\0\0" * 9 + b"N" + STOP,
        "memo-of-2-32": b"Nr\xff\xff\xff\xff" + STOP,
        "memo-of-many-digits": b"Np99999999999999999999999\n" + STOP,
        "memo-of-minus-1": b"Np-1\n" + STOP,
        "extension-of-2-31": b"\x84\xff\xff\xff\x7f" + STOP,
        "buffer-beside": b"\x80\x05\x97\x98" + STOP,
    }


def _broken() -> dict[str, bytes]:
    return {
        "nothing": b"",
        "only-a-stop": STOP,
        "no-stop": LIST,
        "a-stop-after-a-mark": b"N(" + STOP,
        "a-pop-of-nothing": b"00N" + STOP,
        "a-tuple-of-too-few": b"N\x87" + STOP,
        "a-list-without-a-mark": b"Nl" + STOP,
        "an-item-of-no-list": b"NNa" + STOP,
        "a-key-of-no-dict": LIST + b"NNs" + STOP,
        "a-key-without-a-value": b"(Nd" + STOP,
        "an-unknown-operation": b"\xff" + STOP,
        "protocol-6": b"\x80\x06N" + STOP,
        "protocols-twice": b"\x80\x04\x80\x02N" + STOP,
        "a-text-that-is-no-utf-8": b"X\2\0\0\0\xff\xfe" + STOP,
        "a-call-of-a-number": b"K\x01)R" + STOP,
        "a-state-of-nothing": b"N)b" + STOP,
        "a-class-that-is-a-list": LIST + NO_ITEMS + b"\x81" + STOP,
        "a-memo-that-is-not-there": get(5) + STOP,
        "unfinished": call(named("posix.system"), text("true")),
        "trailing-pickle": b"N." + _SYSTEM,
    }


def _odd_names() -> dict[str, bytes]:
    def asked(module: str, name: str) -> bytes:
        return proto(4) + call(stacked(module, name), text("true")) + STOP

    return {
        "name-in-cyrillic": asked("\u043es", "system"),
        "name-with-a-carriage-return": b"cos\r\nsystem\r\n(X\4\0\0\0truetR" + STOP,
        "name-with-a-space": asked("os ", "system"),
        "name-in-capitals": asked("OS", "System"),
        "name-of-windows": asked("nt", "system"),
        "name-with-a-null": asked("os\0", "system"),
        "name-with-a-line-feed": asked("os\nsystem", "x"),
        "name-of-the-wrong-half": asked("torch", "os.system"),
        "name-with-a-lone-surrogate": asked("os\ud800", "system"),
        "name-of-a-megabyte": asked("o" * (1 << 20), "system"),
        "empty-name": asked("os", ""),
        "empty-module": asked("", "system"),
        "name-of-bytes": proto(4) + raw(b"os") + raw(b"system") + b"\x93" + STOP,
        "name-of-a-number": proto(4) + b"K\1K\2\x93" + STOP,
        "only-named": named("posix.system") + STOP,
    }


def _odd_calls() -> dict[str, bytes]:
    system = named("posix.system")
    return {
        "made-of-an-unknown-class": named("mymodels.Thing")
        + NO_ITEMS
        + b"\x81"
        + DICT
        + BUILD
        + STOP,
        "factory-of-a-dict": call(named("collections.defaultdict"), system) + STOP,
        "class-of-an-array": call(
            named("numpy.core.multiarray._reconstruct"), system, b"(K\0t", raw(b"b")
        )
        + STOP,
        "class-to-be-reconstructed": call(named("copyreg._reconstructor"), system, system, b"N")
        + STOP,
        "environment": named("os.environ") + text("LD_PRELOAD") + text("x") + b"s" + STOP,
        "modules": named("sys.modules") + text("os") + b"Ns" + STOP,
        "dtype-that-lies": call(named("numpy.dtype"), text("f999999999"), b"\x89\x88") + STOP,
        "array-that-lies": call(
            named("numpy.core.multiarray._reconstruct"),
            named("numpy.ndarray"),
            b"(K\0t",
            raw(b"b"),
        )
        + several(
            b"K\1",
            several(integer(2**31 - 1), integer(2**31 - 1)),
            call(named("numpy.dtype"), text("f4"), b"\x89\x88"),
            b"\x89",
            raw(b"xxxx"),
        )
        + BUILD
        + STOP,
        "bytes-by-an-unknown-code": call(named("_codecs.encode"), text("x"), text("zlib")) + STOP,
        "range-of-2-62": call(named("builtins.range"), integer(0), integer(2**62)) + STOP,
        "bytes-of-a-number": call(named("builtins.bytes"), integer(2**40)) + STOP,
        "bytearray-of-a-number": call(named("builtins.bytearray"), integer(2**40)) + STOP,
        "list-of-a-text": call(named("builtins.list"), text("x" * 100)) + STOP,
    }


def _archived() -> dict[str, bytes]:
    """Tensors and storages that are not what they say."""
    meta = named("torch._utils._rebuild_meta_tensor_no_storage")
    shape = several(integer(2**62), integer(2**62))
    parameter = named("torch._utils._rebuild_parameter_with_state")
    state = DICT + text("__class__") + text("x") + b"s" + text("data") + b"Ns"
    found = {
        "tensor-past-its-storage": tensor(size=5),
        "tensor-of-2-60": tensor(size=2**60),
        "tensor-whose-strides-pass-2-64": tensor(size=2**33, stride=2**33),
        "tensor-before-its-storage": tensor(offset=-1),
        "tensor-of-a-negative-size": tensor(size=-1),
        "tensor-of-a-negative-stride": tensor(stride=-1),
        "tensor-far-behind": tensor(offset=2**62),
        "tensor-expanded-to-2-60": tensor(size=2**60, stride=0),
        "storage-of-2-62": tensor(of=storage(n_elements=2**62)),
        "storage-of-minus-1": tensor(of=storage(n_elements=-1)),
        "storage-that-is-missing": tensor(of=storage(key="1")),
        "storage-above-the-folder": tensor(of=storage(key="../../../etc/passwd")),
        "storage-of-the-system": tensor(of=storage(key="/etc/passwd")),
        "storage-that-is-the-pickle": tensor(of=storage(key="../data.pkl")),
        "storage-of-two-types": tensor()
        + tensor(of=storage(kind=b"ctorch\nDoubleStorage\n", n_elements=2))
        + TUPLE_OF_TWO,
        "storage-of-a-function": tensor(of=storage(kind=named("posix.system"))),
        "persistent-number": integer(5) + PERSISTENT,
        "persistent-nothing": NO_ITEMS + PERSISTENT,
        "persistent-text": b"Pposix.system\n",
        "persistent-module": several(text("module"), named("posix.system"), text("x"), text("y"))
        + PERSISTENT,
        "persistent-itself": LIST + put(0) + get(0) + APPEND + b"0" + several(get(0)) + PERSISTENT,
        "meta-of-2-124": call(meta, named("torch.float32"), shape, shape, b"\x89"),
        "parameter-with-a-class": call(parameter, tensor(), b"\x88", DICT, state),
        "tensor-of-few-arguments": call(named("torch._utils._rebuild_tensor_v2"), storage()),
        "tensor-of-a-text": call(named("torch._utils._rebuild_tensor_v2"), text("x"), *[b"N"] * 5),
        "sparse-of-numbers": call(
            named("torch._utils._rebuild_sparse_tensor"), b"N", several(b"N", b"N", b"N")
        ),
        "sparse-outside-its-shape": _sparse_outside(),
        "quantized-of-a-text": call(
            named("torch._utils._rebuild_qtensor"),
            storage(kind=b"ctorch\nQInt8Storage\n", n_elements=16),
            integer(0),
            several(integer(4)),
            several(integer(1)),
            several(named("torch.per_tensor_affine"), text("x"), text("y")),
            b"\x89",
            DICT,
        ),
        "size-of-texts": call(named("torch.Size"), several(text("x"))),
        "device-of-a-number": call(named("torch.device"), integer(7)),
    }
    return {name: proto(2) + pickled + STOP for name, pickled in found.items()}


def _sparse_outside() -> bytes:
    def longs(offset: int) -> bytes:
        kind = b"ctorch\nLongStorage\n"
        return call(
            named("torch._utils._rebuild_tensor_v2"),
            storage(kind=kind, n_elements=2),
            integer(offset),
            several(integer(1), integer(1)),
            several(integer(1), integer(1)),
            b"\x89",
            DICT,
        )

    shape = call(named("torch.Size"), several(integer(0)))
    layout = call(named("torch.serialization._get_layout"), text("torch.sparse_coo"))
    return call(
        named("torch._utils._rebuild_sparse_tensor"), layout, several(longs(0), longs(1), shape)
    )


_HARMLESS = proto(2) + DICT + text("w") + tensor() + b"s" + STOP


def _entries(*more: Entry) -> list[Entry]:
    return [
        Entry(b"archive/data.pkl", _HARMLESS),
        Entry(b"archive/data/0", bytes(16)),
        Entry(b"archive/version", b"3\n"),
        *more,
    ]


def _changed(**changes: dict[str, object]) -> list[Entry]:
    """The archive with its pickle's headers changed: `local`, `central` or `both`."""
    entries = _entries()
    both = changes.get("both", {})
    entries[0].local = both | changes.get("local", {})
    entries[0].central = both | changes.get("central", {})
    return entries


def _zips() -> dict[str, bytes]:
    evil = Entry(b"archive/data.pkl", _SYSTEM)
    size = len(_HARMLESS)
    whole = zip_of(_entries())
    made = {
        "names-twice": zip_of(_entries(evil)),
        "names-twice-the-first": zip_of([evil, *_entries()]),
        "names-in-capitals": zip_of(_entries(Entry(b"archive/DATA.PKL", _SYSTEM))),
        "two-folders": zip_of([*_entries(), Entry(b"other/data.pkl", _SYSTEM)]),
        "two-folders-the-first": zip_of([Entry(b"other/data.pkl", _SYSTEM), *_entries()]),
        "local-name": zip_of(_changed(local={"name": b"archive/data.xyz"})),
        "local-size": zip_of(_changed(local={"size": 3, "packed": 3})),
        "local-method": zip_of(_changed(local={"method": 8})),
        "local-check-sum": zip_of(_changed(local={"crc": 1})),
        "check-sum": zip_of(_changed(both={"crc": 1})),
        "encrypted": zip_of(_changed(both={"flags": 1})),
        "encrypted-in-one-place": zip_of(_changed(local={"flags": 1})),
        "encrypted-in-the-directory": zip_of(_changed(central={"flags": 1})),
        "strongly-encrypted": zip_of(_changed(both={"flags": 0x41})),
        "patched-flag": zip_of(_changed(both={"flags": 0x20})),
        "method-99": zip_of(_changed(both={"method": 99})),
        "past-the-end": zip_of(_changed(both={"size": 2**31, "packed": 2**31})),
        "position-past-the-end": zip_of(_changed(central={"position": 2**31})),
        "position-of-another": zip_of(_changed(central={"position": 60 + size})),
        "zip64-sizes": zip_of(_changed(central=_zip64(2**63, 2**63))),
        "zip64-short-extra": zip_of(_changed(central=_zip64() | {"extra": b"\1\0\x08\0abc"})),
        "zip64-end": _with_zip64_end(whole, 2**62),
        "zip64-end-elsewhere": _with_zip64_end(whole, 3, position=0),
        "zip64-count": _with_zip64_end(whole, 3, count=2**60),
        "count-too-low": zip_of(_entries(), count=1),
        "count-too-high": zip_of(_entries(), count=60000),
        "directory-too-short": zip_of(_entries(), size=20),
        "directory-past-the-end": zip_of(_entries(), start=2**31),
        "bytes-before": zip_of(_entries(), before=b"#!/bin/sh\n"),
        "pickle-before": zip_of(_entries(), before=_SYSTEM),
        "bytes-after": zip_of(_entries(), after=b"more"),
        "bytes-between": zip_of(_entries(), between=b"x" * 40),
        "archive-in-the-comment": zip_of(_entries(), comment=zip_of([evil])),
        "archive-after": whole + zip_of([evil]),
        "truncated": whole[:-30],
        "overlapping": _overlapping(),
        "bomb": _bomb(levels=1),
        "bomb-of-a-storage": _bomb_of_a_storage(),
        "other-entries": zip_of(_entries(Entry(b"archive/run.sh", b"true"))),
    }
    for name in (b"../data.pkl", b"/archive/data.pkl", b"a\0b", b"a\\data.pkl", b"C:/x", b"\xff"):
        made[f"name-{name.hex()}"] = zip_of(_entries(Entry(name, b"x")))
    return {f"zip-{name}.pt": data for name, data in made.items()}


def _zip64(*sizes: int) -> dict[str, object]:
    extra = struct.pack(f"<HH{len(sizes)}Q", 1, 8 * len(sizes), *sizes)
    return {"size": 0xFFFFFFFF, "packed": 0xFFFFFFFF, "extra": extra}


def _with_zip64_end(whole: bytes, size: int, position: int = -1, count: int = 3) -> bytes:
    """The archive with an end of 64 bits before its own, which says so."""
    at = whole.rindex(b"PK\5\6")
    start = struct.unpack("<I", whole[at + 16 : at + 20])[0]
    end = zip64_end(at if position < 0 else position, count, size, start)
    full = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    return whole[:at] + end + full


def _overlapping() -> bytes:
    """Two names for the same bytes, as bombs have thousands."""
    entries = _entries(Entry(b"archive/data/1", bytes(16)))
    entries[3].central = {"position": 0}
    return zip_of(entries)


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def _bomb(levels: int) -> bytes:
    """A pickle of 300 MB of zeros, packed a thousand times smaller."""
    zeros = b"X" + struct.pack("<I", 300_000_000) + bytes(300_000_000) + STOP
    crc, size, packed = zlib.crc32(zeros), len(zeros), _deflated(zeros)
    says = {"method": 8, "crc": crc, "size": size, "packed": len(packed)}
    entry = Entry(b"archive/data.pkl", packed, local=says, central=says)
    return zip_of([entry, *_entries()[levels:]])


def _bomb_of_a_storage() -> bytes:
    """A storage that says it is of 16 bytes, and unpacks to 100 MB."""
    packed = _deflated(bytes(100_000_000))
    says = {"method": 8, "crc": zlib.crc32(bytes(16)), "size": 16, "packed": len(packed)}
    entries = _entries()
    entries[1] = Entry(b"archive/data/0", packed, local=says, central=says)
    return zip_of(entries)


def _tars() -> dict[str, bytes]:
    def made(*entries: tarfile.TarInfo) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:") as tar:
            for name in ("sys_info", "pickle", "tensors", "storages"):
                tar.addfile(_entry(name, size=2), io.BytesIO(b"N."))
            for entry in entries:
                tar.addfile(entry, io.BytesIO(bytes(entry.size)))
        return buffer.getvalue()

    whole = made()
    return {
        "tar-link.tar": made(_entry("x", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
        "tar-hard-link.tar": made(_entry("x", type=tarfile.LNKTYPE, linkname="pickle")),
        "tar-device.tar": made(_entry("x", type=tarfile.CHRTYPE)),
        "tar-above.tar": made(_entry("../../x", size=1)),
        "tar-absolute.tar": made(_entry("/etc/x", size=1)),
        "tar-twice.tar": made(_entry("pickle", size=2)),
        "tar-truncated.tar": whole[:700],
        "tar-check-sum.tar": whole[:148] + b"0" * 8 + whole[156:],
        "tar-size.tar": whole[:124] + b"\x80" + b"\xff" * 11 + whole[136:],
    }


def _entry(name: str, **says: object) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    for key, value in says.items():
        setattr(entry, key, value)
    return entry


def _others() -> dict[str, bytes]:
    return {
        "tensor-that-is-an-archive.safetensors": safetensors(asm.archive(_SYSTEM)),
        "noise.bin": bytes(range(7, 256)) * 9,
        "text.bin": b"hello\n",
        "gzip.bin": b"\x1f\x8b\x08" + bytes(60),
        "many-keys.npy": b"\x93NUMPY\1\0\x76\0" + b"{" * 118,
        "evaluated.npy": _npy(b"{'descr': __import__('os').system('true')}"),
        "huge.npy": _npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (2**60, )}"),
        "large.npy": _npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,)}"),
        "large.gguf": b"GGUF\3\0\0\0" + b"\xff" * 16,
        "deep.msgpack": b"\x81\xa1a" * 50_000 + b"\xc0",
        "large.msgpack": b"\x81\xa1a\xdd\xff\xff\xff\xff",
    }


def _npy(header: bytes) -> bytes:
    header = header + b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header
