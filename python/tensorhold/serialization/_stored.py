"""Tensors of a tree out of the tensors of the file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from tensorhold.serialization._storages import Place, contiguous_strides, is_dense, raw
from tensorhold.serialization._words import DTYPES, wrong

__all__ = ["Want", "dtype_of", "finished", "integers", "meta", "stored_tensor", "view"]

_QUANTIZED = frozenset(("quint8", "qint8", "qint32", "quint4x2", "quint2x4"))
# Words of the sizes that an element can have; bits are copied, so any type will do.
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Want:
    """What the nodes of a tree want of a tensor of the file.

    `location` is the device that a node says, and None where only arrays and bytes are made of it;
    `width_bytes` is the size of the widest elements that it is viewed as.
    """

    __slots__ = ("location", "n_arrays", "n_tensors", "width_bytes")

    def __init__(self) -> None:
        self.n_tensors = 0
        self.n_arrays = 0
        self.location: str | None = None
        self.width_bytes = 1


def integers(found: Any, trail: Sequence[Any], what: str) -> tuple[int, ...]:
    """A list of integers from 0 to 2^63 - 1, such as a shape."""
    if type(found) is list and all(type(n) is int and 0 <= n < 2**63 for n in found):
        return tuple(found)
    wrong(trail, f"`{what}` is no list of integers from 0 to 2^63 - 1")


def dtype_of(name: Any, trail: Sequence[Any]) -> torch.dtype:
    """The type of a name."""
    found = DTYPES.get(name) if type(name) is str else None
    if found is None:
        wrong(trail, f"this torch, {torch.__version__}, has no dtype `{name}`")
    return found


def stored_tensor(
    stored: torch.Tensor, want: Want, node: dict[str, Any], trail: Sequence[Any]
) -> torch.Tensor:
    """The tensor that a node says, without gradient."""
    if len(node) == 1 and want.n_tensors + want.n_arrays == 1:
        return stored
    dtype = stored.dtype
    if "dtype" in node:
        dtype = dtype_of(node["dtype"], trail)
        if node["dtype"] in _QUANTIZED:
            wrong(trail, f"`{node['dtype']}` is no dtype of a plain tensor")
    if "layout_stride" in node and ("stride" in node or "offset" in node):
        wrong(trail, "`layout_stride` stands with `stride` or `offset`")
    shape = tuple(stored.shape)
    if "shape" in node:
        shape = integers(node["shape"], trail, "shape")
    strides = contiguous_strides(shape)
    if "stride" in node:
        strides = integers(node["stride"], trail, "stride")
    (offset,) = integers([node.get("offset", 0)], trail, "offset")
    if not 0 < max((1, *strides)) < 2**63 or max((0, *shape)) >= 2**62:
        wrong(trail, f"the shape {list(shape)} is too large")
    tensor = view(stored, dtype, (offset, shape, strides), trail)
    if "layout_stride" in node:
        return _laid_out(tensor, integers(node["layout_stride"], trail, "layout_stride"), trail)
    return tensor


def view(
    stored: torch.Tensor,
    dtype: torch.dtype,
    place: Place,
    trail: Sequence[Any],
) -> torch.Tensor:
    """A view of the bytes of a stored tensor; offset and strides are in elements of `dtype`."""
    offset, shape, strides = place
    if len(shape) != len(strides):
        wrong(trail, f"there are {len(strides)} strides for {len(shape)} dimensions")
    width = dtype.itemsize
    last = offset
    if 0 not in shape:
        last += 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    size_bytes = stored.numel() * stored.element_size()
    if last * width > size_bytes:
        wrong(trail, f"the view ends at byte {last * width} of a tensor of {size_bytes} bytes")
    begin = stored.storage_offset() * stored.element_size()
    if begin % width:
        stored, begin = stored.clone(), 0
    try:
        return raw(stored, dtype, (begin // width + offset, shape, strides))
    except (RuntimeError, OverflowError, TypeError) as error:
        wrong(trail, f"torch makes no such view: {_first_line(error)}")


def _laid_out(tensor: torch.Tensor, strides: tuple[int, ...], trail: Sequence[Any]) -> torch.Tensor:
    shape = tuple(tensor.shape)
    if len(strides) != len(shape) or not is_dense(shape, strides):
        wrong(trail, f"{list(strides)} are no strides of a dense tensor of shape {list(shape)}")
    made = torch.empty_strided(shape, strides, dtype=tensor.dtype, device=tensor.device)
    word = _WORDS.get(tensor.element_size())
    if word is None:
        made.copy_(tensor)
    else:
        raw(made, word).copy_(raw(tensor, word))
    return made


def meta(node: dict[str, Any], trail: Sequence[Any]) -> torch.Tensor:
    """The tensor without bytes that a node says."""
    dtype = dtype_of(node["$meta"], trail)
    shape = integers(node["shape"], trail, "shape")
    strides = contiguous_strides(shape)
    if "stride" in node:
        strides = integers(node["stride"], trail, "stride")
    try:
        return torch.empty_strided(shape, strides, dtype=dtype, device="meta")
    except (RuntimeError, OverflowError, TypeError, ValueError) as error:
        wrong(trail, f"torch makes no such tensor: {_first_line(error)}")


def finished(tensor: torch.Tensor, node: dict[str, Any], trail: Sequence[Any]) -> torch.Tensor:
    """A tensor with the bits, gradient and class that its node says."""
    _check_flags(node, trail)
    is_parameter = node.get("parameter", False)
    wants_gradient = node.get("requires_grad", is_parameter)
    if wants_gradient and not (tensor.is_floating_point() or tensor.is_complex()):
        wrong(trail, f"a tensor of {tensor.dtype} has no gradient")
    if is_parameter:
        tensor = torch.nn.Parameter(tensor, wants_gradient)
    elif wants_gradient:
        tensor.requires_grad_()
    bits = {bit: True for bit in ("conj", "neg") if node.get(bit, False)}
    if bits:
        if "conj" in bits and not tensor.is_complex():
            wrong(trail, f"a tensor of {tensor.dtype} has no conjugate bit")
        torch._utils.set_tensor_metadata(tensor, bits)  # type: ignore[no-untyped-call]
    if node.get("buffer", False):
        vars(tensor)["_is_buffer"] = True
    return tensor


def _check_flags(node: dict[str, Any], trail: Sequence[Any]) -> None:
    for name in _flags_of(node):
        if type(node[name]) is not bool or (name != "requires_grad" and not node[name]):
            wrong(trail, f"`{name}` is not true")


def _flags_of(node: dict[str, Any]) -> Iterable[str]:
    return node.keys() & {"parameter", "buffer", "requires_grad", "conj", "neg"}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
