"""Headers: the Rust crates side by side (see `bench/rust`), and an open from Python."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from tensorhold_bench import files
from tensorhold_bench.row import BARE, OURS, PEER, Row, Work, add, row

PROGRAM = Path(__file__).parents[2] / "target" / "release" / "header-bench"


def _rust(work: str, file: Callable[[], Path], new: Row) -> None:
    def command(side: str) -> list[str]:
        return [str(PROGRAM), work, side, str(files.warm_up()), str(file())]

    sides = [PEER, OURS, BARE] if new.bares else [PEER, OURS]
    new.commands = {side: partial(command, side) for side in sides}
    add(new)


_rust(
    "parse",
    files.tiny,
    Row(
        "parse_header",
        "Rust: parse a header of 100 000 tensors, look one up",
        target=8,
        bares={BARE: "UTF-8 checked, quotes counted"},
    ),
)
_rust(
    "walk",
    files.tiny,
    Row("walk_header", "Rust: parse a header of 100 000 tensors, ask for each by offset"),
)
_rust(
    "open",
    files.large_header,
    Row(
        "open_large_header",
        "Rust: read and parse a header of 99 MB",
        peak_target_bytes=3 * files.LARGE_HEADER_BYTES,
        bares={BARE: "file read, UTF-8 checked, quotes counted"},
    ),
)


@row(
    "Python: `safe_open` of a file with a header of 99 MB",
    peak_target_bytes=3 * files.LARGE_HEADER_BYTES,
)
def safe_open_large_header(package: str) -> Work:
    safe_open, path = import_module(package).safe_open, files.large_header()
    safe_open(files.warm_up(), "np")
    file = yield lambda: safe_open(path, "np")
    return str(len(file.keys()))
