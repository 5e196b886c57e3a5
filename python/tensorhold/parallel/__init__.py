"""Loading in parallel: each rank reads what it holds, and nothing else.

A mesh says how many ranks there are along each axis; rules say by name what an axis does to a
tensor. `load` gives what one rank holds; no rank needs another for it. `lazy` gives placeholders,
for programs that take their shards themselves.

Example:
    >>> import torch, tensorhold
    >>> from tensorhold import parallel
    >>> tensors = {"up.weight": torch.ones(8, 4), "norm.weight": torch.ones(4)}
    >>> _ = tensorhold.save(tensors, "m.safetensors")
    >>> held = parallel.load("m.safetensors", mesh={"tp": 2}, rank=1, rules={"up": "colwise"})
    >>> {name: tuple(tensor.shape) for name, tensor in held.items()}
    {'norm.weight': (4,), 'up.weight': (4, 4)}
"""

from tensorhold._native import Share
from tensorhold.parallel._lazy import lazy
from tensorhold.parallel._load import LoadStats, load, load_into, shares, stats
from tensorhold.parallel._rules import rules_of
from tensorhold.parallel._team import RankError
from tensorhold.parallel._words import (
    Blocks,
    Experts,
    Fused,
    Heads,
    Replicate,
    Shard,
    Stages,
    StridedShard,
)

__all__ = [
    "Blocks",
    "Experts",
    "Fused",
    "Heads",
    "LoadStats",
    "RankError",
    "Replicate",
    "Shard",
    "Share",
    "Stages",
    "StridedShard",
    "lazy",
    "load",
    "load_into",
    "rules_of",
    "shares",
    "stats",
]
