"""Where the device has the host's memory, a load leaves nothing in the page cache.

Nothing is shown where the system does not tell what is cached, or keeps the file in memory alone.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from devices.double import Double
from devices.test_processes import run

import tensorhold

N_TENSORS = 8
TENSOR_BYTES = 32 << 20
CACHESTAT = 451


def cached(path: Path) -> float:
    """The part of the file that the page cache holds; -1 where nobody tells."""
    counts = _counts(path)
    return -1 if counts is None else counts[0] / _n_pages(path)


def is_left_alone(path: Path) -> bool:
    """Whether nobody has given pages of the file back since it was read.

    The system itself may take idle ones at any time. It remembers those that it took
    (`nr_evicted`), and not those that a program gave back.
    """
    counts = _counts(path)
    return counts is not None and counts[0] + counts[3] == _n_pages(path)


def _counts(path: Path) -> list[int] | None:
    """Pages of the file: cached, dirty, under write, evicted, recently evicted."""
    extent, counts = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        failed = ctypes.CDLL(None).syscall(CACHESTAT, descriptor, extent, counts, 0)
    finally:
        os.close(descriptor)
    return None if failed else list(counts)


def _n_pages(path: Path) -> int:
    return -(-path.stat().st_size // os.sysconf("SC_PAGE_SIZE"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("unified") / "model.safetensors"
    values = torch.arange(TENSOR_BYTES // 4, dtype=torch.int32).reshape(2048, -1)
    tensorhold.save({f"layers.{n}": values + n for n in range(N_TENSORS)}, path)
    yield path
    path.unlink()


@pytest.fixture
def model(saved: Path) -> Path:
    """The file, all of it in the page cache."""
    saved.read_bytes()
    assert cached(saved) == -1 or is_left_alone(saved)
    return saved


@pytest.fixture(scope="module")
def tells(saved: Path) -> bool:
    """Whether what is cached can be told, and given back."""
    descriptor = os.open(saved, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    return 0 <= cached(saved) < 0.02


def load(path: Path, way: str, backend: str = "auto") -> None:
    """Loads the tensors, or the middle of their columns, and looks at each."""
    columns = slice(1024, 3072) if way == "columns" else slice(None)
    with tensorhold.open(path, backend=backend) as checkpoint:
        wanted = {name: (slice(None), columns) for name in checkpoint}
        if way == "stream":
            tensors = checkpoint.stream(device="cuda:0", memory_limit="64MB")
        else:
            tensors = iter(checkpoint.load(wanted, device="cuda:0").items())
        for name, tensor in tensors:
            number = int(name.removeprefix("layers."))
            row = TENSOR_BYTES // 4 // 2048
            expected = torch.arange(row, dtype=torch.int32)[columns] + number
            assert torch.equal(tensor[0], expected)
            assert torch.equal(tensor[-1], expected + 2047 * row)


@pytest.mark.parametrize("way", ["load", "columns", "stream"])
def test_a_load_gives_the_page_cache_back(
    way: str, model: Path, tells: bool, double: Double
) -> None:
    load(model, way)
    assert not tells or is_left_alone(model)
    double.configure("integrated=1")
    load(model, way)
    assert not tells or cached(model) < 0.02
    # What is not there any more is not brought there.
    load(model, way)
    assert not tells or cached(model) < 0.02


def test_a_backend_that_was_named_is_as_it_is_named(
    model: Path, tells: bool, double: Double
) -> None:
    double.configure("integrated=1")
    load(model, "load", backend="pread")
    assert not tells or is_left_alone(model)


def test_a_load_takes_no_more_than_its_tensors_and_a_small_ring(model: Path) -> None:
    Path("model.safetensors").symlink_to(model)
    program = """
def memory(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(name))
before = memory("VmRSS")
tensors = load()
print(memory("VmHWM") - before - sum(tensor.nbytes for tensor in tensors.values()))
print(tensorhold.pinned_memory().limit_bytes, tensorhold.pinned_memory().pinned_bytes)
"""
    extra, limit, pinned = map(int, run(program, TENSORHOLD_DOUBLE="integrated=1").split())
    assert limit == 64 << 20
    assert pinned <= limit
    assert extra < limit + (96 << 20)
