"""Whole checkpoints into memory that the tensors own: warm, cold, in one file and in many."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from tensorhold_bench import digest, files, memory
from tensorhold_bench.cache import Cache
from tensorhold_bench.loaders import (
    CANDIDATE_PREAD,
    CLONE,
    DROP_IN_PREAD,
    FASTSAFETENSORS,
    LOADERS,
    PREAD,
    RUNAI,
    Load,
)
from tensorhold_bench.places import DISK, Place
from tensorhold_bench.row import OURS, Row, Work, add
from tensorhold_bench.rows import bare

_WARM = {RUNAI: 2.5, PREAD: 2.5, CANDIDATE_PREAD: 2.5, FASTSAFETENSORS: 3.0}
_COLD = {RUNAI: 1.0, PREAD: 1.5, CANDIDATE_PREAD: 1.5, FASTSAFETENSORS: 1.5, CLONE: 1.5}
# Elsewhere than on the disk, the sides that say most.
_ELSEWHERE = [PREAD, RUNAI, OURS]

Paths = Callable[[], list[Path]]


def _one() -> list[Path]:
    return [files.llama()]


def _row(name: str, title: str, paths: Paths, cache: Cache, place: Place = DISK) -> Row:
    def inputs() -> list[Path]:
        return files.at(place, paths())

    def size_bytes() -> int:
        return sum(path.stat().st_size for path in paths())

    is_warm = cache is Cache.WARM
    row = Row(
        name,
        f"{title}, {f'{place.title}, ' if place.title else ''}{cache.value}, into owned memory",
        group="engine",
        targets=_WARM if is_warm else _COLD,
        bare_target=0.85 if is_warm else 0.9,
        size_bytes=size_bytes,
        # What was out of the page cache comes into it too.
        fresh_bytes=lambda: size_bytes() * (5 if is_warm else 9) // 4,
        place=place,
        most_samples=place.most_samples,
        cache=cache,
        inputs=inputs,
    )
    for side, awake in LOADERS.items():
        if place is DISK or side in _ELSEWHERE:
            row.sides[side] = partial(_load, awake, inputs)
    bare.add_readers(row)
    return add(row)


def _load(awake: Callable[[], Load], inputs: Paths) -> Work:
    load, paths = awake(), inputs()
    load([files.warm_up()])
    before = memory.owned_bytes()
    tensors = yield lambda: load(paths)
    memory.refuse_lazy(before, sum(path.stat().st_size for path in paths))
    return digest.against_files(tensors, paths)


_row("load_warm", "2.2 GB", _one, Cache.WARM)

load_pread = _row("load_pread", '2.2 GB, `load_file(backend="pread")`', _one, Cache.WARM)
load_pread.sides = {
    PREAD: load_pread.sides[PREAD],
    CANDIDATE_PREAD: load_pread.sides[CANDIDATE_PREAD],
    OURS: partial(_load, DROP_IN_PREAD, load_pread.inputs),
}

_row("load_shards_warm", "2.2 GB in 2 files", files.llama_shards, Cache.WARM)
_row("load_many_shards_warm", "1 GB in 200 files", files.many_shards, Cache.WARM)
_row("load_cold", "2.2 GB", _one, Cache.COLD)

load_tiny_owned = _row(
    "load_tiny_owned", "100 000 tensors of 16 bytes", lambda: [files.tiny()], Cache.WARM
)
load_tiny_owned.target, load_tiny_owned.targets = 7, {}
load_tiny_owned.bare_target, load_tiny_owned.size_bytes = None, None


def load_elsewhere(place: Place) -> None:
    """The rows of a place that is not the disk."""
    for cache in Cache if place.is_cold else [Cache.WARM]:
        _row(f"load_{cache.value}{place.suffix}", "2.2 GB", _one, cache, place)
