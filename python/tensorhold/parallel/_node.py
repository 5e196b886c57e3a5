"""Ranks of a node that read storage once, through memory that they share.

A file of the checkpoint has a twin in memory, with the same offsets, of which only a window is
there at a time: each rank reads its part of it, and all take what they hold out of it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pathlib
import platform
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tensorhold._errors import ArgumentError, SourceError
from tensorhold.checkpoint import Checkpoint
from tensorhold.parallel._modes import Unit, windows

if TYPE_CHECKING:
    from tensorhold.parallel._team import Team

__all__ = ["load", "node"]

# Bytes of a file: what to call them, its path, and where they begin and end.
_Range = tuple[str, str, int, int]

# Name, dtype, shape and position of a tensor.
_Row = tuple[str, str, Sequence[int], int]

# So much of a checkpoint is in shared memory at a time, or one tensor.
WINDOW_BYTES = 1 << 30


def node() -> str:
    """What ranks that can share memory have in common."""
    user = str(os.getuid()) if hasattr(os, "getuid") else ""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        # Containers of one machine have names of their own, but share its memory if processes see
        # each other.
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        parts = [boot, os.readlink("/proc/self/ns/pid")]
    return " ".join([user, *parts])


def load(
    team: Team,
    checkpoint: Checkpoint,
    found: list[list[Unit]],
    nodes: list[str],
    options: dict[str, Any],
) -> dict[str, Any]:
    """What this rank holds, of which the ranks of its node read each byte once."""
    if not hasattr(os, "memfd_create") or not hasattr(mmap, "MADV_REMOVE"):
        raise ArgumentError(
            "this system has no memory that ranks can share",
            kind="InvalidArgument",
            hint='load with `mode="own"`',
        )
    ranks = [rank for rank in range(team.n_ranks) if nodes[rank] == nodes[team.rank]]
    held: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        twins = stack.enter_context(_twins(team, checkpoint, ranks[0]))
        tables = [
            (f"/proc/self/fd/{twins[path].descriptor}", table)
            for path, table in _tables(checkpoint).items()
        ]
        staged = stack.enter_context(Checkpoint._placed(tables, backend="shared"))
        for window in windows(found, WINDOW_BYTES):
            wanted = _wanted(checkpoint, window, set(ranks))
            _fetch(twins, _part(wanted, ranks.index(team.rank), len(ranks)))
            team.meet()
            held |= _taken(staged, window, team.rank, options)
            team.meet()
            if team.rank == ranks[0]:
                for _, path, start, end in wanted:
                    twins[path].forget(start, end)
    return held


class _Twin:
    """A file and its twin in memory."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        # The memory goes with the last tensor over it.
        self._map = mmap.mmap(descriptor, size)

    def bytes(self, start: int, end: int) -> Any:
        """The memory of these bytes."""
        import torch

        return torch.frombuffer(self._map, dtype=torch.uint8, count=end - start, offset=start)

    def forget(self, start: int, end: int) -> None:
        """Gives the memory of these bytes back, but for pages that others may be in."""
        page = mmap.PAGESIZE
        start, end = -(-start // page) * page, end // page * page
        if end > start:
            self._map.madvise(mmap.MADV_REMOVE, start, end - start)

    def close(self) -> None:
        os.close(self.descriptor)


def _tables(checkpoint: Checkpoint) -> dict[str, list[_Row]]:
    """Of each file what tensors it has, and where."""
    tables: dict[str, list[_Row]] = {path: [] for path in checkpoint.files}
    for info in map(checkpoint.info, checkpoint):
        tables[info.file].append((info.name, info.dtype, info.shape, info.position))
    return tables


@contextlib.contextmanager
def _twins(team: Team, checkpoint: Checkpoint, leader: int) -> Iterator[dict[str, _Twin]]:
    """The files with their twins, which go with the last process that has them open."""
    sizes = dict.fromkeys(checkpoint.files, 1)
    for info in map(checkpoint.info, checkpoint):
        sizes[info.file] = max(sizes[info.file], info.position + info.size_bytes)
    with contextlib.ExitStack() as stack:
        made: list[int] = []
        if team.rank == leader:
            for size in sizes.values():
                made.append(os.memfd_create("tensorhold", os.MFD_CLOEXEC))
                os.ftruncate(made[-1], size)
        said = team.gather([f"/proc/{os.getpid()}/fd/{number}" for number in made])
        twins = {}
        for number, (path, size) in enumerate(sizes.items()):
            descriptor = made[number] if made else _open_shared(said[leader][number])
            twins[path] = _Twin(descriptor, size)
            stack.callback(twins[path].close)
        team.meet()
        yield twins


def _fetch(twins: dict[str, _Twin], parts: list[_Range]) -> None:
    """Reads these parts of files into the memory of their twins."""
    files: dict[str, list[_Row]] = {}
    into = {}
    for name, path, start, end in parts:
        files.setdefault(path, []).append((name, "U8", [end - start], start))
        into[name] = twins[path].bytes(start, end)
    with Checkpoint._placed(list(files.items())) as checkpoint:
        checkpoint.load(into=into)


def _open_shared(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError(
            f"cannot open the memory of another rank: {error}",
            kind="Io",
            path=path,
            hint='load with `mode="own"`, for which ranks need no common memory',
        ) from error


def _wanted(checkpoint: Checkpoint, window: list[Unit], ranks: set[int]) -> list[_Range]:
    """The bytes that any of the ranks wants: of each tensor the rows from first to last."""
    found: dict[str, tuple[str, int, int]] = {}
    for unit in window:
        if ranks.isdisjoint(unit.holders):
            continue
        info = checkpoint.info(unit.stored)
        start, end = _rows(unit, info.position, info.position + info.size_bytes)
        before = found.get(unit.stored, (info.file, end, start))
        found[unit.stored] = (info.file, min(start, before[1]), max(end, before[2]))
    return [(name, *place) for name, place in found.items()]


def _rows(unit: Unit, start: int, end: int) -> tuple[int, int]:
    """Where the rows lie that the unit has a part of, in a tensor from `start` to `end`."""
    if not unit.share.ranges or not unit.share.full_shape[0]:
        return start, end
    rows = unit.share.ranges[0]
    if not rows:
        return start, start
    n_rows = unit.share.full_shape[0]
    row_bits = (end - start) * 8 // n_rows
    first, last = rows[0][0], max(pair[1] for pair in rows)
    return start + first * row_bits // 8, min(end, start + -(-last * row_bits // 8))


def _part(wanted: list[_Range], number: int, n_parts: int) -> list[_Range]:
    """One of so many parts of about as many bytes each."""
    total = sum(end - start for _, _, start, end in wanted)
    first, last = total * number // n_parts, total * (number + 1) // n_parts
    part, at = [], 0
    for name, path, start, end in wanted:
        low, high = max(first - at, 0), min(last - at, end - start)
        if low < high:
            part.append((name, path, start + low, start + high))
        at += end - start
    return part


def _taken(
    staged: Checkpoint, window: list[Unit], rank: int, options: dict[str, Any]
) -> dict[str, Any]:
    """What this rank holds of a window."""
    left = [unit for unit in window if rank in unit.holders]
    held: dict[str, Any] = {}
    while left:
        by_name = {unit.stored: unit for unit in reversed(left)}
        parts = {name: unit.share for name, unit in by_name.items()}
        loaded = staged.load(parts, **options)
        held |= {unit.name: loaded[name] for name, unit in by_name.items()}
        left = [unit for unit in left if unit.name not in held]
    return held
