"""Parts of every matrix of a checkpoint, as a rank of eight takes them, into owned memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from tensorhold_bench import digest, files, memory
from tensorhold_bench.cache import Cache
from tensorhold_bench.loaders import CANDIDATE, use_candidate
from tensorhold_bench.row import OURS, PEER, Row, Work, add

N_RANKS, RANK = 8, 3
PREAD = "safetensors, pread"

# What is taken of a matrix with so many rows and columns.
Cut = Callable[[int, int], tuple[slice, slice]]
# The parts of all matrices by name, given what is taken of each.
Take = Callable[[dict[str, tuple[slice, slice]]], dict[str, Any]]


def _columns(_: int, n_columns: int) -> tuple[slice, slice]:
    return slice(None), _share(n_columns)


def _rows(n_rows: int, _: int) -> tuple[slice, slice]:
    return _share(n_rows), slice(None)


def _every_eighth(_n_rows: int, _n_columns: int) -> tuple[slice, slice]:
    return slice(RANK, None, N_RANKS), slice(None)


def _share(size: int) -> slice:
    return slice(size * RANK // N_RANKS, size * (RANK + 1) // N_RANKS)


def _safetensors(backend: str) -> Take:
    from safetensors import safe_open

    def take(cuts: dict[str, tuple[slice, slice]]) -> dict[str, Any]:
        with safe_open(files.llama(), "pt", backend=backend) as file:
            # A cut of whole rows is a view of the map: a copy makes it the taker's own.
            return {name: _owned(file.get_slice(name)[cut], backend) for name, cut in cuts.items()}

    return take


def _owned(tensor: Any, backend: str) -> Any:
    shares_the_map = backend == "mmap" and tensor.untyped_storage().nbytes() > tensor.nbytes
    return tensor.clone() if shares_the_map else tensor


def _candidate(backend: str) -> Take:
    use_candidate()
    return _safetensors(backend)


def _tensorhold() -> Take:
    import tensorhold

    def take(cuts: dict[str, tuple[slice, slice]]) -> dict[str, Any]:
        with tensorhold.open(files.llama(), framework="pt") as checkpoint:
            return checkpoint.load(cuts)

    return take


_SIDES: dict[str, Callable[[], Take]] = {
    PEER: partial(_safetensors, "mmap"),
    PREAD: partial(_safetensors, "pread"),
    CANDIDATE: partial(_candidate, "mmap"),
    OURS: _tensorhold,
}


def _row(name: str, title: str, cut: Cut, targets: dict[str, float]) -> None:
    def size_bytes() -> int:
        return files.llama().stat().st_size // N_RANKS

    row = Row(
        name,
        f"TP 8, 2.2 GB: {title} of each matrix, warm, into owned memory",
        group="engine",
        targets=targets,
        size_bytes=size_bytes,
        fresh_bytes=lambda: 10 * size_bytes(),
        cache=Cache.WARM,
        inputs=lambda: [files.llama()],
    )
    row.sides |= {side: partial(_take, awake, cut) for side, awake in _SIDES.items()}
    add(row)


def _take(awake: Callable[[], Take], cut: Cut) -> Work:
    import torch

    take = awake()
    described, _ = files.read_header(files.llama())
    cuts = {name: cut(*shape) for name, (_, shape, _) in described.items() if len(shape) == 2}
    take(dict(_smallest(cuts, described)))
    before = memory.owned_bytes()
    tensors = yield lambda: take(cuts)
    memory.refuse_lazy(before, sum(tensor.nbytes for tensor in tensors.values()))
    assert torch.is_tensor(next(iter(tensors.values())))
    return digest.of_torch(tensors)


def _smallest(
    cuts: dict[str, tuple[slice, slice]], described: dict[str, Any]
) -> Iterable[tuple[str, tuple[slice, slice]]]:
    """One small cut, so that a library has done each thing once."""
    name = min(cuts, key=lambda name: described[name][2][1] - described[name][2][0])
    return [(name, cuts[name])]


_TARGETS = {PEER: 5.0, CANDIDATE: 5.0, PREAD: 40.0}

_row("slice_columns", "an eighth of the columns", _columns, _TARGETS)
_row("slice_strided", "each eighth row", _every_eighth, _TARGETS)
_row("slice_rows", "an eighth of the rows", _rows, {})
