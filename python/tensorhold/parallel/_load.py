"""Loading what a rank holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tensorhold import _native
from tensorhold._arguments import to_dtype_name
from tensorhold._errors import ArgumentError
from tensorhold.checkpoint import Checkpoint
from tensorhold.parallel._asked import Asked, check_mode, own_backend, own_cores
from tensorhold.parallel._quantized import numbers_of, rewrite
from tensorhold.parallel._rules import engine_rules, given_rules
from tensorhold.parallel._team import Team
from tensorhold.parallel._together import load as load_together

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["LoadStats", "load", "load_into", "shares", "stats"]


def load(
    source: str | PathLike[str] | Sequence[str | PathLike[str]] | Checkpoint,
    *,
    mesh: Any,
    rank: int | None = None,
    rules: Mapping[str, Any] | None = None,
    device: Any = "cpu",
    process_group: Any = None,
    mode: Literal["auto", "own", "node", "broadcast", "scatter"] = "auto",
    as_dtensor: bool = False,
    unmatched: Literal["replicate", "refuse"] = "replicate",
    tied: Mapping[str, str] | None = None,
    dtype: Any = None,
    dequantize: bool = False,
    threads: int | None = None,
) -> dict[str, Any]:
    """What one rank of a mesh holds of a checkpoint, by name.

    Who reads what is the `mode`; each gives the same tensors:

    - `"own"`: each rank reads what it holds and nothing else, and needs no other rank. Where ranks
      of a node hold the same bytes, they read through the page cache, so that storage is read once.
    - `"node"`: the ranks of each node read every byte that any of them holds once, into memory that
      they share: where the page cache cannot hold the bytes until all ranks have read them.
    - `"broadcast"`: what several ranks hold is read by one of them, and sent to the others.
    - `"scatter"`: each tensor is read by one rank, which sends the others their parts: for slow
      storage that would give several parts of a tensor as slowly as all of it.
    - `"auto"`: `"own"`, unless a `process_group` is given: then its ranks compare what they hold,
      what is cached, and what storage and network there is, and choose. `stats` says why.

    In all modes but `"own"`, and in `"auto"` with a `process_group`, every rank of the group has to
    call this function with the same arguments but `rank` and `device`; the tensors of ranks may
    differ as those of stages do. What differs is refused before bytes move. A rank that fails ends
    the others with its error; one that is killed ends them within seconds, or within the group's
    timeout where the network just goes silent, with an error that names it. The group may be of no
    use then.

    Rules name a quantized weight as it is called without quantization, `X.weight` for `X.qweight`,
    `X.scales` and so on, and divide it as it is shaped then. A rank gets its piece of each of these
    parts, which are together a weight of their own: numbers that belong to all of it are whole,
    `weight_shape` is that of the piece, groups in `g_idx` are counted from its first where they
    follow one another.

    Args:
        source: A file, a folder, an index, a list of files, or an open checkpoint.
        mesh: PyTorch's `DeviceMesh`, or sizes by the names of axes: `{"pp": 2, "tp": 4}`.
        rank: The rank in the mesh, the last axis fastest; that of this process where it is None.
        rules: What is divided how: from patterns of names of modules or tensors to styles
            (`"colwise"`, `"rowwise"`, ... of a `tp_plan`), to placements such as `Shard(0)`, or to
            mappings from axes to these. `*` is one part of a name, or letters of it, `**` any
            number of parts. The rule that names a tensor most closely counts. Where it is None, the
            rules are those of the `transformers` model whose `config.json` lies beside the files.
        device: Where the tensors are to be.
        process_group: Whose ranks those of the mesh are; the default group where it is None.
        mode: Who reads what.
        as_dtensor: Whether to give DTensors, for which `mesh` is to be a `DeviceMesh`.
        unmatched: What becomes of a tensor that no rule names: `"replicate"` or `"refuse"`.
        tied: Tensors that the checkpoint keeps under another name: from the name to give to that
            name, as `{"lm_head.weight": "model.embed_tokens.weight"}`. Where it is None, those that
            `rules_of` found.
        dtype: What floats are cast to.
        dequantize: Whether quantized weights are given as numbers, by the names and shapes that
            they have without quantization: each rank reads what its share needs and makes its own.
        threads: How many threads read, if not as many as the files and this rank's part of the
            machine's processors deserve, of which `LOCAL_WORLD_SIZE` says how many ranks have one.

    Raises:
        KeyError: `tied` has the name of no tensor.
        ValueError: A rule names nothing, or cannot divide what it names; a quantized weight would
            be cut elsewhere than between its units; a rank is none of the mesh; the mesh has
            another number of ranks than the group; ranks that load together have other arguments or
            checkpoints than each other.
        RankError: A rank that this one loads with failed, or is gone.

    Example:
        >>> import torch, tensorhold
        >>> _ = tensorhold.save({"a.weight": torch.arange(8.0).reshape(2, 4)}, "a.safetensors")
        >>> load("a.safetensors", mesh={"tp": 2}, rank=0, rules={"a": "rowwise"})
        {'a.weight': tensor([[0., 1.],
                [4., 5.]])}
    """
    check_mode(mode, dequantize)
    options = {"device": device, "dtype": dtype, "threads": threads, "cores": own_cores()}
    with contextlib.ExitStack() as stack:
        chosen, why = "own", _why_own(mode, process_group, dequantize)
        team = None if why else stack.enter_context(Team(process_group))
        backend = "auto" if team is None else "shared"
        rules, tied = given_rules(source, mesh, rules, tied)
        axes, place = _seat(mesh, rank, process_group)
        words = engine_rules(rules, axes)
        asked = Asked(
            mode, axes, place, words, unmatched, tied, to_dtype_name(dtype), dequantize, as_dtensor
        )
        checkpoint = stack.enter_context(_opened(source, device, backend))
        tensors = None
        if team is not None:
            tensors, chosen, why = load_together(team, checkpoint, asked, options)
        held = asked.shares(checkpoint)
        if dequantize:
            tensors = numbers_of(checkpoint, held, tied, options)
        if tensors is None:
            if team is None and not isinstance(source, Checkpoint):
                backend = own_backend(checkpoint, asked)
                checkpoint = stack.enter_context(_opened(source, device, backend))
            tensors = _own(checkpoint, held, tied, options)
        rewrite(tensors, held)
        _last[:] = [LoadStats(chosen, why)]
    if not as_dtensor:
        return tensors
    return {name: _dtensor(tensor, held[name], mesh) for name, tensor in tensors.items()}


def _why_own(mode: str, process_group: Any, dequantize: bool) -> str:
    """Why each rank reads its own without asking the others; nothing where they are to be asked."""
    if mode == "own":
        return "it was asked for"
    if dequantize:
        return "each rank makes the numbers that it holds"
    return "no process group was given" if mode == "auto" and process_group is None else ""


def shares(
    source: str | PathLike[str] | Sequence[str | PathLike[str]] | Checkpoint,
    *,
    mesh: Any,
    rank: int | None = None,
    rules: Mapping[str, Any] | None = None,
    process_group: Any = None,
    unmatched: Literal["replicate", "refuse"] = "replicate",
    tied: Mapping[str, str] | None = None,
    dequantize: bool = False,
) -> dict[str, _native.Share]:
    """What one rank holds, by name, without reading it: each `.shape`, `.ranges`, `.placements`.

    A share is a part that `Checkpoint.load`, `stream` and `plan` take in the place of an index. Of
    a part of a quantized weight, `.weight` is the name of that, `.placements` are what divides it,
    and `.rewritten` the integers that are to be in place of those in the file, if there are such.

    Args:
        source: As for `load`, and so are the others.
        mesh: The mesh.
        rank: The rank.
        rules: The rules.
        process_group: Whose ranks they are.
        unmatched: What becomes of a tensor that no rule names.
        tied: Tensors that the checkpoint keeps under another name.
        dequantize: Whether quantized weights are as they are without quantization.

    Raises:
        ValueError: As for `load`.

    Example:
        >>> import numpy as np, tensorhold
        >>> _ = tensorhold.save({"a.weight": np.ones((5, 4))}, "a.safetensors")
        >>> held = shares("a.safetensors", mesh={"tp": 2}, rank=1, rules={"a": "colwise"})
        >>> held["a.weight"].shape, held["a.weight"].ranges
        ((2, 4), [[(3, 5)], [(0, 4)]])
    """
    rules, tied = given_rules(source, mesh, rules, tied)
    axes, place = _seat(mesh, rank, process_group)
    words = engine_rules(rules, axes)
    asked = Asked("own", axes, place, words, unmatched, tied, None, dequantize)
    with _opened(source, "cpu") as checkpoint:
        return asked.shares(checkpoint)


def stats() -> LoadStats | None:
    """How the last `load` of this process went, and why so.

    Example:
        >>> import torch, tensorhold
        >>> _ = tensorhold.save({"a.weight": torch.ones(2, 4)}, "a.safetensors")
        >>> _ = load("a.safetensors", mesh={"tp": 2}, rank=0, rules={"a": "rowwise"})
        >>> stats()
        LoadStats(mode='own', why='no process group was given')
    """
    return _last[0] if _last else None


@dataclass(frozen=True)
class LoadStats:
    """How a load went.

    Attributes:
        mode: Who read what: `"own"`, `"node"`, `"broadcast"` or `"scatter"`.
        why: Why it was this mode.
    """

    mode: str
    why: str


_last: list[LoadStats] = []


def _own(
    checkpoint: Checkpoint,
    held: Mapping[str, _native.Share],
    tied: Mapping[str, str],
    options: dict[str, Any],
) -> dict[str, Any]:
    """What a rank holds, read by itself."""
    stored = {name: share for name, share in held.items() if name not in tied}
    tensors = checkpoint.load(stored, **options)
    for name in held.keys() & tied.keys():
        (tensors[name],) = checkpoint.load({tied[name]: held[name]}, **options).values()
    return tensors


def load_into(
    model: Any,
    source: str | PathLike[str] | Sequence[str | PathLike[str]] | Checkpoint,
    *,
    device: Any = None,
    strict: bool = True,
    threads: int | None = None,
) -> tuple[list[str], list[str]]:
    """Fills the parameters and buffers of a PyTorch module, DTensors among them, in place.

    Of a DTensor this rank's part is read and nothing else, whatever divided it: tensor parallelism,
    FSDP2, or both. What is on the `meta` device gets memory.

    Args:
        model: The module.
        source: A file, a folder, an index, a list of files, or an open checkpoint.
        device: Where what is on the `meta` device is to be; where the mesh of a DTensor is, or the
            host, if None.
        strict: Whether to refuse a checkpoint that lacks tensors or has others.
        threads: How many threads read.

    Returns:
        The names that the checkpoint lacks, and those that the module has not.

    Raises:
        RuntimeError: `strict`, and the names differ, or a shape does; nothing is filled then.

    Example:
        >>> import torch, tensorhold
        >>> tensors = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
        >>> _ = tensorhold.save(tensors, "m.safetensors")
        >>> with torch.device("meta"):
        ...     model = torch.nn.Linear(3, 2)
        >>> load_into(model, "m.safetensors")
        ([], [])
        >>> model.bias
        Parameter containing:
        tensor([1., 1.], requires_grad=True)
    """
    from tensorhold.parallel import _module

    with _opened(source, "cpu") as checkpoint:
        return _module.fill(model, checkpoint, device, strict, threads)


@contextlib.contextmanager
def _opened(source: Any, device: Any, backend: str = "auto") -> Iterator[Checkpoint]:
    """The checkpoint, which is closed again if it was not open."""
    if isinstance(source, Checkpoint):
        yield source
    else:
        with Checkpoint(source, device=device, backend=backend) as checkpoint:
            yield checkpoint


def _seat(mesh: Any, rank: int | None, process_group: Any) -> tuple[list[tuple[str, int]], int]:
    """The axes of the mesh with their sizes, and the rank in it."""
    if isinstance(mesh, Mapping):
        axes = [(str(name), int(size)) for name, size in mesh.items()]
        return axes, _own_rank(axes, process_group) if rank is None else rank
    names = mesh.mesh_dim_names
    if names is None:
        names = ("tp",) if mesh.ndim == 1 else tuple(f"axis{number}" for number in range(mesh.ndim))
    axes = list(zip(names, mesh.shape, strict=True))
    if rank is not None:
        return axes, rank
    coordinates = mesh.get_coordinate()
    if coordinates is None:
        raise ArgumentError(
            "this process is not in the mesh", kind="InvalidArgument", hint="give `rank`"
        )
    place = 0
    for (_, size), at in zip(axes, coordinates, strict=True):
        place = place * size + at
    return axes, place


def _own_rank(axes: list[tuple[str, int]], process_group: Any) -> int:
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        raise ArgumentError(
            "there is no process group that says which rank this is",
            kind="InvalidArgument",
            hint="give `rank`, or start torch.distributed",
        )
    n_ranks = 1
    for _, size in axes:
        n_ranks *= size
    if dist.get_world_size(process_group) != n_ranks:
        mesh = ",".join(f"{name}={size}" for name, size in axes)
        raise ArgumentError(
            f"the mesh {mesh} has {n_ranks} ranks, but the process group has"
            f" {dist.get_world_size(process_group)}",
            kind="InvalidArgument",
        )
    return dist.get_rank(process_group)


def _dtensor(local: Any, share: _native.Share, mesh: Any) -> Any:
    """The DTensor of which this is the local part."""
    import torch
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor.placement_types import Replicate, Shard, _StridedShard

    placements: list[Any] = []
    for name, *numbers in share.placements:
        if name == "Replicate":
            placements.append(Replicate())
        elif name == "Shard":
            placements.append(Shard(*numbers))
        elif name == "StridedShard":
            placements.append(_StridedShard(numbers[0], split_factor=numbers[1]))
        else:
            raise ArgumentError(
                f"a DTensor has no placement such as {name}: load without `as_dtensor`",
                kind="InvalidArgument",
            )
    stride = [1] * len(share.full_shape)
    for dim in reversed(range(len(stride) - 1)):
        stride[dim] = stride[dim + 1] * share.full_shape[dim + 1]
    shape = torch.Size(share.full_shape)
    return DTensor.from_local(
        local, mesh, placements, run_check=False, shape=shape, stride=tuple(stride)
    )
