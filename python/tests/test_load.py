"""Loading by the engine: parts, given tensors, casts, streams, and loaders in the background."""

from __future__ import annotations

import gc
import os
import resource
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorhold

TENSORS = {
    "embed": torch.randn(1200, 900),
    "half": torch.randn(700, 64).half(),
    "brain": torch.randn(2000, 333).bfloat16(),
    "double": torch.randn(55, dtype=torch.float64),
    "eighth": torch.randn(64, 64).to(torch.float8_e4m3fn),
    "ids": torch.arange(1000),
    "flags": torch.tensor([True, False]),
    "empty": torch.empty(0, 3),
    "scalar": torch.tensor(2.5),
}


@pytest.fixture(scope="module", params=["one file", "shards"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("load")
    if request.param == "one file":
        tensorhold.save(TENSORS, folder / "model.safetensors", durability="none")
    else:
        tensorhold.save(TENSORS, folder, max_shard_size="1MB", durability="none")
    return folder


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(
        a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8)
    )


@pytest.mark.parametrize("backend", ["auto", "mmap", "pread", "direct"])
@pytest.mark.parametrize("threads", [None, 1, 3])
def test_every_backend_loads_the_same(source: Path, backend: str, threads: int | None) -> None:
    with tensorhold.open(source, backend=backend) as checkpoint:
        loaded = checkpoint.load(threads=threads)
        stats = checkpoint.stats
    assert list(loaded) == list(checkpoint_names(source))
    assert all(equal(loaded[name], TENSORS[name]) for name in TENSORS)
    assert stats is not None
    assert stats.wanted_bytes == sum(tensor.nbytes for tensor in TENSORS.values())
    assert stats.read_bytes >= stats.wanted_bytes
    assert set(stats.ways) <= {"mapped", "copied", "buffered", "direct"}
    storages = {tensor.untyped_storage().data_ptr() for tensor in loaded.values() if tensor.nbytes}
    assert len(storages) == len(TENSORS) - 1
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in loaded.values())


def checkpoint_names(source: Path) -> list[str]:
    with tensorhold.open(source) as checkpoint:
        return list(checkpoint)


def test_a_mapping_of_names_gives_parts(source: Path) -> None:
    parts: dict[str, Any] = {
        "embed": np.s_[:, 100:200],
        "brain": np.s_[::-7, ::3],
        "half": 5,
        "ids": None,
        "empty": np.s_[..., :2],
        "flags": np.s_[:, None],
    }
    with tensorhold.open(source) as checkpoint:
        loaded = checkpoint.load(parts)
        streamed = dict(checkpoint.stream(parts))
    assert list(loaded) == list(streamed) == list(parts)
    for name, index in parts.items():
        whole = TENSORS[name].view(torch.int16) if name == "brain" else TENSORS[name]
        expected = whole.numpy() if index is None else whole.numpy()[index]
        for tensor in (loaded[name], streamed[name]):
            assert tensor.dtype == TENSORS[name].dtype
            found = tensor.view(torch.int16) if name == "brain" else tensor
            np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e5m2]
)
def test_floats_are_cast_as_torch_casts_them(source: Path, dtype: torch.dtype) -> None:
    with tensorhold.open(source) as checkpoint:
        loaded = checkpoint.load(dtype=dtype)
        part = checkpoint.load({"embed": np.s_[7::5, ::2]}, dtype=dtype)["embed"]
    for name, tensor in TENSORS.items():
        expected = tensor.to(dtype) if tensor.is_floating_point() else tensor
        assert equal(loaded[name], expected), name
    assert equal(part, TENSORS["embed"][7::5, ::2].to(dtype))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("bfloat16", torch.bfloat16),
        ("BF16", torch.bfloat16),
        (torch.bfloat16, torch.bfloat16),
        (np.dtype("float16"), torch.float16),
        (np.float16, torch.float16),
    ],
)
def test_a_dtype_is_named_as_any_framework_names_it(
    source: Path, dtype: Any, expected: torch.dtype
) -> None:
    with tensorhold.open(source) as checkpoint:
        assert checkpoint.load(["half"], dtype=dtype)["half"].dtype == expected


def test_a_dtype_that_nobody_has_is_refused(source: Path) -> None:
    with (
        tensorhold.open(source) as checkpoint,
        pytest.raises(ValueError, match="dtype `float12` is none that a file can hold"),
    ):
        checkpoint.load(dtype="float12")


def test_given_tensors_are_filled_and_given_back(source: Path) -> None:
    model = torch.nn.Embedding(1200, 900)
    into = {
        "embed": model.weight,
        "half": np.zeros((700, 64), np.float32),
        "ids": torch.zeros(1000, dtype=torch.int64),
        "empty": torch.empty(0, 3),
    }
    address = model.weight.data_ptr()
    with tensorhold.open(source) as checkpoint:
        loaded = checkpoint.load(into=into)
    assert loaded["embed"] is model.weight
    assert model.weight.data_ptr() == address
    assert torch.equal(model.weight.detach(), TENSORS["embed"])
    assert np.array_equal(into["half"], TENSORS["half"].float().numpy())
    assert torch.equal(into["ids"], TENSORS["ids"])
    assert equal(loaded["brain"], TENSORS["brain"])


def test_tensors_that_cannot_be_filled_are_refused_untouched(source: Path) -> None:
    same = torch.zeros(1200, 900)
    wide = torch.zeros(1200, 1000)
    pairs = torch.zeros(2000, 2, 333)
    frozen = np.zeros(1000, np.int64)
    frozen.flags.writeable = False
    refused: list[tuple[dict[str, Any], str]] = [
        ({"embed": torch.zeros(900, 1200)}, r"has shape \[900, 1200\], not \[1200, 900\]"),
        ({"embed": torch.zeros(900, 1200).T[:, :9]}, r"has shape \[1200, 9\], not"),
        ({"embed": torch.zeros(1200, 1).expand(1200, 900)}, "more than one element in a single"),
        ({"embed": torch.zeros(9000).as_strided((1200, 900), (2, 1))}, "more than one element"),
        (
            {"embed": np.broadcast_to(np.float32(0), (1200, 900))},
            "no memory that can be",
        ),
        ({"embed": torch.zeros(1200, 900, dtype=torch.int32)}, "to which F32 cannot be cast"),
        ({"ids": torch.zeros(1000, device="meta")}, "is no memory that can be written to"),
        ({"ids": frozen}, "is no memory that can be written to"),
        ({"ids": [0] * 1000}, "cannot be written to"),
        ({"nothing": same}, "which is not to be loaded"),
        ({"embed": same, "half": same.view(torch.float16)[:700, :64]}, "share memory"),
        ({"brain": pairs[:, 0], "embed": pairs[:1200, 1, :].flip(0)[:, 0:0]}, "has shape"),
        ({"embed": wide[:, 5:905], "scalar": wide[3, 904]}, "share memory: `embed` and `scalar`"),
        ({"embed": wide[:, 5:905], "half": wide[100:800, 840:904]}, "share memory"),
        ({"embed": same, "scalar": same[0, 0]}, "share memory"),
    ]
    with tensorhold.open(source) as checkpoint:
        for into, message in refused:
            with pytest.raises(ValueError, match=message):
                checkpoint.load(into=into)
    assert not same.any() and not wide.any() and not pairs.any()


@pytest.mark.parametrize("framework", ["pt", "np"])
@pytest.mark.parametrize("threads", [None, 1, 3])
def test_views_are_filled_and_what_lies_between_stays(
    source: Path, framework: str, threads: int | None
) -> None:
    fused = torch.full((1200, 2000), -7.0)
    ids = np.full((1000, 3), -7, ">i8")
    brain = torch.full((333, 2, 2000), -7, dtype=torch.bfloat16)
    eighth = torch.full((64, 65), 0x77, dtype=torch.uint8)
    into = {
        "embed": fused[:, 50:950],
        # Between the columns of another, and dense.
        "half": fused[:700, 1000:1064],
        "scalar": fused[3, 960],
        "ids": ids[::-1, 1],
        "brain": brain[:, 1].T,
        "eighth": eighth.view(torch.float8_e4m3fn)[:, 1:],
        "flags": np.zeros((2, 2), bool)[:, 0],
    }
    with tensorhold.open(source, framework=framework) as checkpoint:
        loaded = checkpoint.load(list(into), into=into, threads=threads)
    assert list(loaded) == list(into)
    assert all(loaded[name] is tensor for name, tensor in into.items())
    expected = torch.full((1200, 2000), -7.0)
    expected[:, 50:950] = TENSORS["embed"]
    expected[:700, 1000:1064] = TENSORS["half"].float()
    expected[3, 960] = TENSORS["scalar"]
    assert torch.equal(fused, expected)
    assert np.array_equal(ids[::-1, 1], TENSORS["ids"].numpy())
    assert (ids[:, ::2] == -7).all()
    assert equal(brain[:, 1].T, TENSORS["brain"])
    assert (brain[:, 0] == -7).all()
    assert equal(eighth[:, 1:].contiguous().view(torch.float8_e4m3fn), TENSORS["eighth"])
    assert (eighth[:, 0] == 0x77).all()
    assert into["flags"].tolist() == TENSORS["flags"].tolist()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_view_is_filled_alone(data: st.DataObject, tmp_path_factory: Any) -> None:
    shape = data.draw(st.lists(st.integers(0, 5), max_size=3).map(tuple))
    number = st.sampled_from([np.float32, np.float16, np.float64])
    stored = data.draw(number)
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(stored)
    path = tmp_path_factory.mktemp("views") / "x.safetensors"
    tensorhold.save({"x": values}, path, durability="none")

    order = data.draw(st.permutations(range(len(shape))))
    steps = [data.draw(st.sampled_from([1, 2, 3])) for _ in shape]
    starts = [data.draw(st.integers(0, 2)) for _ in shape]
    larger = np.full(
        [starts[axis] + shape[axis] * steps[axis] for axis in order], -1, data.draw(number)
    )
    index = tuple(
        slice(starts[axis], starts[axis] + shape[axis] * steps[axis], steps[axis]) for axis in order
    )
    is_torch = data.draw(st.booleans())
    owner: Any = torch.from_numpy(larger) if is_torch else larger
    back = [order.index(axis) for axis in range(len(shape))]
    part = owner[(*index, ...)]
    view = part.permute(back) if is_torch else part.transpose(back)
    with tensorhold.open(path, framework=data.draw(st.sampled_from(["pt", "np"]))) as checkpoint:
        assert checkpoint.load(into={"x": view})["x"] is view

    expected = np.full(larger.shape, -1, larger.dtype)
    expected[index] = values.transpose(order).astype(larger.dtype)
    np.testing.assert_array_equal(larger, expected)


def test_what_views_are_filled_from_is_held_for_a_moment(tmp_path: Path) -> None:
    n, rows, columns = 40, 1024, 2048
    pairs = ((f"x{number}", torch.full((rows, columns), float(number))) for number in range(n))
    tensorhold.save(pairs, tmp_path / "x.safetensors", durability="none")
    fused = torch.ones(rows, n * columns)
    into = {f"x{number}": fused[:, number * columns :][:, :columns] for number in range(n)}
    tensorhold.empty_cache()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tensorhold.open(tmp_path / "x.safetensors", backend="pread") as checkpoint:
        checkpoint.load(into=into)
    assert all((into[f"x{number}"] == number).all() for number in range(n))
    # A second copy of all would be 320 MiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_a_part_of_a_tensor_goes_into_a_view(source: Path) -> None:
    half = torch.zeros(2400, 500, dtype=torch.bfloat16)
    into = {"embed": half[::2, 25:475]}
    with tensorhold.open(source) as checkpoint:
        checkpoint.load({"embed": np.s_[:, ::2]}, into=into)
    assert equal(half[::2, 25:475], TENSORS["embed"][:, ::2].bfloat16())
    assert not half[1::2].any() and not half[:, :25].any() and not half[:, 475:].any()


@pytest.mark.parametrize("memory_limit", [1, "500kB", "1GiB"])
def test_a_stream_gives_what_was_asked_in_that_order(source: Path, memory_limit: int | str) -> None:
    names = ["scalar", "brain", "empty", "embed", "flags"]
    with tensorhold.open(source) as checkpoint:
        streamed = []
        for name, tensor in checkpoint.stream(names, memory_limit=memory_limit, threads=2):
            assert equal(tensor, TENSORS[name])
            streamed.append(name)
        assert checkpoint.stats is not None
    assert streamed == names


def test_a_stream_that_is_left_ends_its_threads(source: Path) -> None:
    before = n_threads()
    with tensorhold.open(source) as checkpoint:
        for _ in range(5):
            stream = checkpoint.stream(threads=3, memory_limit=1)
            next(iter(stream))
            del stream
    gc.collect()
    assert n_threads() == before


def n_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def test_a_plan_can_be_printed_and_counted(source: Path) -> None:
    with tensorhold.open(source) as checkpoint:
        plan = checkpoint.plan({"embed": np.s_[:, :9], "ids": None}, dtype="BF16")
    assert len(plan) == 2
    assert plan.size_bytes == 1200 * 9 * 2 + 8000
    lines = str(plan).splitlines()
    assert "embed F32 as BF16 [1200, 9] of [1200, 900] -> buffer 0 at 0, 21600 bytes" in lines[0]
    assert lines[-1].endswith("2 buffers, 29600 bytes")


def test_kept_memory_can_be_given_back_and_bounded(tmp_path: Path) -> None:
    tensorhold.save({"x": torch.ones(10_000_000)}, tmp_path / "x.safetensors", durability="none")
    with tensorhold.open(tmp_path / "x.safetensors") as checkpoint:
        tensorhold.empty_cache()
        checkpoint.load()
        assert tensorhold.empty_cache() >= 40_000_000
        tensorhold.set_cache_limit(0)
        checkpoint.load()
        assert tensorhold.empty_cache() == 0
        tensorhold.set_cache_limit(256 << 20)


def test_another_thread_runs_while_bytes_move(tmp_path: Path) -> None:
    tensorhold.save({"x": torch.ones(60_000_000)}, tmp_path / "x.safetensors", durability="none")
    counts = []
    done = threading.Event()

    def count() -> None:
        n = 0
        while not done.is_set():
            n += 1
        counts.append(n)

    thread = threading.Thread(target=count)
    thread.start()
    with tensorhold.open(tmp_path / "x.safetensors") as checkpoint:
        tensor = checkpoint.load()["x"]
    done.set()
    thread.join()
    assert counts[0] > 1000
    assert tensor.sum().item() == 60_000_000


class TestPrefetch:
    """`safe_open(...).prefetch`, as in safetensors 0.9, also on the host."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        tensorhold.torch.save_file(TENSORS, tmp_path / "x.safetensors")
        return tmp_path / "x.safetensors"

    def test_all_tensors_come_once(self, path: Path) -> None:
        with tensorhold.safe_open(path, "pt") as file, file.prefetch() as loader:
            assert loader.names() == file.offset_keys()
            assert len(loader) == len(TENSORS)
            first = loader.take("brain")
            others = dict(loader)
            with pytest.raises(ValueError, match="brain: tensor already delivered"):
                loader.take("brain")
        assert equal(first, TENSORS["brain"])
        assert set(others) == set(TENSORS) - {"brain"}
        assert all(equal(others[name], TENSORS[name]) for name in others)

    def test_a_plan_gives_rows_and_any_other_slices(self, path: Path) -> None:
        plan = {
            "embed": slice(-3, 1200),
            "half": (slice(None), slice(8, 16)),
            "ids": slice(3, 3),
            "scalar": None,
        }
        with tensorhold.safe_open(path, "pt").prefetch(plan, device="cpu", threads=2) as loader:
            assert set(loader.names()) == set(plan)
            tensors = dict(loader)
        assert equal(tensors["embed"], TENSORS["embed"][-3:])
        assert equal(tensors["half"], TENSORS["half"][:, 8:16])
        assert tensors["ids"].shape == (0,)
        assert equal(tensors["scalar"], TENSORS["scalar"])

    @pytest.mark.parametrize(
        ("plan", "message"),
        [
            ({"nope": None}, "File does not contain tensor nope"),
            ({3: None}, "prefetch plan keys must be tensor names"),
            ({"embed": 3}, "prefetch plan values must be None or a slice"),
            ({"embed": slice(0, 1201)}, "stop 1201 for embed is out of range for 1200 rows"),
            ({"embed": slice(-1201, 3)}, "start -1201 for embed is out of range for 1200 rows"),
            ({"embed": slice(0, 3, 0)}, "invalid prefetch plan slice for embed"),
            ({"embed": slice("a", 3)}, "slice bounds for embed must be integers or None"),
            ({"scalar": slice(0, 1)}, "cannot slice rows of the 0-d tensor scalar"),
            ({}, "prefetch plan selects no tensors"),
        ],
    )
    def test_a_wrong_plan_is_refused_before_reading(
        self, path: Path, plan: dict[Any, Any], message: str
    ) -> None:
        with (
            tensorhold.safe_open(path, "pt") as file,
            pytest.raises(tensorhold.SafetensorError, match=message),
        ):
            file.prefetch(plan)

    def test_six_bits_come_as_packed_bytes(self, tmp_path: Path) -> None:
        header = b'{"x":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}'
        path = tmp_path / "f6.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(3))
        with tensorhold.safe_open(path, "pt") as file, file.prefetch() as loader:
            assert equal(loader.take("x"), torch.zeros(3, dtype=torch.uint8))

    def test_a_loader_outlives_its_file_and_ends_when_closed(self, path: Path) -> None:
        loader = tensorhold.safe_open(path, "pt").prefetch()
        assert equal(loader.take("ids"), TENSORS["ids"])
        with pytest.raises(KeyError, match="tensor nope is not in the prefetch plan"):
            loader.take("nope")
        loader.close()
        loader.close()
        for use in (lambda: loader.take("embed"), lambda: next(loader), loader.names):
            with pytest.raises(tensorhold.SafetensorError, match="prefetch loader closed"):
                use()

    def test_threads_share_a_loader(self, path: Path) -> None:
        with tensorhold.safe_open(path, "pt").prefetch(threads=2) as loader:
            found: dict[str, torch.Tensor] = {}
            threads = [
                threading.Thread(target=lambda: found.update(dict(loader))) for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert set(found) == set(TENSORS)

    def test_the_header_of_one_tensor(self, path: Path) -> None:
        with tensorhold.safe_open(path, "np") as file:
            meta = file.get_tensor_meta("half")
            assert (meta.dtype, meta.shape) == ("F16", [700, 64])
            start, end = meta.data_offsets
            assert end - start == 700 * 64 * 2
            with pytest.raises(KeyError, match="File does not contain tensor nope"):
                file.get_tensor_meta("nope")
