"""What a view of a tensor needs of it: positions in each dimension, and how it lies in these.

A view is sizes, strides and an offset, counted in the elements of a tensor that lies in memory row
by row. Most views take a range of each dimension, in whatever order, and their box has nothing that
they do not use. Of others, such as those that wrap around rows, the box is what lies from their
first element to the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

__all__ = ["Box", "box_of", "row_strides"]


@dataclass(frozen=True)
class Box:
    """Ranges of the dimensions of a tensor, and where a view lies in a dense tensor of these."""

    ranges: tuple[range, ...]
    strides: tuple[int, ...]
    offset: int
    # For each dimension of the box, the one of the view that runs along it; none if it has one
    # position. Nothing at all where several do, or the view repeats elements or has gaps.
    order: tuple[int | None, ...] | None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(len, self.ranges))

    @property
    def index(self) -> tuple[slice, ...]:
        return tuple(slice(each.start, each.stop, each.step) for each in self.ranges)


def row_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a dense tensor."""
    return tuple(prod(shape[dim + 1 :]) for dim in range(len(shape)))


def box_of(shape: Sequence[int], sizes: Sequence[int], strides: Sequence[int], offset: int) -> Box:
    """The box of a view, which has elements, of a tensor of this shape."""
    return _tight(shape, sizes, strides, offset) or _between(shape, sizes, strides, offset)


def _tight(
    shape: Sequence[int], sizes: Sequence[int], strides: Sequence[int], offset: int
) -> Box | None:
    """The box of a view each dimension of which runs along one of the tensor."""
    rows = row_strides(shape)
    places = _places(rows, offset)
    ends = [place + 1 for place in places]
    along: list[list[int]] = [[] for _ in shape]
    for number, (size, stride) in enumerate(zip(sizes, strides, strict=True)):
        if size == 1 or stride == 0:
            continue
        dim = next(dim for dim, row in enumerate(rows) if row <= stride and shape[dim] > 1)
        ends[dim] += stride // rows[dim] * (size - 1)
        if stride % rows[dim] or ends[dim] > shape[dim]:
            return None
        along[dim].append(number)
    steps = [
        strides[numbers[0]] // row if len(numbers) == 1 else 1
        for numbers, row in zip(along, rows, strict=True)
    ]
    ranges = tuple(map(range, places, ends, steps))
    inside, within = [0] * len(sizes), row_strides(tuple(map(len, ranges)))
    for dim, numbers in enumerate(along):
        for number in numbers:
            inside[number] = strides[number] // rows[dim] // steps[dim] * within[dim]
    order = tuple(numbers[0] if numbers else None for numbers in along)
    is_each_once = prod(map(len, ranges)) == prod(sizes) and not any(
        numbers[1:] for numbers in along
    )
    return Box(ranges, tuple(inside), 0, order if is_each_once else None)


def _between(
    shape: Sequence[int], sizes: Sequence[int], strides: Sequence[int], offset: int
) -> Box:
    """The box from the first element to the last: of one dimension a range, of those behind all."""
    rows = row_strides(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    firsts, lasts = _places(rows, offset), _places(rows, last)
    pairs = enumerate(zip(firsts, lasts, strict=True))
    cut = next((dim for dim, (first, end) in pairs if first != end), 0)
    ranges = tuple(
        range(first, end + 1) if dim <= cut else range(size)
        for dim, (first, end, size) in enumerate(zip(firsts, lasts, shape, strict=True))
    )
    start = sum(each.start * row for each, row in zip(ranges, rows, strict=True))
    return Box(ranges, tuple(strides), offset - start, None)


def _places(rows: Sequence[int], offset: int) -> list[int]:
    """The position in each dimension of the element at an offset."""
    bounds = zip([offset + 1, *rows], rows, strict=False)
    return [offset % outer // row for outer, row in bounds]
