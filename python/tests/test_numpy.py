"""NumPy arrays: what is saved is what is loaded, by us and by the peer."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from cases import DTYPES, SHAPES, one, values
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tensorhold
from tensorhold import SafetensorError, deserialize, safe_open
from tensorhold import numpy as ours

NATIVE = [code for code in DTYPES if code in ours._TYPES and code not in ours._ML_DTYPES]


def same_bytes(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> bool:
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and (left.tobytes() == right.tobytes())
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("code", DTYPES)
def test_every_dtype_comes_back_to_the_same_bytes(code: str, shape: tuple[int, ...]) -> None:
    pytest.importorskip("ml_dtypes")
    data = one(code, shape)
    path = pathlib.Path("one.safetensors")
    path.write_bytes(data)
    for backend in ("mmap", "pread"):
        array = ours.load_file(path, backend=backend)["t"]
        assert array.shape == shape
        assert array.dtype == ours._getdtype(code)
        assert ours.save({"t": array}) == data
    assert ours.save(ours.load(data)) == data
    assert ours.save(ours._view2np(deserialize(data))) == data
    ours.save_file({"t": array}, path)
    assert path.read_bytes() == data


@pytest.mark.parametrize("code", [code for code, (_, name) in DTYPES.items() if name])
def test_the_peer_writes_the_same_bytes(code: str) -> None:
    peer = pytest.importorskip("safetensors")
    pytest.importorskip("ml_dtypes")
    width_bits, name = DTYPES[code]
    buffer = np.frombuffer(values(code, 8), np.uint8)
    shape = [2, 2] if width_bits == 4 else [2, 4]
    spec = peer.TensorSpec(
        dtype=name, shape=shape, data_ptr=buffer.ctypes.data, data_len=buffer.nbytes
    )
    theirs = peer.serialize({"t": spec})
    assert theirs == one(code, (2, 4))
    assert ours.save(ours.load(theirs)) == theirs


@pytest.mark.parametrize("code", NATIVE)
def test_the_peer_reads_what_we_write(code: str) -> None:
    peer = pytest.importorskip("safetensors.numpy")
    array = ours.load(one(code, (2, 4)))["t"]
    ours.save_file({"t": array}, "ours.safetensors")
    assert same_bytes(peer.load_file("ours.safetensors")["t"], array)
    peer.save_file({"t": array}, "theirs.safetensors")
    assert same_bytes(ours.load_file("theirs.safetensors")["t"], array)


arrays = hnp.arrays(
    st.sampled_from([np.dtype(d) for d in ("u1", "<i2", ">i4", "<f4", ">f8", "<c8", "?", "f2")]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


@given(
    st.dictionaries(st.text(max_size=8).filter(lambda name: name != "__metadata__"), arrays),
    st.none() | st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3),
)
def test_any_arrays_round_trip(
    tensors: dict[str, np.ndarray[Any, Any]], metadata: dict[str, str] | None
) -> None:
    data = ours.save(tensors, metadata)
    assert ours.save(tensors, metadata) == data
    loaded = ours.load(data)
    assert loaded.keys() == tensors.keys()
    for name, array in tensors.items():
        assert same_bytes(loaded[name], array.astype(array.dtype.newbyteorder("=")))
    assert (len(data) - sum(array.nbytes for array in tensors.values())) % 8 == 0


@given(arrays, st.data())
def test_views_of_any_strides_are_saved_as_they_read(
    array: np.ndarray[Any, Any], data: st.DataObject
) -> None:
    view = array[data.draw(hnp.basic_indices(array.shape, max_dims=4))]
    if isinstance(view, np.ndarray):
        view = view.transpose(data.draw(st.permutations(range(view.ndim))))
    saved = ours.load(ours.save({"view": view}))["view"]
    assert saved.shape == view.shape
    assert saved.tobytes() == view.astype(view.dtype.newbyteorder("=")).tobytes()


def test_fortran_broadcast_and_reversed_arrays_are_saved_right() -> None:
    # safetensors 0.8.0 writes memory as it lies, and past its end.
    square = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensors = {
        "fortran": np.asfortranarray(square),
        "broadcast": np.broadcast_to(np.float32([1, 2]), (3, 2)),
        "reversed": square[::-1, ::-1],
        "strided": square[:, ::2],
    }
    ours.save_file(tensors, "strides.safetensors")
    for name, array in ours.load_file("strides.safetensors").items():
        np.testing.assert_array_equal(array, tensors[name])


def test_the_caller_s_arrays_and_dict_stay_as_they_are() -> None:
    array = np.arange(3, dtype=">i4")
    tensors = {"a": array}
    ours.save(tensors)
    assert tensors == {"a": array} and tensors["a"] is array
    assert array.tolist() == [0, 1, 2]


def test_numpy_scalars_are_tensors_of_no_dimension() -> None:
    loaded = ours.load(ours.save({"a": np.float32(2.5)}))
    assert loaded["a"].shape == () and loaded["a"] == np.float32(2.5)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(1, np.complex128),
        np.array(["text"]),
        np.array([object()]),
        np.zeros(1, np.dtype([("x", "f4")])),
    ],
    ids=["complex128", "text", "object", "record"],
)
def test_a_dtype_that_the_format_lacks_is_refused(value: np.ndarray[Any, Any]) -> None:
    with pytest.raises(SafetensorError, match="array `a` has dtype") as caught:
        ours.save({"a": value})
    assert caught.value.tensor == "a"


@pytest.mark.parametrize("value", [[1.0], 1.0, None, "text"])
def test_a_value_that_is_no_array_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"Key `a` is invalid, expected np\.ndarray but received"):
        ours.save({"a": value})  # type: ignore[dict-item]


def test_what_is_no_dict_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected a dict of \[str, np.ndarray\]"):
        ours.save([np.zeros(1)])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_can_be_loaded(kind: type) -> None:
    data = kind(ours.save({"a": np.arange(4, dtype=np.int32)}))
    array = ours.load(data)["a"]
    assert array.tolist() == [0, 1, 2, 3]
    array[0] = 9  # what was read only has been copied


def test_a_writable_buffer_is_viewed_and_kept_alive() -> None:
    data = bytearray(ours.save({"a": np.zeros(2, np.uint8)}))
    array = ours.load(data)["a"]
    data[-1] = 5
    assert array.tolist() == [0, 5]
    del data
    assert array.tolist() == [0, 5]


def test_a_mapped_file_can_be_loaded() -> None:
    import mmap

    ours.save_file({"a": np.arange(3, dtype=np.int16)}, "a.safetensors")
    with open("a.safetensors", "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        assert ours.load(mapped)["a"].tolist() == [0, 1, 2]


def test_loaded_arrays_are_writable_and_the_file_stays() -> None:
    ours.save_file({"a": np.zeros(4)}, "a.safetensors")
    before = pathlib.Path("a.safetensors").read_bytes()
    for backend in ("mmap", "pread"):
        array = ours.load_file("a.safetensors", backend=backend)["a"]
        array[:] = 1
        assert pathlib.Path("a.safetensors").read_bytes() == before


def test_arrays_outlive_the_handle_and_the_file() -> None:
    ours.save_file({"a": np.arange(1000)}, "a.safetensors")
    with safe_open("a.safetensors", "np") as file:
        array = file.get_tensor("a")
    os.remove("a.safetensors")
    assert array.sum() == 499500


@given(st.binary(max_size=24), st.sampled_from(["F4", "F6_E2M3", "F6_E3M2"]))
def test_packing_undoes_unpacking(data: bytes, code: str) -> None:
    pytest.importorskip("ml_dtypes")
    group = 3 if code.startswith("F6") else 1
    packed = np.frombuffer(data[: len(data) // group * group], np.uint8)
    n = packed.size * 8 // DTYPES[code][0]
    array = ours._unpack(packed, code, [n])
    assert array.shape == (n,)
    assert ours._pack(array).tobytes() == packed.tobytes()


def test_the_low_bits_of_a_byte_are_the_first_element() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([1.0, -6.0], ml_dtypes.float4_e2m1fn)  # codes 0x2 and 0xF
    assert ours.save({"a": array})[-1] == 0xF2
    # 6-bit codes 1, 2, 3, 4 from the lowest bit up.
    packed = np.frombuffer((1 | 2 << 6 | 3 << 12 | 4 << 18).to_bytes(3, "little"), np.uint8)
    codes = ours._unpack(packed, "F6_E3M2", [4]).view(np.uint8)
    assert codes.tolist() == [1, 2, 3, 4]


def test_an_odd_count_of_half_bytes_is_refused() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with pytest.raises(SafetensorError):
        ours.save({"a": np.zeros(3, ml_dtypes.float4_e2m1fn)})
    # The last dimension may be odd where the whole is even.
    even = np.arange(6).reshape(2, 3).astype(ml_dtypes.float4_e2m1fn)
    assert ours.load(ours.save({"a": even}))["a"].tolist() == even.tolist()


def test_types_of_ml_dtypes_are_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ours._TYPES, "BF16", raising=False)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(SafetensorError, match=r"`BF16`.*\nhint: install `ml_dtypes`"):
        ours._getdtype("BF16")
    with pytest.raises(KeyError):
        ours._getdtype("X9")


def test_a_dtype_that_a_program_adds_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ours._TYPES, "X9", np.float32)
    assert ours._getdtype("X9") == np.float32


@pytest.mark.skipif(sys.platform != "linux", reason="modes and links are as on Linux")
def test_a_saved_file_has_the_mode_that_the_umask_gives() -> None:
    old = os.umask(0o027)
    try:
        ours.save_file({"a": np.zeros(1)}, "mode.safetensors")
    finally:
        os.umask(old)
    assert os.stat("mode.safetensors").st_mode & 0o777 == 0o640
    os.chmod("mode.safetensors", 0o604)
    ours.save_file({"a": np.ones(1)}, "mode.safetensors")
    assert os.stat("mode.safetensors").st_mode & 0o777 == 0o604


@pytest.mark.skipif(sys.platform != "linux", reason="modes and links are as on Linux")
def test_saving_through_a_symlink_keeps_the_link() -> None:
    ours.save_file({"a": np.zeros(1)}, "real.safetensors")
    os.symlink("real.safetensors", "link.safetensors")
    ours.save_file({"a": np.ones(1)}, "link.safetensors")
    assert os.path.islink("link.safetensors")
    assert ours.load_file("real.safetensors")["a"].tolist() == [1.0]


def test_a_failed_save_leaves_the_old_file_and_nothing_else() -> None:
    ours.save_file({"a": np.zeros(1)}, "a.safetensors")
    before = pathlib.Path("a.safetensors").read_bytes()
    with pytest.raises(SafetensorError):
        ours.save_file({"a": np.zeros(1, np.complex128)}, "a.safetensors")
    with pytest.raises(OSError):
        ours.save_file({"a": np.zeros(1)}, "no/such/folder/a.safetensors")
    assert pathlib.Path("a.safetensors").read_bytes() == before
    assert os.listdir() == ["a.safetensors"]


def test_saving_over_the_file_that_a_tensor_views_is_safe() -> None:
    ours.save_file({"a": np.arange(5000)}, "a.safetensors")
    loaded = ours.load_file("a.safetensors")
    ours.save_file({"a": loaded["a"], "b": np.zeros(1)}, "a.safetensors")
    assert ours.load_file("a.safetensors")["a"].sum() == loaded["a"].sum() == 12497500


def test_empty_dicts_and_empty_metadata_can_be_read_back() -> None:
    # safetensors 0.8.0 writes a file that nobody can read for the second.
    for metadata in (None, {}, {"a": "b"}):
        data = ours.save({}, metadata)
        assert ours.load(data) == {}
        pathlib.Path("empty.safetensors").write_bytes(data)
        with safe_open("empty.safetensors", "np") as file:
            assert (file.metadata() or {}) == (metadata or {})


def test_a_tensor_of_the_metadata_s_name_is_refused() -> None:
    with pytest.raises(SafetensorError, match="__metadata__"):
        ours.save({"__metadata__": np.zeros(1)})


def test_metadata_is_written_in_one_order() -> None:
    keys = [f"k{i}" for i in range(20)]
    tensors = {"a": np.zeros(1)}
    forward = ours.save(tensors, {key: key for key in keys})
    assert ours.save(tensors, {key: key for key in reversed(keys)}) == forward


def test_ml_dtypes_is_imported_when_it_is_needed() -> None:
    pytest.importorskip("ml_dtypes")
    code = """
import sys, tensorhold.numpy as ours
before = "ml_dtypes" in sys.modules
print(before, ours._getdtype("BF16"), ours._TYPES["BF16"] is sys.modules["ml_dtypes"].bfloat16)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "bfloat16", "True"]


def test_what_programs_add_to_the_table_of_types_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ours._TYPES, "BF16", np.int16)
    assert ours._getdtype("BF16") == np.int16
    ours._add_ml_dtypes()
    assert ours._getdtype("BF16") == np.int16


def test_a_masked_array_is_refused_rather_than_unmasked() -> None:
    masked = np.ma.masked_array([1, 2], [False, True])
    for save in (ours.save, lambda arrays: tensorhold.save(arrays, "m.safetensors")):
        with pytest.raises(SafetensorError, match=r"array `m` is masked.*\nhint: .*filled"):
            save({"m": masked})
    assert not os.path.exists("m.safetensors")
    assert ours.load(ours.save({"m": masked.filled(0)}))["m"].tolist() == [1, 0]
