"""What a rank is asked to load."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensorhold import _native
from tensorhold._errors import ArgumentError
from tensorhold.parallel._quantized import check_packed

if TYPE_CHECKING:
    from tensorhold.checkpoint import Checkpoint

__all__ = ["Asked", "check_mode", "own_backend", "own_cores"]

MODES = ("auto", "own", "node", "broadcast", "scatter")

# What ranks read again when each reads past the page cache may be so much of all they read.
_AGAIN_SHARE = 0.01

# Parts of rows as long as this are read without what lies between them.
_LONG_BYTES = 64 << 10


@dataclass
class Asked:
    """What a rank was asked to load, in words that ranks can compare."""

    mode: str
    axes: list[tuple[str, int]]
    place: int
    words: list[tuple[str, str, tuple[Any, ...]]]
    unmatched: str
    tied: Mapping[str, str]
    dtype: str | None
    dequantize: bool = False
    as_dtensor: bool = False

    def __post_init__(self) -> None:
        if self.unmatched not in ("replicate", "refuse"):
            raise ArgumentError(
                f"`unmatched` is {self.unmatched!r}: give 'replicate' or 'refuse'",
                kind="InvalidArgument",
            )

    @property
    def n_places(self) -> int:
        """How many ranks the mesh has."""
        n_places = 1
        for _, size in self.axes:
            n_places *= size
        return n_places

    def shares(self, checkpoint: Checkpoint, place: int | None = None) -> dict[str, _native.Share]:
        """What the rank, or another one, holds."""
        held = checkpoint._native.shares(
            (
                self.axes,
                self.place if place is None else place,
                self.words,
                self.unmatched == "refuse",
                list(self.tied.items()),
                self.dequantize,
            )
        )
        if not self.dequantize:
            check_packed(checkpoint, held, self.dtype, self.as_dtensor)
        return held


def check_mode(mode: str, dequantize: bool = False) -> None:
    """Refuses a mode that there is not."""
    if mode not in MODES:
        modes = ", ".join(map(repr, MODES))
        raise ArgumentError(f"`mode` is {mode!r}: give one of {modes}", kind="InvalidArgument")
    if dequantize and mode not in ("auto", "own"):
        raise ArgumentError(
            f"`mode` is {mode!r}: with `dequantize` each rank reads its own", kind="InvalidArgument"
        )


def own_backend(checkpoint: Checkpoint, asked: Asked) -> str:
    """How a rank best reads what it holds: past the page cache only what no other rank needs."""
    n_local = min(_n_local_ranks(), asked.n_places)
    if n_local == 1:
        return "auto"
    first = asked.place // n_local * n_local
    touched: dict[str, float] = {}
    for place in range(first, min(first + n_local, asked.n_places)):
        for name, share in asked.shares(checkpoint, place).items():
            stored = asked.tied.get(name, name)
            touched[stored] = touched.get(stored, 0.0) + _share_touched(
                share, checkpoint.info(stored).size_bytes
            )
    again = once = 0.0
    for name, times in touched.items():
        size = checkpoint.info(name).size_bytes
        again += size * max(times - 1, 0)
        once += size * min(times, 1)
    return "shared" if again > once * _AGAIN_SHARE else "auto"


def own_cores() -> int | None:
    """A rank's part of the machine's processors; None where nobody says how many share them."""
    n_local = _told_local_ranks()
    n_cores = os.cpu_count()
    return None if n_local is None or n_cores is None else max(1, n_cores // n_local)


def _n_local_ranks() -> int:
    """How many ranks are on this node, as far as a process knows by itself."""
    told = _told_local_ranks()
    if told is not None:
        return told
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return 1


def _told_local_ranks() -> int | None:
    """How many ranks are on this node, as whoever started them says."""
    local = os.environ.get("LOCAL_WORLD_SIZE", "")
    return int(local) if local.isdigit() and int(local) > 0 else None


def _share_touched(share: _native.Share, size_bytes: int) -> float:
    """How much of a tensor a rank reads: whole rows where its parts of them are short."""
    full, held = math.prod(share.full_shape), math.prod(share.shape)
    if not full or not held:
        return 0.0
    n_rows = sum(end - start for start, end in share.ranges[0]) if share.ranges else 1
    if size_bytes * held // full // n_rows >= _LONG_BYTES:
        return held / full
    return n_rows / share.full_shape[0] if share.ranges else 1.0
