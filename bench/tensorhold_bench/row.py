"""What a row of the table is: one work, done by several sides.

A side is a generator: it prepares, yields what is to be timed, is sent what that gave, and returns
the digest of the tensors (`None` where there are none). All but what it yields is outside the
clock. A row that is the same program for tensorhold and safetensors is one function that takes the
package's name:

    @row("`load_file`, torch, 100 000 tiny tensors", target=7)
    def load_tiny_torch(package: str) -> Work:
        library, path = module(package, "torch"), files.tiny()
        library.load_file(files.warm_up())
        tensors = yield lambda: library.load_file(path)
        return digest.of_torch(tensors)

Peers of other programs are added with `@load_tiny_torch.side("name")`, the bare limit with `.bare`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from tensorhold_bench.cache import Cache
from tensorhold_bench.places import DISK, Place

OURS = "tensorhold"
PEER = "safetensors"
# A side that does only what the machine must do: no library, nothing checked, no digest. There may
# be several, `bare buffered` and `bare direct`: the limit is the one that is faster in that run.
BARE = "bare"

Work = Generator[Callable[[], Any], Any, str | None]
Side = Callable[[], Work]


@dataclass
class Row:
    """A work and the sides that do it."""

    name: str
    title: str
    # What is asked for with it: `--only GROUP`.
    group: str = "drop-in"
    # How many times as fast as each peer we mean to be, and where one peer's differs.
    target: float | None = None
    targets: dict[str, float] = field(default_factory=dict)
    # The part of the bare limit's speed that we mean to reach.
    bare_target: float | None = None
    # How often what is timed does the work.
    n_calls: int = 1
    # The most memory we mean to take beyond what the work is given.
    peak_target_bytes: int | None = None
    # The bytes that are moved, for the speed.
    size_bytes: Callable[[], int] | None = None
    # No more samples than this, however many are asked for.
    most_samples: int = 1000
    # The memory and page cache that a side fills while the clock runs.
    fresh_bytes: Callable[[], int] = int
    # The file system that the files are on.
    place: Place = DISK
    # What the page cache is to hold of `inputs` when the clock starts; `None`: what it likes.
    cache: Cache | None = None
    inputs: Callable[[], list[Path]] = list
    # What each bare side does.
    bares: dict[str, str] = field(default_factory=dict)
    # Whether they are stages of one work, of which the slowest is the limit.
    bares_are_stages: bool = False
    sides: dict[str, Side] = field(default_factory=dict)
    # Sides that are a program of their own, which prints its sample: the command line of each.
    commands: dict[str, Callable[[], list[str]]] = field(default_factory=dict)

    def side(self, name: str) -> Callable[[Side], Side]:
        """Adds a side."""

        def add(side: Side) -> Side:
            self.sides[name] = side
            return side

        return add

    def bare(self, what: str) -> Callable[[Side], Side]:
        """Adds the bare side, and says `what` it does."""
        self.bares[BARE] = what
        return self.side(BARE)

    @property
    def has_trial(self) -> bool:
        """Whether a first round is thrown away: where nothing else fills the page cache."""
        return self.cache is None and self.group == "drop-in"

    def target_for(self, peer: str) -> float | None:
        """How many times as fast as this peer we mean to be."""
        return self.targets.get(peer, self.target)

    @property
    def side_names(self) -> list[str]:
        """Peers first, then ours, then the bare one: the order of each round."""
        names = [*self.sides, *self.commands]
        return sorted(names, key=lambda name: (is_bare(name), name == OURS, name))


ROWS: dict[str, Row] = {}


def is_bare(side: str) -> bool:
    """Whether a side is a bare one."""
    return side.partition(" ")[0] == BARE


def row(title: str, **more: Any) -> Callable[[Callable[[str], Work]], Row]:
    """Makes a row of a function that takes the name of the package to time."""

    def make(function: Callable[[str], Work]) -> Row:
        made = add(Row(function.__name__, title, **more))
        made.sides |= {package: partial(function, package) for package in (PEER, OURS)}
        return made

    return make


def add(new: Row) -> Row:
    """Puts a row on the list."""
    ROWS[new.name] = new
    return new


def module(package: str, framework: str) -> Any:
    """A front end, say `safetensors.torch`, imported."""
    return import_module(f"{package}.{framework}")
