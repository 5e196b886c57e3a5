"""`python -m tensorhold_bench`: takes the rows, prints the table, and keeps it if asked to."""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import shlex
import signal
import sys

import tensorhold_bench.rows  # noqa: F401 (fills the list)
from tensorhold_bench import machine, report
from tensorhold_bench.measure import Differ, Failed, Result, measure
from tensorhold_bench.places import Unavailable
from tensorhold_bench.row import ROWS, Row

# Names the script that was called.
PROGRAM = "TENSORHOLD_BENCH_PROGRAM"
# One minute's load, and cores taken meanwhile, above which other programs are said to disturb.
QUIET_LOAD = 1.5
QUIET_CORES = 0.5


def main() -> int:
    """Runs the rows that the command line asks for."""
    arguments = _arguments()
    # So that what was mounted is unmounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: terminated"))
    rows = [row for row in ROWS.values() if _is_wanted(row, arguments.only)]
    if arguments.list:
        print("\n".join(f"{row.group:8} {row.name:24} {row.title}" for row in rows))
        return 0
    load, memory_speed = os.getloadavg()[0], machine.fresh_memory_speed()
    try:
        results, skipped = _measure(rows, arguments.samples)
    except (Differ, Failed) as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    print(report.table(results))
    if arguments.record:
        today = datetime.date.today().isoformat()
        others = max((result.cores_of_others for result in results), default=0.0)
        facts = machine.describe() | {
            "samples": f"{arguments.samples} of each side, interleaved, each in a fresh process",
            "other programs": f"load {load:.2f} at the start, at most {others:.2f} cores meanwhile"
            + (" (**busy**)" if load > QUIET_LOAD or others > QUIET_CORES else ""),
            "fresh memory": f"{memory_speed:.1f} GB/s at the start,"
            f" {machine.fresh_memory_speed():.1f} at the end",
            **({"skipped": "; ".join(skipped)} if skipped else {}),
            "command": f"`{os.environ.get(PROGRAM, 'bench/run.sh')} {shlex.join(sys.argv[1:])}`",
        }
        print(report.write(f"{today}-{arguments.record}", facts, results), file=sys.stderr)
    return 0


def _measure(rows: list[Row], n_samples: int) -> tuple[list[Result], list[str]]:
    """The results of the rows, and which were skipped because this machine has no place for them.

    A place is there for the rows of it that follow each other, and gone before the next is made.
    """
    results, skipped = [], []
    for place, group in itertools.groupby(rows, lambda row: row.place):
        here = list(group)
        try:
            with place.made():
                for row in here:
                    print(f"{row.name} ...", file=sys.stderr, flush=True)
                    results.append(measure(row, n_samples))
                    # What is kept if a later row fails.
                    print(report.table(results[-1:]), file=sys.stderr, flush=True)
        except Unavailable as why:
            names = ", ".join(row.name for row in here)
            print(f"bench: skipped {names}: {why}", file=sys.stderr)
            skipped.append(f"{names} ({why})")
    return results, skipped


def _is_wanted(row: Row, only: list[str] | None) -> bool:
    return not only or any(part in row.name or part == row.group for part in only)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run.sh", description="Times tensorhold beside its peers."
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="PART",
        help="rows of group PART, or with PART in their name",
    )
    parser.add_argument("--samples", type=int, default=7, help="rounds of each row (7)")
    parser.add_argument(
        "--record", metavar="WHAT", help="keep the run as bench/record/DATE-WHAT.md, .json and .svg"
    )
    parser.add_argument("--list", action="store_true", help="list the rows")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
