"""What memory this process has of its own, and how the machine is made to have some free."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

# How many bytes a sample takes and gives back before its clock starts.
WAKE = "TENSORHOLD_BENCH_WAKE_BYTES"
_PAGE_BYTES = 4096

# Below this part of the bytes asked for, a library gave views of a file, or untouched pages.
_OWNED_PART = 0.98


def wake() -> None:
    """Takes memory, touches it and gives it back to the system, so that it is there to be taken.

    A virtual machine hands free memory back to its host within seconds. What asks for it next then
    waits for the host, up to twenty times as long as for the system alone, and whoever comes after
    it does not. The memory is still new to each process: the system clears every page that it
    hands out.
    """
    size_bytes = int(os.environ.get(WAKE, "0"))
    if size_bytes:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        with mmap.mmap(-1, size_bytes, flags=flags) as memory:
            memory.madvise(mmap.MADV_HUGEPAGE)
            memory[::_PAGE_BYTES] = b"\1" * (size_bytes // _PAGE_BYTES)


def owned_bytes() -> int:
    """The bytes that are resident and no pages of a file; nought where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    fields = dict(line.split(":") for line in lines)
    return sum(1024 * int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem"))


def refuse_lazy(before: int, size_bytes: int) -> None:
    """Fails if less than so many bytes came to be owned since `before`: the work is not done."""
    now = owned_bytes()
    if now and now - before < _OWNED_PART * size_bytes:
        raise RuntimeError(f"{now - before} bytes are in memory of {size_bytes} that were loaded")
