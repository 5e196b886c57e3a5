"""Which tensors of a file hold the memory of the tensors of a tree."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import torch

from tensorhold._native import TensorSpec
from tensorhold.serialization._words import refuse
from tensorhold.torch import _TYPES, _describe

__all__ = ["Item", "Place", "Use", "contiguous_strides", "is_dense", "plan", "raw"]

# A name, what the writer needs to know of the bytes, and what keeps them alive.
Item = tuple[str, TensorSpec, object]
# An offset, a shape and strides, in elements. The offset of a tensor may be a symbol, of none here.
Place = tuple[Any, tuple[int, ...], tuple[int, ...]]

_PACKED = getattr(torch, "float4_e2m1fn_x2", None)
_IN_FORMAT = frozenset(_TYPES.values())
_REAL = {
    torch.complex128: torch.float64,
    torch.complex32: torch.float16,
    getattr(torch, "bcomplex32", None): torch.bfloat16,
}
_BITS = frozenset(("conj", "neg"))
# Words of the sizes that an element can have; bits are copied, so any type will do.
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_UNSIGNED = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint64}
_DTYPE_NAMES = {dtype: str(dtype).removeprefix("torch.") for dtype in _IN_FORMAT}


class Use(NamedTuple):
    """A tensor of a tree: its node, the name it would be stored under, and its memory.

    `first` and `end` are bytes of the storage.
    """

    node: dict[str, Any]
    name: str
    tensor: torch.Tensor
    first: int
    end: int


def raw(
    tensor: torch.Tensor,
    dtype: torch.dtype,
    place: Place | None = None,
) -> torch.Tensor:
    """The memory of a tensor as it is: with no bits, no gradient, and no quantizer."""
    place = place or (tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
    made = torch.empty(0, dtype=dtype, device=tensor.device)
    return made.set_(tensor.untyped_storage(), *place)


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a contiguous tensor, as PyTorch gives them."""
    strides = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def plan(uses: dict[int, list[Use]], metadata: dict[str, str]) -> list[Item]:
    """Completes the nodes of all tensors, and says what is to be stored for them.

    Args:
        uses: The tensors of each storage.
        metadata: Gets the names that are tied to others.
    """
    items: list[Item] = []
    tied: list[tuple[str, str]] = []
    for group in uses.values():
        if len(group) == 1:
            items.append(_alone(group[0]))
        else:
            items.append(_together(group, tied))
    taken = {name for name, _, _ in items}
    for other, name in tied:
        if other not in taken:
            metadata.setdefault(other, name)
    return items


def _alone(use: Use) -> Item:
    tensor = use.tensor
    shape, strides = tuple(tensor.shape), tensor.stride()
    if tensor.is_contiguous():
        # Of dimensions of one element, or of a tensor that has none, any strides will do.
        is_free = 1 in shape or 0 in shape
        if is_free and strides != contiguous_strides(shape):
            use.node["stride"] = list(strides)
        return _whole(use, tensor)
    size_bytes = tensor.numel() * tensor.element_size()
    if is_dense(shape, strides):
        use.node["layout_stride"] = list(strides)
    elif use.end - use.first < size_bytes:
        return _hull([use], use.first, use.end)
    # As words, since not all types can be copied.
    word = _WORDS.get(tensor.element_size())
    if word is None:
        return _whole(use, tensor.contiguous())
    copied = raw(tensor, word).contiguous()
    return _whole(use, raw(copied, tensor.dtype))


def is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether strides are those of a permutation of a contiguous tensor."""
    expected = 1
    sizes = zip(strides, shape, strict=True)
    for stride, size in sorted((stride, size) for stride, size in sizes if size != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def _together(group: list[Use], tied: list[tuple[str, str]]) -> Item:
    used = [use for use in group if use.tensor.numel()]
    first = min((use.first for use in used), default=0)
    end = max((use.end for use in used), default=0)
    for use in used or group[:1]:
        is_all = not used or (use.first == first and use.end == end)
        if is_all and use.tensor.is_contiguous() and _divides(used, first):
            item = _whole(use, use.tensor)
            _view_others(group, use, first, tied)
            return item
    # What has wide elements begins at a multiple of them, counted from that of the storage.
    first -= first % max(use.tensor.element_size() for use in group)
    return _hull(group, first, end)


def _divides(group: list[Use], first: int) -> bool:
    return all((use.first - first) % use.tensor.element_size() == 0 for use in group)


def _view_others(group: list[Use], kept: Use, first: int, tied: list[tuple[str, str]]) -> None:
    dtype, shape = kept.tensor.dtype, tuple(kept.tensor.shape)
    strides = kept.tensor.stride()
    if strides != contiguous_strides(shape):
        kept.node["stride"] = list(strides)
    for use in group:
        if use is kept:
            continue
        use.node["$tensor"] = kept.name
        _view(use, first, kept.tensor)
        is_same = use.first == kept.first and use.tensor.is_contiguous()
        is_same = is_same and not _BITS & (use.node.keys() ^ kept.node.keys())
        if is_same and use.tensor.dtype == dtype and tuple(use.tensor.shape) == shape:
            tied.append((use.name, kept.name))


def _view(use: Use, first: int, kept: torch.Tensor) -> None:
    """Says what a node is of a stored tensor that begins at byte `first` of the storage."""
    tensor, node = use.tensor, use.node
    shape, strides = tuple(tensor.shape), tensor.stride()
    if tensor.dtype != kept.dtype or tensor.dtype not in _IN_FORMAT:
        node["dtype"] = str(tensor.dtype).removeprefix("torch.")
    stored, _ = _stored_shape(kept)
    if shape != stored:
        node["shape"] = list(shape)
    if strides != contiguous_strides(shape):
        node["stride"] = list(strides)
    offset = (use.first - first) // tensor.element_size() if tensor.numel() else 0
    if offset:
        node["offset"] = offset


def _hull(group: list[Use], first: int, end: int) -> Item:
    """Stores bytes `first` to `end` of a storage, as one dimension of elements."""
    kinds = {use.tensor.dtype for use in group}
    one = next(iter(kinds))
    is_plain = len(kinds) == 1 and one in _IN_FORMAT and one != _PACKED
    dtype = one if is_plain and (end - first) % one.itemsize == 0 else torch.uint8
    place = (first // dtype.itemsize, ((end - first) // dtype.itemsize,), (1,))
    stored = raw(group[0].tensor, dtype, place)
    name = group[0].name
    for use in group:
        use.node["$tensor"] = name
        _view(use, first, stored)
    return _item(name, stored)


def _whole(use: Use, tensor: torch.Tensor) -> Item:
    """Stores a contiguous tensor under its own name."""
    use.node["$tensor"] = use.name
    shape, is_native = _stored_shape(tensor)
    if not is_native:
        use.node["dtype"] = str(tensor.dtype).removeprefix("torch.")
        if shape != tuple(tensor.shape):
            use.node["shape"] = list(tensor.shape)
        tensor = raw(tensor, *_container(tensor, shape))
    return _item(use.name, tensor)


def _stored_shape(tensor: torch.Tensor) -> tuple[tuple[int, ...], bool]:
    """The shape of what holds a tensor in the file, and whether its type is one of the file's."""
    shape = tuple(tensor.shape)
    if tensor.dtype in _IN_FORMAT and (tensor.dtype != _PACKED or shape):
        return shape, True
    return ((*shape, 2) if tensor.dtype in _REAL else shape), False


def _container(tensor: torch.Tensor, shape: tuple[int, ...]) -> tuple[torch.dtype, Place]:
    dtype = _REAL.get(tensor.dtype) or _UNSIGNED[tensor.element_size()]
    scale = tensor.element_size() // dtype.itemsize
    return dtype, (tensor.storage_offset() * scale, shape, contiguous_strides(shape))


def _item(name: str, tensor: torch.Tensor) -> Item:
    """What the writer needs to know of contiguous memory."""
    if tensor.device.type != "cpu" or sys.byteorder != "little":
        return (name, *_describe(name, tensor))
    size_bytes = tensor.numel() * tensor.element_size()
    address = tensor.data_ptr()
    if size_bytes and not address:
        refuse((name,), "the tensor has no memory of its own")
    spec = TensorSpec(
        dtype=_DTYPE_NAMES[tensor.dtype],
        shape=tuple(tensor.shape),
        data_ptr=address,
        data_len=size_bytes,
    )
    return name, spec, tensor
