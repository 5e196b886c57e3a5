"""How each library brings whole files into memory that the tensors own, on the CPU, with PyTorch.

Each function imports its library and gives what loads files: nothing is imported while the clock
runs. Where a library has a way that is meant for this, that way is taken.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from tensorhold_bench.row import OURS

Tensors = dict[str, Any]
Load = Callable[[list[Path]], Tensors]

# It cannot be installed beside the release: `run.sh` puts it into a folder of its own.
_CANDIDATE = "0.9.0rc1"
_CANDIDATE_FOLDER = Path(__file__).parents[1] / ".peers" / f"safetensors-{_CANDIDATE}"


def _mapped_and_cloned() -> Load:
    from safetensors.torch import load_file

    return lambda paths: {
        name: tensor.clone() for path in paths for name, tensor in load_file(path).items()
    }


def _pread(package: str) -> Load:
    load_file = import_module(f"{package}.torch").load_file
    return lambda paths: {
        name: tensor for path in paths for name, tensor in load_file(path, backend="pread").items()
    }


def _candidate_pread() -> Load:
    use_candidate()
    return _pread("safetensors")


def fastsafetensors(device: str) -> Load:
    """Its interface that is like that of safetensors."""
    fastsafe_open = import_module("fastsafetensors").fastsafe_open

    def load(paths: list[Path]) -> Tensors:
        names = [str(path) for path in paths]
        # What it opened lives as long as its tensors do.
        opened = fastsafe_open(names, framework="pt", device=device, nogds=True)
        return {name: opened.get_tensor(name) for name in [*opened.keys()]}

    return load


def _runai() -> Load:
    streamer_of = import_module("runai_model_streamer").SafetensorsStreamer

    def load(paths: list[Path]) -> Tensors:
        with streamer_of() as streamer:
            streamer.stream_files([str(path) for path in paths])
            return dict(streamer.get_tensors())

    return load


def _tensorhold() -> Load:
    import torch  # noqa: F401 (awake before the clock starts)

    import tensorhold

    def load(paths: list[Path]) -> Tensors:
        with tensorhold.open(paths if len(paths) > 1 else paths[0], framework="pt") as checkpoint:
            return checkpoint.load()

    return load


CLONE = "safetensors, mapped + clone"
PREAD = "safetensors, pread"
CANDIDATE = f"safetensors {_CANDIDATE}"
CANDIDATE_PREAD = f"{CANDIDATE}, pread"
FASTSAFETENSORS = "fastsafetensors"
RUNAI = "run:ai"
INSTANT = "InstantTensor"

LOADERS: dict[str, Callable[[], Load]] = {
    CLONE: _mapped_and_cloned,
    PREAD: partial(_pread, "safetensors"),
    CANDIDATE_PREAD: _candidate_pread,
    FASTSAFETENSORS: partial(fastsafetensors, "cpu"),
    RUNAI: _runai,
    OURS: _tensorhold,
}
DROP_IN_PREAD = partial(_pread, OURS)


def use_candidate() -> None:
    """Makes `import safetensors` give the release candidate, in this process."""
    sys.path.insert(0, str(_CANDIDATE_FOLDER))
    import safetensors

    if not Path(safetensors.__file__).is_relative_to(_CANDIDATE_FOLDER):
        raise RuntimeError(f"{safetensors.__file__} is not safetensors {_CANDIDATE}")
