"""What is kept of a run: a table to read, all samples as JSON, and a plot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tensorhold_bench.measure import Result
from tensorhold_bench.plot import plot
from tensorhold_bench.row import OURS

RECORD = Path(__file__).parents[1] / "record"

_COLUMNS = [
    "work",
    "peer",
    "its time",
    "tensorhold",
    "times as fast: median (min to max)",
    "target",
    "peak memory, peer and ours",
    "bare limit",
]


def write(name: str, facts: dict[str, str], results: list[Result]) -> Path:
    """Writes the record `name` as Markdown, JSON and SVG; the path of the Markdown."""
    RECORD.mkdir(exist_ok=True)
    path = RECORD / f"{name}.md"
    path.write_text(f"{page(name, facts, results)}\n")
    everything = {"facts": facts, "rows": [result.to_json() for result in results]}
    path.with_suffix(".json").write_text(json.dumps(everything, indent=1) + "\n")
    path.with_suffix(".svg").write_text(plot(results))
    return path


def page(name: str, facts: dict[str, str], results: list[Result]) -> str:
    """The record as Markdown."""
    listed = "\n".join(f"- {what}: {value}" for what, value in facts.items())
    return f"""\
# {name}

{listed}

{table(results)}

How to read it, and what flatters: [README](../README.md). Every sample: [{name}.json]({name}.json).

![How many times as fast tensorhold is, each work with its target]({name}.svg)"""


def table(results: list[Result]) -> str:
    """A line for each work and peer."""
    lines = [
        _COLUMNS,
        ["---"] * len(_COLUMNS),
        *(line for result in results for line in _lines(result)),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _lines(result: Result) -> Iterator[list[str]]:
    for peer in result.peers:
        ratios = result.ratios(peer)
        yield [
            result.row.title + _residency(result),
            peer,
            _time(result, peer),
            _time(result, OURS),
            f"**{median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            _verdict(result.row.target_for(peer), median(ratios)),
            _memory(result, peer),
            _bare(result),
        ]


def _residency(result: Result) -> str:
    if not result.resident:
        return "" if result.row.cache is None else " (page cache not checked)"
    least, most = (f"{100 * part:.4g}" for part in (min(result.resident), max(result.resident)))
    return (
        f" ({least} to {most} % in the page cache)"
        if least != most
        else f" ({least} % in the page cache)"
    )


def _verdict(target: float | None, ratio: float) -> str:
    if target is None:
        return ""
    return f"{target:g}, {'met' if ratio >= target else 'missed'}"


def _memory(result: Result, peer: str) -> str:
    limit, theirs, ours = result.row.peak_target_bytes, result.peak(peer), result.peak(OURS)
    if limit is None or theirs is None or ours is None:
        return ""
    verdict = "met" if ours <= limit else "missed"
    return f"{theirs / 1e6:.0f} MB, {ours / 1e6:.0f} MB; target {limit / 1e6:.0f}, {verdict}"


def _bare(result: Result) -> str:
    side = result.bare
    if side is None:
        return ""
    limit, target = f"{_time(result, side)}: {result.row.bares[side]}", result.row.bare_target
    if target is None:
        return limit
    part = median(result.ratios(side))
    return f"{limit}; **{part:.2f}** of it, target {_verdict(target, part)}"


def _time(result: Result, side: str) -> str:
    seconds = result.per_call(side)
    if result.row.size_bytes is not None:
        return f"{_duration(seconds)} ({result.row.size_bytes() / seconds / 1e9:.3g} GB/s)"
    return _duration(seconds)


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
