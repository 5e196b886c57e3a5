"""Whatever a value is made of, it comes back as it was."""

from __future__ import annotations

import io
import json
from collections import Counter, OrderedDict, defaultdict
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from serialization.same import check_same

from tensorhold import serialization
from tensorhold.serialization import _json

DTYPES = [
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.int64,
    torch.uint8,
    torch.uint16,
    torch.bool,
    torch.complex64,
    torch.complex128,
    torch.float8_e4m3fn,
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.complex_numbers(),
    st.text(st.characters(exclude_categories=())),
    st.binary(max_size=20),
    st.sampled_from([torch.float32, torch.device("cpu"), torch.Size([2]), ..., np.dtype("f2")]),
    st.sampled_from([np.float32(0.1), np.int8(-3), np.bool_(True), np.complex128(1j)]),
)
keys = st.one_of(
    st.text(max_size=3),
    st.sampled_from(["$tensor", "$", "a.b", "a"]),
    st.integers(-2, 2),
    st.none(),
    st.tuples(st.integers(0, 3), st.text(max_size=2)),
    st.floats(allow_nan=False),
)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Views of a storage, of any offset, shape and strides."""
    dtype = draw(st.sampled_from(DTYPES))
    size = draw(st.integers(1, 40))
    octets = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
    data = bytes(octet & 1 for octet in octets) if dtype == torch.bool else octets
    storage = torch.frombuffer(bytearray(data), dtype=torch.uint8).clone().untyped_storage()
    return view(draw, storage, size, dtype)


def view(
    draw: st.DrawFn, storage: torch.UntypedStorage, size: int, dtype: torch.dtype
) -> torch.Tensor:
    offset = draw(st.integers(0, size - 1))
    room = size - 1 - offset
    shape, strides = [], []
    for _ in range(draw(st.integers(0, 3))):
        stride = draw(st.integers(0, max(room, 1)))
        length = draw(st.integers(0, 4 if not stride else min(4, 1 + room // stride)))
        room -= stride * max(length - 1, 0)
        shape.append(length)
        strides.append(stride)
    made = torch.empty(0, dtype=dtype)
    return made.set_(storage, offset, shape, strides)


@st.composite
def families(draw: st.DrawFn) -> list[torch.Tensor]:
    """Views of one storage, which share their memory."""
    dtype = draw(st.sampled_from(DTYPES))
    size = draw(st.integers(1, 24))
    whole = torch.zeros(size, dtype=dtype)
    whole.view(torch.uint8)[::2] = 1
    storage = whole.untyped_storage()
    found = [view(draw, storage, size, dtype) for _ in range(draw(st.integers(2, 4)))]
    return [whole, *found] if draw(st.booleans()) else found


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, max_size=4)
    dicts = st.dictionaries(keys, inner, max_size=4)
    twice = inner.map(lambda value: [value, (value,), {"again": value}])
    return st.one_of(
        lists,
        lists.map(tuple),
        dicts,
        dicts.map(OrderedDict),
        dicts.map(lambda items: defaultdict(list, items)),
        st.lists(keys, max_size=3).map(Counter),
        st.sets(keys, max_size=4),
        st.frozensets(st.integers(), max_size=3),
        twice,
    )


values = st.recursive(st.one_of(scalars, tensors(), families()), containers, max_leaves=15)


@given(values)
def test_values_come_back_as_they_were(value: Any) -> None:
    memory = io.BytesIO()
    serialization.save(value, memory)
    found = serialization.load(memory.getvalue())
    check_same(_kept(value, {}), found)
    again = io.BytesIO()
    serialization.save(found, again)
    assert again.getvalue() == memory.getvalue()


def _kept(value: Any, seen: dict[int, Any]) -> Any:
    """A value as it is to come back: lone views that are not dense are so no more."""
    storages: Counter[int] = Counter()
    tensors = {id(tensor): tensor for tensor in _all_tensors(value)}
    storages.update(tensor.untyped_storage()._cdata for tensor in tensors.values())
    lone = {
        key: tensor.contiguous()
        for key, tensor in tensors.items()
        if storages[tensor.untyped_storage()._cdata] == 1
        and not tensor.is_contiguous()
        and not _keeps_strides(tensor)
    }
    return _replaced(value, lone, {})


def _keeps_strides(tensor: torch.Tensor) -> bool:
    """Whether a lone view is dense, or has fewer elements in memory than in its shape."""
    pairs = list(zip(tensor.shape, tensor.stride(), strict=True))
    reach = 1 + sum((n - 1) * stride for n, stride in pairs)
    is_dense, expected = True, 1
    for stride, n in sorted((stride, n) for n, stride in pairs if n != 1):
        is_dense, expected = is_dense and stride == expected, expected * n
    return is_dense or reach < tensor.numel()


def _all_tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value
    is_open = isinstance(value, (dict, list, tuple)) and not isinstance(value, torch.Size)
    return [tensor for item in items for tensor in _all_tensors(item)] if is_open else []


def _replaced(value: Any, lone: dict[int, torch.Tensor], seen: dict[int, Any]) -> Any:
    if id(value) in seen:
        return seen[id(value)]
    made = value
    if isinstance(value, torch.Tensor):
        made = lone.get(id(value), value)
    elif type(value) in (list, tuple) and value:
        made = type(value)(_replaced(item, lone, seen) for item in value)
    elif isinstance(value, dict):
        made = value.copy()
        for key, item in value.items():
            made[key] = _replaced(item, lone, seen)
    seen[id(value)] = made
    return made


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
    ),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values, st.text(" \t\n,:[]{}x", max_size=2), st.integers(0, 200))
def test_the_slow_reader_of_json_is_the_fast_one(value: Any, noise: str, at: int) -> None:
    text = json.dumps(value, ensure_ascii=len(noise) == 1)
    text = text[: at % (len(text) + 1)] + noise + text[at % (len(text) + 1) :]
    results = []
    for read in (lambda: json.loads(text), lambda: _json._read(text, dict)):
        try:
            results.append(repr(read()))
        except ValueError:
            results.append("refused")
    assert results[0] == results[1]
