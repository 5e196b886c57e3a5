"""The page cache: what it holds of files (asked, not assumed), and how to fill and to empty it."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

_SYS_CACHESTAT = 451
_PAGE_BYTES = 4096
_CHUNK_BYTES = 8 << 20
_N_TRIES = 5


class Cache(Enum):
    """What the page cache is to hold of the files when the clock starts."""

    WARM = "warm"
    COLD = "cold"

    def is_so(self, resident: float | None) -> bool:
        """Whether files of which this part is resident are in this state; so if none can tell."""
        if resident is None:
            return True
        return resident > 0.99 if self is Cache.WARM else resident < 0.01

    def begin(self, paths: Sequence[Path]) -> None:
        """Has warm files read in order, as most come into the cache: large folios, in every round.

        What was read in another way lies in single pages, which take several times as long to map.
        """
        if self is Cache.WARM:
            for path in paths:
                _evict(path)
                _read(path)

    def establish(self, paths: Sequence[Path]) -> None:
        """Brings files into this state."""
        if self is Cache.WARM and self.is_so(resident(paths)):
            return
        for _ in range(_N_TRIES):
            for path in paths:
                _evict(path)
                if self is Cache.WARM:
                    _read(path)
            if self.is_so(resident(paths)):
                return
            # Pages that are being written, or that a process that has just ended had mapped, stay.
            time.sleep(1)


def resident(paths: Sequence[Path]) -> float | None:
    """The part of the files' pages that are in the page cache; `None` if the system is silent."""
    n_cached = n_pages = 0
    for path in paths:
        cached = _cached_pages(path)
        if cached is None:
            return None
        n_cached += cached
        n_pages += -(-path.stat().st_size // _PAGE_BYTES)
    return n_cached / max(1, n_pages)


def _cached_pages(path: Path) -> int | None:
    # From the first byte to the end; then the system's five counts, of which the first is wanted.
    extent, counts = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.syscall(_SYS_CACHESTAT, descriptor, extent, counts, 0)
    finally:
        os.close(descriptor)
    return None if failed else int(counts[0])


def _evict(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _read(path: Path) -> None:
    buffer = bytearray(_CHUNK_BYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
