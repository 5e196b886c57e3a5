"""Integers narrower than a byte: packed in tensors of U8, and integers again in every framework."""

from __future__ import annotations

import importlib
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import file_bytes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from narrow import (
    ALL,
    NARROW,
    check_every_way,
    code,
    container,
    integers,
    numbers,
    packed,
    same,
)

import tensorhold
from tensorhold import numpy as ours

ml_dtypes = pytest.importorskip("ml_dtypes")

shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9)


@given(name=st.sampled_from(NARROW), shape=shapes, seed=st.integers(0, 99))
def test_numpy_gives_back_what_it_saved(name: str, shape: tuple[int, ...], seed: int) -> None:
    array = numbers(name, shape, seed).astype(getattr(ml_dtypes, name))
    data = ours.save({"t": array})
    assert data == container(name, integers(array))
    back = ours.load(data)["t"]
    assert back.dtype == array.dtype and back.shape == shape
    assert back.tobytes() == array.tobytes()


@given(name=st.sampled_from(ALL), shape=shapes, seed=st.integers(0, 99))
def test_torch_gives_back_what_it_saved(name: str, shape: tuple[int, ...], seed: int) -> None:
    torch = pytest.importorskip("torch")
    from tensorhold import torch as front

    values = numbers(name, shape, seed)
    tensor = torch.from_numpy(values.copy()).view(getattr(torch, name))
    data = front.save({"t": tensor})
    assert data == container(name, values)
    back = front.load(data)["t"]
    assert back.dtype == tensor.dtype and same(back, values)


@given(data=st.data(), name=st.sampled_from(ALL), shape=shapes)
def test_a_slice_is_the_slice_of_the_whole(
    data: st.DataObject, name: str, shape: tuple[int, ...]
) -> None:
    values = numbers(name, shape)
    path = pathlib.Path("t.safetensors")
    path.write_bytes(container(name, values))
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True, max_dims=5))
    # `None` by itself asks for all.
    asked = index if isinstance(index, tuple) else (index,)
    for framework in ("np", "pt"):
        with tensorhold.open(path, framework=framework) as checkpoint:
            part = checkpoint.slice("t")
            assert part.shape == shape and part.dtype == code(name)
            assert same(part[index], values[index])
            assert same(checkpoint.load({"t": asked})["t"], values[index])
            assert same(checkpoint["t"], values)


FRONT_ENDS = {"np": "numpy", "pt": "torch", "jax": "flax", "mlx": "mlx"}
IMPORTED = {"np": "numpy", "pt": "torch", "jax": "jax", "mlx": "mlx.core"}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("framework", FRONT_ENDS)
def test_every_framework_reads_by_every_way(framework: str, name: str) -> None:
    pytest.importorskip(IMPORTED[framework])
    check_every_way(framework, FRONT_ENDS[framework], name)


SAVES: dict[str, Callable[[Any], object]] = {
    "save": lambda tensors: tensorhold.save(tensors, "s.safetensors"),
    "pairs": lambda tensors: tensorhold.save(iter(tensors.items()), "s.safetensors"),
    "async": lambda tensors: tensorhold.save_async(tensors, "s.safetensors").wait(),
}


@pytest.mark.parametrize("way", SAVES)
@pytest.mark.parametrize("framework", ["np", "pt", "jax"])
def test_every_save_writes_a_container(framework: str, way: str) -> None:
    pytest.importorskip(IMPORTED[framework])
    front = importlib.import_module(f"tensorhold.{FRONT_ENDS[framework]}")
    values = numbers("int4", (3, 5))
    tensor = front.load(container("int4", values))["t"]
    front.save_file({"t": tensor}, "f.safetensors")
    SAVES[way]({"t": tensor, "ones": np.ones(2)})
    for path in ("f.safetensors", "s.safetensors"):
        with tensorhold.open(path, framework="np") as checkpoint:
            info = checkpoint.info("t")
            assert (info.dtype, info.shape) == ("U8", (3, 3))
            assert checkpoint["t"].dtype == ml_dtypes.int4
            assert same(checkpoint["t"], values)
            described = {"tensorhold.dtype.t": '{"dtype":"I4","shape":[3,5]}'}
            assert checkpoint.metadata == described


def test_the_peer_reads_the_container() -> None:
    peer = pytest.importorskip("safetensors.numpy")
    array = numbers("int2", (3, 5)).astype(ml_dtypes.int2)
    tensorhold.save({"t": array}, "t.safetensors")
    found = peer.load_file("t.safetensors")["t"]
    assert found.dtype == np.uint8
    assert np.array_equal(found, packed(integers(array), 2))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "tensorhold.cli", *arguments]
    return subprocess.run(run, check=False, capture_output=True, text=True)


def test_shards_and_one_file_of_them_keep_the_types() -> None:
    arrays = {f"t{n}": numbers("uint4", (4, 33), n).astype(ml_dtypes.uint4) for n in range(4)}
    pathlib.Path("few").mkdir()
    tensorhold.save(arrays, "some.safetensors", max_shard_size=150)
    tensorhold.save(iter(arrays.items()), "few/model.safetensors", max_shard_size=150)
    assert command("merge", "some.safetensors.index.json", "one.safetensors").returncode == 0
    for path in ("some.safetensors.index.json", "few", "one.safetensors"):
        with tensorhold.open(path, framework="np") as checkpoint:
            loaded = checkpoint.load()
        assert loaded.keys() == arrays.keys()
        for name, array in arrays.items():
            assert loaded[name].dtype == array.dtype
            assert loaded[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("framework", ["np", "pt"])
def test_given_tensors_are_filled(framework: str) -> None:
    values = numbers("int4", (4, 6))
    pathlib.Path("t.safetensors").write_bytes(container("int4", values))
    room = np.zeros((4, 12), np.int8)
    dense: Any = np.zeros((4, 6), ml_dtypes.int4)
    strided: Any = room.view(ml_dtypes.int4)[:, ::2]
    other: Any = np.zeros((4, 6), np.int8)
    if framework == "pt":
        torch = pytest.importorskip("torch")
        dense = torch.zeros(4, 6, dtype=torch.int8).view(torch.int4)
        strided = torch.from_numpy(room).view(torch.int4)[:, ::2]
        other = torch.zeros(4, 6, dtype=torch.int8)
    with tensorhold.open("t.safetensors", framework=framework) as checkpoint:
        for into in (dense, strided):
            assert checkpoint.load(into={"t": into})["t"] is into
            assert same(into, values)
        with pytest.raises(ValueError, match="has dtype I8, to which I4 cannot be cast"):
            checkpoint.load(into={"t": other})
        with pytest.raises(ValueError, match=r"has shape \[3, 6\], not \[4, 6\]"):
            checkpoint.load(into={"t": dense[1:]})
    tensorhold.save({"t": np.zeros((4, 6), np.uint8)}, "u8.safetensors")
    with (
        tensorhold.open("u8.safetensors", framework=framework) as checkpoint,
        pytest.raises(ValueError, match="has dtype I4, to which U8 cannot be cast"),
    ):
        checkpoint.load(into={"t": dense})


def test_a_byte_that_is_no_value_is_refused_with_its_place() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([1, 2, 100]).to(torch.int8).view(torch.int4)
    message = "element 2 is the byte 0x64, which is no I4"
    with pytest.raises(tensorhold.SafetensorError, match=message):
        tensorhold.save({"t": tensor}, "t.safetensors")
    assert not pathlib.Path("t.safetensors").exists()


def test_metadata_of_another_file_does_no_harm() -> None:
    stale = {
        "tensorhold.dtype.floats": '{"dtype":"I4","shape":[4,8]}',
        "tensorhold.dtype.bytes": '{"dtype":"I4","shape":[4,8]}',
        "tensorhold.dtype.nibbles": '{"dtype":"I4","shape":[99]}',
        "tensorhold.dtype.elsewhere": '{"dtype":"I4","shape":[2]}',
        "by": "hand",
    }
    tensors = {
        "floats": np.ones((4, 4), np.float32),
        "bytes": np.ones((4, 4), np.uint8),
        "nibbles": np.ones((2, 2), ml_dtypes.uint4),
    }
    kept = {**stale, "tensorhold.dtype.nibbles": '{"dtype":"U4","shape":[2,2]}'}
    del kept["tensorhold.dtype.floats"]
    tensorhold.save(tensors, "all.safetensors", metadata=stale)
    tensorhold.save(iter(tensors.items()), "pairs.safetensors", metadata=stale)
    ours.save_file(tensors, "file.safetensors", metadata=stale)
    for path in ("all.safetensors", "pairs.safetensors", "file.safetensors"):
        with tensorhold.open(path, framework="np") as checkpoint:
            assert checkpoint.metadata == kept
            # These bytes are what the description says.
            assert checkpoint["bytes"].shape == (4, 8)


MISFITS = {
    "shape": '{"dtype":"I4","shape":[4,9]}',
    "huge": '{"dtype":"I4","shape":[18446744073709551615,18446744073709551615]}',
    "past 2^64": '{"dtype":"I4","shape":[36893488147419103232]}',
    "no json": "{dtype: I4}",
    "list": "[4,8]",
    "more fields": '{"dtype":"I4","shape":[4,8],"order":"msb"}',
    "wide": '{"dtype":"I8","shape":[4,4]}',
    "long": '{"dtype":"I4","shape":[4,8]' + " " * 10_000 + "}",
    "deep": "[" * 50_000,
}


@pytest.mark.parametrize("text", MISFITS.values(), ids=MISFITS.keys())
def test_a_description_that_does_not_fit_is_passed_over_and_verify_names_it(text: str) -> None:
    data = np.arange(16, dtype=np.uint8)
    path = pathlib.Path("t.safetensors")
    described = {"tensorhold.dtype.t": text}
    path.write_bytes(file_bytes({"t": ("U8", (4, 4), data.tobytes())}, described))
    with tensorhold.open(path, framework="np") as checkpoint:
        assert np.array_equal(checkpoint["t"], data.reshape(4, 4))
        assert checkpoint.slice("t").dtype == "U8"
    verdict = command("verify", str(path))
    assert verdict.returncode == 1
    assert "tensor `t`" in verdict.stdout + verdict.stderr


def test_values_are_not_saved_unpacked() -> None:
    array = np.zeros(4, np.uint8)
    spec = tensorhold.TensorSpec(
        dtype="int4", shape=[4], data_ptr=array.ctypes.data, data_len=array.nbytes
    )
    with pytest.raises(tensorhold.SafetensorError, match="are stored packed"):
        tensorhold.serialize({"t": spec})


def test_placeholders_and_shares_tell_what_they_give() -> None:
    torch = pytest.importorskip("torch")
    from tensorhold import parallel

    values = numbers("int4", (4, 6))
    pathlib.Path("t.safetensors").write_bytes(container("int4", values))
    placeholder = parallel.lazy("t.safetensors")["t"]
    assert (placeholder.dtype, placeholder.shape) == (torch.int4, (4, 6))
    room = torch.zeros(2, 6, dtype=torch.int8).view(torch.int4)
    room.copy_(placeholder[1:3])
    assert same(room, values[1:3])
    assert same(placeholder[::2].contiguous().view(torch.int8), values[::2])
    # A rank holds a part of the container.
    held = parallel.load("t.safetensors", mesh={"tp": 2}, rank=1, rules={"t": "colwise"})
    assert held["t"].dtype == torch.uint8
    assert np.array_equal(held["t"].numpy(), packed(values, 4)[2:])


def test_inspect_counts_integers() -> None:
    pathlib.Path("t.safetensors").write_bytes(container("uint3", numbers("uint3", (4, 6))))
    shown = command("inspect", "t.safetensors").stdout
    assert "1 tensor, 24 parameters, 12 B" in shown
    assert "U3 [4, 6]" in shown
