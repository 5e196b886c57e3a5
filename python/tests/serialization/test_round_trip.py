"""What is saved comes back as it was."""

from __future__ import annotations

import io
import json
import random
from collections import Counter, OrderedDict, defaultdict, namedtuple
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from serialization.same import bits, check_same, nan_with
from torch.testing._internal.two_tensor import TwoTensor

from tensorhold import serialization
from tensorhold.serialization import _ml_dtypes

Point = namedtuple("Point", "x y")
KEY = "TENSORHOLD_TREE"


def round_trip(value: Any, folder: Path) -> Any:
    """Saves and loads a value in each way that there is, and gives what the file has."""
    path = folder / "value.safetensors"
    serialization.save(value, path, durability="none")
    data = path.read_bytes()
    with path.open("rb") as file:
        check_same(value, serialization.load(file, map_location="cpu"))
    memory = io.BytesIO()
    serialization.save(value, memory)
    memory.seek(0)
    check_same(value, serialization.load(memory))
    check_same(value, serialization.load(data))
    check_same(value, serialization.load(path, mmap=True))
    found = serialization.load(path)
    check_same(value, found)
    return found


PLAIN = [
    None,
    True,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    2**63,
    2**64,
    -(10**5000),
    0.0,
    -0.0,
    1e16,
    5e-324,
    0.1,
    float("inf"),
    float("-inf"),
    float("nan"),
    nan_with(0x7FF8000000000001),
    nan_with(0xFFF8000000000000),
    nan_with(0x7FF0000000000001),
    complex(-0.0, float("inf")),
    "",
    "text",
    '\x00 \u202e \U0001f600 \\ " \ud800 \udfff',
    b"",
    b"bytes\x00\xff",
    bytes(range(256)) * 40,
    bytearray(b"array"),
    bytearray(range(256)) * 40,
    [],
    (),
    {},
    set(),
    frozenset(),
    OrderedDict(),
    [1, 2.5, "x", None, [True, [()]]],
    list(range(1000)),
    [0.5, -0.0, 1e300],
    [1.0, float("nan")],
    [1, 2**63],
    ("a", ("b", ("c",))),
    {"b": 1, "a": 2},
    {"$tensor": "trap", "$": 1},
    {"a": {"$shared": 0}},
    {1: "a", "1": "b", 1.5: "c", None: "d", (1, "x"): "e", True + 1: "f", b"k": "g"},
    {"__metadata__": 1, "format": 2, KEY: 3},
    {frozenset({1, 2}): torch.Size([3])},
    {1, "two", 3.0, (4, 5), None},
    frozenset({frozenset({1}), frozenset()}),
    OrderedDict([("z", 1), (5, 2)]),
    Counter("abracadabra"),
    defaultdict(list, a=[1]),
    defaultdict(None, {1: 2}),
    Point(1, [2]),
    slice(1, None, 2),
    range(10, 0, -3),
    range(10**30),
    ...,
    torch.Size([1, 2]),
    torch.device("cuda", 3),
    torch.strided,
    torch.sparse_csr,
    torch.channels_last,
    torch.per_channel_affine,
    np.dtype("<f4"),
    np.dtype(">i8"),
    np.dtype(bool),
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: f"{type(value).__name__}")
def test_values_come_back_as_they_were(value: Any, tmp_path: Path) -> None:
    round_trip(value, tmp_path)
    round_trip({"key": [value]}, tmp_path)


DTYPES = sorted(
    {value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str
)
QUANTIZED = {torch.quint8, torch.qint8, torch.qint32, torch.quint4x2, torch.quint2x4}


@pytest.mark.parametrize("dtype", [each for each in DTYPES if each not in QUANTIZED], ids=str)
def test_every_dtype_comes_back_bit_by_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    octets = torch.arange(24 * dtype.itemsize, dtype=torch.uint8)
    octets = octets % 2 if dtype == torch.bool else octets
    base = torch.empty(0, dtype=dtype).set_(octets.untyped_storage(), 0, (4, 6), (6, 1))

    def view(offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> torch.Tensor:
        made = torch.empty(0, dtype=dtype)
        return made.set_(base.untyped_storage(), offset, shape, strides)

    round_trip(base, tmp_path)
    round_trip(view(0, (6, 4), (1, 6)), tmp_path)
    round_trip(view(5, (), ()), tmp_path)
    round_trip([base, view(0, (6, 4), (1, 6)), view(7, (3,), (2,))], tmp_path)
    round_trip([view(1, (5,), (1,)), view(8, (5,), (1,)), octets], tmp_path)
    round_trip(torch.empty((0, 3), dtype=dtype), tmp_path)


QUANTIZERS = {
    "quint8": lambda x: torch.quantize_per_tensor(x, 0.1, 3, torch.quint8),
    "qint8": lambda x: torch.quantize_per_tensor(x, 0.1, -3, torch.qint8),
    "qint32": lambda x: torch.quantize_per_tensor(x, 1e-7, 0, torch.qint32),
    "channels": lambda x: torch.quantize_per_channel(
        x, torch.rand(4).double() + 0.1, torch.arange(4), 0, torch.qint8
    ),
    "columns": lambda x: torch.quantize_per_channel(
        x, torch.rand(6).double() + 0.1, torch.arange(6), 1, torch.quint8
    ),
    "quint4x2": lambda x: torch.quantize_per_channel(
        x, torch.rand(4), torch.rand(4), 0, torch.quint4x2
    ),
    "quint2x4": lambda x: torch.quantize_per_channel(
        x, torch.rand(4), torch.rand(4), 0, torch.quint2x4
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", QUANTIZERS)
def test_quantized_tensors_come_back(name: str, tmp_path: Path) -> None:
    tensor = QUANTIZERS[name](torch.randn(4, 6))
    round_trip({"q": tensor, "again": tensor}, tmp_path)
    if name == "qint8":
        round_trip([tensor, tensor[1:, ::2]], tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_sparse_and_nested_tensors_come_back(tmp_path: Path) -> None:
    dense = torch.eye(4)
    dense[1, 3] = 5
    twice = torch.sparse_coo_tensor([[1, 1]], [2.0, 3.0], (4,))
    for tensor in (
        dense.to_sparse(),
        twice,
        twice.coalesce(),
        torch.sparse_coo_tensor(torch.empty(1, 0, dtype=torch.int64), torch.empty(0, 2), (3, 2)),
        dense.to_sparse_csr(),
        dense.to_sparse_csc(),
        dense.to_sparse_bsr((2, 2)),
        dense.to_sparse_bsc((2, 2)),
        torch.nn.Parameter(dense.to_sparse()),
        torch.nested.nested_tensor([torch.ones(2, 3), torch.zeros(1, 3)]),
        torch.nested.nested_tensor([torch.ones(2), torch.zeros(3)], layout=torch.jagged),
    ):
        round_trip({"tensor": tensor, "same": tensor}, tmp_path)
    offsets, lengths = torch.tensor([0, 3, 4]), torch.tensor([2, 1])
    ragged = torch.nested.nested_tensor_from_jagged(torch.randn(6, 2), offsets, lengths)
    path = tmp_path / "ragged.safetensors"
    serialization.save([ragged, ragged.clone()], path)
    for found in serialization.load(path):
        assert torch.equal(found.lengths(), lengths)
        assert torch.equal(found.values(), ragged.values())


def test_gradients_parameters_buffers_and_attributes_come_back(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    frozen = torch.nn.Parameter(torch.arange(3), requires_grad=False)
    parameter.is_tied = True  # type: ignore[attr-defined]
    parameter.scale = torch.ones(1)  # type: ignore[attr-defined]
    buffer = torch.nn.Buffer(torch.zeros(2), persistent=False)
    value = [parameter, frozen, buffer, torch.ones(2, requires_grad=True), torch.empty(2, 3).t()]
    value.append(torch.empty(3, 2, device="meta").t())
    found = round_trip(value, tmp_path)
    assert isinstance(found[2], torch.nn.Buffer)
    assert not found[2].persistent
    assert found[0].scale.tolist() == [1]


def test_bits_of_conjugates_and_negatives_come_back(tmp_path: Path) -> None:
    numbers = torch.randn(3, dtype=torch.complex64)
    value = [numbers, numbers.conj(), numbers.imag, numbers.conj().imag, numbers.real]
    assert value[3].is_neg()
    round_trip(value, tmp_path)
    alone = torch.randn(2, 2, dtype=torch.complex128).t().conj()
    round_trip(torch.nn.Parameter(alone), tmp_path)


def test_views_share_their_memory_again(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    value = {"row": base[1], "base": base, "column": base[:, 2], "t": base.t(), "tied": base[:]}
    found = round_trip(value, tmp_path)
    found["base"].fill_(7)
    assert all((tensor == 7).all() for tensor in found.values())
    with safetensors.safe_open(tmp_path / "value.safetensors", "pt") as file:
        assert file.keys() == ["base"]
        assert file.metadata()["tied"] == "base"
    stored = base[:, 1:3]
    parts = round_trip([stored[:2], stored[1:]], tmp_path)
    assert parts[0].untyped_storage().nbytes() == 10 * 4


def test_views_of_several_dtypes_share_their_memory_again(tmp_path: Path) -> None:
    octets = torch.arange(40, dtype=torch.uint8)
    value = [octets[1:9], octets[8:24].view(torch.float32), octets[16:32].view(torch.complex128)]
    found = round_trip(value, tmp_path)
    found[1].zero_()
    assert found[0].tolist()[-1] == 0


def test_lone_views_do_not_bring_what_they_are_views_of(tmp_path: Path) -> None:
    path = tmp_path / "row.safetensors"
    serialization.save(torch.zeros(1000, 1000)[3, ::10], path)
    assert path.stat().st_size < 10_000
    assert serialization.load(path).shape == (100,)
    serialization.save(torch.ones(1).expand(10**9), path)
    assert path.stat().st_size < 10_000
    assert serialization.load(path).stride() == (0,)
    windows = torch.arange(6.0).unfold(0, 3, 1)
    round_trip(windows, tmp_path)


def test_shared_values_are_one_again(tmp_path: Path) -> None:
    inner = [1]
    pair = (inner, {"x": inner})
    value = {"a": pair, "b": [pair, inner], "set": {1}, "more": [{1}, pair[1]]}
    found = round_trip(value, tmp_path)
    found["b"][1].append(2)
    assert found["a"][1]["x"] == [1, 2]


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "f2", "f4", "f8", "c8", "c16", "i8", "u8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_arrays_and_scalars_come_back(dtype: str, order: str, tmp_path: Path) -> None:
    base = np.arange(24).astype(np.dtype(dtype).newbyteorder(order)).reshape(4, 6)
    round_trip(base, tmp_path)
    for value in (
        base.T,
        base[:, 1],
        base[2, 3],
        base[1:1],
        np.array(base[0, 1]),
        base[::-1].copy(),
    ):
        round_trip({"x": value}, tmp_path)
    found = serialization.load(tmp_path / "value.safetensors")
    found["x"][0] = 1


@pytest.mark.parametrize("name", sorted(_ml_dtypes.NAMES))
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_the_types_of_ml_dtypes_come_back(name: str, order: str, tmp_path: Path) -> None:
    kind = np.dtype(getattr(ml_dtypes, name))
    # What every one of these types has; of whole bytes all bits besides.
    values = np.array([[0, 1, 0], [1, 1, 0]], order=order).astype(kind, order=order)
    state = {"array": values, "one": values[1, 1:2].reshape(()), "none": values[:0]}
    if name.startswith(("bfloat", "float8")):
        state["every"] = np.arange(256, dtype=f"u{kind.itemsize}").view(kind)
    round_trip(state, tmp_path)


def test_an_array_of_jax_is_refused_with_what_to_give(tmp_path: Path) -> None:
    array = jnp.asarray([1, -2, 3], dtype=jnp.int4)
    with pytest.raises(ValueError, match=r"give it as an array of NumPy, by `numpy\.asarray`"):
        serialization.save({"codes": array}, tmp_path / "state.safetensors")
    round_trip({"codes": np.asarray(array)}, tmp_path)


def test_scalars_keep_the_bits_of_what_is_no_number(tmp_path: Path) -> None:
    patterns = {np.uint16: np.float16, np.uint32: np.float32, np.uint64: np.float64}
    for word, kind in patterns.items():
        width = np.dtype(word).itemsize * 8
        top = {16: 0x7C00, 32: 0x7F800000, 64: 0x7FF << 52}[width]
        numbers = [top, top + 1, top | top >> 1 | 5, 1 << (width - 1), (1 << width) - 1]
        round_trip(list(np.array(numbers, dtype=word).view(kind)), tmp_path)
    round_trip([np.complex64(complex(float("nan"), -0.0)), np.uint64(2**64 - 1)], tmp_path)


def test_registered_classes_come_back(tmp_path: Path) -> None:
    registered = namedtuple("registered", "x y")
    serialization.register(registered, "tests.registered")
    serialization.register(TwoTensor, "tests.TwoTensor")
    found = round_trip([registered(1, 2), Point(3, 4)], tmp_path)
    assert type(found[0]) is registered
    a = torch.ones(2)
    path = tmp_path / "two.safetensors"
    serialization.save({"two": TwoTensor(a, a.clone()), "a": a}, path)
    found = serialization.load(path)
    assert type(found["two"]) is TwoTensor
    assert torch.equal(found["two"].b, a)
    found["a"].zero_()
    assert found["two"].a.tolist() == [0, 0]


def test_other_readers_see_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    weight, norm = torch.randn(3, 2), torch.ones(2, dtype=torch.bfloat16)
    state = {"model": {"weight": weight.t(), "norm": norm}, "step": 5, "x": [torch.arange(3)]}
    serialization.save(state, path)
    found = safetensors.torch.load_file(path)
    assert sorted(found) == ["model.norm", "model.weight", "x.0"]
    assert torch.equal(found["model.weight"], weight.t())
    assert torch.equal(found["model.norm"], norm)
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "pt"
        root = json.loads(file.metadata()[KEY])["root"]
        assert root["model"]["weight"]["$tensor"] == "model.weight"


def test_tied_weights_load_into_a_model_by_other_programs(tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(10, 4)
            self.head = torch.nn.Linear(4, 10, bias=False)
            self.head.weight = self.embed.weight

    path = tmp_path / "tied.safetensors"
    model, other = Tied(), Tied()
    serialization.save(model.state_dict(), path)
    assert safetensors.torch.load_model(other, path) == (set(), [])
    assert torch.equal(model.head.weight, other.embed.weight)
    found = serialization.load(path)
    assert found["embed.weight"].data_ptr() == found["head.weight"].data_ptr()
    assert found._metadata == model.state_dict()._metadata


def test_names_say_where_a_tensor_stands(tmp_path: Path) -> None:
    one = torch.ones(1)
    value = {
        "a": [one.clone(), {"b.c": one.clone()}],
        3: one.clone(),
        "a.0": one.clone(),
        "": one.clone(),
        "x\n\ud800": one.clone(),
        "__metadata__": one.clone(),
        ("k", 1): one.clone(),
    }
    path = tmp_path / "names.safetensors"
    serialization.save(value, path)
    names = safetensors.torch.load_file(path).keys()
    expected = ["a.0", "a.1.b.c", "3", "a.0#2", "_", "x__", "__metadata__#2", "('k', 1)"]
    assert sorted(names) == sorted(expected)
    serialization.save(one, path)
    assert list(safetensors.torch.load_file(path)) == ["tensor"]


def test_equal_values_give_equal_files() -> None:
    def saved(order: int) -> bytes:
        names = ["x", "y", "z", "longer", "é"][::order]
        value = {"set": {*names, 1, 2.5, (1, "a")}, "w": torch.arange(3), "s": [{5, 6}, "x"]}
        memory = io.BytesIO()
        serialization.save(value, memory)
        return memory.getvalue()

    assert saved(1) == saved(-1)


def test_a_file_without_a_tree_is_the_dict_of_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    tensors = {"b": torch.ones(2), "a": torch.arange(3)}
    safetensors.torch.save_file(tensors, path)
    for mmap in (None, True):
        found = serialization.load(path, mmap=mmap)
        assert found.keys() == tensors.keys()
        assert torch.equal(found["a"], tensors["a"])
    assert serialization.load(path.read_bytes(), map_location="meta")["b"].is_meta


def test_map_location_means_what_it_means_to_torch(tmp_path: Path) -> None:
    path = tmp_path / "placed.safetensors"
    serialization.save({"w": torch.ones(2), "n": np.ones(2), "b": bytes(5000)}, path)
    for location in ("meta", torch.device("meta"), {"cpu": "meta"}):
        found = serialization.load(path, map_location=location)
        assert found["w"].is_meta
        assert found["n"].tolist() == [1, 1]
        assert found["b"] == bytes(5000)
    assert not serialization.load(path, map_location={"cuda:0": "meta"})["w"].is_meta
    seen = []

    def move(storage: torch.UntypedStorage, location: str) -> torch.UntypedStorage:
        seen.append((storage.nbytes(), location))
        return storage.clone()

    assert serialization.load(path, map_location=move)["w"].tolist() == [1, 1]
    assert seen == [(8, "cpu")]
    assert serialization.load(path, map_location=lambda _storage, _where: None)["w"].sum() == 2


def test_a_default_device_changes_nothing(tmp_path: Path) -> None:
    value = [
        torch.ones(2),
        torch.eye(2).to_sparse(),
        torch.eye(2).to_sparse_csr(),
        torch.ones(2, 3).t(),
    ]
    path = tmp_path / "state.safetensors"
    with torch.device("meta"):
        serialization.save(value, path)
        found = serialization.load(path)
    check_same(value, found)


def test_a_mapped_load_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "mapped.safetensors"
    serialization.save([torch.zeros(3), torch.zeros(2, 2).t()], path)
    before = path.read_bytes()
    found = serialization.load(path, mmap=True)
    found[0].fill_(3)
    assert path.read_bytes() == before
    serialization.save(found, path)
    check_same(found, serialization.load(path))


def test_deep_values_come_back_wherever_the_caller_stands(tmp_path: Path) -> None:
    value: Any = torch.ones(1)
    for level in range(1000):
        kinds = [[value], {"k": value}, {1: value}, (value,), OrderedDict([(2, value)])]
        value = kinds[level % 5]
    path = tmp_path / "deep.safetensors"

    def stand(depth: int) -> None:
        if depth:
            stand(depth - 1)
        else:
            serialization.save(value, path)
            assert bits(_innermost(serialization.load(path))) == bits(torch.ones(1))

    stand(500)
    with pytest.raises(ValueError, match="more than 1000 containers"):
        serialization.save([value], path)


def _innermost(value: Any) -> torch.Tensor:
    while not isinstance(value, torch.Tensor):
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return value


def test_states_of_generators_come_back(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    state = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "generator": generator.bit_generator.state,
        "torch": torch.get_rng_state(),
    }
    round_trip(state, tmp_path)
    numbers = [random.random(), np.random.rand(), generator.random(), torch.rand(1).item()]
    found = serialization.load(tmp_path / "value.safetensors")
    random.setstate(found["python"])
    np.random.set_state(found["numpy"])
    generator.bit_generator.state = found["generator"]
    torch.set_rng_state(found["torch"])
    again = [random.random(), np.random.rand(), generator.random(), torch.rand(1).item()]
    assert again == numbers
