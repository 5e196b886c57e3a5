"""TensorFlow tensors: every type that TensorFlow has comes back to the same bytes."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from cases import DTYPES, one
from narrow import ALL, check_every_way, container, numbers

import tensorhold
from tensorhold import SafetensorError, numpy
from tensorhold import tensorflow as ours

LACKING = ["F8_E8M0", "F6_E2M3", "F6_E3M2"]


@pytest.mark.parametrize("shape", [(2, 4), (8,), (0, 4)])
@pytest.mark.parametrize("code", sorted(DTYPES.keys() - LACKING))
def test_every_dtype_comes_back_to_the_same_bytes(code: str, shape: tuple[int, ...]) -> None:
    data = one(code, shape)
    path = pathlib.Path("one.safetensors")
    path.write_bytes(data)
    for backend in ("mmap", "pread"):
        tensor = ours.load_file(path, backend=backend)["t"]
        assert isinstance(tensor, tf.Tensor)
        assert tensor.shape == shape
        assert tensor.dtype.as_numpy_dtype == numpy._getdtype(code)
        ours.save_file({"t": tensor}, "again.safetensors")
        assert pathlib.Path("again.safetensors").read_bytes() == data
    assert ours.save(ours.load(data)) == data


@pytest.mark.parametrize("code", LACKING)
def test_a_dtype_that_tensorflow_lacks_is_named(code: str) -> None:
    with pytest.raises(SafetensorError, match=f"TensorFlow has no dtype for `{code}`"):
        ours.load(one(code, (8,)))


@pytest.mark.parametrize("code", ["F32", "BF16", "F16", "I64", "C64", "BOOL", "U8"])
def test_the_peer_reads_and_writes_the_same_file(code: str) -> None:
    peer = pytest.importorskip("safetensors.tensorflow")
    tensor = ours.load(one(code, (2, 4)))["t"]
    ours.save_file({"t": tensor}, "ours.safetensors")
    peer.save_file({"t": tensor}, "theirs.safetensors")
    data = pathlib.Path("ours.safetensors").read_bytes()
    assert data == pathlib.Path("theirs.safetensors").read_bytes()
    for loaded in (peer.load_file("ours.safetensors"), ours.load_file("theirs.safetensors")):
        assert loaded["t"].dtype == tensor.dtype
        assert loaded["t"].numpy().tobytes() == tensor.numpy().tobytes()


def test_every_name_of_the_peer_s_is_here() -> None:
    peer = pytest.importorskip("safetensors.tensorflow")
    ignored = {"os", "Dict", "Optional", "Union", "np"}
    assert {name for name in dir(peer) if not hasattr(ours, name)} <= ignored


def test_the_caller_s_dict_stays_as_it_is() -> None:
    # safetensors 0.8.0 leaves NumPy arrays in it.
    tensors = {"a": tf.zeros(2)}
    ours.save(tensors)
    ours.save_file(tensors, "a.safetensors")
    assert isinstance(tensors["a"], tf.Tensor)
    arrays = {"a": np.zeros(2)}
    assert isinstance(ours._np2tf(arrays)["a"], tf.Tensor)
    assert isinstance(arrays["a"], np.ndarray)


def test_variables_and_scalars_are_saved() -> None:
    loaded = ours.load(ours.save({"v": tf.Variable([1.0, 2.0]), "s": tf.constant(3)}))
    assert loaded["v"].numpy().tolist() == [1.0, 2.0]
    assert loaded["s"].shape == () and int(loaded["s"]) == 3


def test_text_is_refused_by_the_name_of_its_dtype() -> None:
    saves = [ours.save, lambda tensors: tensorhold.save(tensors, "t.safetensors")]
    for tensor in (tf.constant("a"), tf.constant(["a", "b"])):
        for save in saves:
            with pytest.raises(SafetensorError, match="tensor `words` has dtype string"):
                save({"words": tensor})


@pytest.mark.parametrize("name", ALL)
def test_integers_narrower_than_a_byte_are_read_by_every_way(name: str) -> None:
    check_every_way("tf", "tensorflow", name)


@pytest.mark.parametrize("name", ["int2", "int4", "uint2", "uint4"])
def test_integers_narrower_than_a_byte_are_saved_packed(name: str) -> None:
    data = container(name, numbers(name, (3, 5)))
    tensor = ours.load(data)["t"]
    assert tensor.dtype.name == name
    assert ours.save({"t": tensor}) == data
    tensorhold.save({"t": tensor}, "saved.safetensors")
    assert ours.load_file("saved.safetensors")["t"].dtype == tensor.dtype
