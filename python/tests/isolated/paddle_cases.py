"""Paddle tensors: every type that Paddle has comes back to the same bytes."""

from __future__ import annotations

import pathlib

import numpy as np
import paddle
import pytest
from cases import DTYPES, one
from narrow import ALL, check_every_way

from tensorhold import SafetensorError, deserialize
from tensorhold import paddle as ours

HELD = sorted(DTYPES.keys() & ours._TYPES)
LACKING = sorted(DTYPES.keys() - ours._TYPES - {"U16"})


@pytest.mark.parametrize("shape", [(2, 4), (8,), (0, 4)])
@pytest.mark.parametrize("code", HELD)
def test_every_dtype_comes_back_to_the_same_bytes(code: str, shape: tuple[int, ...]) -> None:
    data = one(code, shape)
    path = pathlib.Path("one.safetensors")
    path.write_bytes(data)
    for backend in ("mmap", "pread"):
        tensor = ours.load_file(path, backend=backend)["t"]
        assert isinstance(tensor, paddle.Tensor)
        assert tuple(tensor.shape) == shape
        assert tensor.dtype == ours._getdtype(code)
        ours.save_file({"t": tensor}, "again.safetensors")
        assert pathlib.Path("again.safetensors").read_bytes() == data
    assert ours.save(ours.load(data)) == data
    assert ours.save(ours._view2paddle(deserialize(data), "cpu")) == data
    assert (
        ours._to_numpy(tensor).tobytes()
        == data[len(data) - tensor.size * ours._SIZE[tensor.dtype] :]
    )


@pytest.mark.parametrize("code", LACKING)
def test_a_dtype_that_paddle_lacks_is_named(code: str) -> None:
    with pytest.raises(SafetensorError, match=f"Paddle has no dtype for `{code}`"):
        ours.load(one(code, (8,)))


def test_16_bit_unsigned_integers_are_read_as_bfloat16() -> None:
    assert ours.load(one("U16", (8,)))["t"].dtype == paddle.bfloat16


@pytest.mark.parametrize("code", ["F32", "BF16", "F16", "I64", "C64", "BOOL", "F8_E4M3"])
def test_the_peer_reads_and_writes_the_same_file(code: str) -> None:
    peer = pytest.importorskip("safetensors.paddle")
    tensor = ours.load(one(code, (2, 4)))["t"]
    ours.save_file({"t": tensor}, "ours.safetensors")
    peer.save_file({"t": tensor}, "theirs.safetensors")
    data = pathlib.Path("ours.safetensors").read_bytes()
    assert data == pathlib.Path("theirs.safetensors").read_bytes()
    for loaded in (peer.load_file("ours.safetensors"), ours.load_file("theirs.safetensors")):
        assert loaded["t"].dtype == tensor.dtype
        assert loaded["t"].numpy().tobytes() == tensor.numpy().tobytes()


def test_every_name_of_the_peer_s_is_here() -> None:
    peer = pytest.importorskip("safetensors.paddle")
    ignored = {"os", "sys", "Any", "Dict", "List", "Optional", "Union"}
    assert {name for name in dir(peer) if not hasattr(ours, name)} <= ignored


def test_what_cannot_be_saved_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected a dict of \[str, paddle.Tensor\]"):
        ours.save([paddle.zeros([1])])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Key `a` is invalid, expected paddle\.Tensor"):
        ours.save({"a": np.zeros(1)})
    with pytest.raises(ValueError, match="save a non contiguous tensor: `n`"):
        ours.save({"n": paddle.zeros([2, 3]).T})
    with pytest.raises(KeyError, match="`c` has dtype"):
        ours.save({"c": paddle.zeros([2], dtype="complex128")})


def test_a_device_that_paddle_was_not_built_for_is_refused() -> None:
    ours.save_file({"a": paddle.zeros([1])}, "a.safetensors")
    assert ours.load_file("a.safetensors", device="cpu")["a"].place.is_cpu_place()
    if not paddle.is_compiled_with_cuda():
        with pytest.raises(ValueError, match="gpu:0"):
            ours.load_file("a.safetensors", device="gpu:0")


def test_scalars_have_no_dimension() -> None:
    assert list(ours.load(ours.save({"a": paddle.to_tensor(2.5)}))["a"].shape) == []


@pytest.mark.parametrize("name", ALL)
def test_integers_narrower_than_a_byte_come_in_bytes(name: str) -> None:
    check_every_way("paddle", "paddle", name)
