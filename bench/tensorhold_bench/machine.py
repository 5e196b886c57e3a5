"""What the numbers were taken on."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy

from tensorhold_bench import files

PACKAGES = [
    "tensorhold",
    "safetensors",
    "fastsafetensors",
    "runai-model-streamer",
    "instanttensor",
    "torch",
    "numpy",
    "sentence-transformers",
]
_PROBED_BYTES = 2 << 30
_REPOSITORY = Path(__file__).parents[2]


def describe() -> dict[str, str]:
    """The machine, the system and the versions, by what each is called."""
    return {
        "processor": f"{_cpu_info('model name')}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB",
        **_device(),
        "file system of the files": _file_system(files.FOLDER),
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "commit": _commit(),
    }


def fresh_memory_speed() -> float:
    """How many GB/s this machine gives to a program that asks for memory and touches each page.

    On a virtual machine that hands its free memory back to the host this changes from minute to
    minute, and every work that takes fresh memory or page cache changes with it.
    """
    start = time.perf_counter()
    numpy.empty(_PROBED_BYTES, numpy.uint8)[::4096] = 1
    return _PROBED_BYTES / (time.perf_counter() - start) / 1e9


def busy_seconds() -> float:
    """The processor time that all processes have used since the machine started."""
    user, nice, system, _idle, _wait, interrupts, soft, stolen = map(
        int, Path("/proc/stat").read_text().split()[1:9]
    )
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """The processor time that this process and those that it started and waited for have used."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _cpu_info(field: str) -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith(field)), "unknown"
    )


def _device() -> dict[str, str]:
    import torch

    if not torch.cuda.is_available():
        return {}
    return {"device": f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}"}


def _file_system(folder: Path) -> str:
    """The type of the file system that `folder` is on: the mount with the longest path above it."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    above = [
        (len(point), kind)
        for _, point, kind, *_ in mounts
        if folder.resolve().is_relative_to(point)
    ]
    return max(above)[1]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_REPOSITORY), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = (
        " and uncommitted changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    )
    return (git("rev-parse", "--short", "HEAD") or "unknown") + changed
