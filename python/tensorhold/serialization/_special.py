"""The nodes of tensors that are more than strides over memory."""

from __future__ import annotations

from collections.abc import Generator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from tensorhold.serialization._register import name_of
from tensorhold.serialization._storages import raw
from tensorhold.serialization._words import Attribute, float_to_node, refuse

if TYPE_CHECKING:
    from tensorhold.serialization._encode import Encoder
    from tensorhold.serialization._walk import Steps

__all__ = ["flags", "is_dtensor", "is_jagged", "special_node"]

Parts = Generator[tuple[Any, Any], Any, dict[str, Any]]

_COMPRESSED = {
    torch.sparse_csr: ("csr", "crow_indices", "col_indices"),
    torch.sparse_csc: ("csc", "ccol_indices", "row_indices"),
    torch.sparse_bsr: ("bsr", "crow_indices", "col_indices"),
    torch.sparse_bsc: ("bsc", "ccol_indices", "row_indices"),
}
_INTEGERS = {torch.quint8: torch.uint8, torch.qint8: torch.int8, torch.qint32: torch.int32}


def flags(tensor: torch.Tensor) -> dict[str, Any]:
    """What a node says of gradients and parameters, and of where the tensor was."""
    node: dict[str, Any] = {}
    kind = type(tensor)
    is_parameter = kind is not torch.Tensor and isinstance(tensor, torch.nn.Parameter)
    if is_parameter:
        node["parameter"] = True
    if tensor.requires_grad != is_parameter:
        node["requires_grad"] = tensor.requires_grad
    return node


def is_dtensor(tensor: torch.Tensor) -> bool:
    """Whether this is what a rank holds of a tensor."""
    return type(tensor).__name__ == "DTensor" and type(tensor).__module__.startswith(
        "torch.distributed"
    )


def is_jagged(tensor: torch.Tensor) -> bool:
    """Whether this is a nested tensor of layout `torch.jagged`."""
    return tensor.layout == torch.jagged and type(tensor).__module__.startswith("torch.nested")


def special_node(encoder: Encoder, tensor: torch.Tensor) -> Steps:
    """The node of a tensor of another kind than `$tensor` says."""
    reference = encoder.open(tensor)
    parts = _parts(encoder, tensor)
    reference.node = (yield from parts) | flags(tensor)
    reference.is_open = False
    return reference


def _parts(encoder: Encoder, tensor: torch.Tensor) -> Parts:
    if name_of(type(tensor)) is not None:
        return _subclass(tensor)
    if is_dtensor(tensor):
        return _dtensor(encoder, tensor)
    if is_jagged(tensor):
        return _jagged(tensor)
    if vars(tensor):
        refuse(encoder.trail, "a tensor of this kind with attributes of its own cannot be kept")
    if tensor.is_nested:
        return _nested(tensor)
    if tensor.layout == torch.sparse_coo:
        return _coo(tensor)
    if tensor.layout in _COMPRESSED:
        return _compressed(tensor)
    return _quantized(encoder, tensor)


def _coo(tensor: torch.Tensor) -> Parts:
    node: dict[str, Any] = {"$sparse": "coo"}
    tensor = tensor.detach()
    node["indices"] = yield Attribute("indices"), tensor._indices()
    node["values"] = yield Attribute("values"), tensor._values()
    node["shape"] = list(tensor.shape)
    node["coalesced"] = tensor.is_coalesced()
    return node


def _compressed(tensor: torch.Tensor) -> Parts:
    layout, compressed, plain = _COMPRESSED[tensor.layout]
    node: dict[str, Any] = {"$sparse": layout}
    tensor = tensor.detach()
    node["compressed"] = yield Attribute(compressed), getattr(tensor, compressed)()
    node["plain"] = yield Attribute(plain), getattr(tensor, plain)()
    node["values"] = yield Attribute("values"), tensor.values()
    node["shape"] = list(tensor.shape)
    return node


def _quantized(encoder: Encoder, tensor: torch.Tensor) -> Parts:
    scheme = str(tensor.qscheme()).removeprefix("torch.")
    node: dict[str, Any] = {"$quantized": scheme}
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.dtype in _INTEGERS:
        node["ints"] = yield Attribute("ints"), raw(tensor, _INTEGERS[tensor.dtype])
        node["dtype"] = dtype
    else:
        if tensor.storage_offset():
            refuse(encoder.trail, f"a part of a {dtype} tensor cannot be kept", "clone it")
        size_bytes = tensor.untyped_storage().nbytes()
        octets = raw(tensor, torch.uint8, (0, (size_bytes,), (1,)))
        node["ints"] = yield Attribute("ints"), octets
        node["dtype"] = dtype
        node["shape"], node["stride"] = list(tensor.shape), list(tensor.stride())
    if scheme.startswith("per_tensor"):
        node["scale"] = float_to_node(tensor.q_scale())
        node["zero_point"] = tensor.q_zero_point()
    else:
        node["scales"] = yield Attribute("scales"), tensor.q_per_channel_scales()
        node["zero_points"] = yield Attribute("zero_points"), tensor.q_per_channel_zero_points()
        node["axis"] = tensor.q_per_channel_axis()
    return node


def _nested(tensor: torch.Tensor) -> Parts:
    node: dict[str, Any] = {"$nested": "strided"}
    tensor = tensor.detach()
    # The whole buffer, as one dimension.
    node["values"] = yield Attribute("values"), tensor.values()
    node["sizes"] = yield Attribute("sizes"), tensor._nested_tensor_size()
    node["strides"] = yield Attribute("strides"), tensor._nested_tensor_strides()
    node["offsets"] = yield Attribute("offsets"), tensor._nested_tensor_storage_offsets()
    return node


def _jagged(tensor: Any) -> Parts:
    node: dict[str, Any] = {"$nested": "jagged"}
    node["values"] = yield Attribute("values"), tensor._values.detach()
    node["offsets"] = yield Attribute("offsets"), tensor._offsets
    if tensor._lengths is not None:
        node["lengths"] = yield Attribute("lengths"), tensor._lengths
    node["ragged_dim"] = tensor._ragged_idx
    return node


def _dtensor(encoder: Encoder, tensor: Any) -> Parts:
    node: dict[str, Any] = {}
    node["$dtensor"] = yield Attribute("local"), tensor._local_tensor.detach()
    mesh = tensor.device_mesh
    names = mesh.mesh_dim_names
    node["mesh"] = {
        "device_type": mesh.device_type,
        "shape": list(mesh.mesh.shape),
        "names": None if names is None else list(names),
        "ranks": mesh.mesh.tolist(),
        "rank": mesh.get_rank(),
    }
    node["placements"] = [_placement(encoder, item) for item in tensor.placements]
    node["shape"], node["stride"] = list(tensor.shape), list(tensor.stride())
    return node


def _placement(encoder: Encoder, placement: Any) -> Any:
    types = import_module("torch.distributed.tensor.placement_types")
    if type(placement) is types.Shard:
        return {"shard": placement.dim}
    if type(placement) is types._StridedShard:
        return {"strided_shard": placement.dim, "split_factor": placement.split_factor}
    if type(placement) is types.Replicate:
        return "replicate"
    if type(placement) is types.Partial and type(placement.reduce_op) is str:
        return {"partial": placement.reduce_op}
    refuse(encoder.trail, f"the placement {placement} cannot be kept")


def _subclass(tensor: Any) -> Parts:
    names, context = tensor.__tensor_flatten__()
    node: dict[str, Any] = {"$subclass": name_of(type(tensor))}
    parts = {}
    for name in names:
        parts[str(name)] = yield Attribute(name), getattr(tensor, name)
    node["parts"] = parts
    node["context"] = yield Attribute("context"), context
    node["shape"], node["stride"] = list(tensor.shape), list(tensor.stride())
    return node
