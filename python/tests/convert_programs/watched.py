"""Looks into every file of a folder, loads it and converts it: `watched.py FOLDER MARKER`.

Prints, for each, a line of JSON: what came of it, how long it took and how much memory. Opens
`MARKER` when all that it needs is there, so that whoever watches knows from where on to look.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import tensorhold
from tensorhold import _native, serialization

# Beyond what the process holds when it begins.
MOST_BYTES = 1 << 30
NOWHERE, STDOUT = os.open(os.devnull, os.O_WRONLY), os.dup(1)


def main() -> None:
    folder, marker = Path(sys.argv[1]), sys.argv[2]
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    _warm_up(folder)
    _limit_memory()
    with suppress(FileNotFoundError):
        Path(marker).read_bytes()
    for path in paths:
        print(json.dumps(_look_at(path)), flush=True)


def _look_at(path: Path) -> dict[str, Any]:
    target = path.parent / "converted.out"
    before = _reset_peak()
    done: dict[str, Any] = {"name": path.name}
    works: dict[str, Callable[[], Any]] = {
        "scan": lambda: _described(tensorhold.scan(path)),
        "exit": lambda: _exit_code(path),
        "load": lambda: type(serialization.load(path)).__name__,
        "keep": lambda: type(serialization.load(path, opaque="keep")).__name__,
        "convert": lambda: bool(tensorhold.convert(path, target, durability="none")),
        "converted": lambda: type(serialization.load(target, opaque="keep")).__name__,
    }
    for name, work in works.items():
        if name == "converted" and not target.exists():
            continue
        start = time.perf_counter()
        try:
            done[name] = work()
        except (ValueError, OSError, RuntimeError, TypeError, MemoryError, KeyError) as error:
            done[name] = f"{type(error).__name__}: {error}"[:1000]
        done[f"{name} seconds"] = time.perf_counter() - start
    target.unlink(missing_ok=True)
    done["peak"] = _status("VmHWM") - before
    return done


def _exit_code(path: Path) -> int:
    """What `tensorhold scan` returns; what it prints goes nowhere."""
    sys.stdout.flush()
    os.dup2(NOWHERE, 1)
    try:
        return _native.cli_main(["scan", "--json", str(path)])
    finally:
        os.dup2(STDOUT, 1)


def _described(found: tensorhold.Scan) -> dict[str, Any]:
    return {
        "verdict": found.verdict,
        "names": [each.name for each in found.imports],
        "feared": [each.name for each in found.imports if each.verdict != "harmless"],
        "findings": [f"{each.verdict}: {each.message}" for each in found.findings],
    }


def _warm_up(folder: Path) -> None:
    """Has everything that is looked up when it is first wanted looked up."""
    inner = folder / "warm-up"
    inner.mkdir()
    found = {"w": torch.ones(2, 2).t(), "sparse": torch.eye(2).to_sparse(), "p": [3]}
    for name, options in (("a.pt", {}), ("b.pt", {"_use_new_zipfile_serialization": False})):
        torch.save(found, inner / name, **options)
        _look_at(inner / name)
    (inner / "c.pkl").write_bytes(b"(dcmymodels\nThing\n)R.")
    (inner / "d.pkl").write_bytes(b"broken")
    for name in ("c.pkl", "d.pkl"):
        _look_at(inner / name)


def _limit_memory() -> None:
    most = _status("VmSize") + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _reset_peak() -> int:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
