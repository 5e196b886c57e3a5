"""How many bytes the system fetches from storage for a rank that loads from cold files.

It is a module of its own, since the processes of the ranks import it.
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import torch.distributed as dist

from tensorhold import parallel

PAGE_BYTES = 4096
# Of the type that all tensors have.
_ITEM_BYTES = 4


def evict(paths: list[str]) -> None:
    """Leaves nothing of the files in the page cache."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def fetched_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


def page_bytes(path: str, held: dict[str, parallel.Share]) -> int:
    """The bytes of all pages of a file that have a byte of what is held, from its header alone."""
    with open(path, "rb") as file:
        # Else the system reads ahead, and leaves a mark at which it goes on for the next who reads.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    pages: set[int] = set()
    for name, share in held.items():
        position = 8 + size + header[name]["data_offsets"][0]
        n_columns = header[name]["shape"][1]
        rows, ((left, right),) = share.ranges
        for row in itertools.chain(*(range(*pair) for pair in rows)):
            first = position + _ITEM_BYTES * (row * n_columns + left)
            last = position + _ITEM_BYTES * (row * n_columns + right) - 1
            pages.update(range(first // PAGE_BYTES, last // PAGE_BYTES + 1))
    return PAGE_BYTES * len(pages)


def count_fetched(rank: int, path: str, small: str, mesh: dict[str, int], rules: dict) -> None:
    # What a first load imports and asks the system for is no part of it.
    parallel.load(small, mesh=mesh, rules=rules)
    least = page_bytes(path, parallel.shares(path, mesh=mesh, rules=rules))
    fetched = 0
    # What others read of the file meanwhile would be in the page cache after it was evicted.
    dist.barrier()
    # One after the other, as each finds in the page cache what others have fetched.
    for turn in range(dist.get_world_size()):
        if rank == turn:
            fetched = _fetched(path, mesh, rules, [path])
        dist.barrier()
    # All at once: what one fetches ahead, another need not.
    if rank == 0:
        evict([path])
    dist.barrier()
    counts: list = [None] * dist.get_world_size()
    dist.all_gather_object(counts, _fetched(path, mesh, rules, []))
    assert 0.95 * least <= fetched <= 1.05 * least, (least, fetched)
    assert sum(counts) <= 1.02 * os.path.getsize(path), counts


def _fetched(path: str, mesh: dict[str, int], rules: dict, evicted: list[str]) -> int:
    evict(evicted)
    before = fetched_bytes()
    held = parallel.load(path, mesh=mesh, rules=rules)
    assert held
    return fetched_bytes() - before
