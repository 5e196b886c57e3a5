"""Ratios as bars on a logarithmic axis: an SVG of a few lines."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from math import log
from statistics import median

from tensorhold_bench.measure import Result
from tensorhold_bench.row import is_bare

_LABELS, _BARS, _LINE = 640, 420, 26
_LEAST = 0.25
_TICKS = [0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256]


def plot(results: list[Result]) -> str:
    """A bar to the median for each work and peer, a line from min to max, the target in red.

    The bare limit is a peer where a part of it is meant to be reached.
    """
    bars = [(result, side) for result in results for side in _compared(result)]
    largest = max((result.ratios(peer)[-1] for result, peer in bars), default=1.0)
    ticks = [tick for tick in _TICKS if tick < 1.5 * max(largest, 2)]

    def x(ratio: float) -> float:
        return _LABELS + _BARS * (log(max(ratio, _LEAST)) - log(_LEAST)) / (
            log(1.5 * max(largest, 2)) - log(_LEAST)
        )

    height = _LINE * (len(bars) + 2)
    width = _LABELS + _BARS + 60
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for tick in ticks:
        colour = "black" if tick == 1 else "#ddd"
        lines.append(f'<path d="M{x(tick):.0f} 4V{height - _LINE}" stroke="{colour}"/>')
        lines.append(
            f'<text x="{x(tick):.0f}" y="{height - 8}" text-anchor="middle">{tick:g}x</text>'
        )
    for place, (result, peer) in enumerate(bars):
        lines += _bar(result, peer, 8 + _LINE * place, x)
    return "\n".join([*lines, "</svg>\n"])


def _compared(result: Result) -> list[str]:
    bare = result.bare if result.row.bare_target is not None else None
    return [*result.peers, *([bare] if bare else [])]


def _bar(result: Result, peer: str, top: int, x: Callable[[float], float]) -> list[str]:
    ratios, row = result.ratios(peer), result.row
    target = row.bare_target if is_bare(peer) else row.target_for(peer)
    middle, centre = median(ratios), top + 9
    label = escape(f"{row.title} / {peer}".replace("`", ""))
    left, right = sorted([x(1), x(middle)])
    lines = [
        f'<text x="{_LABELS - 8}" y="{centre + 4}" text-anchor="end" font-size="11">{label}</text>',
        f'<rect x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="18" fill="#5b8bd0"/>',
        f'<path d="M{x(ratios[0]):.1f} {centre}H{x(ratios[-1]):.1f}" stroke="black"/>',
        f'<text x="{x(max(ratios[-1], middle)) + 5:.0f}" y="{centre + 4}">{middle:.2f}x</text>',
    ]
    if target is not None:
        lines.append(f'<path d="M{x(target):.1f} {top - 2}v22" stroke="red" stroke-width="2"/>')
    return lines
