"""Tensors that are more than strides over memory, out of their nodes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from tensorhold.serialization._register import class_of, is_flattened
from tensorhold.serialization._storages import Place
from tensorhold.serialization._stored import dtype_of, finished, integers
from tensorhold.serialization._words import LAYOUTS, Attribute, float_from_node, wrong

if TYPE_CHECKING:
    from tensorhold.serialization._decode import Decoder
    from tensorhold.serialization._walk import Steps

__all__ = ["dtensor", "nested", "quantized", "sparse", "subclass"]

_COMPRESSED = ("csr", "csc", "bsr", "bsc")
_INTEGERS = {torch.quint8: torch.uint8, torch.qint8: torch.int8, torch.qint32: torch.int32}
_PER_BYTE = {torch.quint4x2: 2, torch.quint2x4: 4}
_REFUSALS = (RuntimeError, TypeError, ValueError, IndexError, OverflowError, NotImplementedError)


def _tensors(decoder: Decoder, node: dict[str, Any], names: Sequence[str]) -> Steps:
    """The tensors that some members are."""
    found = []
    for name in names:
        tensor = yield Attribute(name), node[name]
        if not isinstance(tensor, torch.Tensor):
            wrong(decoder.trail, f"`{name}` is no tensor")
        found.append(tensor)
    return found


def _needs(node: dict[str, Any], trail: Sequence[Any], *names: str) -> None:
    """Raises unless the node has these members beside its tag and flags, and no others."""
    given = node.keys() - {"requires_grad", "parameter", next(iter(node))}
    if given != set(names):
        wrong(trail, f"this has the members {sorted(given)}, not {sorted(names)}")


def _refused(trail: Sequence[Any], error: Exception) -> NoReturn:
    line = (str(error).splitlines() or [""])[0]
    wrong(trail, f"torch makes no such tensor: {line}")


def sparse(decoder: Decoder, node: dict[str, Any]) -> Steps:
    """A sparse tensor, its indices checked."""
    kind = node["$sparse"]
    if kind == "coo":
        return _coordinates(decoder, node)
    if type(kind) is not str or kind not in _COMPRESSED:
        wrong(decoder.trail, f"`{kind}` is no sparse layout")
    return _compressed(decoder, node)


def _coordinates(decoder: Decoder, node: dict[str, Any]) -> Steps:
    trail = decoder.trail
    _needs(node, trail, "indices", "values", "shape", "coalesced")
    indices, values = yield from _tensors(decoder, node, ("indices", "values"))
    shape, is_coalesced = integers(node["shape"], trail, "shape"), node["coalesced"]
    if type(is_coalesced) is not bool:
        wrong(trail, "`coalesced` is neither true nor false")
    try:
        made = torch.sparse_coo_tensor(
            indices,
            values,
            shape,
            device=values.device,
            check_invariants=True,
            is_coalesced=is_coalesced,
        )
    except _REFUSALS as error:
        _refused(trail, error)
    return finished(made, node, trail)


def _compressed(decoder: Decoder, node: dict[str, Any]) -> Steps:
    trail = decoder.trail
    _needs(node, trail, "compressed", "plain", "values", "shape")
    names = ("compressed", "plain", "values")
    compressed, plain, values = yield from _tensors(decoder, node, names)
    shape = integers(node["shape"], trail, "shape")
    try:
        made = torch.sparse_compressed_tensor(
            compressed,
            plain,
            values,
            shape,
            layout=LAYOUTS[f"sparse_{node['$sparse']}"],
            device=values.device,
            check_invariants=True,
        )
    except _REFUSALS as error:
        _refused(trail, error)
    return finished(made, node, trail)


def quantized(decoder: Decoder, node: dict[str, Any]) -> Steps:
    """A quantized tensor over the memory of its integers."""
    scheme, trail = node["$quantized"], decoder.trail
    packed = ["shape", "stride"] if "shape" in node or "stride" in node else []
    made: Any
    if scheme == "per_tensor_affine":
        _needs(node, trail, "ints", "dtype", "scale", "zero_point", *packed)
        (ints,) = yield from _tensors(decoder, node, ("ints",))
        scale = float_from_node(node["scale"], trail)
        zero_point = node["zero_point"]
        if type(zero_point) is not int or not -(2**31) <= zero_point < 2**31:
            wrong(trail, "`zero_point` is no integer of 32 bits")
        dtype, place = _integers_of(node, ints, trail)
        try:
            made = torch._empty_affine_quantized(
                [0], scale=scale, zero_point=zero_point, dtype=dtype, device=ints.device
            )
        except _REFUSALS as error:
            _refused(trail, error)
    elif scheme in ("per_channel_affine", "per_channel_affine_float_qparams"):
        _needs(node, trail, "ints", "dtype", "scales", "zero_points", "axis", *packed)
        ints, *channels = yield from _tensors(decoder, node, ("ints", "scales", "zero_points"))
        dtype, place = _integers_of(node, ints, trail)
        made = _per_channel(channels, node["axis"], dtype, place[1], trail)
    else:
        wrong(trail, f"this torch makes no tensors that are quantized by `{scheme}`")
    made.set_(ints.untyped_storage(), *place)
    return finished(made, node, trail)


def _integers_of(
    node: dict[str, Any], ints: torch.Tensor, trail: Sequence[Any]
) -> tuple[torch.dtype, Place]:
    """The type, offset, shape and strides of what lies in `ints`."""
    dtype = dtype_of(node["dtype"], trail)
    if _INTEGERS.get(dtype) == ints.dtype and "shape" not in node:
        return dtype, (ints.storage_offset(), tuple(ints.shape), ints.stride())
    n_per_byte = _PER_BYTE.get(dtype, 0)
    is_row = ints.dtype == torch.uint8 and ints.dim() == 1 and ints.is_contiguous()
    if not n_per_byte or not is_row or "shape" not in node or ints.storage_offset():
        wrong(trail, f"integers of {dtype} do not lie in a tensor of {ints.dtype} like this")
    shape = integers(node["shape"], trail, "shape")
    strides = integers(node["stride"], trail, "stride")
    if len(shape) != len(strides):
        wrong(trail, f"there are {len(strides)} strides for {len(shape)} dimensions")
    last = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 not in shape and last > ints.numel() * n_per_byte:
        wrong(trail, f"there are {last} integers in {ints.numel()} bytes of {dtype}")
    return dtype, (0, shape, strides)


def _per_channel(
    channels: list[torch.Tensor],
    axis: Any,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    trail: Sequence[Any],
) -> Any:
    """A quantized tensor without elements, to be given its memory."""
    if type(axis) is not int or not 0 <= axis < len(shape):
        wrong(trail, f"`axis` is no dimension of the shape {list(shape)}")
    scales, zero_points = channels
    if any(tuple(each.shape) != (shape[axis],) for each in channels):
        wrong(trail, f"there are not as many scales and zero points as {shape[axis]} channels")
    sizes = [size if at == axis else 0 for at, size in enumerate(shape)]
    try:
        return torch._empty_per_channel_affine_quantized(
            sizes,
            scales=scales,
            zero_points=zero_points,
            axis=axis,
            dtype=dtype,
            device=scales.device,
        )
    except _REFUSALS as error:
        _refused(trail, error)


def nested(decoder: Decoder, node: dict[str, Any]) -> Steps:
    """A nested tensor, its places checked."""
    trail = decoder.trail
    made: Any
    if node["$nested"] == "strided":
        _needs(node, trail, "values", "sizes", "strides", "offsets")
        names = ("values", "sizes", "strides", "offsets")
        values, *places = yield from _tensors(decoder, node, names)
        _check_nested(values, places, trail)
        try:
            made = torch._nested_view_from_buffer(values, *places)
        except _REFUSALS as error:
            _refused(trail, error)
        # Its own, and no view of what nobody else holds.
        return finished(made.detach(), node, trail)
    if node["$nested"] != "jagged":
        wrong(trail, f"`{node['$nested']}` is no layout of nested tensors")
    lengths = ("lengths",) if "lengths" in node else ()
    _needs(node, trail, "values", "offsets", "ragged_dim", *lengths)
    parts = yield from _tensors(decoder, node, ("values", "offsets", *lengths))
    _check_jagged(parts, node["ragged_dim"], trail)
    try:
        values, offsets, *rest = parts
        made = torch.nested.nested_tensor_from_jagged(
            values, offsets, rest[0] if rest else None, jagged_dim=node["ragged_dim"]
        )
    except _REFUSALS as error:
        _refused(trail, error)
    return finished(made.detach(), node, trail)


def _check_nested(values: torch.Tensor, places: list[torch.Tensor], trail: Sequence[Any]) -> None:
    sizes, strides, offsets = places
    is_table = all(each.dtype == torch.int64 for each in places) and offsets.dim() == 1
    is_table = is_table and sizes.dim() in (0, 2) and sizes.shape == strides.shape
    if not is_table or values.dim() != 1 or not values.is_contiguous():
        wrong(trail, "sizes, strides and offsets are no tables of integers over one buffer")
    if sizes.dim() and sizes.shape[0] != offsets.shape[0]:
        wrong(trail, "there are not as many offsets as tensors")
    if not sizes.dim() and offsets.numel():
        wrong(trail, "there are offsets, and no tensors")
    rows = zip(sizes.tolist(), strides.tolist(), offsets.tolist(), strict=True)
    for shape, steps, offset in rows if sizes.dim() else ():
        last = sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
        is_inside = 0 in shape or (offset + last < values.numel() and min(steps, default=0) >= 0)
        if min((offset, *shape)) < 0 or not is_inside:
            wrong(trail, f"a tensor of shape {shape} at {offset} lies outside of the buffer")


def _check_jagged(parts: list[torch.Tensor], dim: Any, trail: Sequence[Any]) -> None:
    values, offsets, *lengths = parts
    if type(dim) is not int or not 1 <= dim <= values.dim():
        wrong(trail, "`ragged_dim` is no dimension that can be ragged")
    kinds = (torch.int64, torch.int32)
    if any(each.dim() != 1 or each.dtype not in kinds for each in (offsets, *lengths)):
        wrong(trail, "offsets and lengths are no rows of integers")
    starts = offsets.tolist()
    ends = starts[1:]
    if lengths:
        if len(lengths[0]) != len(ends):
            wrong(trail, "there are not as many lengths as tensors")
        sizes = lengths[0].tolist()
        ends = [start + size for start, size in zip(starts, sizes, strict=False)]
    is_right = bool(starts) and starts[0] >= 0 and starts == sorted(starts)
    is_right = is_right and all(a <= b for a, b in zip(starts, ends, strict=False))
    if not is_right or max((*starts, *ends)) > values.shape[dim - 1]:
        wrong(trail, "offsets and lengths point outside of the values")


def dtensor(decoder: Decoder, node: dict[str, Any]) -> Steps:
    """What this rank holds of a tensor, as it was placed."""
    trail = decoder.trail
    _needs(node, trail, "mesh", "placements", "shape", "stride")
    tensor = yield Attribute("local"), node["$dtensor"]
    if not isinstance(tensor, torch.Tensor):
        wrong(trail, "the local part is no tensor")
    shape = integers(node["shape"], trail, "shape")
    strides = integers(node["stride"], trail, "stride")
    placements = node["placements"]
    if type(placements) is not list:
        wrong(trail, "`placements` is no list")
    mesh = decoder.mesh(node["mesh"])
    if len(placements) != mesh.ndim or len(shape) != len(strides):
        wrong(trail, "the mesh has another number of dimensions than there are placements")
    placed = [_placement(each, len(shape), trail) for each in placements]
    make = import_module("torch.distributed.tensor").DTensor.from_local
    try:
        made = make(tensor, mesh, placed, run_check=False, shape=torch.Size(shape), stride=strides)
    except _REFUSALS as error:
        _refused(trail, error)
    return finished(made, node, trail)


def make_mesh(node: Any, trail: Sequence[Any]) -> Any:
    """The mesh of devices that a node says."""
    members = {"device_type", "shape", "names", "ranks", "rank"}
    if type(node) is not dict or node.keys() != members:
        wrong(trail, "this is no mesh")
    kind, names = node["device_type"], node["names"]
    shape = integers(node["shape"], trail, "shape")
    ranks = node["ranks"]
    for _ in shape[1:]:
        is_table = type(ranks) is list and all(type(row) is list for row in ranks)
        ranks = [rank for row in ranks for rank in row] if is_table else None
    flat = integers(ranks, trail, "ranks")
    (rank,) = integers([node["rank"]], trail, "rank")
    is_named = names is None or (
        type(names) is list and len(names) == len(shape) and all(type(n) is str for n in names)
    )
    if not is_named or type(kind) is not str or not kind.isidentifier():
        wrong(trail, "this is no mesh")
    try:
        table = torch.tensor(flat, dtype=torch.int, device="cpu").reshape(shape)
        return import_module("torch.distributed.device_mesh").DeviceMesh(
            kind,
            table,
            mesh_dim_names=None if names is None else tuple(names),
            **_groups_of(len(flat), rank),
        )
    except (*_REFUSALS, AssertionError) as error:
        line = (str(error).splitlines() or [""])[0]
        wrong(trail, f"torch makes no such mesh: {line}")


def _groups_of(n_ranks: int, rank: int) -> dict[str, Any]:
    """What a mesh is to be told of its process groups.

    They are made where all ranks are in it, and so make them together; others would wait forever.
    """
    distributed = import_module("torch.distributed")
    if not distributed.is_initialized():
        return {"_init_backend": False, "_rank": rank}
    if distributed.get_world_size() == n_ranks:
        return {}
    return {"_init_backend": False, "_rank": distributed.get_rank()}


def _placement(node: Any, n_dims: int, trail: Sequence[Any]) -> Any:
    types = import_module("torch.distributed.tensor.placement_types")
    if node == "replicate":
        return types.Replicate()
    keys = set(node) if type(node) is dict else set()
    if keys == {"partial"} and node["partial"] in ("sum", "avg", "product", "max", "min"):
        return types.Partial(node["partial"])
    dim = node[next(iter(node))] if keys in ({"shard"}, {"strided_shard", "split_factor"}) else None
    if type(dim) is int and -n_dims <= dim < n_dims:
        if keys == {"shard"}:
            return types.Shard(dim)
        (factor,) = integers([node["split_factor"]], trail, "split_factor")
        return types._StridedShard(node["strided_shard"], split_factor=factor)
    wrong(trail, f"{node!r} is no placement")


def subclass(decoder: Decoder, node: dict[str, Any]) -> Steps:
    """A tensor of a class that the program has registered."""
    trail, name = decoder.trail, node["$subclass"]
    _needs(node, trail, "parts", "context", "shape", "stride")
    cls = class_of(name) if type(name) is str else None
    if cls is None or not is_flattened(cls):
        hint = "let trees hold it by `tensorhold.serialization.register`, under this name"
        wrong(trail, f"no tensor class is registered under `{name}`", hint)
    if type(node["parts"]) is not dict:
        wrong(trail, "`parts` is no object")
    parts = {}
    for part, inner in node["parts"].items():
        parts[part] = yield Attribute(part), inner
    context = yield Attribute("context"), node["context"]
    shape = torch.Size(integers(node["shape"], trail, "shape"))
    strides = integers(node["stride"], trail, "stride")
    try:
        made = cls.__tensor_unflatten__(parts, context, shape, strides)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        wrong(trail, f"the class that is registered under `{name}` refused this: {what}")
    return finished(made, node, trail)
