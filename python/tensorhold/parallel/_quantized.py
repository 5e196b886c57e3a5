"""What a rank holds of quantized weights: parts that are weights of their own, or numbers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tensorhold._errors import ArgumentError

if TYPE_CHECKING:
    from tensorhold import _native
    from tensorhold.checkpoint import Checkpoint

__all__ = ["check_packed", "numbers_of", "rewrite"]

Held = Mapping[str, "_native.Share"]


def check_packed(checkpoint: Checkpoint, held: Held, dtype: Any, as_dtensor: bool) -> None:
    """Refuses what cannot be done with the parts of quantized weights."""
    for name, share in held.items():
        if share.weight is None:
            continue
        if as_dtensor and any(placement != ("Replicate",) for placement in share.placements):
            _refuse(share.weight, f"its part `{name}` is divided, and is no DTensor then")
        stored = checkpoint.info(name).dtype
        if dtype is not None and stored.startswith(("F8", "F6", "F4")):
            _refuse(share.weight, f"`dtype` would change the codes in its part `{name}`")


def _refuse(weight: str, what: str) -> None:
    hint = "give `dequantize=True`"
    raise ArgumentError(
        f"`{weight}` is quantized: {what}\nhint: {hint}",
        kind="InvalidArgument",
        tensor=weight,
        hint=hint,
    )


def rewrite(tensors: dict[str, Any], held: Held) -> None:
    """Puts in what parts say of a piece where it is not what they say of the whole weight."""
    for name in tensors.keys() & held.keys():
        values = held[name].rewritten
        if values is not None:
            tensors[name] = _like(tensors[name], values)


def _like(tensor: Any, values: list[int]) -> Any:
    if hasattr(tensor, "new_tensor"):
        return tensor.new_tensor(values)
    import numpy as np

    return np.asarray(values, dtype=tensor.dtype)


def numbers_of(
    checkpoint: Checkpoint, held: Held, tied: Mapping[str, str], options: dict[str, Any]
) -> dict[str, Any]:
    """What a rank holds, with numbers in the place of quantized weights."""
    found: dict[str, list[Any]] = {name: [] for name in held}
    left = [
        (name, tied.get(name, name), part) for name, share in held.items() for part in _parts(share)
    ]
    while left:
        # A load takes each name once.
        turn: dict[str, tuple[str, Any]] = {}
        later = []
        for name, stored, part in left:
            if stored in turn:
                later.append((name, stored, part))
            else:
                turn[stored] = (name, part)
        parts = {stored: part for stored, (_, part) in turn.items()}
        loaded = checkpoint.load(parts, dequantize=True, **options)
        for stored, (name, _) in turn.items():
            found[name].append(loaded[stored])
        left = later
    return {name: _joined(pieces, held[name].ranges) for name, pieces in found.items()}


def _parts(share: _native.Share) -> list[Any]:
    """A share as what a load takes; of a quantized weight, as boxes."""
    if share.weight is None:
        return [share]
    ranges = [pairs or [(0, 0)] for pairs in share.ranges]
    boxes = itertools.product(*ranges)
    return [tuple(slice(start, end) for start, end in box) for box in boxes]


def _joined(pieces: list[Any], ranges: Sequence[Sequence[Any]]) -> Any:
    """Boxes, those of the last dimension fastest, put together."""
    for dim in reversed(range(len(ranges))):
        size = len(ranges[dim])
        if len(pieces) > 1 and size > 1:
            rows = [pieces[start : start + size] for start in range(0, len(pieces), size)]
            pieces = [_concatenated(row, dim) for row in rows]
    return pieces[0]


def _concatenated(pieces: list[Any], dim: int) -> Any:
    if hasattr(pieces[0], "new_tensor"):
        import torch

        return torch.cat(pieces, dim)
    import numpy as np

    return np.concatenate(pieces, dim)
