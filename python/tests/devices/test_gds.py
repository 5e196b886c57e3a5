"""`backend="gds"` gives the bytes that every backend gives, and says how they came."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import DTYPES, file_bytes, values
from devices.double import Double

import tensorhold
import tensorhold.torch

TESTS = Path(__file__).parent.parent
IS_HIP = "hip" in os.path.basename(os.environ.get("TENSORHOLD_RUNTIME", ""))
CODES = [code for code in DTYPES if code in tensorhold.torch._TYPES]
LARGE_BYTES = 3 << 20


def octets(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(octets(found[name]), octets(tensor)), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with a large tensor of every type, at any position, and small ones between."""
    folder = tmp_path_factory.mktemp("gds")
    for shard in range(2):
        tensors: dict[str, tuple[str, tuple[int, ...], Any]] = {}
        for code in CODES[shard::2]:
            n_elements = LARGE_BYTES * 8 // DTYPES[code][0] // 6 * 6
            tensors[f"{code}.small"] = ("U8", (3,), values("U8", 3))
            tensors[f"{code}.large"] = (code, (n_elements // 6, 6), values(code, n_elements))
        (folder / f"{shard}.safetensors").write_bytes(file_bytes(tensors))
    return folder


@pytest.fixture
def expected(folder: Path) -> dict[str, torch.Tensor]:
    with tensorhold.open(folder) as checkpoint:
        return checkpoint.load()


@pytest.fixture
def checkpoint(folder: Path) -> Iterator[tensorhold.Checkpoint]:
    with tensorhold.open(folder, backend="gds") as checkpoint:
        yield checkpoint


def gds(checkpoint: tensorhold.Checkpoint) -> Any:
    assert checkpoint.stats is not None
    return checkpoint.stats.gds


def large_bytes(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for name, tensor in tensors.items() if name.endswith("large"))


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_every_type_arrives_and_large_tensors_go_past_the_host(
    threads: int,
    checkpoint: tensorhold.Checkpoint,
    expected: dict[str, torch.Tensor],
    device: str,
    double: Double,
) -> None:
    assert_equal(checkpoint.load(device=device, threads=threads), expected)
    stats = gds(checkpoint)
    assert stats.read_bytes == large_bytes(expected)
    assert double.report()["storage"]["bytes"] == stats.read_bytes
    assert double.report()["storage"]["files"] == 0
    assert stats.is_direct is (None if IS_HIP else True)
    assert (stats.reason is None) is not IS_HIP
    assert repr(stats).startswith(f"GdsStats(read_bytes={stats.read_bytes}, is_direct=")
    # What went through the ring is the rest.
    copied = double.report()["copied"]["host_to_device"]["bytes"]
    assert copied < 1 << 20


def test_a_stream_and_a_prefetch_go_the_same_way(
    checkpoint: tensorhold.Checkpoint,
    expected: dict[str, torch.Tensor],
    folder: Path,
    device: str,
    double: Double,
) -> None:
    found = dict(checkpoint.stream(device=device, memory_limit="8MB"))
    assert_equal(found, expected)
    assert gds(checkpoint).read_bytes == large_bytes(expected)
    path = folder / "0.safetensors"
    with (
        tensorhold.safe_open(path, "pt", device=device, backend="gds") as file,
        file.prefetch() as loader,
    ):
        found = dict(loader)
        assert found.keys() == set(file.keys())
        assert loader.stats().gds.read_bytes == large_bytes(found)
        assert_equal(found, {name: expected[name] for name in found})
        name = next(name for name in found if name.endswith("large"))
        double.reset()
        assert_equal({name: file.get_tensor(name)}, {name: expected[name]})
        assert double.report()["storage"]["bytes"] == expected[name].nbytes
    loaded = tensorhold.torch.load_file(path, device=device, backend="gds")
    assert_equal(loaded, {name: expected[name] for name in loaded})


def test_what_is_not_asked_for_is_not_told(
    folder: Path, expected: dict[str, torch.Tensor], device: str, double: Double
) -> None:
    for backend in ["auto", "mmap", "pread", "direct"]:
        with tensorhold.open(folder, backend=backend) as checkpoint:
            assert_equal(checkpoint.load(device=device), expected)
            assert gds(checkpoint) is None
    calls = double.report()["calls"]
    assert not [name for name in calls if name.startswith("File")]


def test_the_host_parts_casts_and_small_tensors_go_as_ever(
    checkpoint: tensorhold.Checkpoint,
    expected: dict[str, torch.Tensor],
    device: str,
    double: Double,
) -> None:
    part = np.s_[2:900_000:3, 1:5]
    assert_equal(checkpoint.load(), expected)
    assert_equal(
        checkpoint.load({"F32.large": part}, device=device),
        {"F32.large": expected["F32.large"][part]},
    )
    assert_equal(
        checkpoint.load(["F32.large"], device=device, dtype=torch.float16),
        {"F32.large": expected["F32.large"].to(torch.float16)},
    )
    checkpoint.load(["F32.small"], device=device)
    stats = gds(checkpoint)
    assert (stats.read_bytes, stats.is_direct) == (0, False)
    assert stats.reason == "no large tensor went whole to a device"
    assert double.report()["storage"]["reads"] == 0


def test_a_load_onto_several_places_takes_each_its_way(
    checkpoint: tensorhold.Checkpoint, expected: dict[str, torch.Tensor], double: Double
) -> None:
    names = [name for name in expected if name.endswith("large")]
    random.Random(1).shuffle(names)
    places = {name: ["cuda:0", "cuda:1", "cpu"][n % 3] for n, name in enumerate(names)}
    found = checkpoint.load(list(expected), device=places | {"*": "cuda:1"})
    assert_equal(found, expected)
    sent = sum(expected[name].nbytes for name, place in places.items() if place != "cpu")
    assert gds(checkpoint).read_bytes == sent


def test_tensors_that_are_there_are_filled(
    checkpoint: tensorhold.Checkpoint,
    expected: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # PyTorch takes the tensors to fill for the host's.
    monkeypatch.setattr(tensorhold.torch, "_copied_to", lambda tensor: "cuda:0")
    into = {"F32.large": torch.zeros_like(expected["F32.large"])}
    checkpoint.load(["F32.large"], into=into)
    assert torch.equal(octets(into["F32.large"]), octets(expected["F32.large"]))
    assert gds(checkpoint).read_bytes == into["F32.large"].nbytes


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("FileHandleRegister:0:5008", "File.*Register.*code 5008"),
        ("FileRead:0:5030", "FileRead.*code 5030"),
        ("FileRead:2:5030", "FileRead.*code 5030"),
        ("FileRead:1:5", "FileRead.*Input/output error"),
    ],
)
def test_what_fails_goes_through_the_ring(
    fault: str,
    words: str,
    checkpoint: tensorhold.Checkpoint,
    expected: dict[str, torch.Tensor],
    device: str,
    double: Double,
) -> None:
    # Once the library is started.
    checkpoint.load(device=device)
    double.configure(f"fail={fault}")
    assert_equal(checkpoint.load(device=device), expected)
    double.configure("fail=")
    stats = gds(checkpoint)
    assert stats.read_bytes < large_bytes(expected)
    assert ".safetensors: `" in stats.reason
    assert re.search(words, stats.reason), stats.reason
    # The next load tries again.
    checkpoint.load(device=device)
    assert gds(checkpoint).read_bytes == large_bytes(expected)


def test_short_reads_are_carried_on(
    checkpoint: tensorhold.Checkpoint,
    expected: dict[str, torch.Tensor],
    device: str,
    double: Double,
) -> None:
    double.configure("gds_most=500001")
    assert_equal(checkpoint.load(device=device), expected)
    assert gds(checkpoint).read_bytes == large_bytes(expected)


def test_a_file_system_without_direct_reads_is_told(
    expected: dict[str, torch.Tensor], device: str
) -> None:
    path = Path("/dev/shm") / f"tensorhold-gds-{os.getpid()}.safetensors"
    tensors = {"F32.large": expected["F32.large"]}
    try:
        tensorhold.save(tensors, path, durability="none")
        with tensorhold.open(path, backend="gds") as checkpoint:
            assert_equal(checkpoint.load(device=device), tensors)
            stats = gds(checkpoint)
    finally:
        path.unlink(missing_ok=True)
    assert (stats.read_bytes, stats.is_direct) == (0, False)
    assert stats.reason == f"{path}: the file system has no direct reads"


def test_a_file_that_shrinks_is_an_error(expected: dict[str, torch.Tensor], device: str) -> None:
    tensors = {f"{n}.large": expected["F32.large"].clone() for n in range(3)}
    tensorhold.save(tensors, "short.safetensors", durability="none")
    with tensorhold.open("short.safetensors", backend="gds") as checkpoint:
        os.truncate("short.safetensors", LARGE_BYTES)
        with pytest.raises(tensorhold.SafetensorError, match=r"short\.safetensors"):
            checkpoint.load(device=device)


PROGRAM = """
import os, sys
import tensorhold, torch
with tensorhold.open(sys.argv[1], backend="gds") as checkpoint:
    for _ in range(2):
        found = checkpoint.load(device="cuda:0")
    stats = checkpoint.stats.gds
with tensorhold.open(sys.argv[1]) as checkpoint:
    assert all(torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8))
        for name, tensor in checkpoint.load().items())
print(stats.read_bytes, stats.is_direct, stats.reason)
os.read(0, 1)
"""


def of_process(path: Path, configuration: str) -> str:
    """What a program says of a load whose process begins with this configuration."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        env=os.environ | {"TENSORHOLD_DOUBLE": configuration},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_machine_without_the_driver_loads_all_the_same(folder: Path) -> None:
    told = of_process(folder, "gds=0,gds_closes=1")
    assert told.startswith("0 False `")
    assert "FileDriverOpen` failed: " in told
    assert "(code 5001)" in told


def test_a_library_that_was_started_before_is_not_vouched_for(folder: Path) -> None:
    n_bytes, is_direct, reason = of_process(folder, "gds_compat=1").split(" ", 2)
    assert int(n_bytes) > 0
    assert is_direct == "None"
    assert "through the host's memory" in reason


def test_a_library_that_would_go_through_the_host_is_not_used(folder: Path) -> None:
    told = of_process(folder, "gds=0,gds_compat=1")
    words = "FileDriverOpen" if IS_HIP else "the kernel module nvidia-fs is not loaded\n"
    assert told.startswith("0 False ")
    assert words in told
