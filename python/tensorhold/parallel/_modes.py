"""Who reads what, where ranks load together: the modes of `load`.

Every rank knows from the headers what each of the others holds, and so all of them walk the same
list of windows, in each of which the same tensors are read and sent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensorhold import _native

if TYPE_CHECKING:
    from tensorhold.checkpoint import Checkpoint
    from tensorhold.parallel._team import Team

__all__ = ["Cast", "Held", "Unit", "assign", "exchange", "units", "windows"]

# What each rank has in flight, beyond what it holds: about so much, or one tensor.
WINDOW_BYTES = 256 << 20

# Smaller tensors go together.
_SMALL_BYTES = 1 << 20

# What `dtype` casts, and to what.
_FLOATS = {
    "F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0",
}  # fmt: skip

Held = Mapping[str, _native.Share]


@dataclass
class Unit:
    """The same part of a tensor, for all ranks that hold it."""

    name: str
    stored: str
    share: _native.Share
    holders: list[int]
    size_bytes: int
    reader: int = 0

    @property
    def is_sent(self) -> bool:
        return self.holders != [self.reader]


@dataclass
class Cast:
    """What becomes of elements: a type's name in the file, and PyTorch's type."""

    to: Any

    def torch_dtype(self, stored: str) -> Any:
        """PyTorch's type of what is stored as `stored`; None where it has none, or packs it."""
        import torch as pytorch

        from tensorhold import torch

        if self.to is None or stored not in _FLOATS:
            return None if stored == "F4" else torch._TYPES.get(stored)
        if isinstance(self.to, str):
            return torch._TYPES.get(self.to, getattr(pytorch, self.to, None))
        return self.to


def units(
    checkpoint: Checkpoint, held: Sequence[Held], tied: Mapping[str, str]
) -> list[list[Unit]]:
    """What ranks hold, tensor by tensor; each tensor's parts with those that hold them."""
    names = [*checkpoint, *(name for name in tied if name not in checkpoint)]
    found = []
    for name in names:
        stored = tied.get(name, name)
        info = checkpoint.info(stored)
        parts: dict[Any, Unit] = {}
        for rank, shares in enumerate(held):
            share = shares.get(name)
            if share is None:
                continue
            key = tuple(tuple(ranges) for ranges in share.ranges)
            if key not in parts:
                n_all = max(1, math.prod(share.full_shape))
                size = info.size_bytes * math.prod(share.shape) // n_all
                parts[key] = Unit(name, stored, share, [], size)
            parts[key].holders.append(rank)
        if parts:
            found.append(list(parts.values()))
    return found


def assign(found: list[list[Unit]], n_ranks: int, by_tensor: bool) -> None:
    """Says who reads each unit: of those that hold it, or any unit of its tensor, who has least."""
    read = [0] * n_ranks
    for parts in found:
        groups = [parts] if by_tensor else [[unit] for unit in parts]
        for group in groups:
            holders = {rank for unit in group for rank in unit.holders}
            reader = min(sorted(holders), key=lambda rank: read[rank])
            for unit in group:
                unit.reader = reader
                read[reader] += unit.size_bytes


def windows(found: list[list[Unit]], budget: int) -> Iterator[list[Unit]]:
    """The units in windows of about so many bytes; the parts of a tensor stay together."""
    window: list[Unit] = []
    size = 0
    for parts in found:
        more = sum(unit.size_bytes for unit in parts)
        if window and size + more > budget:
            yield window
            window, size = [], 0
        window.extend(parts)
        size += more
    if window:
        yield window


def exchange(
    team: Team, checkpoint: Checkpoint, found: list[list[Unit]], cast: Cast, options: dict[str, Any]
) -> dict[str, Any]:
    """What this rank holds, of which each unit is read by one rank, and sent to the others."""
    device = options["device"]
    place = _place(team, device)
    for unit in (unit for parts in found for unit in parts):
        if unit.is_sent and cast.torch_dtype(checkpoint.info(unit.stored).dtype) is None:
            # Which of its bytes belong to whom is not for PyTorch to say: each reads its own.
            unit.reader = -1
    held: dict[str, Any] = {}
    end: Callable[[], None] | None = None
    for window in windows(found, WINDOW_BYTES * team.n_ranks):
        tensors = _read(team.rank, checkpoint, window, {**options, "device": place})
        _expect(team.rank, checkpoint, window, tensors, cast, place)
        if end is not None:
            end()
        team.meet()
        end = team.begin(_moves(team, window, tensors))
        held |= {unit.name: tensors[id(unit)] for unit in window if team.rank in unit.holders}
    if end is not None:
        end()
    return {name: tensor.to(device) for name, tensor in held.items()}


def _place(team: Team, device: Any) -> Any:
    """Where the group can send tensors from, best where they are to be."""
    import torch

    kinds = [each.type for each in team.group._device_types]
    device = torch.device(device)
    if device.type in kinds and team.group._get_backend(device).name() != "gloo":
        return device
    if "cpu" in kinds:
        return torch.device("cpu")
    return torch.device(kinds[0], torch.accelerator.current_device_index())


def _read(rank: int, checkpoint: Checkpoint, window: list[Unit], options: Any) -> dict[int, Any]:
    """The units that this rank reads."""
    tensors: dict[int, Any] = {}
    left = [unit for unit in window if unit.reader == rank or _reads_own(unit, rank)]
    while left:
        # A load takes each name once; several parts of a tensor take several.
        by_name = {unit.stored: unit for unit in reversed(left)}
        parts = {name: unit.share for name, unit in by_name.items()}
        loaded = checkpoint.load(parts, **options)
        for name, unit in by_name.items():
            tensors[id(unit)] = loaded[name]
        left = [unit for unit in left if id(unit) not in tensors]
    return tensors


def _reads_own(unit: Unit, rank: int) -> bool:
    return unit.reader < 0 and rank in unit.holders


def _expect(
    rank: int,
    checkpoint: Checkpoint,
    window: list[Unit],
    tensors: dict[int, Any],
    cast: Cast,
    place: Any,
) -> None:
    """Adds memory for the units that others read for this rank."""
    import torch

    for unit in window:
        if rank in unit.holders and id(unit) not in tensors:
            dtype = cast.torch_dtype(checkpoint.info(unit.stored).dtype)
            tensors[id(unit)] = torch.empty(unit.share.shape, dtype=dtype, device=place)


def _moves(team: Team, window: list[Unit], tensors: dict[int, Any]) -> Callable[[], None]:
    """What sends and receives the units of a window."""
    small: dict[tuple[int, tuple[int, ...]], list[Unit]] = {}
    messages: list[list[Unit]] = []
    for unit in window:
        if unit.reader < 0 or not unit.is_sent or unit.size_bytes == 0:
            continue
        if unit.size_bytes >= _SMALL_BYTES:
            messages.append([unit])
            continue
        key = (unit.reader, tuple(unit.holders))
        if key not in small:
            messages.append(small.setdefault(key, []))
        small[key].append(unit)

    def move() -> None:
        _send(team, messages, tensors)

    return move


def _send(team: Team, messages: list[list[Unit]], tensors: dict[int, Any]) -> None:
    import torch
    import torch.distributed as dist

    works: list[Any] = []
    points, unpacked = [], []
    for tag, message in enumerate(messages):
        reader, holders = message[0].reader, message[0].holders
        if team.rank != reader and team.rank not in holders:
            continue
        mine = [_bytes_of(tensors[id(unit)]) for unit in message]
        data = mine[0] if len(mine) == 1 else torch.cat(mine)
        if len(mine) > 1 and team.rank != reader:
            unpacked.append((data, mine))
        if len(holders) == team.n_ranks:
            source = dist.get_global_rank(team.group, reader)
            works.append(dist.broadcast(data, source, group=team.group, async_op=True))
            continue
        to = [rank for rank in holders if rank != reader] if team.rank == reader else [reader]
        action = dist.isend if team.rank == reader else dist.irecv
        for rank in to:
            peer = dist.get_global_rank(team.group, rank)
            points.append(dist.P2POp(action, data, peer, team.group, tag))
    if points:
        works.extend(dist.batch_isend_irecv(points))
    for work in works:
        work.wait()
    for data, mine in unpacked:
        for part, bytes_ in zip(mine, data.split([part.numel() for part in mine]), strict=True):
            part.copy_(bytes_)
    if points or works:
        _synchronize(tensors)


def _bytes_of(tensor: Any) -> Any:
    import torch

    return tensor.view(-1).view(torch.uint8)


def _synchronize(tensors: dict[int, Any]) -> None:
    """Waits for the device, since what comes next may be in another stream."""
    import torch

    for device in {tensor.device for tensor in tensors.values()}:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
