"""Files that do harm elsewhere do none here, cost little, and are told by what they ask for."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from convert import attacks
from convert.hostile import HARMLESS, hostile

import tensorhold

_PROGRAM = Path(__file__).parents[1] / "convert_programs" / "watched.py"
_MARKER = "/here-begins-what-is-watched"
_MOST_SECONDS = 10
_MOST_BYTES = 640_000_000

# What starts a program, reaches the network, or opens a file.
_CALLS = "execve,execveat,socket,connect,bind,sendto,open,openat,openat2,creat"

# Loads each of a folder as its ending says, by what runs pickles.
_VICTIM = """
import pickle, sys, warnings
from pathlib import Path
import numpy, torch
warnings.simplefilter("ignore")
loaders = {
    "pickle": lambda path: pickle.loads(path.read_bytes()),
    "torch": lambda path: torch.load(path, weights_only=False),
    "numpy": lambda path: numpy.load(path, allow_pickle=True),
}
for line in sys.stdin:
    name, loader = line.split()
    try:
        found = loaders[loader](Path(name))
        if name.endswith("npz"):
            found["a"]
    except Exception as error:
        print(name, repr(error))
"""


class Watched:
    """What came of the files, and what the system was asked for meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.canaries, self.files = folder / "canaries", folder / "files"
        self.canaries.mkdir()
        self.files.mkdir()
        self.attacks = {each.name: each for each in [*attacks.running(self.canaries), *hostile()]}
        for each in self.attacks.values():
            (self.files / each.name).write_bytes(each.data)
        trace = folder / "trace"
        command = [sys.executable, str(_PROGRAM), str(self.files), _MARKER]
        is_traced = shutil.which("strace") is not None and _can_trace()
        if is_traced:
            options = ["-f", "-qq", "-y", "-e", f"trace={_CALLS}", "-e", "signal=none"]
            command = ["strace", *options, "-o", str(trace), *command]
        # What it prints of each file tells where it was if it is killed.
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        lines = done.stdout.splitlines()
        assert done.returncode == 0, (done.returncode, lines[-1:], done.stderr[-2000:])
        self.results = {found["name"]: found for found in map(json.loads, lines)}
        self.trace = trace.read_text(errors="replace") if is_traced else None


def _can_trace() -> bool:
    return subprocess.run(["strace", "-qq", "true"], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return Watched(tmp_path_factory.mktemp("watched"))


def test_the_attacks_run_where_pickles_are_run(tmp_path: Path) -> None:
    canaries = tmp_path / "canaries"
    canaries.mkdir()
    live = [each for each in attacks.running(canaries) if each.loader]
    for each in live:
        Path(each.name).write_bytes(each.data)
    order = "".join(f"{each.name} {each.loader}\n" for each in live)
    done = subprocess.run(
        [sys.executable, "-c", _VICTIM], input=order, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    made = {path.name for path in canaries.iterdir()}
    assert made == {each.name for each in live}, done.stdout
    assert len(live) > 140


def test_none_of_them_runs_here(watched: Watched) -> None:
    assert len(watched.results) == len(watched.attacks) > 400
    assert list(watched.canaries.iterdir()) == []


def test_nothing_is_started_or_opened_and_no_network_reached(watched: Watched) -> None:
    if watched.trace is None:
        pytest.skip("strace is not installed, or no process can be traced here")
    _, marker, after = watched.trace.rpartition(_MARKER)
    assert marker
    calls = re.findall(r"^\d+\s+(\w+)\((.*)$", after, re.MULTILINE)
    opened = [line for call, line in calls if call in ("open", "openat", "openat2")]
    others = [(call, line) for call, line in calls if call not in ("open", "openat", "openat2")]
    assert others == []
    paths = [re.search(r'"([^"]*)"', line) for line in opened]
    outside = [
        line
        for line, path in zip(opened, paths, strict=True)
        if path is None or not _is_allowed(path[1], watched.files)
    ]
    assert outside == []
    assert len(opened) > 1000


def _is_allowed(path: str, folder: Path) -> bool:
    # The program asks how much memory it holds, and how many processors it may use.
    own = ("/proc/self/status", "/proc/self/clear_refs", "/proc/self/cgroup")
    is_limit = path.startswith("/sys/fs/cgroup/") and path.rpartition("/")[2].startswith("cpu.")
    return path in own or is_limit or Path(os.path.normpath(path)).is_relative_to(folder)


def test_none_takes_long_or_much_memory(watched: Watched) -> None:
    slow = {
        (name, work): seconds
        for name, found in watched.results.items()
        for work, seconds in found.items()
        if work.endswith("seconds") and seconds > _MOST_SECONDS
    }
    assert slow == {}
    large = {name: found["peak"] for name, found in watched.results.items()}
    assert {name: peak for name, peak in large.items() if peak > _MOST_BYTES} == {}


def test_a_scan_names_what_each_asks_for(watched: Watched) -> None:
    missed = {
        name: each.names - set(_scanned(watched, name)["feared"])
        for name, each in watched.attacks.items()
    }
    assert {name: names for name, names in missed.items() if names} == {}


def test_none_that_asks_for_anything_passes_a_gate(watched: Watched) -> None:
    for name in watched.attacks:
        if name.rpartition(".")[0] not in HARMLESS:
            verdict, code = _scanned(watched, name)["verdict"], watched.results[name]["exit"]
            assert verdict in ("unknown", "dangerous"), (name, watched.results[name])
            assert code == 1, name


def test_what_runs_elsewhere_is_called_dangerous(watched: Watched) -> None:
    for name, each in watched.attacks.items():
        if each.loader and each.names:
            assert _scanned(watched, name)["verdict"] == "dangerous", name


def _scanned(watched: Watched, name: str) -> dict[str, Any]:
    found = watched.results[name]["scan"]
    assert isinstance(found, dict), (name, found)
    return found


def test_values_that_nobody_knows_are_refused(watched: Watched) -> None:
    """What is loaded without a refusal is made of plain values and tensors only."""
    loaded = {found["load"] for found in watched.results.values() if ":" not in found["load"]}
    assert loaded <= {"dict", "list", "tuple", "str", "int", "float", "NoneType", "Tensor"} | {
        *("range", "device", "Size", "bytes", "bytearray", "set", "frozenset", "OrderedDict"),
        *("bool", "defaultdict", "Parameter", "Counter"),
    }


@pytest.mark.parametrize("work", [tensorhold.scan, lambda path: tensorhold.convert(path, "out")])
def test_what_is_no_plain_file_is_not_opened(work: Callable[[Path], object]) -> None:
    os.mkfifo("pipe")
    with pytest.raises(OSError, match="pipe"):
        work(Path("pipe"))
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


def test_files_of_two_formats_are_called_dangerous(watched: Watched) -> None:
    names = ["archive-and-safetensors.pt", "pickle-and-safetensors.safetensors"]
    for name in [*names, "tensor-that-is-an-archive.safetensors"]:
        assert _scanned(watched, name)["verdict"] == "dangerous", name
