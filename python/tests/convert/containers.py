"""The files that PyTorch writes, has written, or reads, around the same values."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.serialization import config


def save(value: Any, path: Path, **options: Any) -> None:
    """`torch.save`."""
    torch.save(value, path, **options)


def in_a_buffer(value: Any, path: Path) -> None:
    """An archive whose folder is `archive`, as files without a name have."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    path.write_bytes(buffer.getvalue())


def without_check_sums(value: Any, path: Path) -> None:
    """`torch.save` where check sums are not computed."""
    old = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(value, path)
    finally:
        torch.serialization.set_crc32_options(old)


def aligned(value: Any, path: Path, alignment: int) -> None:
    """`torch.save` where storages begin at multiples of `alignment`."""
    with config.patch({"save.storage_alignment": alignment}):
        torch.save(value, path)


def repacked(value: Any, path: Path) -> None:
    """By Python's own zip writer: no alignment, and no data descriptors."""
    _repack(value, path, zipfile.ZIP_STORED)


def deflated(value: Any, path: Path) -> None:
    """With every entry compressed, as tools do that save room."""
    _repack(value, path, zipfile.ZIP_DEFLATED)


def without_records(value: Any, path: Path) -> None:
    """As PyTorch 1.6 wrote it: the pickle, the storages and the version."""
    kept = ("data.pkl", "version")
    _repack(value, path, zipfile.ZIP_STORED, lambda name: name in kept or name.startswith("data/"))


def as_tar(value: Any, path: Path) -> None:
    """As before PyTorch 0.1.10: a tar archive, whose pickle has numbers for tensors."""
    writer = _TarWriter()
    pickled = writer.pickled(value)
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as tar:
        sys_info = pickle.dumps({"protocol_version": 1000, "little_endian": True}, protocol=2)
        members = {"sys_info": sys_info, "pickle": pickled}
        members |= {"tensors": writer.tensors(), "storages": writer.storages()}
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


WRITERS: list[Callable[[Any, Path], None]] = [
    in_a_buffer,
    without_check_sums,
    repacked,
    deflated,
    without_records,
    as_tar,
]


def big_endian(value: Any, path: Path) -> None:
    """As a machine writes it whose numbers begin with the highest byte."""
    widths: dict[str, int] = {}

    class Reader(pickle.Unpickler):
        def persistent_load(self, saved: Any) -> Any:
            _, storage, key, _, n_elements = saved
            dtype = getattr(storage, "dtype", torch.uint8)
            widths[f"data/{key}"] = dtype.itemsize // (2 if dtype.is_complex else 1)
            return torch.storage.TypedStorage(n_elements, dtype=dtype)

    def swapped(name: str, data: bytes) -> bytes:
        if name == "byteorder":
            return b"big"
        width = widths.get(name, 1)
        parts = [data[at : at + width][::-1] for at in range(0, len(data), width)]
        return b"".join(parts)

    entries = _entries(value)
    Reader(io.BytesIO(entries["data.pkl"])).load()
    write_zip(path, {name: swapped(name, data) for name, data in entries.items()})


def write_zip(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    """An archive of entries in the folder `archive`."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)


def _entries(value: Any) -> dict[str, bytes]:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with zipfile.ZipFile(buffer) as archive:
        names = archive.namelist()
        return {name.removeprefix("archive/"): archive.read(name) for name in names}


def _repack(
    value: Any, path: Path, method: int, is_kept: Callable[[str], bool] = lambda name: True
) -> None:
    entries = {name: data for name, data in _entries(value).items() if is_kept(name)}
    write_zip(path, entries, method)


class _TarWriter:
    """Tensors and storages by number, as `torch.serialization._legacy_load` reads them."""

    def __init__(self) -> None:
        self.found: dict[int, torch.Tensor] = {}
        self.roots: dict[int, tuple[int, torch.dtype, torch.UntypedStorage]] = {}

    def pickled(self, value: Any) -> bytes:
        writer, buffer = self, io.BytesIO()

        class Pickler(pickle.Pickler):
            def persistent_id(self, each: Any) -> str | None:
                # A parameter is a call of its own, of the tensor that it holds.
                if type(each) is not torch.Tensor:
                    return None
                return str(writer.number_of(each))

            def reducer_override(self, each: Any) -> Any:
                if not isinstance(each, torch.nn.Parameter):
                    return NotImplemented
                hooks: dict[str, Any] = {}
                plain = each.detach()
                arguments = (plain, each.requires_grad, hooks)
                return torch._utils._rebuild_parameter, arguments

        Pickler(buffer, protocol=2).dump(value)
        return buffer.getvalue()

    def number_of(self, each: torch.Tensor) -> int:
        for number, known in self.found.items():
            if known is each:
                return number
        number = 1000 + len(self.found)
        self.found[number] = each
        storage = each.untyped_storage()
        self.roots.setdefault(storage._cdata, (len(self.roots), each.dtype, storage))
        return number

    def storages(self) -> bytes:
        out = [pickle.dumps(len(self.roots), protocol=2)]
        for number, dtype, storage in self.roots.values():
            kind = getattr(torch, _CLASSES[dtype] + "Storage")
            out.append(pickle.dumps((number, "cpu", kind), protocol=2))
            out.append(struct.pack("<q", storage.nbytes() // dtype.itemsize))
            out.append(bytes(storage))
        return b"".join([*out, pickle.dumps([], protocol=2)])

    def tensors(self) -> bytes:
        out = [pickle.dumps(len(self.found), protocol=2)]
        for number, each in self.found.items():
            root = self.roots[each.untyped_storage()._cdata][0]
            kind = getattr(torch, _CLASSES[each.dtype] + "Tensor", torch.FloatTensor)
            numbers = [*each.shape, *each.stride(), each.storage_offset()]
            out.append(pickle.dumps((number, root, kind), protocol=2))
            out.append(
                struct.pack("<ii", each.dim(), 0) + struct.pack(f"<{len(numbers)}q", *numbers)
            )
        return b"".join(out)


_CLASSES = {
    torch.float64: "Double",
    torch.float32: "Float",
    torch.float16: "Half",
    torch.bfloat16: "BFloat16",
    torch.int64: "Long",
    torch.int32: "Int",
    torch.int16: "Short",
    torch.int8: "Char",
    torch.uint8: "Byte",
    torch.bool: "Bool",
    torch.complex64: "ComplexFloat",
    torch.complex128: "ComplexDouble",
}
