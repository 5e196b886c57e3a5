"""What rules say of tensors, in Python's words and in those of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tensorhold._errors import ArgumentError

__all__ = [
    "Blocks",
    "Experts",
    "Fused",
    "Heads",
    "Replicate",
    "Shard",
    "Stages",
    "StridedShard",
    "engine_words",
]


@dataclass(frozen=True)
class Replicate:
    """Each rank has all of it."""


@dataclass(frozen=True)
class Shard:
    """Each rank has a range of dimension `dim`, as of PyTorch's `Shard`: the last has the least."""

    dim: int


@dataclass(frozen=True)
class StridedShard:
    """Dimension `dim` is divided into groups, and each rank has its share of each of them."""

    dim: int
    split_factor: int


@dataclass(frozen=True)
class Blocks:
    """Each has a range of dimension `dim` that is whole blocks of `size` positions.

    Quantized weights can be cut between blocks alone: groups, words or tiles. Ranks get as many
    blocks as they would get positions by `Shard`; the last block may be partial.
    """

    dim: int
    size: int


@dataclass(frozen=True)
class Fused:
    """Dimension `dim` holds several matrices one behind the other: each rank has its share of each.

    Args:
        dim: The dimension.
        sizes: How many positions each matrix takes.
        heads: How many attention heads each one holds; no head is divided, and where there are
            more ranks than heads several ranks have the same one.

    Example:
        >>> Fused(0, sizes=[4096, 1024, 1024], heads=[32, 8, 8])
        Fused(dim=0, sizes=[4096, 1024, 1024], heads=[32, 8, 8])
    """

    dim: int
    sizes: Sequence[int]
    heads: Sequence[int] | None = None


@dataclass(frozen=True)
class Heads:
    """Dimension `dim` holds so many attention heads, none of which is divided.

    Where there are more ranks than heads, several ranks have the same one.
    """

    dim: int
    n_heads: int


@dataclass(frozen=True)
class Stages:
    """The layers below the pattern are divided among the stages of a pipeline.

    Args:
        layers: How many each stage has. Where it is None, all have as many, and the last the rest.
    """

    layers: Sequence[int] | None = None


@dataclass(frozen=True)
class Experts:
    """The experts below the pattern are divided among the ranks.

    Args:
        lists: Which ones each rank has. Where it is None, ranges of one length.
    """

    lists: Sequence[Sequence[int]] | None = None


_PIPELINE = {"stages", "first_stage", "last_stage"}
_EXPERTS = {"experts", "grouped_gemm", "ep_dispatch_experts"}

# The usual name of the axis that a style is for.
_TENSOR_AXIS, _STAGE_AXIS, _EXPERT_AXIS = "tp", "pp", "ep"


def engine_words(pattern: str, style: Any) -> tuple[str, tuple[Any, ...]]:
    """The usual axis of what a rule says, and that in the words of the engine."""
    if isinstance(style, str):
        axis = _TENSOR_AXIS
        if style in _PIPELINE:
            axis = _STAGE_AXIS
        elif style in _EXPERTS:
            axis = _EXPERT_AXIS
        return axis, ("style", style)
    if isinstance(style, Stages):
        return _STAGE_AXIS, ("Stages", None if style.layers is None else list(style.layers))
    if isinstance(style, Experts):
        lists = None if style.lists is None else [list(each) for each in style.lists]
        return _EXPERT_AXIS, ("Experts", lists)
    words = placement_words(style)
    if words is None:
        raise ArgumentError(
            f"rule `{pattern}` says {style!r}, which is no style and no placement",
            kind="InvalidArgument",
        )
    return _TENSOR_AXIS, words


def placement_words(placement: Any) -> tuple[Any, ...] | None:
    """A placement in the words of the engine, ours or PyTorch's; nothing for anything else."""
    name = type(placement).__name__.removeprefix("_")
    if name == "Replicate":
        return ("Replicate",)
    if name == "Shard":
        return ("Shard", placement.dim)
    if name == "StridedShard":
        return ("StridedShard", placement.dim, placement.split_factor)
    if isinstance(placement, Blocks):
        return ("Blocks", placement.dim, placement.size)
    if isinstance(placement, Heads):
        return ("Heads", placement.dim, placement.n_heads)
    if isinstance(placement, Fused):
        heads = [None] * len(placement.sizes) if placement.heads is None else placement.heads
        if len(heads) != len(placement.sizes):
            raise ArgumentError(
                f"{placement} has heads for {len(heads)} of {len(placement.sizes)} matrices",
                kind="InvalidArgument",
            )
        return ("Fused", placement.dim, list(zip(placement.sizes, heads, strict=True)))
    return None
