"""Nodes of tensors that are strides over memory, and of what else a tensor can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tensorhold.serialization import _special
from tensorhold.serialization._storages import Use, contiguous_strides, raw
from tensorhold.serialization._words import Attribute, refuse

if TYPE_CHECKING:
    from tensorhold.serialization._encode import Encoder
    from tensorhold.serialization._walk import Steps

__all__ = ["attributes_node", "tensor_node"]

_QUANTIZED = frozenset((torch.quint8, torch.qint8, torch.qint32, torch.quint4x2, torch.quint2x4))


def tensor_node(encoder: Encoder, tensor: torch.Tensor) -> Any:
    """The node of a tensor, or what makes it of its parts."""
    if tensor.layout != torch.strided or tensor.is_nested or tensor.dtype in _QUANTIZED:
        return _special.special_node(encoder, tensor)
    if tensor.device.type == "meta":
        shape, strides = tuple(tensor.shape), tensor.stride()
        node = {"$meta": str(tensor.dtype).removeprefix("torch."), "shape": list(shape)}
        if strides != contiguous_strides(shape):
            node["stride"] = list(strides)
    else:
        node = {"$tensor": ""}
        _place(encoder, tensor, node)
    node |= _special.flags(tensor)
    attributes = vars(tensor)
    if attributes:
        return _with_attributes(encoder, tensor, node, attributes)
    return encoder.keep(tensor, node)


def _place(encoder: Encoder, tensor: torch.Tensor, node: dict[str, Any]) -> None:
    """Notes where the memory of a tensor is."""
    for bit, is_set in (("conj", tensor.is_conj()), ("neg", tensor.is_neg())):
        if is_set:
            node[bit] = True
    if tensor.device.type != "cpu":
        node["device"] = str(tensor.device)
    try:
        storage = tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        refuse(encoder.trail, "the tensor has no memory of its own")
    plain = torch.Tensor.detach(tensor) if tensor.requires_grad else tensor
    if len(node) > 1:
        plain = raw(plain, tensor.dtype)
    first: Any = 0
    end: Any = 0
    if tensor.numel():
        size = tensor.element_size()
        first = tensor.storage_offset() * size
        if tensor.is_contiguous():
            end = first + tensor.numel() * size
        else:
            reach = zip(tensor.shape, tensor.stride(), strict=True)
            end = first + (sum((n - 1) * stride for n, stride in reach) + 1) * size
    use = Use(node, encoder.name(), plain, first, end)
    encoder.uses.setdefault(storage, []).append(use)


def _with_attributes(
    encoder: Encoder, tensor: torch.Tensor, node: dict[str, Any], attributes: dict[str, Any]
) -> Steps:
    reference = encoder.open(tensor)
    attributes = dict(attributes)
    if attributes.pop("_is_buffer", None) is True:
        node["buffer"] = True
    if attributes:
        node["attributes"] = yield from attributes_node(encoder, tensor, attributes)
    reference.node = node
    reference.is_open = False
    return reference


def attributes_node(encoder: Encoder, owner: object, attributes: dict[str, Any]) -> Steps:
    """The node of what a value has in its `__dict__`."""
    made = {}
    for name, value in attributes.items():
        if hasattr(type(owner), name):
            refuse(encoder.trail, f"an attribute called `{name}` cannot be kept")
        made[name] = yield Attribute(name), value
    if all(type(name) is str and name[:1] != "$" for name in made):
        return made
    return {"$dict": [[name, node] for name, node in made.items()]}
