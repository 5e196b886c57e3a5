"""Takes the samples of a row, in rounds of a fresh process for each side, and sums them up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tensorhold_bench import machine
from tensorhold_bench.memory import WAKE
from tensorhold_bench.row import OURS, Row, is_bare

# Nothing is looked up on the network, whatever a library would like to.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}


# What is asked for of memory is whole blocks.
_BLOCK = 2 << 20
# How often a sample is taken again whose files were not in the page cache as they ought to be.
_N_TRIES = 3


class Differ(Exception):
    """Two sides gave different tensors: no time of theirs means anything."""


class Failed(Exception):
    """A side did not give a sample."""


@dataclass
class Result:
    """The samples of a row, by side, in the order of the rounds."""

    row: Row
    seconds: dict[str, list[float]] = field(default_factory=dict)
    peak_bytes: dict[str, list[int | None]] = field(default_factory=dict)
    # The parts of the files that were in the page cache when a clock started.
    resident: list[float] = field(default_factory=list)
    # Processor time that others used meanwhile, as a part of one core.
    cores_of_others: float = 0.0

    def per_call(self, side: str) -> float:
        """The median seconds of one call."""
        return median(self.seconds[side]) / self.row.n_calls

    def peak(self, side: str) -> float | None:
        """The median of the most bytes held."""
        peaks = [peak for peak in self.peak_bytes.get(side, []) if peak is not None]
        return median(peaks) if peaks else None

    def ratios(self, side: str) -> list[float]:
        """How many times as long as ours each sample of `side` took, round by round, sorted."""
        pairs = zip(self.seconds[side], self.seconds[OURS], strict=True)
        return sorted(theirs / ours for theirs, ours in pairs)

    @property
    def peers(self) -> list[str]:
        """The sides to compare with."""
        return [side for side in self.seconds if side != OURS and not is_bare(side)]

    @property
    def bare(self) -> str | None:
        """The bare side that was the faster one; of stages the slowest."""
        bares = [side for side in self.seconds if is_bare(side)]
        limit = max if self.row.bares_are_stages else min
        return limit(bares, key=self.per_call) if bares else None

    def to_json(self) -> dict[str, Any]:
        """All samples, so that anyone can sum them up otherwise."""
        return {
            "row": self.row.name,
            "title": self.row.title,
            "target": self.row.target,
            "targets": self.row.targets,
            "bare_target": self.row.bare_target,
            "n_calls": self.row.n_calls,
            "peak_target_bytes": self.row.peak_target_bytes,
            "bares": self.row.bares,
            "size_bytes": self.row.size_bytes() if self.row.size_bytes else None,
            "resident": self.resident,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "ratios": {peer: self.ratios(peer) for peer in [*self.peers, self.bare] if peer},
            "cores_of_others": round(self.cores_of_others, 3),
        }


def measure(row: Row, n_samples: int) -> Result:
    """Takes `n_samples` rounds of a row, or as many as it takes at most.

    A round before them is thrown away, where it is what fills the page cache.

    Raises:
        Differ: The sides did not give the same tensors.
    """
    result = Result(row)
    inputs = row.inputs()
    if row.has_trial:
        _round(row, inputs)
    elapsed, others = _elapsed(), _others()
    for _ in range(min(n_samples, row.most_samples)):
        for side, sample in _round(row, inputs).items():
            if row.cache and sample["resident"] is not None:
                result.resident.append(sample["resident"])
            result.seconds.setdefault(side, []).append(sample["seconds"])
            result.peak_bytes.setdefault(side, []).append(sample["peak_bytes"])
    result.cores_of_others = max(0.0, (_others() - others) / (_elapsed() - elapsed))
    return result


def _round(row: Row, inputs: list[Path]) -> dict[str, dict[str, Any]]:
    if row.cache:
        row.cache.begin([*row.place.under(inputs), *inputs])
    samples = {side: _sample(row, side, inputs) for side in row.side_names}
    digests = {side: sample["digest"] for side, sample in samples.items() if not is_bare(side)}
    if len(set(digests.values())) != 1 or None in digests.values():
        raise Differ(f"`{row.name}`: the sides gave different tensors: {digests}")
    return samples


def _sample(row: Row, side: str, inputs: list[Path]) -> dict[str, Any]:
    """A sample of a process of its own, with the files in the page cache, or out of it."""
    seen = []
    for _ in range(_N_TRIES):
        if row.cache:
            row.cache.establish([*row.place.under(inputs), *inputs])
        sample = _run(row, side)
        if row.cache is None or row.cache.is_so(sample["resident"]):
            return sample
        seen.append(f"{sample['resident']:.1%}")
    raise Failed(f"`{row.name}`, {side}: the page cache held {', '.join(seen)} of the files")


def _run(row: Row, side: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tensorhold_bench.sample", row.name, side]
    if side in row.commands:
        command = row.commands[side]()
    environment = os.environ | _ENVIRONMENT | {WAKE: str(row.fresh_bytes() // _BLOCK * _BLOCK)}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"`{row.name}`, {side}: the process ended with {done.returncode}")
    sample: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return sample


def _elapsed() -> float:
    return os.times().elapsed


def _others() -> float:
    return machine.busy_seconds() - machine.own_seconds()
