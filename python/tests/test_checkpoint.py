"""Checkpoints: a mapping over files, and the writing of one file or many."""

from __future__ import annotations

import json
import os
import pathlib
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from cases import file_bytes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tensorhold
from tensorhold import SafetensorError, safe_open

TENSORS = {
    "layer.0.weight": np.arange(600, dtype=np.float32).reshape(20, 30),
    "layer.0.bias": np.arange(20, dtype=np.float32),
    "layer.1.weight": np.arange(600, dtype=np.int16).reshape(30, 20),
    "count": np.array(7),
}


def opened(source: Any = "a.safetensors", **options: Any) -> tensorhold.Checkpoint:
    return tensorhold.open(source, framework="np", **options)


def same(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and np.array_equal(left[name], right[name])
        for name in left
    )


@pytest.fixture(params=["file", "index", "folder", "list"])
def source(request: pytest.FixtureRequest) -> Any:
    """The same tensors in one file, or in shards found in three ways."""
    if request.param == "file":
        return tensorhold.save(TENSORS, "a.safetensors")[0]
    os.mkdir("model")
    paths = tensorhold.save(TENSORS, "model/model.safetensors", max_shard_size=2500)
    assert len(paths) == 3 and paths[-1].endswith(".index.json")
    return {"index": paths[-1], "folder": "model", "list": paths[:-1]}[request.param]


def test_a_checkpoint_is_a_mapping_of_names_to_tensors(source: Any) -> None:
    with opened(source) as checkpoint:
        assert isinstance(checkpoint, Mapping)
        assert len(checkpoint) == 4
        assert set(checkpoint) == set(checkpoint.keys()) == set(TENSORS)
        assert "count" in checkpoint and "counts" not in checkpoint and 7 not in checkpoint
        assert same(dict(checkpoint.items()), TENSORS)
        assert checkpoint.get("counts") is None
        with pytest.raises(KeyError) as caught:
            checkpoint["counts"]
        assert isinstance(caught.value, SafetensorError) and caught.value.tensor == "counts"
        assert checkpoint == checkpoint and checkpoint in {checkpoint}


def test_all_that_the_headers_say_is_told(source: Any) -> None:
    with opened(source) as checkpoint:
        info = checkpoint.info("layer.1.weight")
        assert (info.name, info.dtype, info.shape) == ("layer.1.weight", "I16", (30, 20))
        assert info.offsets[1] - info.offsets[0] == info.size_bytes == 1200
        with open(info.file, "rb") as file:
            file.seek(info.position)
            assert file.read(1200) == checkpoint[info.name].tobytes()
        assert os.path.basename(info.file) in {os.path.basename(p) for p in checkpoint.files}
        assert all(os.path.isfile(path) for path in checkpoint.files)
        with pytest.raises(KeyError):
            checkpoint.info("counts")


def test_loaded_tensors_own_their_memory_and_outlive_the_files(source: Any) -> None:
    with opened(source) as checkpoint:
        done: list[tuple[int, int]] = []
        loaded = checkpoint.load(progress=lambda *bytes_done: done.append(bytes_done))
        some = checkpoint.load(["count", "layer.0.bias"])
        with pytest.raises(KeyError):
            checkpoint.load(["count", "counts"])
        for path in checkpoint.files:
            size = os.path.getsize(path)
            with open(path, "r+b") as file:
                file.write(b"\xff" * size)
    assert same(loaded, TENSORS)
    assert list(some) == ["count", "layer.0.bias"]
    assert done[-1] == (3688, 3688)
    loaded["count"][...] = 8


def test_a_stream_gives_one_tensor_at_a_time(source: Any) -> None:
    with opened(source) as checkpoint:
        stream = checkpoint.stream()
        name, first = next(stream)
        reference = weakref.ref(first)
        assert name == next(iter(checkpoint))
        del first
        assert same({name: TENSORS[name]} | dict(stream), TENSORS)
        assert reference() is None
        assert [name for name, _ in checkpoint.stream(["count"])] == ["count"]


@given(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5), st.data())
def test_slices_are_numpy_s_clamping_included(shape: tuple[int, ...], data: st.DataObject) -> None:
    array = np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape)
    tensorhold.save({"a": array}, "a.safetensors", durability="none")
    bounds = st.none() | st.integers(-8, 8)
    ranges = st.builds(slice, bounds, bounds, st.none() | st.sampled_from([-3, -1, 1, 2]))
    index = data.draw(
        hnp.basic_indices(shape, max_dims=6, allow_newaxis=True)
        | st.lists(ranges, max_size=len(shape)).map(tuple)
    )
    with opened() as checkpoint:
        part = checkpoint.slice("a")[index]
        assert checkpoint.slice("a").shape == shape and checkpoint.slice("a").dtype == "I32"
    assert np.shape(part) == np.shape(array[index]) and np.array_equal(part, array[index])


def test_an_index_that_does_not_fit_is_an_index_error() -> None:
    tensorhold.save(TENSORS, "a.safetensors")
    with opened() as checkpoint:
        part = checkpoint.slice("layer.0.bias")
        for index in (20, -21, (0, 0)):
            with pytest.raises(IndexError):
                part[index]


def test_a_closed_checkpoint_says_so_and_its_views_live_on() -> None:
    tensorhold.save(TENSORS, "a.safetensors")
    checkpoint = opened()
    view = checkpoint["layer.0.weight"]
    checkpoint.close()
    checkpoint.close()
    for act in (lambda: checkpoint["count"], lambda: list(checkpoint), checkpoint.load):
        with pytest.raises(ValueError, match="closed"):
            act()
    assert np.array_equal(view, TENSORS["layer.0.weight"])


@pytest.mark.parametrize("backend", ["auto", "mmap", "pread"])
def test_every_backend_gives_the_same(backend: str) -> None:
    tensorhold.save(TENSORS, "a.safetensors")
    with opened(backend=backend) as checkpoint:
        assert same(checkpoint, TENSORS) and same(checkpoint.load(), TENSORS)


@pytest.mark.parametrize(
    "options", [{"backend": "abacus"}, {"framework": "abacus"}, {"device": "abacus"}]
)
def test_an_argument_that_nobody_knows_is_told(options: dict[str, Any]) -> None:
    tensorhold.save(TENSORS, "a.safetensors")
    with pytest.raises(ValueError, match="abacus"):
        tensorhold.open("a.safetensors", **({"framework": "np"} | options))


@pytest.mark.parametrize("source", ["missing", "missing.safetensors", "missing.index.json"])
def test_a_source_that_is_not_there_is_told(source: str) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        opened(source)


def test_a_folder_without_weights_is_told() -> None:
    os.mkdir("empty")
    with pytest.raises(SafetensorError, match="empty"):
        opened("empty")


@pytest.mark.parametrize(
    "shard", ["../a.safetensors", "/etc/passwd", "sub/a.safetensors", "a\\b", "", "x\0y"]
)
def test_an_index_that_leads_out_of_its_folder_is_refused(shard: str) -> None:
    tensorhold.save(TENSORS, "a.safetensors")
    os.mkdir("model")
    index = {"metadata": {}, "weight_map": {"count": shard}}
    pathlib.Path("model/model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SafetensorError):
        opened("model/model.safetensors.index.json")


def test_a_shard_that_lacks_its_tensor_is_told() -> None:
    tensorhold.save(TENSORS, "a.safetensors")
    index = {"metadata": {}, "weight_map": {"counts": "a.safetensors"}}
    pathlib.Path("a.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SafetensorError, match="counts"):
        opened("a.safetensors.index.json")


def test_strict_refuses_what_the_reference_takes() -> None:
    data = file_bytes({"a": ("U8", (1,), b"\0")})
    text = data[8:-1].strip()
    spaced = b" " + text + b" " * (-(1 + len(text)) % 8)
    pathlib.Path("a.safetensors").write_bytes(len(spaced).to_bytes(8, "little") + spaced + b"\0")
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        opened()
    assert list(opened(strict=False)) == ["a"]
    with safe_open("a.safetensors", "np") as file:
        assert file.keys() == ["a"]


def test_shards_and_index_are_laid_out_as_hugging_face_has_them() -> None:
    paths = tensorhold.save(TENSORS, "model.safetensors", max_shard_size="2500B")
    assert paths == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    index = json.loads(pathlib.Path(paths[-1]).read_text())
    assert index["metadata"]["total_size"] == 3688
    assert set(index["weight_map"]) == set(TENSORS)
    for name, shard in index["weight_map"].items():
        with safe_open(shard, "np") as file:
            assert name in file.keys()  # noqa: SIM118


@pytest.mark.parametrize("size", ["2500B", "2.5kB", "2.5 KB", 2500, "2500"])
def test_sizes_are_numbers_or_have_units(size: Any) -> None:
    assert len(tensorhold.save(TENSORS, "m.safetensors", max_shard_size=size)) == 3


def test_units_are_of_a_thousand_or_of_1024() -> None:
    from tensorhold._arguments import to_size_bytes

    sizes = ("5GB", "5GiB", "1.5mib", "1TB", "9007199254740993")
    assert [to_size_bytes(size) for size in sizes] == [
        5 * 10**9,
        5 * 2**30,
        3 * 2**19,
        10**12,
        2**53 + 1,
    ]


@pytest.mark.parametrize("size", ["five", "5 apples", "-1", 0, "0", ""])
def test_what_is_no_size_is_told(size: Any) -> None:
    with pytest.raises(ValueError, match="is no size"):
        tensorhold.save(TENSORS, "m.safetensors", max_shard_size=size)
    assert os.listdir() == []


@pytest.mark.parametrize("max_shard_size", [None, 2500])
def test_pairs_from_an_iterator_give_what_the_mapping_gives(max_shard_size: int | None) -> None:
    pairs = iter(TENSORS.items())
    paths = tensorhold.save(pairs, "a.safetensors", max_shard_size=max_shard_size)
    assert same(opened(paths[-1]), TENSORS)


def test_an_iterator_is_never_ahead_by_more_than_a_tensor() -> None:
    alive: list[weakref.ref[Any]] = []
    most = 0

    def pairs() -> Any:
        nonlocal most
        for i in range(8):
            tensor = np.full(1000, i)
            alive.append(weakref.ref(tensor))
            yield f"t{i}", tensor
            del tensor
            most = max(most, sum(reference() is not None for reference in alive))

    tensorhold.save(pairs(), "a.safetensors")
    assert len(opened()) == 8
    assert most <= 2


def test_a_save_that_fails_midway_leaves_the_old_files() -> None:
    tensorhold.save({"a": np.zeros(1)}, "a.safetensors")
    before = pathlib.Path("a.safetensors").read_bytes()

    def pairs() -> Any:
        yield "a", np.ones(10_000)
        raise RuntimeError("power cut")

    for limit in (None, 1000):
        with pytest.raises(RuntimeError, match="power cut"):
            tensorhold.save(pairs(), "a.safetensors", max_shard_size=limit)
    assert pathlib.Path("a.safetensors").read_bytes() == before
    assert os.listdir() == ["a.safetensors"]


@pytest.mark.parametrize("align", [8, 64, 4096])
def test_the_data_begins_on_the_boundary_asked_for(align: int) -> None:
    tensorhold.save(TENSORS, "a.safetensors", align=align, metadata={"k": "v"})
    data = pathlib.Path("a.safetensors").read_bytes()
    assert (8 + int.from_bytes(data[:8], "little")) % align == 0
    with safe_open("a.safetensors", "np") as file:
        assert file.metadata() == {"k": "v"}
        assert same(file.get_tensors(), TENSORS)


@pytest.mark.parametrize("options", [{"align": 12}, {"align": 0}, {"durability": "much"}])
def test_an_option_out_of_range_is_told(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        tensorhold.save(TENSORS, "a.safetensors", **options)
    assert os.listdir() == []


@pytest.mark.parametrize("durability", ["none", "data", "full"])
def test_every_durability_writes_the_same(durability: Any) -> None:
    tensorhold.save(TENSORS, "a.safetensors", durability=durability)
    assert same(opened(), TENSORS)


def test_progress_ends_with_all_bytes_done() -> None:
    done: list[tuple[int, int | None]] = []
    tensorhold.save(TENSORS, "a.safetensors", progress=lambda *parts: done.append(parts))
    assert done[-1] == (3688, 3688)
    assert [count for count, _ in done] == sorted(count for count, _ in done)


def test_what_progress_raises_ends_the_save() -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tensorhold.save(TENSORS, "a.safetensors", progress=stop)
    assert os.listdir() == []


@pytest.mark.parametrize("value", [1.0, "text", None, [1, 2]])
def test_a_value_of_no_framework_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="`a` is no tensor of a framework that is known"):
        tensorhold.save({"a": value}, "a.safetensors")
    assert os.listdir() == []


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(SafetensorError, match="`a`"):
        tensorhold.save([("a", np.zeros(1)), ("a", np.ones(1))], "a.safetensors")
    assert os.listdir() == []


def test_tensors_of_several_frameworks_go_into_one_file() -> None:
    torch = pytest.importorskip("torch")
    jnp = pytest.importorskip("jax.numpy")
    mx = pytest.importorskip("mlx.core")
    mixed = {
        "torch": torch.nn.Parameter(torch.ones(2)),
        "numpy": np.ones(2, np.float32),
        "jax": jnp.ones(2),
        "mlx": mx.ones(2),
    }
    tensorhold.save(mixed, "a.safetensors")
    assert all(tensor.tolist() == [1.0, 1.0] for tensor in opened().load().values())


def test_torch_views_are_packed_and_shared_memory_refused() -> None:
    torch = pytest.importorskip("torch")
    square = torch.arange(6.0).reshape(2, 3)
    tensorhold.save({"t": square.T, "c": torch.tensor([1j]).conj()}, "a.safetensors")
    with tensorhold.open("a.safetensors") as checkpoint:
        assert torch.equal(checkpoint["t"], square.T)
        assert checkpoint["c"].tolist() == [-1j]
        assert checkpoint.load(device="meta")["t"].is_meta
    with pytest.raises(RuntimeError, match="share memory"):
        tensorhold.save({"a": square, "b": square[0]}, "b.safetensors")


def test_a_checkpoint_can_be_saved_again() -> None:
    tensorhold.save(TENSORS, "a.safetensors", metadata={"k": "v"})
    with opened() as checkpoint:
        tensorhold.save(checkpoint, "b.safetensors", metadata=checkpoint.metadata)
        tensorhold.save(checkpoint.stream(), "c.safetensors")
    for path in ("b.safetensors", "c.safetensors"):
        assert same(opened(path), TENSORS)
    assert opened("b.safetensors").metadata == {"k": "v"}
    read = [pathlib.Path(path).read_bytes() for path in ("a.safetensors", "b.safetensors")]
    assert read[0] == read[1]


@pytest.mark.parametrize("align", [2**32, 2**70, -8, 0, 24])
def test_an_alignment_out_of_range_is_a_wrong_argument(align: int) -> None:
    with pytest.raises(ValueError, match="power of two") as caught:
        tensorhold.save({"a": np.zeros(1)}, "a.safetensors", align=align)
    assert isinstance(caught.value, tensorhold.SafetensorError)


@pytest.mark.parametrize("size", [10**30, 2**64, -1, 0, 2.5, 5e9, True, "99999999TB"])
def test_a_size_that_no_shard_can_have_is_a_wrong_argument(size: Any) -> None:
    with pytest.raises(ValueError, match="is no size") as caught:
        tensorhold.save({"a": np.zeros(1)}, "a.safetensors", max_shard_size=size)
    assert isinstance(caught.value, tensorhold.SafetensorError)


def test_a_size_of_shards_may_be_any_whole_number() -> None:
    for size in (np.int64(100), 2**64 - 1, "1.5kB"):
        written = tensorhold.save({"a": np.zeros(1)}, "a.safetensors", max_shard_size=size)
        assert written == ["a.safetensors"]
