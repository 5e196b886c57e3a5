"""PyTorch tensors: round trips, what a save refuses, shared memory, whole models."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import pytest
from cases import DTYPES, SHAPES, one, values
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import tensorhold  # noqa: E402
from tensorhold import SafetensorError, deserialize, safe_open  # noqa: E402
from tensorhold import torch as ours  # noqa: E402

HELD = [code for code in DTYPES if code in ours._TYPES]


def octets(tensor: Any) -> bytes:
    if not tensor.nelement():
        return b""
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist())


def same(left: Any, right: Any) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and octets(left) == octets(right)


def stored_shape(code: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-1], shape[-1] // 2) if code == "F4" else shape


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("code", HELD)
def test_every_dtype_comes_back_to_the_same_bytes(code: str, shape: tuple[int, ...]) -> None:
    data = one(code, shape)
    path = pathlib.Path("one.safetensors")
    path.write_bytes(data)
    for backend in ("mmap", "pread"):
        tensor = ours.load_file(path, backend=backend)["t"]
        assert tensor.dtype == ours._getdtype(code)
        assert tensor.shape == stored_shape(code, shape)
        assert ours.save({"t": tensor}) == data
    assert ours.save(ours.load(data)) == data
    assert ours.save(ours.load(bytearray(data))) == data
    assert ours.save(ours._view2torch(deserialize(data))) == data
    assert ours._tobytes(tensor, "t") == data[len(data) - len(octets(tensor)) :]


@pytest.mark.parametrize("code", HELD)
def test_the_peer_reads_and_writes_the_same_file(code: str) -> None:
    peer = pytest.importorskip("safetensors.torch")
    tensor = ours.load(one(code, (2, 4)))["t"]
    ours.save_file({"t": tensor}, "ours.safetensors")
    peer.save_file({"t": tensor}, "theirs.safetensors")
    data = pathlib.Path("ours.safetensors").read_bytes()
    assert data == pathlib.Path("theirs.safetensors").read_bytes() == one(code, (2, 4))
    assert same(peer.load_file("ours.safetensors")["t"], tensor)
    assert same(ours.load_file("theirs.safetensors")["t"], tensor)


@pytest.mark.parametrize("code", ["F6_E2M3", "F6_E3M2"])
def test_six_bits_are_given_as_packed_bytes(code: str) -> None:
    pathlib.Path("six.safetensors").write_bytes(one(code, (2, 8)))
    with tensorhold.open("six.safetensors") as checkpoint:
        whole = checkpoint["t"]
        assert whole.dtype == torch.uint8 and whole.shape == (2, 6)
        assert whole.numpy().tobytes() == values(code, 16)
        assert same(checkpoint.load()["t"], whole)
        assert same(checkpoint.slice("t")[1, 4:], whole[1, 3:])
        for into in (torch.zeros(2, 6, dtype=torch.uint8), torch.zeros(6, 2).byte().T):
            filled = checkpoint.load(into={"t": into}, dtype=torch.bfloat16)["t"]
            assert filled is into and same(filled.contiguous(), whole)
        with pytest.raises(SafetensorError, match="last dim must be divisible by 4"):
            checkpoint.slice("t")[:, :2]
    with pytest.raises(SafetensorError, match="take a multiple of 4 elements"):
        tensorhold.open("six.safetensors").slice("t")[0, :2]
    with pytest.raises(SafetensorError, match=code):
        ours._getdtype(code)


tensors = st.builds(
    lambda dtype, shape: torch.arange(27)[: torch.Size(shape).numel()].reshape(shape).to(dtype),
    st.sampled_from(
        [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]
    ),
    st.lists(st.integers(0, 3), max_size=3),
)


@given(
    st.dictionaries(st.text(max_size=8).filter(lambda name: name != "__metadata__"), tensors),
    st.none() | st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=1),
)
def test_any_tensors_round_trip_as_with_the_peer(
    named: dict[str, Any], metadata: dict[str, str] | None
) -> None:
    peer = pytest.importorskip("safetensors.torch")
    data = ours.save(named, metadata)
    loaded = ours.load(data)
    assert loaded.keys() == named.keys()
    assert all(same(loaded[name], tensor) for name, tensor in named.items())
    if metadata != {} or named:
        assert data == peer.save(named, metadata)
        assert all(same(tensor, loaded[name]) for name, tensor in peer.load(data).items())


def test_conjugate_and_negative_views_are_saved_as_they_read() -> None:
    # safetensors 0.8.0 drops the bit and writes the plain numbers.
    number = torch.tensor([1 + 2j, 3 - 4j])
    saved = ours.load(
        ours.save({"conj": number.conj(), "neg": torch._neg_view(torch.tensor([1.0, -2.0]))})
    )
    assert saved["conj"].tolist() == [1 - 2j, 3 + 4j]
    assert saved["neg"].tolist() == [-1.0, 2.0]
    imaginary = number.conj().imag
    assert imaginary.is_neg()
    assert ours.load(ours.save({"i": imaginary.contiguous()}))["i"].tolist() == [-2.0, 4.0]


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "what is no dict": (
        [torch.zeros(1)],
        ValueError,
        "Expected a dict of [str, torch.Tensor] but received <class 'list'>",
    ),
    "a value that is no tensor": (
        {"a": 1.0},
        ValueError,
        "Key `a` is invalid, expected torch.Tensor but received <class 'float'>",
    ),
    "a sparse tensor": (
        {"s": torch.eye(2).to_sparse()},
        ValueError,
        "You are trying to save a sparse tensors: `['s']` which this library does not support."
        " You can make it a dense tensor before saving with `.to_dense()` but be aware this might"
        " make a much larger file than needed.",
    ),
    "a tensor that is not contiguous": (
        {"n": torch.zeros(2, 3).T},
        ValueError,
        "You are trying to save a non contiguous tensor: `n` which is not allowed. It either means"
        " you are trying to save tensors which are reference of each other in which case it's"
        " recommended to save only the full tensors, and reslice at load time, or simply call"
        " `.contiguous()` on your tensor to pack it before saving.",
    ),
    "a tensor without data": (
        {"m": torch.zeros(2, device="meta")},
        NotImplementedError,
        "Cannot copy out of meta tensor; no data!",
    ),
    "a type that the format lacks": (
        {"c": torch.zeros(2, dtype=torch.complex128)},
        KeyError,
        "tensor `c` has dtype torch.complex128, which the format cannot hold",
    ),
}


@pytest.mark.parametrize(("value", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_saved_is_refused(value: Any, error: type[Exception], message: str) -> None:
    pathlib.Path("old.safetensors").write_text("old")
    for act in (lambda: ours.save(value), lambda: ours.save_file(value, "old.safetensors")):
        with pytest.raises(error, match=re.escape(message)):
            act()
    assert pathlib.Path("old.safetensors").read_text() == "old"
    assert os.listdir() == ["old.safetensors"]


@pytest.mark.parametrize("name", [name for name in REFUSED if "type" not in name])
def test_the_peer_refuses_it_with_the_same_words(name: str) -> None:
    peer = pytest.importorskip("safetensors.torch")
    value = REFUSED[name][0]
    with pytest.raises(Exception) as theirs:
        peer.save(value)
    with pytest.raises(type(theirs.value)) as mine:
        ours.save(value)
    assert str(mine.value).startswith(str(theirs.value))
    # The peer does not say which tensor has no data.
    assert str(mine.value) == str(theirs.value) or name == "a tensor without data"


def test_shared_memory_is_refused_with_the_names() -> None:
    peer = pytest.importorskip("safetensors.torch")
    whole = torch.zeros(4)
    shared = {"a": whole, "b": whole[1:3]}
    with pytest.raises(RuntimeError, match="Some tensors share memory") as mine:
        ours.save(shared)
    with pytest.raises(RuntimeError) as theirs:
        peer.save(shared)
    for error in (mine, theirs):
        assert "'a'" in str(error.value) and "'b'" in str(error.value)
    assert re.sub(r"\[.*\]", "", str(mine.value)) == re.sub(r"\[.*\]", "", str(theirs.value))


def test_overlap_after_a_contained_tensor_is_found() -> None:
    # safetensors 0.8.0 forgets how far the first reaches once the second ends before it.
    whole = torch.zeros(10)
    tensors = {"a": whole[0:8], "b": whole[1:3], "c": whole[5:9], "d": whole[9:]}
    assert ours._find_shared_tensors(tensors) == [{"a", "b", "c"}, {"d"}]
    with pytest.raises(RuntimeError, match="Some tensors share memory"):
        ours.save(tensors)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), max_size=6))
def test_groups_are_those_that_a_naive_search_finds(parts: list[tuple[int, int]]) -> None:
    whole = torch.zeros(16)
    tensors = {f"t{i}": whole[start : start + n] for i, (start, n) in enumerate(parts)}
    taken = {
        name: set(range(tensor.data_ptr(), tensor.data_ptr() + 4 * tensor.nelement()))
        for name, tensor in tensors.items()
        if tensor.nelement()
    }
    found = [group & taken.keys() for group in ours._find_shared_tensors(tensors)]
    for name, octets_taken in taken.items():
        group = next(group for group in found if name in group)
        overlapping = {other for other in taken if taken[other] & octets_taken}
        assert overlapping <= group
        assert len(group) == 1 or len(overlapping) > 1


def test_parts_of_one_storage_that_do_not_overlap_are_saved() -> None:
    whole = torch.arange(6.0)
    loaded = ours.load(ours.save({"a": whole[:2], "b": whole[2:]}))
    assert loaded["a"].tolist() == [0, 1] and loaded["b"].tolist() == [2, 3, 4, 5]


def test_parameters_and_tensors_that_want_gradients_are_saved() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    loaded = ours.load(ours.save({"p": parameter, "g": torch.zeros(1, requires_grad=True)}))
    assert loaded["p"].tolist() == [1, 1] and not loaded["p"].requires_grad


def test_a_subclass_without_memory_is_refused_with_a_hint() -> None:
    class Wrapper(torch.Tensor):
        @staticmethod
        def __new__(cls) -> Any:
            return torch.Tensor._make_wrapper_subclass(cls, (2,))

        @classmethod
        def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
            if func is torch.ops.aten.detach.default:
                return args[0]
            raise NotImplementedError(func)

    with pytest.raises((SafetensorError, RuntimeError, TypeError)):
        ours.save({"w": Wrapper()})


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), None, "cpu:0"])
def test_devices_are_taken_by_name_or_as_torch_has_them(device: Any) -> None:
    ours.save_file({"a": torch.ones(1)}, "a.safetensors")
    assert ours.load_file("a.safetensors", device=device)["a"].device.type == "cpu"


def test_the_meta_device_gives_shapes_without_reading() -> None:
    data = ours.save({"a": torch.ones(2, 3, dtype=torch.bfloat16)})
    pathlib.Path("a.safetensors").write_bytes(data)
    for loaded in (
        ours.load_file("a.safetensors", device="meta"),
        ours.load_file("a.safetensors", device=torch.device("meta")),
        ours.load(data, device="meta"),
    ):
        assert loaded["a"].is_meta
        assert loaded["a"].shape == (2, 3) and loaded["a"].dtype == torch.bfloat16


@pytest.mark.parametrize("device", ["abacus", "cuda:x", "mps:1", 1.5])
def test_an_unknown_device_is_refused(device: Any) -> None:
    ours.save_file({"a": torch.ones(1)}, "a.safetensors")
    with pytest.raises(SafetensorError, match=r"device .* is invalid"):
        ours.load_file("a.safetensors", device=device)


def test_the_default_device_of_torch_does_not_matter() -> None:
    ours.save_file({"a": torch.ones(1)}, "a.safetensors")
    with torch.device("meta"):
        assert ours.load_file("a.safetensors")["a"].tolist() == [1.0]
        assert ours.load(ours.save({"a": ours.load_file("a.safetensors")["a"]}))["a"].tolist() == [
            1
        ]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_can_be_loaded(kind: type) -> None:
    tensor = ours.load(kind(ours.save({"a": torch.arange(4)})))["a"]
    assert tensor.tolist() == [0, 1, 2, 3]
    tensor[0] = 9  # what was read only has been copied


def test_a_writable_buffer_is_viewed_and_kept_alive() -> None:
    data = bytearray(ours.save({"a": torch.zeros(2, dtype=torch.uint8)}))
    tensor = ours.load(data)["a"]
    data[-1] = 5
    assert tensor.tolist() == [0, 5]
    del data
    assert tensor.tolist() == [0, 5]


def test_loaded_tensors_are_writable_and_the_file_stays() -> None:
    ours.save_file({"a": torch.zeros(4)}, "a.safetensors")
    before = pathlib.Path("a.safetensors").read_bytes()
    for backend in ("mmap", "pread"):
        ours.load_file("a.safetensors", backend=backend)["a"].fill_(1)
        assert pathlib.Path("a.safetensors").read_bytes() == before


def test_each_loaded_tensor_has_a_storage_of_its_own() -> None:
    ours.save_file({"a": torch.zeros(4), "b": torch.ones(2)}, "ab.safetensors")
    for backend in ("mmap", "pread"):
        loaded = ours.load_file("ab.safetensors", backend=backend)
        assert ours._find_shared_tensors(loaded) == [{"a"}, {"b"}]
        assert ours.storage_size(loaded["a"]) == 16
        assert loaded["a"].untyped_storage().nbytes() == 16


def test_tensors_outlive_the_handle_and_the_file() -> None:
    ours.save_file({"a": torch.arange(1000)}, "a.safetensors")
    with safe_open("a.safetensors", "pt") as file:
        tensor = file.get_tensor("a")
    os.remove("a.safetensors")
    assert tensor.sum() == 499500


def test_a_dtype_that_a_program_adds_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ours._TYPES, "X9", torch.float32)
    assert ours._getdtype("X9") is torch.float32
    with pytest.raises(KeyError):
        ours._getdtype("X8")


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Linear(3, 3, bias=False)
        self.b = torch.nn.Linear(3, 3, bias=False)
        self.b.weight = self.a.weight


def test_a_model_with_tied_weights_is_saved_once_and_loaded_whole() -> None:
    peer = pytest.importorskip("safetensors.torch")
    model, metadata = Tied(), {"made by": "hand"}
    ours.save_model(model, "tied.safetensors", metadata)
    assert metadata == {"made by": "hand"}
    with safe_open("tied.safetensors", "pt") as file:
        assert file.keys() == ["a.weight"]
        assert file.metadata() == {"made by": "hand", "b.weight": "a.weight"}
    for load in (ours.load_model, peer.load_model):
        other = Tied()
        assert load(other, "tied.safetensors") == (set(), [])
        assert torch.equal(other.b.weight, model.a.weight)


def test_a_file_that_kept_another_name_loads_too() -> None:
    model = Tied()
    ours.save_file({"b.weight": torch.ones(3, 3)}, "other.safetensors")
    assert ours.load_model(model, "other.safetensors") == (set(), [])
    assert model.a.weight.sum() == 9


@pytest.mark.parametrize("strict", [True, False])
def test_names_that_do_not_match_are_told(strict: bool) -> None:
    peer = pytest.importorskip("safetensors.torch")
    ours.save_file({"weight": torch.zeros(1, 2), "more": torch.zeros(1)}, "a.safetensors")
    if not strict:
        loaded = ours.load_model(torch.nn.Linear(2, 1), "a.safetensors", strict=False)
        assert loaded == ({"bias"}, ["more"])
        return
    with pytest.raises(RuntimeError) as mine:
        ours.load_model(torch.nn.Linear(2, 1), "a.safetensors")
    with pytest.raises(RuntimeError) as theirs:
        peer.load_model(torch.nn.Linear(2, 1), "a.safetensors")
    assert str(mine.value) == str(theirs.value)


def test_a_model_of_parts_that_none_covers_is_refused() -> None:
    model = torch.nn.Module()
    whole = torch.zeros(10)
    model.register_buffer("a", whole[:6])
    model.register_buffer("b", whole[4:])
    with pytest.raises(RuntimeError, match="found no suitable name to keep"):
        ours.save_model(model, "parts.safetensors")


def test_a_model_that_is_not_contiguous_is_packed_or_refused() -> None:
    model = torch.nn.Module()
    model.register_buffer("t", torch.arange(6.0).reshape(2, 3).T)
    ours.save_model(model, "packed.safetensors")
    assert torch.equal(ours.load_file("packed.safetensors")["t"], model.t)
    with pytest.raises(ValueError, match=r"save_model\(..., force_contiguous=True\)"):
        ours.save_model(model, "refused.safetensors", force_contiguous=False)


def test_the_end_of_a_tensor_that_is_not_contiguous_is_its_last_byte() -> None:
    whole = torch.zeros(4, 4)
    part = whole[1:3, ::2]
    assert ours._end_ptr(part) == whole.data_ptr() + (2 * 4 + 2) * 4 + 4
    assert ours._end_ptr(part[:0]) == part[:0].data_ptr()


NESTED = [torch.ones(2), torch.ones(3)]
WITHOUT_BYTES = {
    "meta": (lambda: torch.empty(2, device="meta"), NotImplementedError, "no data! .*meta device"),
    "coo": (lambda: torch.eye(2).to_sparse(), ValueError, r"\.to_dense\(\)"),
    "csr": (lambda: torch.eye(2).to_sparse_csr(), ValueError, r"\.to_dense\(\)"),
    "strided": (lambda: torch.nested.nested_tensor(NESTED), ValueError, r"is nested.*\n.*unbind"),
    "jagged": (
        lambda: torch.nested.nested_tensor(NESTED, layout=torch.jagged),
        ValueError,
        r"is nested.*\n.*unbind",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", WITHOUT_BYTES)
def test_a_tensor_without_bytes_of_its_own_is_named_however_it_is_saved(kind: str) -> None:
    make, error, message = WITHOUT_BYTES[kind]
    name = f"layer.{kind}"
    saves: list[Callable[[dict[str, torch.Tensor]], object]] = [
        ours.save,
        lambda tensors: ours.save_file(tensors, "t.safetensors"),
        lambda tensors: tensorhold.save(tensors, "t.safetensors"),
        lambda tensors: tensorhold.save(iter(tensors.items()), "t.safetensors"),
        lambda tensors: ours._tobytes(tensors[name], name),
    ]
    for save in saves:
        with pytest.raises(error, match=message) as caught:
            save({name: make()})
        assert name in str(caught.value)
    assert not os.path.exists("t.safetensors")
