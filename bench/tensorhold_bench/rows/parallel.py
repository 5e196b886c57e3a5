"""What several ranks need: a saved mesh put together, and shares of one file at once."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tensorhold_bench import digest, files
from tensorhold_bench.cache import Cache
from tensorhold_bench.row import OURS, Row, Work, add
from tensorhold_bench.rows import bare

N_SAVED, N_RANKS = 4, 4
TORCH = "torch, HuggingFaceStorageReader"
ALONE = "tensorhold, TP 1 in one process"


def _torch_reader(folder: Path) -> Any:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    return HuggingFaceStorageReader(str(folder))


def _our_reader(folder: Path) -> Any:
    from tensorhold.dcp import StorageReader

    return StorageReader(folder)


def _dcp(reader_of: Callable[[Path], Any]) -> Work:
    import torch
    from torch.distributed.checkpoint.state_dict_loader import load as load_parts

    paths = files.saved_by_ranks(N_SAVED)
    shapes = files.saved_shapes()
    small = files.saved_by_ranks(N_SAVED, is_small=True)
    few = {name: torch.zeros(shape) for name, shape in files.saved_shapes(is_small=True).items()}
    load_parts(few, storage_reader=reader_of(small[0].parent), no_dist=True)
    # The memory that it is for is there, as that of a model is.
    state = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}

    def load() -> None:
        load_parts(state, storage_reader=reader_of(paths[0].parent), no_dist=True)

    yield load
    return digest.of_torch(state)


def _size_of_saved() -> int:
    return sum(path.stat().st_size for path in files.saved_by_ranks(N_SAVED))


_saved = Row(
    "dcp_resharded",
    "a distributed checkpoint of 4 ranks, 1.1 GB, into the whole tensors of one, warm",
    group="parallel",
    size_bytes=_size_of_saved,
    fresh_bytes=_size_of_saved,
    cache=Cache.WARM,
    inputs=lambda: files.saved_by_ranks(N_SAVED),
)
_saved.sides |= {TORCH: partial(_dcp, _torch_reader), OURS: partial(_dcp, _our_reader)}
add(_saved)


def _rules() -> dict[str, str]:
    """Each matrix by its rows or by its columns, as the plan of such a model says."""
    described, _ = files.read_header(files.llama())
    by_columns = ("down_proj.weight", "o_proj.weight")
    return {
        name: "rowwise" if name.endswith(by_columns) else "colwise"
        for name, (_, shape, _) in described.items()
        if len(shape) == 2
    }


def _tensors() -> list[tuple[int, int, int]]:
    """As the bare program takes them. It gives each rank a part of the few vectors, too."""
    described, data = files.read_header(files.llama())
    rules = _rules()
    return [
        (
            data + start,
            end - start,
            (end - start) // shape[0] if rules.get(name) == "rowwise" else 0,
        )
        for name, (_, shape, (start, end)) in described.items()
    ]


def _in_ranks(n_ranks: int) -> Work:
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(n_ranks)]
    ranks = [
        context.Process(target=_rank, args=(rank, n_ranks, theirs), daemon=True)
        for rank, (_, theirs) in enumerate(pipes)
    ]
    for rank in ranks:
        rank.start()
    ours = [pipe for pipe, _ in pipes]

    def ask(word: str) -> list[Any]:
        for pipe in ours:
            pipe.send(word)
        return [pipe.recv() for pipe in ours]

    ask("ready")
    yield lambda: ask("load")
    digests = [each for answer in ask("digest") for each in answer]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _rank(rank: int, n_ranks: int, pipe: Any) -> None:
    """Answers each word when it is done; the digests are those of the shares of all that it has."""
    import torch

    import tensorhold
    from tensorhold import parallel

    # As whoever starts ranks says it, `torchrun` for one.
    os.environ["LOCAL_WORLD_SIZE"] = str(n_ranks)
    mesh, rules = {"tp": n_ranks}, _rules()
    tensorhold.open(files.warm_up()).load()
    held: dict[str, torch.Tensor] = {}
    pipe.send(pipe.recv())
    pipe.recv()
    held |= parallel.load(files.llama(), mesh=mesh, rank=rank, rules=rules)
    pipe.send(len(held))
    pipe.recv()
    n_each = N_RANKS // n_ranks
    pipe.send([digest.of_torch(_share(held, rules, part, n_each)) for part in range(n_each)])


def _share(held: dict[str, Any], rules: dict[str, str], part: int, n_parts: int) -> dict[str, Any]:
    dims = {"colwise": 0, "rowwise": 1}
    return {
        name: tensor.chunk(n_parts, dims[rules[name]])[part] if name in rules else tensor
        for name, tensor in held.items()
    }


_together = Row(
    "tp4_in_4_processes",
    "TP 4, 2.2 GB: four ranks on one machine, each its share, until all have theirs, warm",
    group="parallel",
    # As fast as one process that reads all.
    target=1.0,
    size_bytes=lambda: files.llama().stat().st_size,
    fresh_bytes=lambda: files.llama().stat().st_size,
    cache=Cache.WARM,
    inputs=lambda: [files.llama()],
)
_together.sides |= {ALONE: partial(_in_ranks, 1), OURS: partial(_in_ranks, N_RANKS)}
bare.add_ranks(_together, N_RANKS, _tensors)
add(_together)
