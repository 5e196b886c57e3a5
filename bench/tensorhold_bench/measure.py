"""Takes the samples of a row, in rounds of a fresh process for each side, and sums them up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from tensorhold_bench import machine
from tensorhold_bench.row import BARE, OURS, Row

# Nothing is looked up on the network, whatever a library would like to.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}


class Differ(Exception):
    """Two sides gave different tensors: no time of theirs means anything."""


@dataclass
class Result:
    """The samples of a row, by side, in the order of the rounds."""

    row: Row
    seconds: dict[str, list[float]] = field(default_factory=dict)
    peak_bytes: dict[str, list[int | None]] = field(default_factory=dict)
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
        return [side for side in self.seconds if side not in (OURS, BARE)]

    def to_json(self) -> dict[str, Any]:
        """All samples, so that anyone can sum them up otherwise."""
        return {
            "row": self.row.name,
            "title": self.row.title,
            "target": self.row.target,
            "n_calls": self.row.n_calls,
            "peak_target_bytes": self.row.peak_target_bytes,
            "bare_is": self.row.bare_is or None,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "ratios": {peer: self.ratios(peer) for peer in self.peers},
            "cores_of_others": round(self.cores_of_others, 3),
        }


def measure(row: Row, n_samples: int) -> Result:
    """Takes `n_samples` rounds of a row.

    A round before them is thrown away: it makes files and fills the page cache.

    Raises:
        Differ: The sides did not give the same tensors.
    """
    result = Result(row)
    _round(row)
    elapsed, others = _elapsed(), _others()
    for _ in range(n_samples):
        for side, sample in _round(row).items():
            result.seconds.setdefault(side, []).append(sample["seconds"])
            result.peak_bytes.setdefault(side, []).append(sample["peak_bytes"])
    result.cores_of_others = max(0.0, (_others() - others) / (_elapsed() - elapsed))
    return result


def _round(row: Row) -> dict[str, dict[str, Any]]:
    samples = dict(_samples(row))
    digests = {side: sample["digest"] for side, sample in samples.items() if side != BARE}
    if len(set(digests.values())) != 1 or None in digests.values():
        raise Differ(f"`{row.name}`: the sides gave different tensors: {digests}")
    return samples


def _samples(row: Row) -> Iterator[tuple[str, dict[str, Any]]]:
    for side in row.side_names:
        command = [sys.executable, "-m", "tensorhold_bench.sample", row.name, side]
        if side in row.commands:
            command = row.commands[side]()
        environment = os.environ | _ENVIRONMENT
        done = subprocess.run(
            command, stdout=subprocess.PIPE, env=environment, check=True, text=True
        )
        yield side, json.loads(done.stdout.splitlines()[-1])


def _elapsed() -> float:
    return os.times().elapsed


def _others() -> float:
    return machine.busy_seconds() - machine.own_seconds()
