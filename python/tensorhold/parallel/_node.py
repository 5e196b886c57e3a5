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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tensorhold._errors import ArgumentError, SourceError
from tensorhold.checkpoint import Checkpoint
from tensorhold.parallel._modes import Unit, windows

if TYPE_CHECKING:
    from tensorhold.parallel._team import Team

__all__ = ["load", "node"]

# So much of a checkpoint is in shared memory at a time, or one tensor.
WINDOW_BYTES = 1 << 30

# What one call reads.
_READ_BYTES = 8 << 20

# Threads of a rank that read.
_N_THREADS = 4


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
        twins = stack.enter_context(_twins(team, checkpoint.files, ranks[0]))
        pool = stack.enter_context(ThreadPoolExecutor(_N_THREADS))
        paths = [f"/proc/self/fd/{twin.descriptor}" for twin in twins.values()]
        staged = stack.enter_context(Checkpoint(paths, backend="shared"))
        for window in windows(found, WINDOW_BYTES):
            wanted = _wanted(checkpoint, twins, window, set(ranks))
            for path, start, end in _part(wanted, ranks.index(team.rank), len(ranks)):
                twins[path].fetch(pool, start, end)
            team.meet()
            held |= _taken(staged, window, team.rank, options)
            team.meet()
            if team.rank == ranks[0]:
                for path, start, end in wanted:
                    twins[path].forget(start, end)
    return held


class _Twin:
    """A file and its twin in memory."""

    def __init__(self, path: str, descriptor: int, size: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self.data_start = _data_start(path, os.pread(self._file, 8, 0), size)
        self._map = mmap.mmap(descriptor, size)

    def fetch(self, pool: ThreadPoolExecutor, start: int, end: int) -> None:
        """Reads these bytes."""
        starts = range(start, end, _READ_BYTES)
        list(pool.map(lambda at: self._read(at, min(at + _READ_BYTES, end)), starts))

    def _read(self, start: int, end: int) -> None:
        with memoryview(self._map) as all_bytes:
            at = start
            while at < end:
                with all_bytes[at:end] as rest:
                    n_read = os.preadv(self._file, [rest], at)
                if n_read == 0:
                    raise SourceError(
                        f"{self.path}: the file ends at byte {at}, before the end of its tensors"
                        f" (bytes {start}..{end})",
                        kind="Truncated",
                        path=self.path,
                        bytes=(start, end),
                    )
                at += n_read

    def forget(self, start: int, end: int) -> None:
        """Gives the memory of these bytes back, but for pages that others may be in."""
        page = mmap.PAGESIZE
        start, end = -(-start // page) * page, end // page * page
        if end > start:
            self._map.madvise(mmap.MADV_REMOVE, start, end - start)

    def close(self) -> None:
        os.close(self._file)
        self._map.close()
        os.close(self.descriptor)


def _data_start(path: str, length: bytes, size: int) -> int:
    """Where the tensors begin, of a file that may have changed since its header was checked."""
    start = 8 + int.from_bytes(length, "little")
    if len(length) < 8 or start > size:
        raise SourceError(
            f"{path}: the header does not fit into the {size} bytes of the file any more",
            kind="Truncated",
            path=path,
            hint="the file was changed while it was loaded; load it again",
        )
    return start


@contextlib.contextmanager
def _twins(team: Team, files: list[str], leader: int) -> Iterator[dict[str, _Twin]]:
    """The files with their twins, which go with the last process that has them open."""
    with contextlib.ExitStack() as stack:
        made: list[int] = []
        if team.rank == leader:
            for path in files:
                made.append(os.memfd_create("tensorhold", os.MFD_CLOEXEC))
                os.ftruncate(made[-1], os.stat(path).st_size)
        said = team.gather([f"/proc/{os.getpid()}/fd/{number}" for number in made])
        twins = {}
        for number, path in enumerate(files):
            descriptor = made[number] if made else _open_shared(said[leader][number])
            twins[path] = _Twin(path, descriptor, os.stat(path).st_size)
            stack.callback(twins[path].close)
        if made:
            for twin in twins.values():
                with ThreadPoolExecutor(1) as pool:
                    twin.fetch(pool, 0, twin.data_start)
        team.meet()
        yield twins


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


_Range = tuple[str, int, int]


def _wanted(
    checkpoint: Checkpoint, twins: dict[str, _Twin], window: list[Unit], ranks: set[int]
) -> list[_Range]:
    """The bytes that any of the ranks wants: of each tensor the rows from first to last."""
    found: dict[str, _Range] = {}
    for unit in window:
        if ranks.isdisjoint(unit.holders):
            continue
        info = checkpoint.info(unit.stored)
        start, end = _rows(unit, info.offsets)
        before = found.get(unit.stored, (info.file, end, start))
        found[unit.stored] = (info.file, min(start, before[1]), max(end, before[2]))
    placed = []
    for path, start, end in found.values():
        data_start = twins[path].data_start
        placed.append((path, data_start + start, data_start + end))
    return placed


def _rows(unit: Unit, offsets: tuple[int, int]) -> tuple[int, int]:
    """Where the rows lie that the unit has a part of."""
    start, end = offsets
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
    total = sum(end - start for _, start, end in wanted)
    first, last = total * number // n_parts, total * (number + 1) // n_parts
    part, at = [], 0
    for path, start, end in wanted:
        low, high = max(first - at, 0), min(last - at, end - start)
        if low < high:
            part.append((path, start + low, start + high))
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
