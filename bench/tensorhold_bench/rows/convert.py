"""Old checkpoints: converted, beside a plain copy of the file, and training states loaded."""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy

from tensorhold_bench import digest, files, memory
from tensorhold_bench.cache import Cache
from tensorhold_bench.row import BARE, OURS, PEER, Row, Work, add

N_TENSORS, SHAPE = 400, [1000, 5000]
N_LAYERS = 40
PEAK_BYTES = 64 << 20
COPY = "cp"
THROUGH_TORCH = f"torch.load + {PEER} save_file"
MAPPED = f"torch.load(mmap=True) + {PEER} save_file"
_COPIED_BYTES = 8 << 20


def _checkpoint(n_tensors: int = N_TENSORS) -> Path:
    """A flat state dict of tensors of 10 MB, as `torch.save` writes it."""
    return _saved(f"old-{n_tensors}", lambda: _tensors(n_tensors))


def _names(n_tensors: int) -> list[str]:
    return [f"model.layers.{i:03}.weight" for i in range(n_tensors)]


def _tensors(n_tensors: int) -> dict[str, Any]:
    return {name: _random(name, numpy.float16) for name in _names(n_tensors)}


def _state(n_layers: int) -> dict[str, Any]:
    """What a run with Adam keeps: weights, and two moments of twice the size for each."""
    names = _names(n_layers)
    moments = {
        i: {
            "step": 1000,
            "exp_avg": _random(f"{name}.exp_avg", numpy.float32),
            "exp_avg_sq": _random(f"{name}.exp_avg_sq", numpy.float32),
        }
        for i, name in enumerate(names)
    }
    groups = [{"lr": 1e-3, "betas": (0.9, 0.95), "params": list(range(n_layers))}]
    return {
        "model": {name: _random(name, numpy.float16) for name in names},
        "optimizer": {"state": moments, "param_groups": groups},
        "epoch": 3,
    }


def _random(name: str, dtype: Any) -> Any:
    import torch

    size_bytes = SHAPE[0] * SHAPE[1] * numpy.dtype(dtype).itemsize
    data = numpy.random.default_rng(list(name.encode())).bytes(size_bytes)
    return torch.from_numpy(numpy.frombuffer(bytearray(data), dtype).reshape(SHAPE))


def _saved(name: str, make: Callable[[], Any], ending: str = "pt") -> Path:
    path = files.FOLDER / f"{name}.{ending}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"unfinished-{path.name}")
        _save(make(), unfinished)
        unfinished.rename(path)
    return path


def _save(value: Any, path: Path) -> None:
    if path.suffix == ".pt":
        import torch

        torch.save(value, path)
    else:
        from tensorhold import serialization

        serialization.save(value, path)


def _size_bytes() -> int:
    return _checkpoint().stat().st_size


# Conversion


_converted = Row(
    "convert_checkpoint",
    "a checkpoint of `torch.save`, 4 GB, to a safetensors file, until it returns, warm",
    group="convert",
    targets={COPY: 1 / 1.2, THROUGH_TORCH: 2.0, MAPPED: 1.0},
    peak_target_bytes=PEAK_BYTES,
    size_bytes=_size_bytes,
    fresh_bytes=lambda: _size_bytes() * 5 // 4,
    cache=Cache.WARM,
    inputs=lambda: [_checkpoint()],
)
add(_converted)


def _timed(
    side: str, convert: Callable[[Path, Path], object], look_at: Callable[[Path], str]
) -> Work:
    source, few = _checkpoint(), _checkpoint(1)
    convert(few, files.target(side))
    target = files.target(side)
    yield lambda: convert(source, target)
    found = look_at(target)
    target.unlink()
    return found


@_converted.side(COPY)
def _() -> Work:
    def copy(source: Path, target: Path) -> None:
        subprocess.run(["cp", source, target], check=True)

    return _timed(COPY, copy, _of_archive)


@_converted.side(THROUGH_TORCH)
def _() -> Work:
    return _timed(THROUGH_TORCH, partial(_through_torch, False), digest.of_file)


@_converted.side(MAPPED)
def _() -> Work:
    return _timed(MAPPED, partial(_through_torch, True), digest.of_file)


def _through_torch(is_mapped: bool, source: Path, target: Path) -> None:
    import safetensors.torch
    import torch

    tensors = torch.load(source, mmap=is_mapped, weights_only=True)
    safetensors.torch.save_file(tensors, target)


@_converted.side(OURS)
def _() -> Work:
    import tensorhold

    return _timed(OURS, partial(tensorhold.convert, durability="none"), digest.of_file)


@_converted.bare("the same bytes copied by the system (`copy_file_range`), one thread")
def _() -> Work:
    return _timed(BARE, _copy, lambda _: "")


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as there, target.open("wb") as here:
        while os.copy_file_range(there.fileno(), here.fileno(), _COPIED_BYTES):
            pass


def _of_archive(path: Path) -> str:
    """The digest of the tensors of a checkpoint, whose storages lie in the order of the names."""
    arrays = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        for number, name in enumerate(_names(N_TENSORS)):
            start = entries[f"data/{number}"].header_offset
            file.seek(start + 26)
            lengths = int.from_bytes(file.read(2), "little"), int.from_bytes(file.read(2), "little")
            offset = start + 30 + sum(lengths)
            arrays[name] = numpy.memmap(path, numpy.float16, "r", offset, tuple(SHAPE))
    return digest.of_numpy(arrays)


# Training states


def _old_state(n_layers: int = N_LAYERS) -> Path:
    return _saved(f"state-{n_layers}", lambda: _state(n_layers))


def _new_state(n_layers: int = N_LAYERS) -> Path:
    return _saved(f"state-{n_layers}", lambda: _state(n_layers), "safetensors")


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors of a state by their paths."""
    if hasattr(value, "untyped_storage"):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}/{key}")


def _load(load: Callable[[Path], Any], path_of: Callable[[int], Path], is_owned: bool) -> Work:
    load(path_of(1))
    before, path = memory.owned_bytes(), path_of(N_LAYERS)
    state = yield lambda: load(path)
    if is_owned:
        memory.refuse_lazy(before, path.stat().st_size)
    return digest.of_torch(dict(_leaves(state)))


def _torch_load(is_mapped: bool, path: Path) -> Any:
    import torch

    return torch.load(path, mmap=is_mapped, weights_only=True)


def _our_load(is_mapped: bool, path: Path) -> Any:
    from tensorhold import serialization

    return serialization.load(path, mmap=is_mapped)


def _state_row(name: str, title: str, ours: Callable[[int], Path], is_mapped: bool) -> None:
    made = Row(
        name,
        f"a training state with Adam, 2 GB, {title}, warm",
        group="convert",
        target=1.0 if is_mapped else 2.0,
        size_bytes=lambda: _old_state().stat().st_size,
        fresh_bytes=int if is_mapped else lambda: _old_state().stat().st_size * 5 // 4,
        cache=Cache.WARM,
        inputs=lambda: [_old_state(), ours(N_LAYERS)],
    )
    theirs = "torch.load(mmap=True)" if is_mapped else "torch.load"
    for side, load, path_of in ((theirs, _torch_load, _old_state), (OURS, _our_load, ours)):
        made.sides[side] = partial(_load, partial(load, is_mapped), path_of, not is_mapped)
    add(made)


_state_row("load_state", "`serialization.load` of a safetensors file", _new_state, False)
_state_row("load_state_mapped", "the same, mapped, nothing read", _new_state, True)
_state_row("load_old_state", "`serialization.load` of what `torch.save` wrote", _old_state, False)
