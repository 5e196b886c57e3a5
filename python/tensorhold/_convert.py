"""Checkpoints of other formats: converted, and looked into before anyone trusts them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

from tensorhold import _native
from tensorhold._arguments import to_boundary, to_dtype_name, to_size_bytes

__all__ = ["Converted", "Finding", "Import", "Scan", "convert", "scan"]

Verdict = Literal["harmless", "unknown", "dangerous"]


@dataclass(frozen=True)
class Import:
    """A name that a pickle asks an unpickler to import.

    Attributes:
        name: The dotted name, such as `torch._utils._rebuild_tensor_v2`.
        verdict: Whether it is known to be harmless or dangerous.
        called: Whether the file calls it, or makes an object of it.
        mentions: How often the file names it.
        paths: Where in the tree of values it is used; the first few.
        pickle: The pickle that names it, where that is not the file's main one.
    """

    name: str
    verdict: Verdict
    called: bool
    mentions: int
    paths: list[str]
    pickle: str | None


@dataclass(frozen=True)
class Finding:
    """Something that is worth knowing about a file.

    Attributes:
        kind: What kind of thing it is, such as `"Opaque"` or `"Polyglot"`.
        verdict: How much it is to be feared.
        message: What it is.
        path: Where in the tree of values it is.
        bytes: Where in the file it is.
        file: The file, where several were read.
    """

    kind: str
    verdict: Verdict
    message: str
    path: str | None = None
    bytes: tuple[int, int] | None = None
    file: str | None = None


@dataclass(frozen=True)
class Scan:
    """What was found out about a file.

    Attributes:
        path: The file.
        format: What it is; `None` where that could not be found out.
        verdict: The worst that was found.
        imports: The names that its pickles ask to import, the most dangerous first.
        findings: What is odd about it, the most dangerous first.
    """

    path: str
    format: str | None
    verdict: Verdict
    imports: list[Import]
    findings: list[Finding]


@dataclass(frozen=True)
class Converted:
    """What a conversion has done.

    Attributes:
        paths: The files that were written, the index last.
        n_dropped: Values that are no tensors and were left out.
        findings: What is odd about the sources.
    """

    paths: list[str]
    n_dropped: int
    findings: list[Finding]


def convert(
    source: str | PathLike[str],
    target: str | PathLike[str],
    *,
    dtype: Any = None,
    root: str | None = None,
    values: Literal["tree", "beside", "drop"] = "tree",
    max_shard_size: int | str | None = None,
    dequantize: bool = False,
    verify: bool = False,
    align: int = 4096,
    durability: Literal["none", "data", "full"] = "data",
    progress: Callable[[int, int], object] | None = None,
) -> Converted:
    """Writes a checkpoint of another format as a safetensors file; nothing in it is run.

    Reads what `torch.save` and `torch.jit.save` write, of any age, pickles, NumPy's `.npy` and
    `.npz`, GGUF, the message packs of Flax and the weights of Keras, by their content. Tensors
    that share memory are stored once. Some MB are in memory at a time.

    Args:
        source: A file, an `*.bin.index.json`, or a folder with one.
        target: The file to write, which is replaced when the new one is complete; with
            `max_shard_size` a folder.
        dtype: What floats are cast to.
        root: The keys to the value that is converted, joined by `.`, such as `"state_dict"`.
        values: What becomes of values that are no tensors: kept in the metadata, as the `"tree"`
            that `tensorhold.serialization.load` reads; written `"beside"` the file as JSON; or
            left out (`"drop"`).
        max_shard_size: The most bytes of tensors in a file: a number, `"5GB"` or `"500MB"`.
        dequantize: Whether quantized blocks of GGUF become numbers.
        verify: Whether what was written is read again and compared with the source.
        align: The boundary on which the tensors' bytes begin in the file, a power of two.
        durability: What is on disk for sure on return, as for `tensorhold.save`.
        progress: Called now and then with the bytes done and the bytes in all.

    Raises:
        FileNotFoundError: There is no such file.
        SafetensorError: The source is of no known format, damaged, or asks for too much.

    Example:
        >>> import torch
        >>> from tensorhold import serialization
        >>> torch.save({"step": 3, "weight": torch.ones(2)}, "state.pt")
        >>> convert("state.pt", "state.safetensors").paths
        ['state.safetensors']
        >>> serialization.load("state.safetensors")
        {'step': 3, 'weight': tensor([1., 1.])}
    """
    limit = None if max_shard_size is None else to_size_bytes(max_shard_size)
    paths, n_dropped, findings = _native.convert(
        source,
        target,
        limit,
        values,
        to_dtype_name(dtype),
        root,
        dequantize,
        verify,
        to_boundary(align),
        durability,
        progress,
    )
    return Converted([str(path) for path in paths], n_dropped, [Finding(**one) for one in findings])


def scan(path: str | PathLike[str]) -> Scan:
    """Says what a file really is, and what in it is to be feared; nothing in it is run.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be read.

    Example:
        >>> import pickle, statistics
        >>> with open("odd.pkl", "wb") as file:
        ...     pickle.dump(statistics.mean, file)
        >>> found = scan("odd.pkl")
        >>> found.verdict, [one.name for one in found.imports]
        ('unknown', ['statistics.mean'])
    """
    found = _native.scan(path)
    return Scan(
        found["path"],
        found["format"],
        found["verdict"],
        [Import(**one) for one in found["globals"]],
        [Finding(**one) for one in found["findings"]],
    )
