"""Writes slices.json: what NumPy's basic indexing selects, as flat element numbers.

Each case is a shape, an index (an integer, a `[start, stop, step]`, `"..."` or `null` for each
part) and either the result or the name of the exception.

Usage: python make_slices.py > slices.json
"""

import itertools
import json
import random
import sys

import numpy

SHAPES = [
    (),
    (0,),
    (1,),
    (7,),
    (3, 4),
    (0, 3),
    (3, 0),
    (4, 1, 3),
    (2, 3, 4),
    (2, 0, 3),
    (2, 1, 3, 2),
]

FIXED = [
    ((10, 5), index)
    for index in [
        (),
        (slice(None),),
        (slice(None, 2),),
        (slice(None), slice(None, 2)),
        (0, slice(None, 2)),
        (slice(2, None), 0),
        (slice(2, None), -1),
        (slice(2, None), -5),
        (slice(2, None), -6),
        (slice(2, None), 20),
        (slice(None, 20),),
        (slice(0, 0, 2),),
        (slice(8, 3),),
        (slice(10, 10),),
        (slice(11, None),),
        (slice(None, None, -1),),
        (slice(None, None, -1), slice(None, None, -1)),
        (slice(None, None, -3), slice(-1, None, -2)),
        (slice(-100, 100, 100),),
        (Ellipsis,),
        (Ellipsis, 1),
        (1, Ellipsis),
        (1, Ellipsis, 1),
        (Ellipsis, Ellipsis),
        (None,),
        (None, 1, None, Ellipsis, None),
        (0, 0, 0),
        (0, 0, Ellipsis),
        (slice(None, None, 0),),
    ]
]


def random_part(rng, size):
    """One part of an index that mostly fits a dimension of this size."""
    if rng.random() < 0.25:
        fits = size and rng.random() < 0.9
        return rng.randint(-size, size - 1) if fits else rng.randint(-size - 1, size)
    start, stop = (rng.choice([None, rng.randint(-size - 2, size + 2)]) for _ in range(2))
    return slice(start, stop, rng.choice([None, None, 1, 2, 3, 5, -1, -1, -2, -4]))


def random_index(rng, shape):
    """An index that names some of the dimensions, with `...` and new axes strewn in."""
    parts = [random_part(rng, size) for size in shape]
    if rng.random() < 0.5 and parts:
        start = rng.randrange(len(parts))
        parts[start : rng.randint(start, len(parts))] = [Ellipsis]
    elif rng.random() < 0.5:
        parts = parts[: rng.randint(0, len(parts))]
    if rng.random() < 0.25:
        parts.insert(rng.randint(0, len(parts)), None)
    if rng.random() < 0.03:
        parts += [0, 0]
    return tuple(parts)


def written(part):
    """A part of an index as the file holds it."""
    if part is Ellipsis:
        return "..."
    if isinstance(part, slice):
        return [part.start, part.stop, part.step]
    return part


def case(shape, index):
    """What NumPy makes of the index."""
    line = {"shape": shape, "index": [written(part) for part in index]}
    elements = numpy.arange(numpy.prod(shape, dtype=int)).reshape(shape)
    try:
        result = elements[index]
    except (IndexError, ValueError) as error:
        return line | {"error": type(error).__name__}
    return line | {"result": {"shape": result.shape, "elements": result.ravel().tolist()}}


def main():
    """Prints the cases as JSON, one a line."""
    rng = random.Random(2)
    drawn = ((shape, random_index(rng, shape)) for shape in itertools.cycle(SHAPES))
    cases = dict.fromkeys(json.dumps(case(*each)) for each in FIXED)
    while len(cases) < 450:
        cases[json.dumps(case(*next(drawn)))] = None
    sys.stdout.write("[\n" + ",\n".join(cases) + "\n]\n")


if __name__ == "__main__":
    main()
