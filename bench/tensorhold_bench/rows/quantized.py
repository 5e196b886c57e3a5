"""Quantized weights as BF16, beside the code in PyTorch of the packages that define them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from tensorhold_bench import digest, files, memory
from tensorhold_bench.cache import Cache
from tensorhold_bench.places import MEMORY
from tensorhold_bench.row import OURS, PEER, Row, Work, add
from tensorhold_bench.rows.bare import add_wideners

N_FP8, N_INT4, N_STREAMED = 12, 16, 64
N_RANKS, RANK = 8, 3
TRANSFORMERS = "transformers"
COMPRESSED_TENSORS = "compressed-tensors"
BY_SHARDS = f"{PEER} + {TRANSFORMERS}, shards of 1 GB"
PEAK_BYTES = 256 << 20
BLOCK = 128
_SHARD = 8


def _fp8(n_tensors: int = N_FP8, n: int = 8192) -> Path:
    return files.in_fp8(n_tensors, n)


def _int4(n_tensors: int = N_INT4, n: int = 8192) -> Path:
    return files.in_int4(n_tensors, n)


def _small(make: Callable[..., Path]) -> Path:
    """A model of the same format, to be read before the clock starts."""
    return make(1, 256)


def _ours(path: Path) -> dict[str, Any]:
    import torch

    import tensorhold

    with tensorhold.open(path) as checkpoint:
        return checkpoint.load(dequantize=True, dtype=torch.bfloat16)


def _weights(names: Iterable[str], suffix: str = ".weight") -> list[str]:
    return sorted(name for name in names if name.endswith(suffix))


def _of_blocks(weight: Any, scale: Any) -> Any:
    import torch
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    # It takes the size of blocks from the shapes, and nothing of its own.
    blocks = Fp8Dequantize.__new__(Fp8Dequantize)
    return blocks._dequantize_one(weight, scale, torch.bfloat16)


def _by_transformers(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = _weights(file.keys())
        return {
            name: _of_blocks(file.get_tensor(name), file.get_tensor(f"{name}_scale_inv"))
            for name in names
        }


def _by_compressed_tensors(path: Path) -> dict[str, Any]:
    import torch
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32  # type: ignore[import-not-found, unused-ignore]
    from compressed_tensors.quantization import QuantizationArgs  # type: ignore[import-not-found, unused-ignore]
    from compressed_tensors.quantization.lifecycle.forward import dequantize  # type: ignore[import-not-found, unused-ignore]
    from safetensors import safe_open

    args = QuantizationArgs(num_bits=4, strategy="group", group_size=BLOCK, symmetric=True)
    weights = {}
    with safe_open(path, "pt") as file:
        for name in _weights(file.keys(), "_packed"):
            stem = name.removesuffix("_packed")
            shape = torch.Size(file.get_tensor(f"{stem}_shape").tolist())
            codes = unpack_from_int32(file.get_tensor(name), 4, shape)
            weights[stem] = dequantize(codes, file.get_tensor(f"{stem}_scale"), args=args)
    return weights


def _whole(load: Callable[[Path], dict[str, Any]], make: Callable[..., Path]) -> Work:
    load(_small(make))
    before, path = memory.owned_bytes(), make()
    tensors = yield lambda: load(path)
    memory.refuse_lazy(before, sum(tensor.nbytes for tensor in tensors.values()))
    return digest.of_torch(tensors)


def _whole_row(
    name: str, title: str, make: Callable[..., Path], peer: str, theirs: Any, growth: int
) -> None:
    made = Row(
        name,
        title,
        group="quantized",
        bare_target=0.7,
        size_bytes=lambda: make().stat().st_size,
        fresh_bytes=lambda: growth * make().stat().st_size * 9 // 8,
        cache=Cache.WARM,
        inputs=lambda: [make()],
    )
    made.sides[peer] = partial(_whole, theirs, make)
    made.sides[OURS] = partial(_whole, _ours, make)
    add_wideners(made, growth)
    add(made)


_whole_row(
    "fp8_to_bf16",
    "0.8 GB of FP8 in blocks to BF16 in memory, warm",
    _fp8,
    TRANSFORMERS,
    _by_transformers,
    2,
)
_whole_row(
    "int4_to_bf16",
    "0.5 GB of INT4 in groups (pack-quantized) to BF16 in memory, warm",
    _int4,
    COMPRESSED_TENSORS,
    _by_compressed_tensors,
    4,
)


def _columns(size: int) -> slice:
    return slice(size * RANK // N_RANKS, size * (RANK + 1) // N_RANKS)


def _share_of_ours(path: Path) -> dict[str, Any]:
    import torch

    import tensorhold

    with tensorhold.open(path) as checkpoint:
        names = _weights(checkpoint)
        weights = {name: checkpoint.dequantize(name, torch.bfloat16) for name in names}
        return {name: weight[:, _columns(weight.shape[1])] for name, weight in weights.items()}


def _share_by_transformers(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    shares = {}
    with safe_open(path, "pt") as file:
        for name in _weights(file.keys()):
            weight, scales = file.get_slice(name), file.get_slice(f"{name}_scale_inv")
            parts = (part[:, _columns(part.get_shape()[1])] for part in (weight, scales))
            shares[name] = _of_blocks(*parts)
    return shares


_share = Row(
    "fp8_share",
    "a rank's columns of eight of the same FP8, to BF16, warm",
    group="quantized",
    size_bytes=lambda: _fp8().stat().st_size // N_RANKS,
    fresh_bytes=lambda: 2 * _fp8().stat().st_size // N_RANKS,
    cache=Cache.WARM,
    inputs=lambda: [_fp8()],
)


def _take(load: Callable[[Path], dict[str, Any]]) -> Work:
    load(files.in_fp8(1, 1024))
    tensors = yield lambda: load(_fp8())
    return digest.of_torch(tensors)


_share.sides[TRANSFORMERS] = partial(_take, _share_by_transformers)
_share.sides[OURS] = partial(_take, _share_of_ours)
add(_share)


def _stream_by_us(source: Path, target: Path) -> list[Path]:
    from tensorhold import _native

    limit = str(_SHARD * 2 * 8192 * 8192)
    words = ["dequantize", str(source), str(target), "--dtype", "bf16", "--max-shard-size", limit]
    if _native.cli_main([*words, "--force"]):
        raise RuntimeError("the command failed")
    return sorted(target.parent.glob(f"{target.stem}*.safetensors"))


def _stream_by_shards(source: Path, target: Path) -> list[Path]:
    from safetensors import safe_open
    from safetensors.torch import save_file

    paths = []
    with safe_open(source, "pt") as file:
        names = _weights(file.keys())
        for first in range(0, len(names), _SHARD):
            shard = {
                name: _of_blocks(file.get_tensor(name), file.get_tensor(f"{name}_scale_inv"))
                for name in names[first : first + _SHARD]
            }
            paths.append(target.with_name(f"{target.stem}-{first:05}.safetensors"))
            save_file(shard, paths[-1])
    return paths


def _streamed(side: str, stream: Callable[[Path, Path], list[Path]]) -> Work:
    target = files.target(side, MEMORY)
    for path in stream(files.in_fp8(1, 256), target):
        path.unlink()
    paths = yield lambda: stream(_fp8(N_STREAMED), target)
    # By tensors, since shards are cut otherwise.
    digests: dict[str, str] = {}
    for path in paths:
        digests |= digest.of_each(path)
        path.unlink()
    return digest.of_bytes(repr(sorted(digests.items())).encode())


_stream = Row(
    "fp8_streamed",
    "4.3 GB of FP8 in blocks to 8.6 GB of BF16 in shards in memory (tmpfs), warm",
    group="quantized",
    peak_target_bytes=PEAK_BYTES,
    size_bytes=lambda: _fp8(N_STREAMED).stat().st_size,
    most_samples=3,
    place=MEMORY,
    cache=Cache.WARM,
    inputs=lambda: [_fp8(N_STREAMED)],
)
_stream.sides[BY_SHARDS] = partial(_streamed, "peer", _stream_by_shards)
_stream.sides[OURS] = partial(_streamed, "ours", _stream_by_us)
add(_stream)
