"""Checkpoints written with their weights quantized, in another layout, or as numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

from tensorhold import _native
from tensorhold._arguments import to_boundary, to_config_text, to_dtype_name, to_size_bytes

__all__ = [
    "Dequantized",
    "Quantized",
    "QuantizedTensor",
    "Repacked",
    "dequantize",
    "quantize",
    "repack",
]


@dataclass(frozen=True)
class QuantizedTensor:
    """What became of a tensor.

    Attributes:
        name: Its name in the source.
        dtype: Its type there, such as `"BF16"`.
        shape: Its shape.
        kept: Why it stays as it is; `None` where it is quantized.
        size_before: Its bytes in the source.
        size_after: The bytes of the tensors that hold it now.
        max_error: The greatest difference of a weight from the source's, with `verify`.
        relative_error: The root of the mean square of the differences over that of the weights,
            with `verify`.
    """

    name: str
    dtype: str
    shape: list[int]
    kept: str | None
    size_before: int
    size_after: int
    max_error: float | None
    relative_error: float | None


@dataclass(frozen=True)
class Quantized:
    """What was done.

    Attributes:
        paths: The files that were written; none with `dry_run`.
        tensors: All tensors of the source, in its order.
        copied: The files of tokenizers and the like that were copied beside them.
    """

    paths: list[str]
    tensors: list[QuantizedTensor]
    copied: list[str]


def quantize(
    source: str | PathLike[str],
    target: str | PathLike[str],
    scheme: str,
    *,
    group_size: int | None = None,
    block: tuple[int, int] | None = None,
    scale_dtype: Any = None,
    include: Sequence[str] = (),
    ignore: Sequence[str] = (),
    max_shard_size: int | str | None = None,
    threads: int | None = None,
    verify: bool = False,
    dry_run: bool = False,
    align: int = 4096,
    durability: Literal["none", "data", "full"] = "data",
    progress: Callable[[int, int], object] | None = None,
) -> Quantized:
    """Writes a checkpoint with its weights quantized, each rounded to the nearest code.

    Weights are the F32, BF16 and F16 tensors `*.weight` of two dimensions, but for embeddings,
    output layers, norms and routers. All other tensors are written as they are. The `config.json`
    beside the source is written with the `quantization_config` that engines read; tokenizers,
    templates of chats and the like are copied, code is not. Some MB of weights are in memory at a
    time.

    Args:
        source: A folder, an `*.safetensors.index.json` or a file.
        target: The folder to write.
        scheme: What weights become. In the format of compressed-tensors `"fp8-tensor"`,
            `"fp8-channel"`, `"fp8-block"`, `"int8-channel"`, `"int4"`, `"int4-asym"`, `"int8"`,
            `"int8-asym"` (and so 2 to 7 bits), `"mxfp4"`, `"mxfp8"` and `"nvfp4"`; in that of
            DeepSeek `"fp8-finegrained"`, which is for experts in one tensor, too; in version 2
            of GPTQ `"gptq-int4"`, `"gptq-int4-asym"` (and so 2, 3 and 8 bits).
        group_size: Inputs that share a scale, for integers: 128 where `None`, all of them with 0.
        block: Rows and columns of a block, for `"fp8-block"` and `"fp8-finegrained"`: 128 and 128
            where `None`.
        scale_dtype: The type of scales, in which everything is computed: F32, BF16 or F16. That
            of each weight where `None`, but F16 for GPTQ of F32, and F32 for `"fp8-finegrained"`.
        include: Patterns of names: only these are quantized, embeddings and the like too. `*` is
            one part of a name between dots, `**` any number of them.
        ignore: Patterns of names that are left as they are.
        max_shard_size: The most bytes of tensors in a file, 5 GB where `None`.
        threads: How many threads compute, at most 8; all processors where `None`.
        verify: Whether what was written is read again and compared with the source.
        dry_run: Whether nothing is written.
        align: The boundary on which the tensors' bytes begin in a file, a power of two.
        durability: What is on disk for sure on return, as for `tensorhold.save`.
        progress: Called now and then with the bytes done and the bytes in all.

    Raises:
        FileNotFoundError: There is no such file.
        SafetensorError: The source is damaged, a weight is NaN or infinite, or cannot be cut into
            such groups.
        ValueError: There is no such scheme, or a pattern matches nothing.

    Example:
        >>> import tensorhold, torch
        >>> from tensorhold.torch import save_file
        >>> up = {"up.weight": torch.randn(64, 128), "up.bias": torch.zeros(64)}
        >>> save_file(up, "float.safetensors")
        >>> done = quantize("float.safetensors", "quantized", "int4", group_size=64, verify=True)
        >>> [(tensor.name, tensor.kept) for tensor in done.tensors]
        [('up.bias', 'no `.weight`'), ('up.weight', None)]
        >>> done.tensors[1].relative_error < 0.2
        True
        >>> sorted(tensorhold.open("quantized").keys())
        ['up.bias', 'up.weight_packed', 'up.weight_scale', 'up.weight_shape']
    """
    limit = None if max_shard_size is None else to_size_bytes(max_shard_size)
    paths, copied, tensors = _native.quantize(
        source,
        target,
        scheme,
        group_size,
        None if block is None else list(block),
        to_dtype_name(scale_dtype),
        list(include),
        list(ignore),
        limit,
        threads,
        verify,
        dry_run,
        to_boundary(align),
        durability,
        progress,
    )
    return Quantized(_texts(paths), [QuantizedTensor(**one) for one in tensors], _texts(copied))


def _texts(paths: Sequence[PathLike[str]]) -> list[str]:
    return [str(path) for path in paths]


@dataclass(frozen=True)
class Repacked:
    """What was done.

    Attributes:
        paths: The files that were written.
        n_weights: How many weights were repacked.
        rounded: Weights that are not the same in the last place of F32, with `allow_rounding`.
        copied: The files of tokenizers and the like that were copied beside them.
    """

    paths: list[str]
    n_weights: int
    rounded: list[str]
    copied: list[str]


def repack(
    source: str | PathLike[str],
    target: str | PathLike[str],
    layout: str,
    *,
    allow_rounding: bool = False,
    quantization_config: Mapping[str, Any] | str | None = None,
    max_shard_size: int | str | None = None,
    threads: int | None = None,
    verify: bool = True,
    align: int = 4096,
    durability: Literal["none", "data", "full"] = "data",
    progress: Callable[[int, int], object] | None = None,
) -> Repacked:
    """Writes a quantized checkpoint in the layout of another program, with the same weights.

    Codes, zeros and scales are put into another order, so that every weight is the same bit for
    bit; what cannot be so is refused before anything is written. The `config.json` beside the
    source is written with what the weights are now; tokenizers, templates of chats and the like
    are copied, code is not. Some MB are in memory at a time.

    Args:
        source: A folder, an `*.safetensors.index.json` or a file.
        target: The folder to write.
        layout: `"gptq"` (version 2), `"awq"` (GEMM) or `"pack-quantized"` for integers, which may
            come from any of these and from GPTQ of version 1; `"nvfp4-pack-quantized"` or
            `"modelopt-nvfp4"` for NVFP4, which may come from ComfyUI, too.
        allow_rounding: Whether the second scale of NVFP4 may become the nearest reciprocal, where
            that changes weights by a last place of F32.
        quantization_config: What is said of quantization in place of the files beside the source.
        max_shard_size: The most bytes of tensors in a file, 5 GB where `None`.
        threads: How many threads work, at most 8; all processors where `None`.
        verify: Whether what was written is read again, and all weights compared.
        align: The boundary on which the tensors' bytes begin in a file, a power of two.
        durability: What is on disk for sure on return, as for `tensorhold.save`.
        progress: Called now and then with the bytes done and the bytes in all.

    Raises:
        FileNotFoundError: There is no such file.
        SafetensorError: The source is damaged, or the layout cannot hold its weights.
        ValueError: There is no such layout, or nothing is quantized.

    Example:
        >>> from tensorhold.torch import save_file
        >>> import tensorhold, torch
        >>> save_file({"up.weight": torch.randn(64, 128)}, "wide.safetensors")
        >>> _ = quantize("wide.safetensors", "packed", "int4", group_size=64)
        >>> repack("packed", "gptq", "gptq").n_weights
        1
        >>> sorted(tensorhold.open("gptq").keys())
        ['up.g_idx', 'up.qweight', 'up.qzeros', 'up.scales']
    """
    limit = None if max_shard_size is None else to_size_bytes(max_shard_size)
    paths, copied, n_weights, rounded = _native.repack(
        source,
        target,
        layout,
        allow_rounding,
        to_config_text(quantization_config),
        limit,
        threads,
        verify,
        to_boundary(align),
        durability,
        progress,
    )
    return Repacked(_texts(paths), n_weights, rounded, _texts(copied))


@dataclass(frozen=True)
class Dequantized:
    """What was done.

    Attributes:
        paths: The files that were written.
        n_weights: How many quantized weights became numbers.
        n_copied: How many other tensors were copied.
        copied: The files of tokenizers and the like that were copied beside them.
    """

    paths: list[str]
    n_weights: int
    n_copied: int
    copied: list[str]


def dequantize(
    source: str | PathLike[str],
    target: str | PathLike[str],
    *,
    dtype: Any = None,
    quantization_config: Mapping[str, Any] | str | None = None,
    max_shard_size: int | str | None = None,
    threads: int | None = None,
    verify: bool = False,
    align: int = 4096,
    durability: Literal["none", "data", "full"] = "data",
    progress: Callable[[int, int], object] | None = None,
) -> Dequantized:
    """Writes a checkpoint with numbers in place of its quantized weights.

    Weights have the names and shapes that they have without quantization; all other tensors are
    copied. The `config.json` beside the source is written without what it says of quantization;
    tokenizers, templates of chats and the like are copied, code is not. Some MB are in memory at a
    time.

    Args:
        source: A folder, an `*.safetensors.index.json` or a file.
        target: The folder to write.
        dtype: What weights become; what the checkpoint says where `None`.
        quantization_config: What is said of quantization in place of the files beside the source.
        max_shard_size: The most bytes of tensors in a file, 5 GB where `None`.
        threads: How many threads work, at most 8; all processors where `None`.
        verify: Whether what was written is read again and compared.
        align: The boundary on which the tensors' bytes begin in a file, a power of two.
        durability: What is on disk for sure on return, as for `tensorhold.save`.
        progress: Called now and then with the bytes done and the bytes in all.

    Raises:
        FileNotFoundError: There is no such file.
        SafetensorError: The source is damaged, or a weight cannot be read as numbers.

    Example:
        >>> from tensorhold.torch import save_file
        >>> import tensorhold, torch
        >>> save_file({"up.weight": torch.ones(64, 128)}, "ones.safetensors")
        >>> _ = quantize("ones.safetensors", "eighth", "fp8-block")
        >>> dequantize("eighth", "plain", dtype=torch.bfloat16).n_weights
        1
        >>> tensorhold.open("plain")["up.weight"].dtype
        torch.bfloat16
    """
    limit = None if max_shard_size is None else to_size_bytes(max_shard_size)
    paths, copied, n_weights, n_copied = _native.dequantize_files(
        source,
        target,
        to_dtype_name(dtype),
        to_config_text(quantization_config),
        limit,
        threads,
        verify,
        to_boundary(align),
        durability,
        progress,
    )
    return Dequantized(_texts(paths), n_weights, n_copied, _texts(copied))
