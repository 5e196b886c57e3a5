"""JAX arrays: every type that JAX has comes back to the same bytes."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import numpy as np
import pytest
from cases import DTYPES, one

jax = pytest.importorskip("jax")

from tensorhold import SafetensorError, numpy  # noqa: E402
from tensorhold import flax as ours  # noqa: E402

LACKING = ["F6_E2M3", "F6_E3M2"]


@pytest.fixture(autouse=True)
def _all_widths() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("shape", [(2, 4), (8,), (0, 4)])
@pytest.mark.parametrize("code", sorted(DTYPES.keys() - LACKING))
def test_every_dtype_comes_back_to_the_same_bytes(code: str, shape: tuple[int, ...]) -> None:
    data = one(code, shape)
    path = pathlib.Path("one.safetensors")
    path.write_bytes(data)
    for backend in ("mmap", "pread"):
        array = ours.load_file(path, backend=backend)["t"]
        assert isinstance(array, jax.Array)
        assert array.shape == shape and array.dtype == numpy._getdtype(code)
        ours.save_file({"t": array}, "again.safetensors")
        assert pathlib.Path("again.safetensors").read_bytes() == data
    assert ours.save(ours.load(data)) == data


@pytest.mark.parametrize("code", LACKING)
def test_a_dtype_that_jax_lacks_is_named(code: str) -> None:
    with pytest.raises(SafetensorError, match=f"JAX has no dtype for `{code}`"):
        ours.load(one(code, (8,)))


@pytest.mark.parametrize("code", ["F32", "BF16", "I64", "C64", "BOOL", "F16"])
def test_the_peer_reads_and_writes_the_same_file(code: str) -> None:
    peer = pytest.importorskip("safetensors.flax")
    array = ours.load(one(code, (2, 4)))["t"]
    ours.save_file({"t": array}, "ours.safetensors")
    peer.save_file({"t": array}, "theirs.safetensors")
    data = pathlib.Path("ours.safetensors").read_bytes()
    assert data == pathlib.Path("theirs.safetensors").read_bytes()
    for loaded in (peer.load_file("ours.safetensors"), ours.load_file("theirs.safetensors")):
        assert loaded["t"].dtype == array.dtype
        assert np.asarray(loaded["t"]).tobytes() == np.asarray(array).tobytes()


def test_the_caller_s_dict_stays_as_it_is() -> None:
    # safetensors 0.8.0 leaves NumPy arrays in it.
    tensors = {"a": jax.numpy.zeros(2)}
    ours.save(tensors)
    ours.save_file(tensors, "a.safetensors")
    assert isinstance(tensors["a"], jax.Array)
    arrays = {"a": np.zeros(2)}
    assert isinstance(ours._np2jnp(arrays)["a"], jax.Array)
    assert isinstance(arrays["a"], np.ndarray)


def test_arrays_do_not_change_with_the_file() -> None:
    ours.save_file({"a": jax.numpy.zeros(16, np.uint8)}, "a.safetensors")
    array = ours.load_file("a.safetensors")["a"]
    with open("a.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x07")
    assert int(array.sum()) == 0


def test_without_64_bits_jax_narrows_as_it_always_does() -> None:
    jax.config.update("jax_enable_x64", False)
    assert ours.load(numpy.save({"a": np.arange(3)}))["a"].dtype == np.int32
