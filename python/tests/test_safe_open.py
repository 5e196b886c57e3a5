"""`safe_open` and its slices: every backend gives the same, every bad input a clear error."""

from __future__ import annotations

import errno
import os
import pathlib
import re
import socket
import struct
import sys
import threading
from typing import Any

import numpy as np
import pytest
from cases import file_bytes, one
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tensorhold import SafetensorError, _safe_open_handle, deserialize, safe_open
from tensorhold.numpy import save, save_file

BACKENDS = ["mmap", "pread"]
PATH = "a.safetensors"


def write(data: bytes, path: str = PATH) -> str:
    pathlib.Path(path).write_bytes(data)
    return path


def headed(text: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + data


@pytest.fixture
def two() -> str:
    """A file with `b` before `a`."""
    eight = bytes(range(8))
    return write(
        file_bytes(
            {"b": ("U8", (2, 4), eight), "a": ("I16", (2, 2), eight)}, metadata={"key": "text"}
        )
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_handle_lists_names_metadata_and_tensors(two: str, backend: str) -> None:
    with safe_open(two, "np", backend=backend) as file:
        assert file.keys() == ["a", "b"]
        assert file.offset_keys() == ["b", "a"]
        assert file.metadata() == {"key": "text"}
        assert file.get_tensor("b").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
        tensors = file.get_tensors()
        assert list(tensors) == ["b", "a"]
        assert tensors["a"].dtype == np.int16
        part = file.get_slice("b")
        assert part.get_shape() == [2, 4] and part.get_dtype() == "U8"
        assert part[1, ::2].tolist() == [4, 6]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_handle_works_without_with_and_slices_outlive_it(two: str, backend: str) -> None:
    file = safe_open(two, framework="np", device="cpu", backend=backend)
    part = file.get_slice("b")
    file.__exit__(None, None, None)
    assert part[0, 0] == 0


@pytest.mark.parametrize("act", ["keys", "offset_keys", "metadata", "get_tensors"])
def test_a_closed_handle_says_so(two: str, act: str) -> None:
    with safe_open(two, "np") as file:
        pass
    with pytest.raises(SafetensorError, match="File is closed"):
        getattr(file, act)()
    with pytest.raises(SafetensorError, match="File is closed"):
        file.get_tensor("a")
    with pytest.raises(SafetensorError, match="File is closed"):
        file.get_slice("a")


def test_an_open_file_can_be_handed_over(two: str) -> None:
    with open(two, "rb") as raw, _safe_open_handle(raw, "np") as file:
        assert file.keys() == ["a", "b"]
        assert file.offset_keys() == ["b", "a"]
        assert file.get_slice("a")[0].tolist() == [256, 770]
    with pytest.raises(AttributeError):
        _safe_open_handle(object(), "np")  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unknown_name_is_told(two: str, backend: str) -> None:
    with safe_open(two, "np", backend=backend) as file:
        for act in (file.get_tensor, file.get_slice):
            with pytest.raises(SafetensorError, match="File does not contain tensor zz") as caught:
                act("zz")
            assert isinstance(caught.value, KeyError)
            assert caught.value.tensor == "zz"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"framework": "abacus"}, "framework abacus is invalid"),
        ({"framework": "np", "device": "abacus"}, "device abacus is invalid"),
        ({"framework": "np", "device": "cuda"}, "not supported for framework numpy"),
        ({"framework": "np", "backend": "abacus"}, 'backend "abacus" is invalid (expected one of:'),
    ],
)
def test_an_argument_that_nobody_knows_is_told(
    two: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(SafetensorError, match=re.escape(message)):
        safe_open(two, **arguments)


HUGE = 2**64 - 1
BAD = {
    "nothing": (b"", "header too small"),
    "seven bytes": (b"1234567", "header too small"),
    "a header over the limit": (struct.pack("<Q", 100_000_001) + b"{}", "header too large"),
    "a length of all ones": (b"\xff" * 8 + b"{}", "header too large"),
    "a length past the end": (struct.pack("<Q", 99_000_000) + b"{}", "invalid header length"),
    "text that is no JSON": (headed(b"no json!"), "invalid JSON in header"),
    "an empty header": (headed(b""), "invalid JSON in header"),
    "a byte order mark": (headed(b"\xef\xbb\xbf{}"), "invalid JSON in header"),
    "bytes that are no UTF-8": (headed(b'{"\xff":1}'), "invalid UTF-8 in header"),
    "an array": (headed(b"[]"), "invalid JSON in header"),
    "an unknown dtype": (
        headed(b'{"a":{"dtype":"X9","shape":[],"data_offsets":[0,1]}}', b"\0"),
        "invalid JSON in header",
    ),
    "a negative size": (
        headed(b'{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}', b"\0"),
        "invalid JSON in header",
    ),
    "a hole": (
        headed(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', b"\0\0"),
        "invalid offset for tensor `a`",
    ),
    "an overlap": (
        headed(
            b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},'
            b'"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}',
            b"\0\0\0",
        ),
        "invalid offset for tensor `b`",
    ),
    "an end before the start": (
        headed(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[1,0]}}', b"\0"),
        "invalid offset for tensor `a`",
    ),
    "a shape of another size": (
        headed(b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,1]}}', b"\0"),
        "invalid shape, data type, or offset for tensor",
    ),
    "a shape that overflows": (
        headed(b'{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}', b""),
        "overflow computing buffer size from shape and/or element type",
    ),
    "an element count inside a byte": (
        headed(b'{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}}', b"\0"),
        "The slice is slicing for subbytes dtypes",
    ),
    "a truncated file": (one("U8", (8,))[:-1], "incomplete metadata, file not fully covered"),
    "a file that is too long": (one("U8", (8,)) + b"\0", "incomplete metadata"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_malformed_file_is_refused_with_the_reference_s_words(
    data: bytes, message: str, backend: str
) -> None:
    write(data)
    with pytest.raises(SafetensorError, match=re.escape(message)) as caught:
        safe_open(PATH, "np", backend=backend)
    assert str(caught.value).startswith("Error while deserializing header: ")
    assert isinstance(caught.value, ValueError)
    with pytest.raises(SafetensorError, match=re.escape(message)) as caught:
        deserialize(data)
    assert str(caught.value).startswith("Error while deserializing: ")


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_the_peer_refuses_it_as_well(data: bytes, message: str) -> None:
    peer = pytest.importorskip("safetensors")
    write(data)
    with pytest.raises((peer.SafetensorError, OSError)) as caught:
        peer.safe_open(PATH, "np")
    assert data == b"" or message in str(caught.value)


def test_a_duplicate_tensor_is_refused_though_the_peer_takes_it() -> None:
    entry = b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    write(headed(b"{" + entry + b"," + entry + b"}", b"\0"))
    with pytest.raises(SafetensorError, match="`a`") as caught:
        safe_open(PATH, "np")
    assert caught.value.kind == "DuplicateTensor" and caught.value.tensor == "a"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><head><title>404</title></head></html>", "HTML"),
        (b"PK\x03\x04" + b"\0" * 60, "zip"),
        (b"GGUF\x03\0\0\0" + b"\0" * 60, "GGUF"),
    ],
)
def test_a_file_of_another_format_is_named(data: bytes, words: str) -> None:
    write(data)
    with pytest.raises(SafetensorError, match=words) as caught:
        safe_open(PATH, "np")
    assert caught.value.hint and "\nhint: " in str(caught.value)


def test_a_missing_file_is_told_in_the_words_that_programs_match() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        safe_open("notafile", "np")
    assert str(caught.value) == "No such file or directory: notafile"
    assert caught.value.errno == errno.ENOENT and caught.value.filename == "notafile"
    assert isinstance(caught.value, SafetensorError)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's kinds of files")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "socket"])
def test_what_is_no_regular_file_is_refused_at_once(kind: str, backend: str) -> None:
    path = PATH
    if kind == "folder":
        os.mkdir(path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(path)
    else:
        path = "/dev/zero"
    with pytest.raises(OSError) as caught:
        safe_open(path, "np", backend=backend)
    assert isinstance(caught.value, SafetensorError)


@pytest.mark.skipif(sys.platform == "win32", reason="needs modes")
def test_a_file_that_may_not_be_read_is_told_as_that(two: str) -> None:
    os.chmod(two, 0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read all files
    try:
        with pytest.raises(PermissionError, match="Permission denied") as caught:
            safe_open(two, "np")
    finally:
        os.seteuid(user)
    assert caught.value.errno == errno.EACCES and isinstance(caught.value, SafetensorError)


def test_a_file_that_shrinks_is_an_error_and_no_crash(two: str) -> None:
    with safe_open(two, "np", backend="pread") as file:
        os.truncate(two, os.path.getsize(two) - 8)
        with pytest.raises(SafetensorError) as caught:
            file.get_tensor("a")
        assert isinstance(caught.value, OSError)
        assert file.get_tensor("b").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_full_disk_is_told_and_the_old_file_stays() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs Linux's /dev/full")
    with pytest.raises(OSError) as caught:
        save_file({"a": np.zeros(100_000)}, "/dev/full")
    assert caught.value.errno == errno.ENOSPC
    assert pathlib.Path("/dev/full").is_char_device()


def test_paths_are_texts_or_path_objects(two: str) -> None:
    with safe_open(pathlib.Path(two), "np") as file:
        assert file.keys() == ["a", "b"]
    with pytest.raises(TypeError):
        safe_open(12.5, "np")  # type: ignore[arg-type]


def test_names_of_any_text_are_found() -> None:
    names = ["", "é", "日本語", "a.b", 'quote"d', "back\\slash", "new\nline", "\u0001"]
    write(save({name: np.array(i) for i, name in enumerate(names)}))
    with safe_open(PATH, "np") as file:
        assert file.keys() == sorted(names)
        assert [int(file.get_tensor(name)) for name in names] == list(range(len(names)))


@given(
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    st.sampled_from(BACKENDS),
    st.data(),
)
def test_slices_are_numpy_s(shape: tuple[int, ...], backend: str, data: st.DataObject) -> None:
    array = np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape)
    save_file({"a": array}, PATH)
    index = data.draw(hnp.basic_indices(shape, max_dims=6, allow_newaxis=True))
    with safe_open(PATH, "np", backend=backend) as file:
        part = file.get_slice("a")[index]
    expected = array[index]
    assert np.shape(part) == np.shape(expected)
    assert np.array_equal(part, expected)


@given(
    hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5),
    st.sampled_from(BACKENDS),
    st.data(),
)
def test_slices_are_torch_s(shape: tuple[int, ...], backend: str, data: st.DataObject) -> None:
    torch = pytest.importorskip("torch")
    array = np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape)
    save_file({"a": array}, PATH)
    index = data.draw(hnp.basic_indices(shape, max_dims=5, allow_newaxis=True))
    steps = [i.step for i in index if isinstance(i, slice)] if isinstance(index, tuple) else []
    if isinstance(index, slice):
        steps = [index.step]
    if any(step is not None and step < 0 for step in steps):
        return  # torch knows no negative steps; see below
    expected = torch.from_numpy(array)[index]
    with safe_open(PATH, "pt", backend=backend) as file:
        part = file.get_slice("a")[index]
    assert part.shape == expected.shape and torch.equal(part, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_torch_s_other_indices_work_on_every_backend(backend: str) -> None:
    torch = pytest.importorskip("torch")
    array = torch.arange(20).reshape(4, 5)
    write(save({"a": array.numpy()}))
    with safe_open(PATH, "pt", backend=backend) as file:
        part = file.get_slice("a")
        for index in ([0, 2], torch.tensor([3, 1]), np.int64(2), (..., 0), None, [], (), True):
            assert torch.equal(part[index], array[index])
        assert torch.equal(part[array > 7], array[array > 7])
        with pytest.raises(ValueError, match="step must be greater than zero"):
            part[::-1]
        with pytest.raises(IndexError):
            part[9]


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_and_reversed_ranges_are_empty(backend: str) -> None:
    # safetensors 0.8.0 gives the whole tensor, or wraps around.
    write(save({"a": np.arange(10).reshape(5, 2), "none": np.zeros((0, 3))}))
    with safe_open(PATH, "np", backend=backend) as file:
        part = file.get_slice("a")
        assert part[0:0:2].shape == part[3:1].shape == part[5:5].shape == (0, 2)
        assert part[-2:].tolist() == [[6, 7], [8, 9]]
        assert part[::-2].tolist() == [[8, 9], [4, 5], [0, 1]]
        assert file.get_slice("none")[:].shape == (0, 3)
        assert file.get_slice("none")[:, 1].shape == (0,)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_indices_are_told_in_the_words_that_programs_match(backend: str) -> None:
    write(save({"a": np.zeros((10, 5))}))
    with safe_open(PATH, "np", backend=backend) as file:
        part = file.get_slice("a")
        for index, message in [
            ((slice(2, None), -6), "Invalid index -6 for dimension 1 of size 5"),
            ([0, 1], "Non empty lists are not implemented"),
            (
                (slice(2, None), 20),
                "Error during slicing [2:, 20] with shape [10, 5]: index 20 out of bounds for"
                " tensor dimension #1 of size 5",
            ),
            (
                slice(None, 20),
                "Error during slicing [:20] with shape [10, 5]: index 19 out of bounds for"
                " tensor dimension #0 of size 10",
            ),
        ]:
            with pytest.raises(SafetensorError) as caught:
                part[index]
            assert str(caught.value) == message
        for index in ((0, 0, 0), (..., ...), "a", 1.5, slice(None, None, 0)):
            with pytest.raises((SafetensorError, TypeError, ValueError)):
                part[index]


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_byte_types_are_sliced_by_their_logical_index(backend: str) -> None:
    pytest.importorskip("ml_dtypes")
    write(one("F4", (4, 6)))
    with safe_open(PATH, "np", backend=backend) as file:
        whole = file.get_tensor("t")
        part = file.get_slice("t")
        for index in (slice(1, 3), (slice(None), slice(1, 3)), (slice(None), 1), (1, slice(1, 5))):
            assert part[index].tolist() == whole[index].tolist()
        with pytest.raises(SafetensorError):
            part[0, 1:4]  # three half bytes


@pytest.mark.parametrize("backend", BACKENDS)
def test_torch_reads_and_slices_pairs_of_half_bytes(backend: str) -> None:
    # safetensors 0.8.0 cannot slice them, nor read them with `pread`.
    torch = pytest.importorskip("torch")
    data = one("F4", (4, 6))
    write(data)
    with safe_open(PATH, "pt", backend=backend) as file:
        tensor = file.get_tensor("t")
        assert tensor.shape == (4, 3)
        part = file.get_slice("t")[1:3]
        assert part.dtype == torch.float4_e2m1fn_x2
        octets = tensor.view(torch.uint8)
        assert torch.equal(part.view(torch.uint8), octets[1:3])


def test_other_threads_run_while_a_file_is_read() -> None:
    write(save({"a": np.zeros(32_000_000, np.uint8)}))
    done = threading.Event()
    turns = 0

    def count() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            done.wait(0.0005)

    thread = threading.Thread(target=count)
    thread.start()
    before = turns
    with safe_open(PATH, "np", backend="pread") as file:
        for _ in range(10):
            file.get_tensor("a")
    ran = turns - before
    done.set()
    thread.join()
    assert ran > 5


def test_one_handle_serves_many_threads() -> None:
    tensors = {f"t{i}": np.full(1000, i) for i in range(64)}
    write(save(tensors))
    with safe_open(PATH, "np", backend="pread") as file:
        found: dict[int, bool] = {}

        def read(start: int) -> None:
            found[start] = all(
                np.array_equal(file.get_tensor(f"t{i}"), tensors[f"t{i}"])
                for i in range(start, 64, 4)
            )

        threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == dict.fromkeys(range(4), True)


def test_deserialize_gives_names_shapes_types_and_bytes() -> None:
    data = file_bytes({"b": ("U8", (2,), b"\1\2"), "a": ("F4", (2,), b"\3")})
    for given_ in (data, bytearray(data), memoryview(data)):
        assert dict(deserialize(given_)) == {
            "b": {"dtype": "U8", "shape": [2], "data": bytearray(b"\1\2")},
            "a": {"dtype": "F4", "shape": [2], "data": bytearray(b"\3")},
        }
