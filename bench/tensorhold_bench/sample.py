"""One sample in a process of its own, as JSON: `python -m tensorhold_bench.sample ROW SIDE`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import tensorhold_bench.rows  # noqa: F401 (fills the list)
from tensorhold_bench.cache import resident
from tensorhold_bench.memory import wake
from tensorhold_bench.row import ROWS, Row


def main() -> None:
    """Prints the sample of the row and the side that the command line names."""
    row, side = sys.argv[1:]
    print(json.dumps(take(ROWS[row], side)))


def take(row: Row, side: str) -> dict[str, float | int | str | None]:
    """How long a side takes, its most memory meanwhile, and the digest of what it gives."""
    work = row.sides[side]()
    timed = next(work)
    wake()
    in_cache = resident(row.inputs()) if row.cache else None
    before = _reset_peak()
    start = time.perf_counter()
    result = timed()
    seconds = time.perf_counter() - start
    peak = None if before is None else _status("VmHWM") - before
    try:
        work.send(result)
    except StopIteration as end:
        return {
            "seconds": seconds,
            "peak_bytes": peak,
            "digest": end.value,
            "resident": in_cache,
        }
    raise RuntimeError("a side yields once")


def _reset_peak() -> int | None:
    """Makes the system count the peak from here on; the bytes held now, `None` if it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return None


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
