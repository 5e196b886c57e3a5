"""Loading with other ranks: what they compare first, and which mode they choose."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensorhold.parallel import _modes, _node

if TYPE_CHECKING:
    from tensorhold.checkpoint import Checkpoint
    from tensorhold.parallel._asked import Asked
    from tensorhold.parallel._modes import Unit
    from tensorhold.parallel._team import Team

__all__ = ["Facts", "choose", "load"]

# What the cost model takes for granted, in bytes a second. They need only tell apart what differs
# by several times.
_DISK = 3e9
_NETWORK_STORAGE = 1e9
_MEMORY = 10e9
_LINKS = {"gloo": 1e9, "mpi": 1e9}
_FAST_LINK = 20e9

# A change of mode has to save so much of the time to be worth what ranks wait for each other.
_WORTHWHILE = 0.8


@dataclass
class Facts:
    """What the cost model goes by.

    Args:
        nodes: Of each rank, the node that it is on.
        wanted: The bytes of all shares of all ranks together.
        by_node: The bytes that the ranks of each node hold, each counted once.
        once: The bytes that any rank holds, each counted once.
        cached: How much of the checkpoint is in the page cache, from 0 to 1, where it is least.
        is_network: Whether it is on a network file system for any rank.
        free: The least free memory of any node.
        backend: What the process group sends with.
    """

    nodes: list[str]
    wanted: int
    by_node: list[int]
    once: int
    cached: float
    is_network: bool
    free: int
    backend: str


def load(
    team: Team, checkpoint: Checkpoint, asked: Asked, options: dict[str, Any]
) -> tuple[dict[str, Any] | None, str, str]:
    """What this rank holds, the mode, and why it; no tensors where the mode is `own`."""
    size, cached, is_network = checkpoint._native.residence()
    said = {
        "checkpoint": _digest(_table(checkpoint)),
        "asked": _told(asked),
        "place": asked.place,
        "node": _node.node(),
        "residence": [size, cached, is_network],
        "free": _free_bytes(),
    }
    all_said = team.gather(said)
    _compare(team, checkpoint, all_said)
    places = {said["place"] for said in all_said}
    of_place = {place: asked.shares(checkpoint, place) for place in places}
    held = [of_place[said["place"]] for said in all_said]
    found = _modes.units(checkpoint, held, asked.tied)
    mode, why = asked.mode, "it was asked for"
    if mode == "auto":
        mode, why = choose(_facts(team, all_said, found))
    if mode == "own":
        return None, mode, why
    if mode == "node":
        nodes = [said["node"] for said in all_said]
        return _node.load(team, checkpoint, found, nodes, options), mode, why
    _modes.assign(found, team.n_ranks, by_tensor=mode == "scatter")
    cast = _modes.Cast(options["dtype"])
    return _modes.exchange(team, checkpoint, found, cast, options), mode, why


def choose(facts: Facts) -> tuple[str, str]:
    """The mode that the cost model finds best, and why."""
    n_ranks, n_nodes = len(facts.nodes), len(facts.by_node)
    if facts.wanted <= facts.once * 1.01:
        return "own", "no byte is held by two ranks"
    if facts.cached > 0.95:
        return "own", f"{facts.cached:.0%} of the checkpoint is in the page cache"
    if n_nodes < n_ranks and max(facts.by_node) > facts.free * 0.8:
        return "node", (
            f"a node holds {_gib(max(facts.by_node))} and has {_gib(facts.free)} of memory free:"
            " the page cache would lose bytes before all ranks have read them"
        )
    storage = _NETWORK_STORAGE if facts.is_network else _DISK
    # Network storage is one for all nodes; each node has a disk of its own.
    read = sum(facts.by_node) if facts.is_network else max(facts.by_node)
    own = read / storage + facts.wanted / n_ranks / _MEMORY
    link = _LINKS.get(facts.backend, _FAST_LINK)
    moved = (facts.wanted - facts.once) / n_ranks
    together = facts.once / (storage * (1 if facts.is_network else n_nodes)) + moved / link
    costs = f"{own:.1f} s by itself, {together:.1f} s over {facts.backend}"
    if together < own * _WORTHWHILE:
        where = "network storage" if facts.is_network else "the disks of the nodes"
        return "broadcast", f"{where} would give some bytes several times: {costs}"
    return "own", f"the page cache gives what ranks share: {costs}"


def _facts(team: Team, all_said: list[dict[str, Any]], found: list[list[Unit]]) -> Facts:
    import torch.distributed as dist

    nodes = [said["node"] for said in all_said]
    by_node = dict.fromkeys(nodes, 0)
    wanted = once = 0
    for parts in found:
        for unit in parts:
            wanted += unit.size_bytes * len(unit.holders)
            once += unit.size_bytes
            for node in {nodes[rank] for rank in unit.holders}:
                by_node[node] += unit.size_bytes
    residences = [said["residence"] for said in all_said]
    return Facts(
        nodes=nodes,
        wanted=wanted,
        by_node=list(by_node.values()),
        once=once,
        cached=min((cached or 0) / max(size, 1) for size, cached, _ in residences),
        is_network=any(is_network for _, _, is_network in residences),
        free=min(said["free"] for said in all_said),
        backend=str(dist.get_backend(team.group)),
    )


def _free_bytes() -> int:
    """The memory that is free or can be made so; much where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 1 << 62


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


_Row = list[Any]


def _table(checkpoint: Checkpoint) -> list[_Row]:
    """What the headers say of each tensor."""
    infos = map(checkpoint.info, checkpoint)
    numbers = {path: number for number, path in enumerate(checkpoint.files)}
    return [
        [info.name, info.dtype, list(info.shape), numbers[info.file], list(info.offsets)]
        for info in infos
    ]


def _digest(table: Sequence[_Row]) -> str:
    return hashlib.sha256(json.dumps(table).encode()).hexdigest()


def _told(asked: Asked) -> dict[str, Any]:
    """What has to be the same in each rank, by what to call it."""
    return {
        "mode": asked.mode,
        "mesh": ",".join(f"{name}={size}" for name, size in asked.axes),
        "rules": [f"{pattern}, {axis}: {words}" for pattern, axis, words in asked.words],
        "unmatched": asked.unmatched,
        "tied": sorted(map(list, asked.tied.items())),
        "dtype": asked.dtype,
    }


def _compare(team: Team, checkpoint: Checkpoint, all_said: list[dict[str, Any]]) -> None:
    """Refuses ranks that were not asked for the same."""
    first = all_said[0]
    for rank, said in enumerate(all_said):
        for what, value in first["asked"].items():
            other = said["asked"][what]
            if other != value:
                both = _first_difference(value, other)
                team.refuse(
                    f"rank {rank} has another `{what}` than rank 0: {both[1]}, not {both[0]}"
                )
    different = [
        rank for rank, said in enumerate(all_said) if said["checkpoint"] != first["checkpoint"]
    ]
    if not different:
        return
    rank = different[0]
    table = _table(checkpoint) if team.rank in (0, rank) else None
    tables = team.gather(table)
    what = _difference(tables[0], tables[rank])
    team.refuse(f"rank {rank} has another checkpoint than rank 0: {what}")


def _first_difference(one: Any, two: Any) -> tuple[Any, Any]:
    """What differs of two values, or of two lists the first items that do."""
    if not isinstance(one, list):
        return one, two
    length = max(len(one), len(two))
    pairs = zip(_padded(one, length), _padded(two, length), strict=True)
    return next(pair for pair in pairs if pair[0] != pair[1])


def _padded(items: list[Any], length: int) -> list[Any]:
    return items + ["nothing"] * (length - len(items))


def _difference(one: list[_Row], two: list[_Row]) -> str:
    """In what two checkpoints differ."""
    by_name = {row[0]: row for row in one}
    others = {row[0]: row for row in two}
    for name in by_name:
        if name not in others:
            return f"it lacks `{name}`"
    for name, row in others.items():
        if name not in by_name:
            return f"it has `{name}` as well"
        before = by_name[name]
        for number, what in ((1, "dtype"), (2, "shape")):
            if before[number] != row[number]:
                return f"`{name}` has {what} {row[number]}, not {before[number]}"
    return "the tensors lie in other files, or elsewhere in them"
