"""Files of other kinds that people take for safetensors files, each as small as its kind allows."""

import bz2
import io
import json
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence

from corpus.case import Case


def cases() -> list[Case]:
    """All of them."""
    parts = (_text(), _pickles(), _archives(), _arrays(), _compressed(), _blank())
    return [case for part in parts for case in part]


def _case(name: str, about: str, data: bytes, names: str | None) -> Case:
    return Case(f"foreign/{name}.safetensors", about, "foreign", data, names=names)


def _text() -> Iterator[Case]:
    oid = "0123456789abcdef" * 4
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 437971872\n"
    yield _case("git_lfs_pointer", "the pointer that git leaves where the file itself was not fetched", pointer.encode(), "git-lfs")
    html = "<!DOCTYPE html>\n<html><head><title>404</title></head><body>Not Found</body></html>\n"
    yield _case("html_page", "a web page saved under the name of the weights", html.encode(), "HTML")
    yield _case("html_lower_case", "a web page without a document type, after white space", b'\n  <html lang="en"><body>Sign in</body></html>', "HTML")
    xml = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>'
    yield _case("xml_error", "the error page of an object store", xml.encode(), "XML")
    yield _case("json_error", "the error answer of a web service", b'{"error":"Repository not found"}', "JSON")
    index = {"metadata": {"total_size": 8}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}
    yield _case("index_json", "the index of a sharded checkpoint in the place of a shard", json.dumps(index, indent=2).encode(), "index")
    yield _case("config_json", "the configuration of a model in the place of its weights", b'{\n  "architectures": ["Model"]\n}\n', "JSON")
    yield _case("plain_text", "a plain sentence", b"Entry not found", "text")


TENSOR_HEAD = b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x01"
TENSOR_TAIL = b"QK\x00K\x01\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"


def _state_dict(storage_end: bytes) -> bytes:
    return b"\x80\x02}U\x01a" + TENSOR_HEAD + storage_end + TENSOR_TAIL + b"s."


def _pickles() -> Iterator[Case]:
    magic = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
    system = b"}(U\x10protocol_versionM\xe9\x03U\rlittle_endian\x88U\ntype_sizes}u"
    legacy = b"".join(b"\x80\x02" + body + b"." for body in (magic, b"M\xe9\x03", system))
    legacy += _state_dict(b"Nt") + b"\x80\x02]U\x010a." + struct.pack("<q", 1) + struct.pack("<f", 1.5)
    yield _case("torch_legacy", "a checkpoint of PyTorch before 1.6: several pickles and the bytes", legacy, "PyTorch")
    for protocol, body in (
        (0, b"(dp0\nVa\np1\nI1\ns."),
        (1, b"}q\x00X\x01\x00\x00\x00aq\x01K\x01s."),
        (2, b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s."),
        (3, b"\x80\x03}q\x00X\x01\x00\x00\x00aq\x01K\x01s."),
        (4, b"\x80\x04\x95\x09\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s."),
        (5, b"\x80\x05\x95\x09\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s."),
    ):
        about = f"a pickle of protocol {protocol}"
        yield _case(f"pickle_{protocol}", about, body, None if protocol == 1 else "pickle")


def _zip(entries: Sequence[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            archive.writestr(info, data)
    return buffer.getvalue()


def _archives() -> Iterator[Case]:
    torch = _zip(
        [
            ("archive/data.pkl", _state_dict(b"t")),
            ("archive/byteorder", b"little"),
            ("archive/data/0", struct.pack("<f", 1.5)),
            ("archive/version", b"3\n"),
        ]
    )
    yield _case("torch_zip", "a checkpoint of PyTorch since 1.6: a zip with a pickle in it", torch, "torch")
    yield _case("zip", "a zip with a text in it", _zip([("hello.txt", b"hello")]), "zip")
    yield _case("zip_empty", "a zip without entries", _zip([]), "zip")
    yield _case("npz", "arrays of NumPy in a zip", _zip([("a.npy", _npy())]), "npz")
    info = tarfile.TarInfo("model.safetensors")
    info.size = 5
    tar = info.tobuf(format=tarfile.USTAR_FORMAT) + b"hello".ljust(512, b"\0") + bytes(1024)
    yield _case("tar", "a tar archive", tar, "tar")


def _npy() -> bytes:
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }"
    head = head.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + struct.pack("<f", 1.5)


def _arrays() -> Iterator[Case]:
    yield _case("npy", "an array of NumPy", _npy(), "npy")
    gguf = b"GGUF" + struct.pack("<IQQ", 3, 0, 0)
    yield _case("gguf", "weights in the format of llama.cpp", gguf.ljust(32, b"\0"), "GGUF")
    sizes = bytes([0, 0, 0, 0, 0, 8, 8, 0]) + struct.pack("<HHI", 4, 16, 0)
    addresses = struct.pack("<4q", 0, -1, 96, -1) + struct.pack("<QQII", 0, 96, 0, 0) + bytes(16)
    yield _case("hdf5", "the superblock of an HDF5 file, as Keras writes them", b"\x89HDF\r\n\x1a\n" + sizes + addresses, "HDF5")
    producer = b"\x12\x07pytorch\x1a\x042.15"
    yield _case("onnx", "the start of an ONNX model: version 8, made by pytorch", b"\x08\x08" + producer + b":\x02\x12\x00B\x02\x10\x11", "ONNX")
    array = b"\x93\x91\x01\xa7float32\xc4\x04" + struct.pack("<f", 1.5)
    extension = b"\xc7" + bytes([len(array), 1]) + array
    yield _case("flax_msgpack", "weights as flax writes them with msgpack", b"\x81\xa6params\x81\xa6kernel" + extension, "msgpack")


def _compressed() -> Iterator[Case]:
    text = b"hello"
    stored = b"\x01" + struct.pack("<HH", len(text), 0xFFFF - len(text)) + text
    gzip = b"\x1f\x8b\x08" + bytes(6) + b"\xff" + stored + struct.pack("<II", zlib.crc32(text), len(text))
    yield _case("gzip", "a file compressed by gzip", gzip, "gzip")
    block = struct.pack("<I", len(text) << 3 | 1)[:3] + text
    yield _case("zstd", "a file compressed by zstd", b"\x28\xb5\x2f\xfd\x20" + bytes([len(text)]) + block, "zstd")
    yield _case("xz", "a file compressed by xz", lzma.compress(text, check=lzma.CHECK_CRC32), "xz")
    yield _case("bzip2", "a file compressed by bzip2", bz2.compress(text), "bzip2")


def _blank() -> Iterator[Case]:
    yield _case("empty", "a file of no bytes", b"", "empty")
    yield _case("zeros", "a file of zeros, as a broken download leaves it", bytes(64), "zero")
    yield _case("zeros_8", "eight zeros, which are the length of an empty header", bytes(8), "zero")
    yield _case("ones", "a file of 0xFF bytes, as erased flash memory gives it", b"\xff" * 64, None)
    yield _case("spaces", "a file of spaces", b" " * 64, "text")
