"""A tree that lies is refused with a clear error, and nothing of it is carried out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing._internal.two_tensor import TwoTensor

import tensorhold
from tensorhold import SafetensorError, serialization

KEY = "TENSORHOLD_TREE"
TENSORS = {
    "f": torch.arange(6.0).reshape(2, 3),
    "i": torch.tensor([[0, 1], [1, 0]]),
    "o": torch.tensor([0, 2, 3]),
    "u": torch.arange(8, dtype=torch.uint8),
    "v": torch.ones(2),
    "e": torch.empty(0),
}
T, F, V = {"$tensor": "f"}, {"$tensor": "i"}, {"$tensor": "v"}
MESH = {"device_type": "cpu", "shape": [1], "names": None, "ranks": [0], "rank": 0}


def written(text: str) -> bytes:
    """A file whose tree is a given text."""
    tensorhold.save(TENSORS, "tree.safetensors", metadata={KEY: text}, durability="none")
    return Path("tree.safetensors").read_bytes()


def tree(root: Any, **members: Any) -> str:
    return json.dumps({"version": 1, "root": root} | members)


def _deep(n_levels: int) -> str:
    return f'{{"version":1,"root":{"[" * n_levels}{"]" * n_levels}}}'


# Texts that are no tree at all.
TEXTS = {
    "": "JSON",
    "{": "JSON",
    "[]": "no version",
    "null": "no version",
    '{"root":1}': "no version and root",
    '{"version":1}': "no version and root",
    tree(1, version=2): "of version 2, and only 1 is known",
    tree(1, version=True): "of version true",
    tree(1, version=1.0): "of version 1.0",
    tree(1, version="1"): 'of version "1"',
    tree(1, extra=1): "members that no tree has",
    tree(1, shared={}): "members that no tree has",
    '{"version":1,"root":1,"root":2}': "twice",
    '{"version":1,"root":{"a":1,"a":2}}': "twice",
    '{"version":1,"root":NaN}': "no JSON",
    '{"version":1,"root":Infinity}': "no JSON",
    '{"version":1,"root":1e999}': "too large",
    '{"version":1,"root":1} x': "JSON",
    f'{{"version":1,"root":{"9" * 5000}}}': "JSON",
    _deep(1003): "more than 1000 containers",
    _deep(20_000_000): "more than 1000 containers",
    '{"version":1,"root":' + "[" * 200_000: "JSON",
    '{"version":1,"root":' + '{"a":' * 200_000: "JSON",
    '{"version":1,"root":' + "[" * 5000 + "}" * 5000 + "}": "JSON",
}

NODES: list[tuple[Any, str]] = [
    (2**63, "outside of a `\\$int`"),
    ({"$unknown": 1}, "the tag `\\$unknown` is unknown"),
    ({"$": 1}, "the tag `\\$` is unknown"),
    ({"a": 1, "$tuple": []}, "not its first member"),
    ({"$tuple": [], "more": 1}, "has the members \\['more'\\]"),
    ({"$tuple": {}}, "no list"),
    ({"$tuple": None}, "no list"),
    ({"$set": [[]]}, "nor in a set"),
    ({"$set": [1, 1]}, "equal"),
    ({"$set": [1, True]}, "equal"),
    ({"$frozenset": [{"a": 1}]}, "nor in a set"),
    ({"$dict": {}}, "no list"),
    ({"$dict": [[1]]}, "no pair"),
    ({"$dict": [[1, 2, 3]]}, "no pair"),
    ({"$dict": [[[], 1]]}, "a list can neither be a key"),
    ({"$dict": [[{"$tuple": [[]]}, 1]]}, "a tuple can neither be a key"),
    ({"$dict": [[1, "a"], [1.0, "b"]]}, "two keys of a dict are equal"),
    ({"$ordered": []}, "no dict"),
    ({"$ordered": {"$tuple": []}}, "no dict"),
    ({"$ordered": {}, "attributes": 1}, "no dict"),
    ({"$ordered": {}, "attributes": {"keys": 1}}, "cannot be called 'keys'"),
    ({"$ordered": {}, "attributes": {"__class__": 1}}, "cannot be called '__class__'"),
    ({"$counter": 1}, "no dict"),
    ({"$defaultdict": {}}, "has no \\['factory'\\]"),
    ({"$defaultdict": {}, "factory": "eval"}, "no factory"),
    ({"$defaultdict": {}, "factory": ["list"]}, "no factory"),
    ({"$namedtuple": "A", "fields": [["x"]]}, "no pair of a name"),
    ({"$namedtuple": "A", "fields": [["x", 1], ["x", 2]]}, "one name"),
    ({"$namedtuple": "A", "fields": [["_x", 1]]}, "no names of a named tuple"),
    ({"$namedtuple": "A", "fields": [["class", 1]]}, "no names of a named tuple"),
    ({"$namedtuple": "A", "fields": [["x y", 1]]}, "no names of a named tuple"),
    ({"$namedtuple": "A()", "fields": []}, "no names of a named tuple"),
    ({"$namedtuple": 5, "fields": []}, "no names of a named tuple"),
    ({"$namedtuple": "A", "fields": [[f"x{i}", 1] for i in range(256)]}, "no names of a named"),
    ({"$int": 5}, "no integer"),
    ({"$int": "5"}, "for larger ones"),
    ({"$int": "1_000"}, "no integer"),
    ({"$int": "0x10"}, "no integer"),
    ({"$int": " 1"}, "no integer"),
    ({"$int": "1" * 100_002}, "no integer"),
    ({"$float": 1.0}, "no float"),
    ({"$float": "1.0"}, "no float"),
    ({"$float": "0x3ff0000000000000"}, "no float"),
    ({"$float": "NaN"}, "no float"),
    ({"$complex": [1.0]}, "two parts"),
    ({"$complex": [1, 2]}, "no float"),
    ({"$bytes": "*"}, "no base64"),
    ({"$bytes": "YQ"}, "no base64"),
    ({"$bytes": 1}, "no bytes"),
    ({"$bytes": {"$tensor": "f"}}, "type `U8`"),
    ({"$bytes": {"$tensor": "nowhere"}}, "no tensor 'nowhere'"),
    ({"$bytearray": {"$tensor": "u", "offset": 1}}, "no bytes"),
    ({"$slice": [1, 2]}, "three parts"),
    ({"$range": [1, 2, 0]}, "its step is not 0"),
    ({"$range": [1, 2.0, 1]}, "three integers"),
    ({"$ellipsis": 1}, "not true"),
    ({"$size": [1, "2"]}, "no list of integers"),
    ({"$dtype": "load"}, "has no dtype 'load'"),
    ({"$dtype": ["float32"]}, "has no dtype"),
    ({"$layout": "float32"}, "has no layout"),
    ({"$memory_format": "x"}, "has no memory_format"),
    ({"$qscheme": 5}, "has no qscheme"),
    ({"$device": "nowhere:x"}, "no device"),
    ({"$device": 5}, "no device"),
    ({"$scalar": "object", "value": 1}, "no scalar"),
    ({"$scalar": "int8", "value": 128}, "no value of a int8"),
    ({"$scalar": "uint64", "value": {"$int": "18446744073709551616"}}, "no value of a uint64"),
    ({"$scalar": "float16", "value": 0.1}, "no value of a float16"),
    ({"$scalar": "float32", "value": 1e300}, "no value of a float32"),
    ({"$scalar": "float32", "value": {"$float": "0x7ff8000000000001"}}, "no NaN of a float32"),
    ({"$scalar": "bool", "value": 1}, "no value of a bool"),
    ({"$scalar": "complex64", "value": 1.0}, "no value of a complex64"),
    ({"$npdtype": "O"}, "no dtype of NumPy"),
    ({"$npdtype": "<f3"}, "no dtype of NumPy"),
    ({"$npdtype": "f4,i4"}, "no dtype of NumPy"),
    ({"$shared": 0}, "no shared value 0"),
    ({"$shared": -1}, "no shared value -1"),
    ({"$shared": True}, "no shared value True"),
    ({"$tensor": "nowhere"}, "no tensor 'nowhere'"),
    ({"$tensor": 5}, "no tensor 5"),
    ({"$tensor": {"$tensor": "f"}}, "no tensor"),
    (T | {"shape": [7]}, "ends at byte 28 of a tensor of 24"),
    (T | {"shape": [2, 3], "stride": [3, 2]}, "ends at byte 32"),
    (T | {"shape": [2**62, 2**62]}, "too large|ends at byte"),
    (T | {"shape": [-1]}, "no list of integers"),
    (T | {"shape": [2.0]}, "no list of integers"),
    (T | {"shape": "6"}, "no list of integers"),
    (T | {"stride": [1]}, "1 strides for 2 dimensions"),
    (T | {"stride": [-3, 1]}, "no list of integers"),
    (T | {"offset": 1}, "ends at byte 28"),
    (T | {"offset": -1}, "no list of integers"),
    (T | {"offset": 2**62}, "ends at byte"),
    (T | {"dtype": "complex128"}, "ends at byte 96"),
    (T | {"dtype": "qint8"}, "no dtype of a plain tensor"),
    (T | {"dtype": "os"}, "has no dtype `os`"),
    (T | {"layout_stride": [1, 2], "stride": [3, 1]}, "stands with"),
    (T | {"layout_stride": [1, 3]}, "no strides of a dense tensor"),
    (T | {"layout_stride": [2**40, 1]}, "no strides of a dense tensor"),
    (T | {"parameter": False}, "is not true"),
    (T | {"parameter": 1}, "is not true"),
    (T | {"requires_grad": 1}, "is not true"),
    (F | {"requires_grad": True}, "has no gradient"),
    (F | {"parameter": True}, "has no gradient"),
    (T | {"conj": True}, "has no conjugate bit"),
    (T | {"attributes": []}, "no dict"),
    (T | {"attributes": {"grad": 1}}, "cannot be called 'grad'"),
    (T | {"attributes": {"__dict__": 1}}, "cannot be called '__dict__'"),
    (T | {"hook": 1}, "has the members \\['hook'\\]"),
    (T | {"device": "nowhere"}, "no device"),
    ({"$meta": "float32"}, "has no \\['shape'\\]"),
    ({"$meta": "x", "shape": [1]}, "has no dtype"),
    ({"$meta": "float32", "shape": [2**62, 2**62]}, "no such tensor"),
    ({"$ndarray": "nowhere"}, "no tensor"),
    ({"$ndarray": "f", "dtype": ">i4"}, "cannot be taken for"),
    ({"$ndarray": "f", "dtype": "<c16"}, "cannot be taken for"),
    ({"$ndarray": "f", "dtype": "O"}, "no dtype of NumPy"),
    ({"$ndarray": "f", "dtype": "int4"}, "an array of float32 cannot be taken for one of int4"),
    ({"$ndarray": "f", "dtype": "bfloat16"}, "cannot be taken for one of bfloat16"),
    ({"$ndarray": "f", "dtype": ["int4"]}, "no dtype of NumPy"),
    ({"$ndarray": "f", "shape": [6]}, "has the shape"),
    ({"$ndarray": "f", "fortran": 1}, "neither true nor false"),
    ({"$sparse": "coo", "values": V, "shape": [2, 2]}, "this has the members"),
    (
        {"$sparse": "coo", "indices": F, "values": V, "shape": [1, 1], "coalesced": False},
        "no such tensor",
    ),
    (
        {"$sparse": "coo", "indices": F, "values": V, "shape": [2, 2], "coalesced": 1},
        "neither true nor false",
    ),
    (
        {"$sparse": "coo", "indices": F, "values": 5, "shape": [2, 2], "coalesced": True},
        "`values` is no tensor",
    ),
    (
        {
            "$sparse": "csr",
            "compressed": {"$tensor": "o"},
            "plain": {"$tensor": "o"},
            "values": {"$tensor": "f", "shape": [3]},
            "shape": [2, 2],
        },
        "no such tensor",
    ),
    ({"$sparse": "dense", "values": V, "shape": [2]}, "no sparse layout"),
    ({"$quantized": "per_tensor_affine", "ints": T, "dtype": "qint8"}, "this has the members"),
    (
        {
            "$quantized": "per_tensor_affine",
            "ints": T,
            "dtype": "qint8",
            "scale": 1.0,
            "zero_point": 0,
        },
        "do not lie in a tensor",
    ),
    (
        {
            "$quantized": "per_tensor_affine",
            "ints": {"$tensor": "u"},
            "dtype": "quint8",
            "scale": 1.0,
            "zero_point": 2**40,
        },
        "no integer of 32 bits",
    ),
    (
        {
            "$quantized": "per_channel_affine",
            "ints": {"$tensor": "u"},
            "dtype": "quint8",
            "scales": V,
            "zero_points": V,
            "axis": 0,
        },
        "as many scales",
    ),
    (
        {
            "$quantized": "per_channel_affine",
            "ints": {"$tensor": "u"},
            "dtype": "quint8",
            "scales": V,
            "zero_points": V,
            "axis": 1,
        },
        "no dimension",
    ),
    (
        {
            "$quantized": "per_channel_affine_float_qparams",
            "ints": {"$tensor": "u"},
            "dtype": "quint4x2",
            "shape": [2, 9],
            "stride": [9, 1],
            "scales": V,
            "zero_points": V,
            "axis": 0,
        },
        "18 integers in 8 bytes",
    ),
    ({"$quantized": "x", "ints": T, "dtype": "qint8"}, "quantized by `x`"),
    (
        {
            "$nested": "strided",
            "values": V,
            "sizes": {"$tensor": "o", "shape": [1, 2], "offset": 1},
            "strides": {"$tensor": "o", "shape": [1, 2], "offset": 1},
            "offsets": {"$tensor": "o", "shape": [1]},
        },
        "outside of the buffer",
    ),
    ({"$nested": "strided", "values": V, "offsets": V}, "this has the members"),
    (
        {"$nested": "jagged", "values": V, "offsets": {"$tensor": "o"}, "ragged_dim": 1},
        "point outside",
    ),
    (
        {"$nested": "jagged", "values": V, "offsets": {"$tensor": "o"}, "ragged_dim": 2},
        "no dimension",
    ),
    ({"$nested": "x", "values": V, "offsets": V}, "no layout of nested"),
    (
        {"$dtensor": T, "mesh": 1, "placements": ["replicate"], "shape": [2, 3], "stride": [3, 1]},
        "no mesh",
    ),
    (
        {"$dtensor": T, "mesh": MESH, "placements": ["x"], "shape": [2, 3], "stride": [3, 1]},
        "no placement",
    ),
    (
        {"$dtensor": T, "mesh": MESH, "placements": [], "shape": [2, 3], "stride": [3, 1]},
        "another number of dimensions",
    ),
    (
        {"$subclass": "os.system", "parts": {}, "context": None, "shape": [], "stride": []},
        "no tensor class is registered under `os.system`",
    ),
    ({"$opaque": "os.system", "args": ["touch canary"]}, "`os.system` here, which nobody knows"),
    ({"$opaque": 5}, "no name"),
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:40])
def test_a_text_that_is_no_tree_is_refused(text: str) -> None:
    data = written(text)
    with pytest.raises(SafetensorError, match=TEXTS[text]):
        serialization.load(data)
    with pytest.raises(SafetensorError, match=r"tree\.safetensors: the tree of the file is wrong"):
        serialization.load("tree.safetensors")


@pytest.mark.parametrize(("node", "words"), NODES, ids=lambda node: json.dumps(node)[:60])
def test_a_node_that_lies_is_refused_by_its_path(node: Any, words: str) -> None:
    with pytest.raises(SafetensorError, match=words) as caught:
        serialization.load(written(tree({"a": [1, node]})))
    assert caught.value.kind == "InvalidMetadata"
    if "$shared" not in json.dumps(node):
        with pytest.raises(SafetensorError, match=words):
            serialization.load(written(tree({"$shared": 0}, shared=[node, 1])))
    assert not Path("canary").exists()


def test_a_registered_class_that_is_given_lies_says_so() -> None:
    serialization.register(TwoTensor, "tests.TwoTensor")
    node = {"$subclass": "tests.TwoTensor", "parts": {"a": T}, "shape": [2], "stride": [1]}
    with pytest.raises(SafetensorError, match=r"registered under `tests\.TwoTensor` refused this"):
        serialization.load(written(tree(node | {"context": None})))


def test_shared_values_in_a_circle_are_refused() -> None:
    for shared in ([{"$shared": 0}], [[{"$shared": 1}], {"a": {"$shared": 0}}]):
        with pytest.raises(SafetensorError, match="contains itself"):
            serialization.load(written(tree({"$shared": 0}, shared=shared)))


def test_many_references_to_one_value_take_no_memory() -> None:
    """A value of 2^60 items, if each reference were a copy."""
    shared: list[Any] = [[1, 2]]
    shared += [[{"$shared": level}] * 2 for level in range(60)]
    found = serialization.load(written(tree({"$shared": 60}, shared=shared)))
    assert found[0] is found[1]


def _folded(tag: str) -> list[Any]:
    shared: list[Any] = [1]
    for level in range(60):
        items: Any = [{"$shared": level}] * 2
        if tag == "$namedtuple":
            shared.append({tag: "A", "fields": [["a", items[0]], ["b", items[1]]]})
        else:
            shared.append({tag: [*items, None] if tag == "$slice" else items})
    return shared


@pytest.mark.parametrize("tag", ["$tuple", "$namedtuple", "$slice"])
@pytest.mark.parametrize("place", ["$set", "$frozenset", "$dict"])
def test_keys_that_fold_more_than_can_be_hashed_are_refused(tag: str, place: str) -> None:
    key = {"$shared": 60}
    root = {place: [[key, {"$unknown": 1}]] if place == "$dict" else [key]}
    with pytest.raises(SafetensorError, match=r"more parts than can|can neither be a key"):
        serialization.load(written(tree(root, shared=_folded(tag))))


def test_opaque_values_are_kept_as_records_where_asked_for() -> None:
    node = {"$opaque": "os.system", "args": ["touch canary"], "state": {"a": T}, "pairs": [[1, 2]]}
    data = written(tree({"x": node}))
    found = serialization.load(data, opaque="keep")["x"]
    assert type(found) is serialization.Opaque
    assert (found.name, found.args, found.pairs) == ("os.system", ["touch canary"], [[1, 2]])
    assert torch.equal(found.state["a"], TENSORS["f"])
    assert not Path("canary").exists()
    serialization.save([found], "kept.safetensors")
    with pytest.raises(SafetensorError, match=r"os\.system"):
        serialization.load("kept.safetensors")
    assert serialization.load("kept.safetensors", opaque="keep")[0].name == "os.system"
    with pytest.raises(ValueError, match="`opaque` is"):
        serialization.load(data, opaque="call")  # type: ignore[arg-type]


def test_what_a_pickle_would_call_is_refused_by_its_name() -> None:
    class Canary:
        def __reduce__(self) -> Any:
            return os.system, ("touch canary",)

    torch.save({"a": [1, Canary()]}, "old.pt")
    with pytest.raises(SafetensorError, match=r'\["a"\]\[1\].*system'):
        serialization.load("old.pt")
    found = serialization.load("old.pt", opaque="keep")
    assert found["a"][0] == 1
    assert found["a"][1].args == ["touch canary"]
    assert not Path("canary").exists()


def test_a_load_imports_nothing_that_a_tree_names() -> None:
    node = {"$namedtuple": "this.Point", "fields": [["x", 1]]}
    also = {"$opaque": "this.s", "args": []}
    written(tree([node, also]))
    code = (
        "import sys; from tensorhold import serialization\n"
        "before = set(sys.modules)\n"
        "found = serialization.load('tree.safetensors', opaque='keep')\n"
        "assert type(found[0]).__name__ == 'Point', found\n"
        "assert 'this' not in sys.modules, set(sys.modules) - before\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


TAGS = """
    $int $float $complex $dict $tuple $set $frozenset $ordered $counter $defaultdict
    $namedtuple $bytes $bytearray $slice $range $ellipsis $size $dtype $device $layout $scalar
    $npdtype $shared $tensor $meta $ndarray $sparse $quantized $nested $dtensor $subclass $opaque"""
MEMBERS = """
    shape stride offset dtype values indices sizes strides offsets fields factory value args
    parameter requires_grad conj layout_stride attributes device scale zero_point ints lengths
    ragged_dim compressed plain scales zero_points axis coalesced"""


def _nodes() -> st.SearchStrategy[Any]:
    names = st.sampled_from([*TENSORS, "x", "float32", "cpu", "coo", "qint8", "", "$tensor"])
    leaves = st.one_of(
        st.none(), st.booleans(), st.integers(-3, 9), st.floats(allow_nan=False), names
    )
    tags = st.sampled_from(TAGS.split())
    members = st.sampled_from(MEMBERS.split())

    def more(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        tagged = st.builds(
            lambda tag, first, rest: {tag: first} | rest,
            tags,
            inner,
            st.dictionaries(members, inner, max_size=4),
        )
        return st.one_of(st.lists(inner, max_size=4), tagged, tagged)

    return st.recursive(leaves, more, max_leaves=12)


@given(_nodes(), st.lists(_nodes(), max_size=2))
def test_whatever_a_tree_says_is_a_value_or_a_clear_error(root: Any, shared: list[Any]) -> None:
    data = written(tree(root, shared=shared))
    try:
        found = serialization.load(data, map_location="cpu", opaque="keep")
    except SafetensorError as error:
        assert str(error)
    else:
        for tensor in _tensors(found):
            assert isinstance(repr(tensor), str)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
