"""Loads under faults: failing system calls, files that change, loads that are given up, forks."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tensorhold
from tensorhold import SafetensorError, safe_open

ISOLATED = Path(__file__).parent / "isolated"

BACKENDS = ["auto", "mmap", "pread", "direct"]

CANNOT_TRACE = 77


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ISOLATED / program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_failing_system_call_gives_an_error_or_the_right_bytes(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    # All, which take ten minutes, with TENSORHOLD_ALL_FAULTS=1.
    n_loads = 0 if os.environ.get("TENSORHOLD_ALL_FAULTS") else 300
    done = run("faulty_load.py", tmp_path, n_loads)
    if done.returncode == CANNOT_TRACE:
        pytest.skip(f"no process can be traced here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["problems"] == []
    assert result["struck"] >= (n_loads or result["cases"]) * 0.8
    assert any(ending.startswith("refused") for ending in result["endings"])
    assert result["endings"]["right"] > 0


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that is not loaded in an instant."""
    path = tmp_path_factory.mktemp("faults") / "large.safetensors"
    tensorhold.save(TENSORS, path, durability="none")
    return path


TENSORS = {f"t{n}": np.full((600, 1000), n, np.uint32) for n in range(24)}


def is_right(name: str, tensor: np.ndarray) -> bool:
    return bool(np.array_equal(tensor, TENSORS[name]))


def holds() -> tuple[int, int]:
    """The descriptors and threads of this process."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def assert_comes_down_to(expected: tuple[int, int]) -> None:
    deadline = time.monotonic() + 5
    while (now := holds()) > expected and time.monotonic() < deadline:
        time.sleep(0.001)
    assert now <= expected


needs_proc = pytest.mark.skipif(
    not os.path.isdir("/proc/self/task"), reason="needs Linux's /proc to count descriptors"
)


@needs_proc
@pytest.mark.parametrize("backend", BACKENDS)
def test_streams_given_up_at_any_moment_leave_nothing(large: Path, backend: str) -> None:
    chance = random.Random(backend)
    before = holds()
    for _ in range(100):
        with tensorhold.open(large, framework="np", backend=backend) as checkpoint:
            limit = chance.choice(["1B", "5MB", "1GB"])
            stream = checkpoint.stream(memory_limit=limit, threads=chance.randint(1, 4))
            for _ in range(chance.randint(0, 4)):
                name, tensor = next(stream)
                assert is_right(name, tensor)
            time.sleep(chance.random() * 0.002)
            if chance.random() < 0.5:
                stream.close()
            del stream
    assert_comes_down_to(before)


@needs_proc
def test_a_loader_closed_by_another_thread_ends_who_waits(large: Path) -> None:
    chance = random.Random(0)
    before = holds()
    endings: set[str] = set()

    def drain(loader: object) -> None:
        try:
            for name, tensor in loader:  # type: ignore[attr-defined]
                assert is_right(name, tensor)
            endings.add("all")
        except SafetensorError as error:
            endings.add(error.kind)

    for _ in range(100):
        with safe_open(large, "np", backend=chance.choice(["mmap", "pread"])) as file:
            loader = file.prefetch(None, threads=chance.randint(1, 4))
            consumers = [threading.Thread(target=drain, args=[loader]) for _ in range(2)]
            for consumer in consumers:
                consumer.start()
            time.sleep(chance.random() * 0.01)
            loader.close()
            for consumer in consumers:
                consumer.join(timeout=20)
                assert not consumer.is_alive()
    assert endings <= {"all", "Closed"}
    assert "Closed" in endings
    assert_comes_down_to(before)


@needs_proc
def test_a_load_ended_by_its_progress_leaves_nothing(large: Path) -> None:
    class EnoughError(Exception):
        pass

    chance = random.Random(0)
    before = holds()
    for _ in range(100):
        stop = chance.randint(1, 24) * 2_400_000

        def progress(done: int, total: int, stop: int = stop) -> None:
            if done >= stop:
                raise EnoughError

        backend = chance.choice(BACKENDS)
        with (
            tensorhold.open(large, framework="np", backend=backend) as checkpoint,
            pytest.raises(EnoughError),
        ):
            checkpoint.load(progress=progress, threads=chance.randint(1, 4))
    assert_comes_down_to(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_children_forked_while_bytes_move_load_by_themselves(large: Path) -> None:
    done = run("forking_load.py", large, 60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("backend", ["auto", "pread", "direct"])
def test_a_stream_holds_no_more_than_its_limit(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "sparse.safetensors"
    make_sparse(path, n_tensors=256, size_bytes=8 << 20)
    done = run("peak_memory.py", path, backend, "64MiB")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["bytes"] == 2 << 30
    # The loop lets go of a tensor once it has the next; and threads read through some blocks.
    assert result["peak_bytes"] < (64 + 2 * 8 + 16) << 20, result


def make_sparse(path: Path, n_tensors: int, size_bytes: int) -> None:
    """A checkpoint of zeros that takes no room on the disk."""
    header = {
        f"t{n:05}": {
            "dtype": "U8",
            "shape": [size_bytes],
            "data_offsets": [n * size_bytes, (n + 1) * size_bytes],
        }
        for n in range(n_tensors)
    }
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 4096)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + n_tensors * size_bytes)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_replaced_or_removed_meanwhile_gives_its_old_bytes(
    tmp_path: Path, backend: str
) -> None:
    path = tmp_path / "a.safetensors"
    other = {name: np.zeros_like(tensor) for name, tensor in TENSORS.items()}
    tensorhold.save(TENSORS, path, durability="none")
    changes: list[Callable[[], object]] = [
        lambda: tensorhold.save(other, path, durability="none"),
        lambda: path.unlink(),
    ]
    for change in changes:
        tensorhold.save(TENSORS, path, durability="none")
        with tensorhold.open(path, framework="np", backend=backend) as checkpoint:
            stream = checkpoint.stream(memory_limit="5MB")
            taken = [next(stream)]
            change()
            taken += list(stream)
            assert all(is_right(name, tensor) for name, tensor in taken)
            assert all(is_right(name, tensor) for name, tensor in checkpoint.load().items())
