"""Single calls on an open file, each for another tensor."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from tensorhold_bench import digest, files
from tensorhold_bench.row import Work, module, row

N_CALLS = 10_000

Call = Callable[[Any, str], Any]


@row("`get_tensor(name)`, torch, a call", target=4, n_calls=N_CALLS)
def get_tensor_torch(package: str) -> Work:
    return _calls(package, "torch", lambda file, name: file.get_tensor(name))


@row("`get_slice(name)[...]`, torch, a call", target=4, n_calls=N_CALLS)
def get_slice_torch(package: str) -> Work:
    return _calls(package, "torch", lambda file, name: file.get_slice(name)[...])


@get_tensor_torch.bare("`detach` of one tensor")
@get_slice_torch.bare("`detach` of one tensor")
def _() -> Work:
    import torch

    tensor = torch.empty(4)
    yield lambda: [tensor.detach() for _ in range(N_CALLS)].clear()
    return None


@row("`get_tensor(name)`, numpy, a call", n_calls=N_CALLS)
def get_tensor_numpy(package: str) -> Work:
    return _calls(package, "numpy", lambda file, name: file.get_tensor(name))


@row("`get_slice(name)[...]`, numpy, a call", n_calls=N_CALLS)
def get_slice_numpy(package: str) -> Work:
    return _calls(package, "numpy", lambda file, name: file.get_slice(name)[...])


@get_tensor_numpy.bare("`numpy.empty`")
@get_slice_numpy.bare("`numpy.empty`")
def _() -> Work:
    import numpy

    yield lambda: [numpy.empty(4, numpy.float32) for _ in range(N_CALLS)].clear()
    return None


def _calls(package: str, framework: str, call: Call) -> Work:
    module(package, framework)
    file = import_module(package).safe_open(files.tiny(), framework)
    names = sorted(file.keys())
    call(file, names[-1])

    def each() -> None:
        for name in names[:N_CALLS]:
            call(file, name)

    yield each
    tensors = {name: call(file, name) for name in names[:N_CALLS]}
    return digest.of_torch(tensors) if framework == "torch" else digest.of_numpy(tensors)
