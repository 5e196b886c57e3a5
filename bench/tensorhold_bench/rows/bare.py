"""The physical limits: `bare` of `bench/rust` as sides of a row."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from tensorhold_bench import files
from tensorhold_bench.cache import Cache
from tensorhold_bench.row import BARE, Row

PROGRAM = Path(__file__).parents[2] / "target" / "release" / "bare"

_BUFFERED, _DIRECT = f"{BARE} buffered", f"{BARE} direct"


def add_readers(row: Row) -> None:
    """What reads the row's files into huge pages; direct where a disk is to be read."""
    ways = {_BUFFERED: "two threads `pread` into huge pages"}
    if row.cache is Cache.COLD and row.place.is_direct:
        ways[_DIRECT] = "two threads read past the page cache into huge pages, 8 MiB at a time"
    row.bares = ways
    row.commands = {side: partial(_read, side, row) for side in ways}


def add_writers(row: Row, source: Callable[[], Path], synced: bool) -> None:
    """What writes the bytes of a file that are in memory; `synced` until they are on disk."""
    ways = {_BUFFERED: "the same bytes written by one thread"}
    if synced and row.place.is_direct:
        ways[_DIRECT] = "two threads write past the page cache, 8 MiB at a time"
    if synced:
        ways = {side: f"{what}, `fdatasync`" for side, what in ways.items()}
    row.bares = ways
    row.commands = {side: partial(_write, side, row, source, synced) for side in ways}


def add_ranks(row: Row, n_ranks: int, tensors: Callable[[], list[tuple[int, int, int]]]) -> None:
    """What gives each of so many processes a part of the tensors of the row's one file.

    Args:
        row: The row.
        n_ranks: How many processes.
        tensors: The position of each tensor, its bytes, and those of a row if rows are cut, or 0.
    """

    def command() -> list[str]:
        words = [":".join(map(str, tensor)) for tensor in tensors()]
        return [str(PROGRAM), "ranks", str(n_ranks), *map(str, row.inputs()), *words]

    row.bares = {
        BARE: f"{n_ranks} processes of one thread, whole rows by `pread`, parts of rows from a map"
    }
    row.commands = {BARE: command}


def add_wideners(row: Row, growth: int) -> None:
    """What looks at every byte of the row's files, and fills `growth` times as many."""
    ways = {
        f"{BARE} streamed": "two threads add up what a map shows and store past the caches",
        f"{BARE} cached": "two threads add up what a map shows and store through the caches",
    }
    row.bares = ways
    row.commands = {side: partial(_widen, side, row, growth) for side in ways}


def _widen(side: str, row: Row, growth: int) -> list[str]:
    way = side.removeprefix(f"{BARE} ")
    return [str(PROGRAM), "widen", way, str(growth), *map(str, row.inputs())]


def _read(side: str, row: Row) -> list[str]:
    way = side.removeprefix(f"{BARE} ")
    return [str(PROGRAM), "read", way, str(files.warm_up()), *map(str, row.inputs())]


def _write(side: str, row: Row, source: Callable[[], Path], synced: bool) -> list[str]:
    way, durability = side.removeprefix(f"{BARE} "), "data" if synced else "none"
    target = files.target(side, row.place)
    return [str(PROGRAM), "write", way, durability, str(source()), str(target)]
