"""Checkpoints as PyTorch writes them: every type, view, protocol and container."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from convert import containers

Make = Callable[[], Any]
Write = Callable[[Any, Path], None]

# What `torch.save` takes: dtypes of one, two, four, eight and sixteen bytes.
CLASSIC = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
    *(torch.complex128, torch.complex64),
]
# What has no class of storages of its own: `_rebuild_tensor_v3` makes it.
RECENT = [
    *(torch.uint16, torch.uint32, torch.uint64, torch.complex32),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    *(torch.float8_e8m0fnu, torch.float4_e2m1fn_x2),
    *(torch.bits8, torch.bits16, torch.bits1x8, torch.bits2x4, torch.bits4x2),
]
PROTOCOLS = [2, 3, 4, 5]


@dataclass(frozen=True)
class Checkpoint:
    """A value, and how it is written."""

    name: str
    make: Make
    write: Write


def all_checkpoints() -> list[Checkpoint]:
    """Every one, by a name of its own."""
    found = [*_of_dtypes(), *_of_values(), *_of_containers()]
    assert len({each.name for each in found}) == len(found)
    return found


def tensor(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """A tensor with other bytes in each place; no view of anything."""
    n_elements = int(np.prod(shape))
    generator = np.random.default_rng(n_elements)
    raw = torch.from_numpy(generator.integers(0, 256, n_elements * dtype.itemsize, np.uint8))
    if dtype is torch.bool:
        raw %= 2
    strides = torch.empty(shape, device="meta").stride()
    return torch.empty(0, dtype=dtype).set_(raw.untyped_storage(), 0, shape, strides)


def views(dtype: torch.dtype) -> dict[str, Any]:
    """Tensors of a type that lie in memory in every way."""
    whole, other = tensor(dtype, 4, 6), tensor(dtype, 5, 3)
    return {
        "plain": tensor(dtype, 3, 5),
        "scalar": tensor(dtype),
        "empty": tensor(dtype, 0, 3),
        "transposed": tensor(dtype, 3, 4).t(),
        "strided": tensor(dtype, 12).as_strided((3,), (4,)),
        "expanded": tensor(dtype, 1, 3).expand(4, 3),
        "offset": tensor(dtype, 9)[4:],
        "channels": tensor(dtype, 2, 5, 4, 3).permute(0, 3, 1, 2),
        "whole": whole,
        "row": whole[2],
        "column": whole[:, 1],
        "again": whole,
        "first part": other[:2],
        "last part": other[3:],
    }


def _of_dtypes() -> Iterator[Checkpoint]:
    for dtype in [*CLASSIC, *RECENT]:
        for protocol in PROTOCOLS:
            write = partial(containers.save, pickle_protocol=protocol)
            name = f"{dtype}-protocol-{protocol}"
            yield Checkpoint(f"{name}-zip", partial(views, dtype), write)
            if dtype in CLASSIC:
                write = partial(write, _use_new_zipfile_serialization=False)
                yield Checkpoint(f"{name}-legacy", partial(views, dtype), write)


# Values


def _training() -> Any:
    torch.manual_seed(5)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters(), amsgrad=True)
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    return {
        "model": model.state_dict(),
        "opt": optimizer.state_dict(),
        "scheduler": {key: each for key, each in scheduler.state_dict().items() if key[0] != "_"},
        "rng": torch.get_rng_state(),
        "numpy": np.random.RandomState(3).get_state(),
        "epoch": 4,
        "best": 0.25,
    }


def _momentum() -> Any:
    weight = torch.nn.Parameter(tensor(torch.float32, 4))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, nesterov=True)
    weight.grad = torch.ones(4)
    optimizer.step()
    return {"weight": weight, "opt": optimizer.state_dict()}


def _parameters() -> Any:
    tied = torch.nn.Parameter(tensor(torch.float32, 3, 2))
    return {
        "parameter": tied,
        "tied": tied,
        "frozen": torch.nn.Parameter(tensor(torch.float16, 4), requires_grad=False),
        "leaf": tensor(torch.float64, 2).requires_grad_(),
        "buffer": torch.nn.Buffer(tensor(torch.float32, 2)),
        "bytes": tensor(torch.uint8, 3),
    }


def _with_attributes() -> Any:
    weight = torch.nn.Parameter(tensor(torch.float32, 3))
    weight.axes = ["rows", 3]  # type: ignore[attr-defined]
    return [weight]


def _sparse() -> Any:
    dense = torch.tensor([[0.0, 2, 0, 0], [3, 0, 0, 4]])
    found = {"coo": dense.to_sparse(), "csr": dense.to_sparse_csr(), "csc": dense.to_sparse_csc()}
    found |= {"bsr": dense.to_sparse_bsr((1, 2)), "bsc": dense.to_sparse_bsc((2, 1))}
    twice = torch.sparse_coo_tensor([[0, 0], [1, 1]], [2.0, 3.0], (2, 4))
    return found | {"twice": twice, "hybrid": torch.ones(2, 3).to_sparse(1)}


def _quantized() -> Any:
    numbers = torch.linspace(-1, 1, 12).reshape(3, 4)
    scales, zeros = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64), torch.tensor([0, 1, 2])
    found = {
        f"{dtype}": torch.quantize_per_tensor(numbers, 0.1, 3, dtype)
        for dtype in (torch.qint8, torch.quint8, torch.qint32)
    }
    found["channel"] = torch.quantize_per_channel(numbers, scales, zeros, 0, torch.qint8)
    found["transposed"] = torch.quantize_per_tensor(numbers, 0.5, 0, torch.quint8).t()
    return found


def _packed() -> Any:
    numbers = torch.linspace(0, 1, 16).reshape(2, 8)
    scales, zeros = torch.tensor([0.1, 0.2]), torch.tensor([0.5, 0.25])
    return {
        f"{dtype}": torch.quantize_per_channel(numbers, scales, zeros, 0, dtype)
        for dtype in (torch.quint4x2, torch.quint2x4)
    }


def _conjugated() -> Any:
    numbers = tensor(torch.complex64, 2, 3)
    return {
        "numbers": numbers,
        "conj": numbers.conj(),
        "negative": torch._neg_view(tensor(torch.float32, 4)),
        "imaginary": tensor(torch.complex64, 3).conj().imag,
        "alone": tensor(torch.complex128, 3).conj(),
        "half": tensor(torch.complex32, 2).conj(),
    }


def _nested() -> Any:
    parts = [tensor(torch.float32, 2, 3), tensor(torch.float32, 4, 3)]
    return {"nested": torch.nested.nested_tensor([part.abs() for part in parts])}


def _arrays() -> Any:
    names = ["bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
    arrays = {name: np.arange(6).reshape(2, 3).astype(name) for name in names}
    return {
        "scalars": {name: array[1, 2] for name, array in arrays.items()},
        "big": np.arange(3, dtype=">f4"),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "empty": np.zeros((0, 2), np.float32),
        "dtype": np.dtype("<i4"),
        **arrays,
    }


def _scalar_and_array() -> Any:
    return {"w": tensor(torch.float32, 2), "loss": np.float64(0.5), "seen": np.arange(3)}


def _values() -> Any:
    counts: defaultdict[str, int] = defaultdict(int, a=3)
    shared = [1, 2]
    return {
        "integers": [0, 1, 255, 256, -1, 65536, 2**31, -(2**31) - 1, 2**63, -(2**63), 2**200],
        "floats": [0.0, -0.0, 1.5, float("inf"), float("-inf"), float("nan"), 5e-324],
        "texts": ["", "text", "\u00e4\u20ac\U0001f600", "a\nb\0c", "x" * 300],
        "bytes": [b"", b"\x00\xff", bytes(range(256)) * 2, bytearray(b"bytes")],
        "none": None,
        "truths": (True, False),
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "sets": [{1, 2}, set(), frozenset({"a"})],
        "complex": 1 - 2j,
        "ordered": OrderedDict([("b", 1), ("a", 2)]),
        "counter": Counter("aab"),
        "default": counts,
        "size": torch.Size([2, 3]),
        "dtypes": [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.uint16],
        "devices": [torch.device("cpu"), torch.device("cuda:1")],
        "layout": [torch.strided, torch.sparse_coo],
        "slice": [slice(1, 5, 2), slice(None)],
        "range": range(2, 9, 3),
        "ellipsis": ...,
        "shared": [shared, shared],
        "$tensor": {"$dict": [1]},
        (1, "key"): "of a tuple",
        3: "of an integer",
        None: "of nothing",
    }


_VALUES: dict[str, Make] = {
    "training": _training,
    "momentum": _momentum,
    "parameters": _parameters,
    "attributes": _with_attributes,
    "sparse": _sparse,
    "quantized": _quantized,
    "packed": _packed,
    "conjugated": _conjugated,
    "nested": _nested,
    "arrays": _arrays,
    "values": _values,
    "list": lambda: [tensor(torch.float32, 2), 3, [tensor(torch.int64, 1)]],
    "tuple": lambda: (tensor(torch.float32, 2), None),
    "tensor": lambda: tensor(torch.float32, 2, 3),
    "number": lambda: 5,
    "integer keys": lambda: {0: tensor(torch.float32, 2), 7: tensor(torch.int8, 2), -1: "x"},
    "meta": lambda: {"m": torch.empty(2, 3, device="meta"), "w": tensor(torch.float32, 2)},
    "many": lambda: {f"layers.{i}.weight": tensor(torch.float16, 3) for i in range(700)},
    "dotted": lambda: {"a.b": tensor(torch.int8, 2), "a": {"b": tensor(torch.int8, 3)}},
}


def _of_values() -> Iterator[Checkpoint]:
    for name, make in _VALUES.items():
        for protocol in (2, 4):
            write = partial(containers.save, pickle_protocol=protocol)
            yield Checkpoint(f"{name}-protocol-{protocol}-zip", make, write)
        # PyTorch cannot load dtypes without classes of storages from what it saved so.
        if name not in ("conjugated", "meta", "nested"):
            write = partial(containers.save, _use_new_zipfile_serialization=False)
            yield Checkpoint(f"{name}-legacy", make, write)


# Containers


def _state() -> Any:
    return {"w": tensor(torch.float32, 3, 4), "n": {"b": tensor(torch.bfloat16, 5)}, "step": 3}


def _all_classic() -> Any:
    return {str(dtype): views(dtype) for dtype in CLASSIC}


def _widths() -> Any:
    dtypes = [*CLASSIC, *RECENT[:10]]
    return {str(dtype): tensor(dtype, 2, 3) for dtype in dtypes}


def _of_containers() -> Iterator[Checkpoint]:
    for writer in containers.WRITERS:
        name = writer.__name__.replace("_", "-")
        yield Checkpoint(f"{name}-state", _state, writer)
        yield Checkpoint(f"{name}-views", _all_classic, writer)
        yield Checkpoint(f"{name}-training", _training, writer)
    for alignment in (1, 8, 256, 4096):
        write = partial(containers.aligned, alignment=alignment)
        yield Checkpoint(f"aligned-to-{alignment}", _all_classic, write)
    yield Checkpoint("big-endian", _all_classic, containers.big_endian)
    yield Checkpoint("protocol-1", _all_classic, partial(containers.save, pickle_protocol=1))


# The files that other readers were tried on.


def _views_of_one() -> Any:
    whole = tensor(torch.float32, 6, 4)
    return {"w": whole, "t": whole.t(), "s": whole[1:4, ::2], "e": whole[0].expand(3, 4)}


def _model() -> Any:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))


def _with_big_integer() -> Any:
    return {"w": tensor(torch.float32, 2), "n": 2**80}


def _parameter_dict() -> Any:
    return {"p": torch.nn.Parameter(tensor(torch.float32, 2, 2))}


def _nested_state() -> Any:
    return {key: each for key, each in _training().items() if key in ("model", "opt", "epoch")}


_legacy = partial(containers.save, _use_new_zipfile_serialization=False)

# Those that hold values; a whole module and a TorchScript program are tried by themselves.
KNOWN_FILES = [
    Checkpoint("state_dict", lambda: _model().state_dict(), containers.save),
    Checkpoint("param", _parameter_dict, containers.save),
    Checkpoint("views", _views_of_one, containers.save),
    Checkpoint(
        "big-int dict", lambda: {"w": tensor(torch.float32, 2), "n": 2**80}, containers.save
    ),
    Checkpoint("nested + optimizer", _nested_state, containers.save),
    Checkpoint("numpy scalar & ndarray", _scalar_and_array, containers.save),
    Checkpoint("legacy stream", lambda: _model().state_dict(), _legacy),
    Checkpoint("views legacy", _views_of_one, _legacy),
    Checkpoint("protocol 5", _nested_state, partial(containers.save, pickle_protocol=5)),
    Checkpoint("int keys", _VALUES["integer keys"], containers.save),
    Checkpoint("uint16", lambda: {"w": tensor(torch.uint16, 4)}, containers.save),
    Checkpoint("complex64", lambda: {"w": tensor(torch.complex64, 4)}, containers.save),
    Checkpoint("conj", lambda: {"w": tensor(torch.complex64, 4).conj()}, containers.save),
    Checkpoint("fp8", lambda: {"w": tensor(torch.float8_e4m3fn, 4)}, containers.save),
    Checkpoint("quantized", _quantized, containers.save),
    Checkpoint("sparse", _sparse, containers.save),
    Checkpoint("root = list", _VALUES["list"], containers.save),
    Checkpoint("root = tensor", _VALUES["tensor"], containers.save),
]


def model() -> torch.nn.Module:
    """A small module, always the same."""
    made: torch.nn.Module = _model()
    return made
