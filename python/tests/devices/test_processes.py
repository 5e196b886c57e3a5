"""What is settled once for a process: which runtime it uses, how large the ring is, forks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tensorhold

TESTS = Path(__file__).parent.parent

BEGIN = """
import os, sys
sys.path.insert(0, {tests!r})
import torch, tensorhold
from devices.double import Double
from tensorhold._errors import DeviceError
def load(device="cuda:0"):
    with tensorhold.open("model.safetensors") as checkpoint:
        return checkpoint.load(device=device)
"""


def run(program: str, **environment: str) -> str:
    """What the program prints, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN.format(tests=str(TESTS)) + program],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of several slots."""
    tensors = {f"large.{n}": torch.full((3000, 1500), n, dtype=torch.int32) for n in range(4)}
    path = tmp_path_factory.mktemp("processes") / "model.safetensors"
    tensorhold.save(tensors, path, durability="none")
    return path


@pytest.fixture(autouse=True)
def _model(saved: Path) -> None:
    Path("model.safetensors").symlink_to(saved)


def test_a_wrong_runtime_is_refused_and_no_other_is_taken() -> None:
    program = """
for _ in range(2):
    try:
        load()
    except DeviceError as error:
        print(error)
"""
    printed = run(program, TENSORHOLD_RUNTIME="/nowhere/libcudart.so")
    assert printed.count("/nowhere/libcudart.so") >= 2
    assert "TENSORHOLD_RUNTIME" in printed


def test_a_save_says_that_the_runtime_is_a_wrong_one() -> None:
    program = """
from tensorhold._native import torch_stream
try:
    torch_stream(0)
except DeviceError as error:
    print(error)
"""
    printed = run(program, TENSORHOLD_RUNTIME="/nowhere/libcudart.so")
    assert "TENSORHOLD_RUNTIME" in printed


def test_a_library_that_is_no_runtime_is_refused() -> None:
    library = str(tensorhold._native.__file__)
    printed = run(
        "try:\n    load()\nexcept DeviceError as error:\n    print(error)",
        TENSORHOLD_RUNTIME=library,
    )
    assert library in printed


def test_a_child_of_a_fork_is_told_to_spawn() -> None:
    program = """
held = tensorhold.open("model.safetensors", device="cuda:0")
held.load()
stream = held.stream()
next(stream)
child = os.fork()
if not child:
    code = 1
    try:
        load()
    except DeviceError as error:
        code = 0 if "fork" in str(error) and "spawn" in str(error) else 2
    try:
        held.load()
        code = 3
    except DeviceError as error:
        pass
    # The host's memory is as good as ever.
    code = code or (0 if len(load("cpu")) == 4 else 4)
    tensorhold.empty_cache()
    report = Double(os.environ["TENSORHOLD_RUNTIME"]).report()
    os._exit(code or (5 if report["violations"] else 0))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(len(dict(stream)))
"""
    assert run(program).split() == ["0", "3"]


@pytest.mark.parametrize("limit_mb", [8, 16, 40, 72])
def test_no_more_is_pinned_than_the_limit(limit_mb: int) -> None:
    program = """
double = Double(os.environ["TENSORHOLD_RUNTIME"])
double.configure("latency_us=300")
found = load()
assert all(bool((tensor == int(name[-1])).all()) for name, tensor in found.items())
report = double.report()
assert report["violations"] == [], report
print(report["pinned"]["peak_bytes"])
"""
    peak_bytes = int(run(program, TENSORHOLD_PINNED_MB=str(limit_mb)))
    assert 0 < peak_bytes <= limit_mb << 20


def test_a_limit_that_is_no_number_is_refused() -> None:
    program = """
try:
    load()
except ValueError as error:
    print(error)
"""
    assert "`TENSORHOLD_PINNED_MB` is `lots`" in run(program, TENSORHOLD_PINNED_MB="lots")


def test_what_cannot_be_pinned_is_copied_all_the_same() -> None:
    program = """
assert all(bool((tensor == int(name[-1])).all()) for name, tensor in load().items())
report = Double(os.environ["TENSORHOLD_RUNTIME"]).report()
print(report["pinned"]["peak_bytes"], report["pageable"]["n"] > 0, report["violations"])
"""
    failures = "fail=HostRegister:0:1,fail=HostAlloc:0:2"
    assert run(program, TENSORHOLD_DOUBLE=failures).strip() == "0 True []"


def test_a_copy_that_fails_later_is_told() -> None:
    # What its slots hold is never used again, for the copies may still go on: a process of its own.
    program = """
for _ in range(2):
    try:
        load()
    except DeviceError as error:
        print(error)
report = Double(os.environ["TENSORHOLD_RUNTIME"]).report()
assert report["violations"] == [], report
assert report["streams"]["live"] == 0, report
"""
    printed = run(program, TENSORHOLD_DOUBLE="fail=MemcpyAsync:1:700:async")
    assert ":0: " in printed
    assert "code 700" in printed


def test_the_second_device_gets_its_copies_alone() -> None:
    program = """
load(1)
report = Double(os.environ["TENSORHOLD_RUNTIME"]).report()
print(report["contexts"], report["violations"])
"""
    assert run(program).strip() == "[1] []"


def test_a_device_without_room_is_out_of_memory() -> None:
    program = """
try:
    load()
except MemoryError as error:
    print(error)
report = Double(os.environ["TENSORHOLD_RUNTIME"]).report()
assert report["violations"] == [], report
print([device["live"] for device in report["devices"]], report["under_way"])
"""
    printed = run(program, TENSORHOLD_DOUBLE="memory_mb=20")
    assert ":0 has no room for" in printed
    assert printed.endswith("[0, 0] 0\n")
