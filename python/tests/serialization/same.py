"""Whether two values are the same: types, bits, strides, order, and what is shared."""

from __future__ import annotations

import math
import struct
from collections import OrderedDict, defaultdict
from typing import Any

import numpy as np
import torch


def check_same(one: Any, other: Any) -> None:
    """Fails, with the path, where two values differ in what anybody could notice."""
    _Comparison().check(one, other, "root")


class _Comparison:
    def __init__(self) -> None:
        # Identity and storages must correspond one to one, both ways.
        self.partners: dict[int, int] = {}
        self.storages: dict[int, int] = {}
        self.held: list[Any] = []

    def check(self, one: Any, other: Any, path: str) -> None:
        kind = type(one)
        assert kind is type(other) or _are_same_tuples(one, other), (path, one, other)
        is_value = kind is torch.Size or (kind is tuple and not one)
        if isinstance(one, (list, tuple, dict, set, torch.Tensor)) and not is_value:
            partner = self.partners.setdefault(id(one), id(other))
            assert partner == id(other), f"{path}: identity"
            assert self.partners.setdefault(-id(other), id(one)) == id(one), f"{path}: identity"
            self.held += [one, other]
        if isinstance(one, torch.Tensor):
            self.check_tensors(one, other, path)
        elif isinstance(one, dict):
            self.check_dicts(one, other, path)
        elif isinstance(one, (list, tuple)):
            assert len(one) == len(other), path
            for i, (a, b) in enumerate(zip(one, other, strict=True)):
                self.check(a, b, f"{path}[{i}]")
        elif kind is np.ndarray:
            assert (one.dtype, one.shape) == (other.dtype, other.shape), path
            is_dense = one.flags.f_contiguous or one.flags.c_contiguous
            assert not is_dense or one.flags.f_contiguous == other.flags.f_contiguous, path
            assert one.tobytes() == other.tobytes(), path
        elif isinstance(one, np.generic):
            assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes()), path
        elif kind is float:
            assert struct.pack("d", one) == struct.pack("d", other), (path, one, other)
        elif kind is complex:
            assert struct.pack("dd", one.real, one.imag) == struct.pack(
                "dd", other.real, other.imag
            )
        elif kind is set or kind is frozenset:
            assert {repr(item) for item in one} == {repr(item) for item in other}, path
        else:
            assert one == other, (path, one, other)

    def check_dicts(self, one: Any, other: Any, path: str) -> None:
        assert len(one) == len(other), path
        for a, b in zip(one, other, strict=True):
            self.check(a, b, f"{path} key {a!r}")
            self.check(one[a], other[b], f"{path}[{a!r}]")
        if type(one) is defaultdict:
            assert one.default_factory is other.default_factory, path
        if type(one) is OrderedDict:
            self.check_dicts(vars(one), vars(other), f"{path}.__dict__")

    def check_tensors(self, one: torch.Tensor, other: torch.Tensor, path: str) -> None:
        for what in ("dtype", "device", "layout", "requires_grad", "is_nested"):
            assert str(getattr(one, what)) == str(getattr(other, what)), (path, what)
        assert isinstance(one, torch.nn.Parameter) == isinstance(other, torch.nn.Parameter), path
        if one.layout == torch.sparse_coo:
            assert one.is_coalesced() == other.is_coalesced(), path
            self.check_tensors(one.detach()._indices(), other.detach()._indices(), path)
            self.check_tensors(one.detach()._values(), other.detach()._values(), path)
            return
        if one.is_nested:
            parts = zip(one.detach().unbind(), other.detach().unbind(), strict=True)
            assert all(torch.equal(a, b) for a, b in parts), path
            return
        assert one.shape == other.shape, path
        if one.layout != torch.strided:
            assert str(one) == str(other), path
            return
        assert one.stride() == other.stride(), (path, one.stride(), other.stride())
        assert (one.is_conj(), one.is_neg()) == (other.is_conj(), other.is_neg()), path
        attributes = [dict(sorted(vars(each).items())) for each in (one, other)]
        self.check_dicts(*attributes, f"{path}.__dict__")
        if one.is_quantized:
            assert one.qscheme() == other.qscheme(), path
            self.check_bits(one.int_repr(), other.int_repr(), path)
            assert torch.equal(one.dequantize(), other.dequantize()), path
        elif one.device.type != "meta":
            self.check_bits(one, other, path)
            self.check_storages(one, other, path)

    def check_storages(self, one: torch.Tensor, other: torch.Tensor, path: str) -> None:
        if not one.numel():
            return
        first, second = (each.untyped_storage()._cdata for each in (one, other))
        assert self.storages.setdefault(first, second) == second, f"{path}: storage"
        assert self.storages.setdefault(-second, first) == first, f"{path}: storage"

    def check_bits(self, one: torch.Tensor, other: torch.Tensor, path: str) -> None:
        assert bits(one) == bits(other), (path, one, other)


def bits(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor's elements, as they lie in memory, in row-major order."""
    size = tensor.element_size()
    raw = torch.empty(0, dtype=torch.uint8)
    shape, strides = (*tensor.shape, size), (*(s * size for s in tensor.stride()), 1)
    raw.set_(tensor.untyped_storage(), tensor.storage_offset() * size, shape, strides)
    return raw.contiguous().numpy().tobytes()


def _are_same_tuples(one: Any, other: Any) -> bool:
    """Named tuples whose class was made anew."""
    fields = getattr(one, "_fields", None)
    return (
        fields is not None
        and fields == getattr(other, "_fields", ())
        and type(one).__name__ == type(other).__name__
    )


def nan_with(bits: int) -> float:
    """A NaN with the given bits."""
    number: float = struct.unpack("<d", struct.pack("<Q", bits))[0]
    assert math.isnan(number)
    return number
