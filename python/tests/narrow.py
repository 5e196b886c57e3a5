"""Integers narrower than a byte, and files to hold them, made without the code under test."""

from __future__ import annotations

import importlib
import json
import pathlib
from typing import Any

import numpy as np
from cases import file_bytes

import tensorhold

NARROW = ["int1", "int2", "int4", "uint1", "uint2", "uint4"]
ALL = [f"{prefix}{width}" for prefix in ("int", "uint") for width in range(1, 8)]


def code(name: str) -> str:
    """`I4` for `int4`."""
    return ("U" if name[0] == "u" else "I") + name[-1]


def numbers(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray[Any, Any]:
    """Values of the type, as int8 or uint8."""
    width = int(name[-1])
    generator = np.random.default_rng(seed)
    low, dtype = (0, np.uint8) if name[0] == "u" else (-(2 ** (width - 1)), np.int8)
    return np.asarray(generator.integers(low, low + 2**width, shape), dtype)


def packed(values: np.ndarray[Any, Any], width: int) -> np.ndarray[Any, Any]:
    """The container of some values, by the specification and not by the code under test."""
    lines = values if values.ndim else values.reshape(1)
    bits = (lines.astype(np.uint8)[..., None] >> np.arange(width)) & 1
    bits = bits.reshape(*lines.shape[:-1], lines.shape[-1] * width)
    return np.packbits(bits, axis=-1, bitorder="little")


def container(name: str, values: np.ndarray[Any, Any]) -> bytes:
    """A file with one such tensor, laid out by hand."""
    data = packed(values, int(name[-1]))
    described = {"dtype": code(name), "shape": list(values.shape)}
    text = json.dumps(described, separators=(",", ":"))
    return file_bytes({"t": ("U8", data.shape, data.tobytes())}, {"tensorhold.dtype.t": text})


def integers(tensor: Any) -> np.ndarray[Any, Any]:
    """The values of a tensor of any framework, as int8 or uint8."""
    if type(tensor).__module__.startswith("torch"):
        import torch

        signed = not str(tensor.dtype).startswith("torch.u")
        return np.asarray(tensor.view(torch.int8 if signed else torch.uint8).numpy())
    array = np.asarray(tensor)
    return array.astype(np.int8 if array.dtype.name.startswith("int") else np.uint8)


def same(tensor: Any, expected: np.ndarray[Any, Any]) -> bool:
    found = integers(tensor)
    return found.shape == expected.shape and bool((found == expected).all())


def check_every_way(framework: str, front_end: str, name: str) -> None:
    """Asserts that each way to read gives a framework's tensors of the same integers."""
    front = importlib.import_module(f"tensorhold.{front_end}")
    values = numbers(name, (3, 5))
    data = container(name, values)
    path = pathlib.Path("t.safetensors")
    path.write_bytes(data)
    assert same(front.load(data)["t"], values)
    assert same(front.load(bytearray(data))["t"], values)
    for backend in ("mmap", "pread"):
        assert same(front.load_file(path, backend=backend)["t"], values)
        with tensorhold.safe_open(path, framework, backend=backend) as file:
            assert same(file.get_tensor("t"), values)
            part = file.get_slice("t")
            assert part.get_shape() == [3, 5] and part.get_dtype() == code(name)
            assert same(part[1:, 2:4], values[1:, 2:4])
            assert file.get_tensor_meta("t").dtype == "U8"
            with file.prefetch({"t": slice(1, 3)}) as loader:
                assert same(loader.take("t"), values[1:])
    with tensorhold.open(path, framework=framework) as checkpoint:
        logical = checkpoint.logical("t")
        assert (logical.dtype, logical.shape) == (code(name), (3, 5))
        assert same(checkpoint["t"], values)
        assert same(checkpoint.load()["t"], values)
        assert same(dict(checkpoint.stream())["t"], values)
        assert same(checkpoint.load(dequantize=True)["t"], values)
        assert same(checkpoint.dequantize("t")[1:, ::2], values[1:, ::2])
