"""MLX arrays: every type that MLX has comes back to the same bytes."""

from __future__ import annotations

import pathlib

import pytest
from cases import DTYPES, one

mx = pytest.importorskip("mlx.core")

from tensorhold import SafetensorError, numpy  # noqa: E402
from tensorhold import mlx as ours  # noqa: E402

HELD = [code for code in DTYPES if code not in numpy._ML_DTYPES or code == "BF16"]


@pytest.fixture(autouse=True)
def _on_the_cpu() -> None:
    mx.set_default_device(mx.cpu)


@pytest.mark.parametrize("shape", [(2, 4), (8,), (0, 4)])
@pytest.mark.parametrize("code", HELD)
def test_every_dtype_comes_back_to_the_same_bytes(code: str, shape: tuple[int, ...]) -> None:
    data = one(code, shape)
    path = pathlib.Path("one.safetensors")
    path.write_bytes(data)
    for backend in ("mmap", "pread"):
        array = ours.load_file(path, backend=backend)["t"]
        assert isinstance(array, mx.array)
        assert array.shape == shape
        ours.save_file({"t": array}, "again.safetensors")
        assert pathlib.Path("again.safetensors").read_bytes() == data
    assert ours.save(ours.load(data)) == data


@pytest.mark.parametrize("code", sorted(DTYPES.keys() - HELD))
def test_a_dtype_that_mlx_lacks_is_named(code: str) -> None:
    with pytest.raises(SafetensorError, match=f"MLX has no dtype for `{code}`"):
        ours.load(one(code, (8,)))


@pytest.mark.parametrize("code", ["F32", "F16", "I64", "C64", "BOOL", "U8"])
def test_the_peer_reads_and_writes_the_same_file(code: str) -> None:
    peer = pytest.importorskip("safetensors.mlx")
    array = ours.load(one(code, (2, 4)))["t"]
    ours.save_file({"t": array}, "ours.safetensors")
    peer.save_file({"t": array}, "theirs.safetensors")
    data = pathlib.Path("ours.safetensors").read_bytes()
    assert data == pathlib.Path("theirs.safetensors").read_bytes()
    for loaded in (peer.load_file("ours.safetensors"), ours.load_file("theirs.safetensors")):
        assert loaded["t"].dtype == array.dtype
        assert mx.array_equal(loaded["t"], array)


@pytest.mark.parametrize("code", ["F32", "F16", "BF16", "I64", "C64", "BOOL", "U8"])
def test_mlx_s_own_loader_reads_our_files(code: str) -> None:
    array = ours.load(one(code, (2, 4)))["t"]
    ours.save_file({"t": array}, "ours.safetensors")
    loaded = mx.load("ours.safetensors")["t"]
    assert loaded.dtype == array.dtype and mx.array_equal(loaded, array)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_views_are_saved_as_they_read(dtype: mx.Dtype) -> None:
    square = mx.arange(6).reshape(2, 3).astype(dtype)
    loaded = ours.load(ours.save({"t": square.T, "s": square[:, ::2]}))
    assert mx.array_equal(loaded["t"], square.T) and mx.array_equal(loaded["s"], square[:, ::2])


def test_scalars_have_no_dimension() -> None:
    loaded = ours.load(ours.save({"a": mx.array(2.5), "b": mx.array(2.5, dtype=mx.bfloat16)}))
    assert loaded["a"].shape == loaded["b"].shape == ()
    assert loaded["a"].item() == loaded["b"].item() == 2.5
