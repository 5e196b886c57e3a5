"""A scan lists the names of a pickle that Python's own readers of pickles meet in it."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import fractions
import functools
import io
import operator
import os
import pickle
import pickletools
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import example, given, settings

import tensorhold

# Pickled by their names, or as calls of names.
_NAMED = [
    *(os.getcwd, operator.add, len, print, int, OrderedDict, Counter, deque, np.float32),
    *(datetime.date(2026, 1, 2), datetime.timedelta(3), fractions.Fraction(1, 3)),
    *(decimal.Decimal("1.5"), uuid.UUID(int=7), functools.partial(max, 1), slice(1, 2), range(3)),
    *(OrderedDict(a=1), Counter("ab"), deque([1]), defaultdict(list), frozenset({1}), 1 + 2j),
    *(
        np.float32(1),
        np.dtype("<f4"),
        np.arange(3),
        torch.float32,
        torch.Size([2]),
        bytearray(b"x"),
    ),
    *(
        torch.device("cpu"),
        ...,
        NotImplemented,
        type(None),
        bytearray(b"x"),
        str.join,
        pickle.Pickler,
    ),
]
_leaves = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.integers(-(2**90), 2**90), st.floats()),
    *(st.text(max_size=300), st.binary(max_size=300), st.sampled_from(_NAMED)),
)
_hashed = st.one_of(st.integers(), st.text(max_size=5), st.tuples(st.integers(), st.text()))
_values = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(_hashed, inner, max_size=4),
        st.sets(_hashed, max_size=4),
        inner.map(lambda value: [value, value]),
    ),
    max_leaves=20,
)
_protocols = st.integers(0, pickle.HIGHEST_PROTOCOL)


class Inert:
    """Stands for whatever a pickle asks for, and takes whatever is done to it."""

    def __new__(cls, *arguments: Any, **more: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *arguments: Any, **more: Any) -> None:
        pass

    def __call__(self, *arguments: Any, **more: Any) -> Inert:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    append = extend = add = __setstate__


class Whole(io.BytesIO):
    """A file that never gives less than it is asked for, as C's reader of pickles wants it."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if len(data) < (size or 0):
            raise EOFError
        return data

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n"):
            raise EOFError
        return line


class Recorder(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """Python's reader of pickles, which imports nothing here."""

    def __init__(self, data: bytes) -> None:
        super().__init__(Whole(data), fix_imports=False)
        self.names: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        self.names.append(f"{module}.{name}")
        return Inert


def _by_operations(data: bytes) -> list[str]:
    """The names by `pickletools.genops`, with a small reader of what leads to STACK_GLOBAL."""
    names, texts, memo = [], [], {}
    for operation, argument, _ in pickletools.genops(data):
        code = operation.name
        if code in ("GLOBAL", "INST"):
            names.append(".".join(argument.split(" ", 1)))
        elif code == "STACK_GLOBAL":
            names.append(".".join(texts[-2:]))
        elif "UNICODE" in code:
            texts.append(argument)
        elif code == "MEMOIZE":
            memo[len(memo)] = texts[-1] if texts else ""
        elif "PUT" in code:
            memo[int(argument)] = texts[-1] if texts else ""
        elif "GET" in code and "EXT" not in code:
            texts.append(memo[int(argument)])
    return names


def _scanned(data: bytes) -> Counter[str]:
    Path("some.pkl").write_bytes(data)
    found = tensorhold.scan("some.pkl").imports
    return Counter({each.name: each.mentions for each in found if each.pickle is None})


@given(_values, _protocols, st.booleans(), st.booleans())
@example([os.getcwd, [os.getcwd], (os.getcwd,)], 4, True, True)
def test_a_pickle_has_the_names_that_its_operations_name(
    value: Any, protocol: int, is_python: bool, is_optimized: bool
) -> None:
    dumps = pickle._dumps if is_python else pickle.dumps  # type: ignore[attr-defined]
    data = dumps(value, protocol)
    if is_optimized:
        data = pickletools.optimize(data)
    recorder = Recorder(data)
    recorder.load()
    assert _scanned(data) == Counter(recorder.names) == Counter(_by_operations(data))


@settings(max_examples=400)
@given(_values, st.integers(2, pickle.HIGHEST_PROTOCOL), st.data())
def test_a_bent_pickle_has_the_names_that_python_comes_to(
    value: Any, protocol: int, data: st.DataObject
) -> None:
    bent = bytearray(pickle.dumps(value, protocol))
    for _ in range(data.draw(st.integers(1, 4))):
        # The mark of its protocol stays: what has none is any text.
        position = data.draw(st.integers(2, len(bent) - 1))
        bent[position] = data.draw(st.sampled_from(list(bent) + list(b"0(tR.cib\x93\x94\x81")))
    cut = bytes(bent[: data.draw(st.integers(3, len(bent)))])
    recorder = Recorder(cut)
    with contextlib.suppress(Exception):
        recorder.load()
    asked = {_as_told(name) for name in recorder.names}
    assert asked <= set(_scanned(cut)), (asked, cut)


def _as_told(name: str) -> str:
    """A name as a report has it, which has no lone surrogates."""
    return name.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


@given(_values, _protocols)
def test_a_pickle_ends_where_python_ends_it(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    Path("two.pkl").write_bytes(data + pickle.dumps(os.getcwd, 0))
    found = tensorhold.scan("two.pkl")
    after = [each.name for each in found.imports if each.pickle is not None]
    assert after == [f"{os.getcwd.__module__}.getcwd"]
    assert any(each.kind == "ExtraBytes" for each in found.findings)
