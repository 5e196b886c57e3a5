"""What cannot be kept is refused by its path, and nothing is left behind."""

from __future__ import annotations

import enum
import errno
import io
import os
import random
import threading
import time
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tensorhold import SafetensorError, serialization


class Color(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


class Words(dict[str, int]):
    pass


class Special(torch.Tensor):
    pass


class Plain:
    pass


def _circle() -> list[Any]:
    items: list[Any] = [1]
    items.append({"again": items})
    return items


def _with_hook() -> torch.Tensor:
    tensor = torch.ones(1)
    tensor.hook = print  # type: ignore[attr-defined]
    return tensor


def _shadowing() -> torch.Tensor:
    tensor = torch.ones(1)
    vars(tensor)["detach"] = 1
    return tensor


REFUSED = {
    "function": (lambda: 1, "a function cannot be kept"),
    "builtin": (print, "a function cannot be kept"),
    "class": (Plain, "a class (`Plain`) cannot be kept"),
    "object": (Plain(), "a value of `"),
    "module": (torch.nn.Linear(1, 1), "hint: give its `state_dict()`"),
    "optimizer": (torch.optim.SGD([torch.ones(1)]), "hint: give its `state_dict()`"),
    "generator": (torch.Generator(), "hint: give its `get_state()`"),
    "storage": (torch.ones(1).untyped_storage(), "hint: give a tensor of it"),
    "enum": (Color.RED, "hint: give its `value` or `name`"),
    "int enum": (Number.ONE, "hint: give its `value` or `name`"),
    "version": (torch.__version__, "hint: make a `str` of it"),
    "dict subclass": (Words(a=1), "hint: make a `dict` of it"),
    "result": (torch.ones(2).max(0), "hint: make a `tuple` of it"),
    "path": (Path("x"), "a value of `pathlib"),
    "lock": (threading.Lock(), "a value of `_thread.lock` cannot be kept"),
    "tensor subclass": (torch.ones(1).as_subclass(Special), "serialization.register"),
    "factory": (defaultdict(Plain), "a defaultdict of <class"),
    "circle": (_circle(), "a list that contains itself cannot be kept"),
    "objects": (np.array([Plain()], dtype=object), "an array of dtype object cannot be kept"),
    "texts": (np.array(["x"]), "an array of dtype <U1 cannot be kept"),
    "records": (np.zeros(1, dtype="i4,f4"), "cannot be kept"),
    "dates": (np.array(["2020-01-01"], dtype="M8[D]"), "cannot be kept"),
    "long floats": (np.zeros(1, dtype=np.longdouble), "cannot be kept"),
    "array subclass": (np.ma.masked_array([1]), "a value of `numpy.ma"),
    "date": (np.datetime64("2020-01-01"), "a `datetime64` of NumPy cannot be kept"),
    "text": (np.str_("x"), "a `str_` of NumPy cannot be kept"),
    "structured": (np.dtype("i4,f4"), "of NumPy cannot be kept"),
    "iterator": (iter([]), "a value of `builtins.list_iterator` cannot be kept"),
    "exception": (ValueError("x"), "a value of `builtins.ValueError` cannot be kept"),
    "attribute": (_with_hook(), ".hook: a function cannot be kept"),
    "shadowing": (_shadowing(), "an attribute called `detach` cannot be kept"),
    "digits": (10**200_000, "an integer of more than 100000 digits cannot be kept"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_kept_is_refused_by_its_path(name: str, tmp_path: Path) -> None:
    value, words = REFUSED[name]
    path = tmp_path / "state.safetensors"
    path.write_bytes(b"what was there")
    state = {"optimizer": OrderedDict(hook=[torch.ones(1), value])}
    with pytest.raises(ValueError, match="cannot be kept") as caught:
        serialization.save(state, path)
    assert isinstance(caught.value, SafetensorError)
    message = str(caught.value)
    assert message.startswith('root["optimizer"]["hook"][1]'), message
    assert words in message
    assert path.read_bytes() == b"what was there"
    assert os.listdir(tmp_path) == ["state.safetensors"]
    memory = io.BytesIO()
    with pytest.raises(ValueError, match="cannot be kept"):
        serialization.save(state, memory)
    assert memory.getvalue() == b""


def test_keys_and_attributes_stand_in_the_path() -> None:
    with pytest.raises(ValueError, match=r"root\[\(1, 'a'\)\]\[2.5\]: a function"):
        serialization.save({(1, "a"): {2.5: print}}, io.BytesIO())
    with pytest.raises(ValueError, match=r'root\["a\\"b"\]: a function'):
        serialization.save({'a"b': print}, io.BytesIO())


def test_a_tree_over_the_size_of_a_header_says_so(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    with pytest.raises(SafetensorError, match="over the limit of 100000000"):
        serialization.save(["x" * 100_000_000], path)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        serialization.save([1], tmp_path / "nowhere" / "state.safetensors")
    with pytest.raises(FileNotFoundError):
        serialization.load(tmp_path / "nowhere.safetensors")


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    serialization.save({"step": 1}, path)
    before = path.read_bytes()
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal = pytest.importorskip("signal")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            serialization.save({"step": 2, "w": torch.ones(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["state.safetensors"]


def test_a_file_object_that_fails_gives_its_error() -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(OSError, match="no space"):
        serialization.save([torch.ones(1)], Full())
    with pytest.raises(TypeError, match="neither a path nor a file"):
        serialization.save([1], 5)
    with pytest.raises(TypeError, match="neither a path, nor bytes"):
        serialization.load(5)


def test_only_tensors_and_named_tuples_are_registered() -> None:
    with pytest.raises(ValueError, match="neither a named tuple"):
        serialization.register(Plain)
    with pytest.raises(ValueError, match="neither a named tuple"):
        serialization.register(type("Sub", (torch.Tensor,), {}))


def test_many_tensors_take_little_time(tmp_path: Path) -> None:
    path = tmp_path / "many.safetensors"
    numbers = list(range(20_000))
    random.shuffle(numbers)
    state = {f"layer.{i}": {"w": torch.zeros(2), "step": i} for i in numbers}
    begin = time.perf_counter()
    serialization.save(state, path, durability="none")
    assert len(serialization.load(path)) == 20_000
    # A second or two; whatever is quadratic takes minutes.
    assert time.perf_counter() - begin < 20
