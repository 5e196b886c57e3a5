"""Loads a small checkpoint again and again, each time with one system call failing.

    faulty_load.py FOLDER N_LOADS

Every load runs in a child of this process, which has imported all that is needed, with `strace`
making the n-th call of a kind fail: for each kind, error and n that a load has. Of all these loads
`N_LOADS` are made, chosen by chance, or all for 0. Prints JSON: how many ended in which way, and
what is wrong about any of them. Exits with 77 where no process can be traced.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

import tensorhold
from tensorhold import SafetensorError, safe_open

BACKENDS = ["auto", "mmap", "pread", "direct"]

# What a load may need; where it does, it ends with an error.
NEEDED = {
    "openat": ["EIO", "EINTR", "ENOMEM", "EPERM", "EMFILE", "EINVAL"],
    "read": ["EIO", "EINTR", "EAGAIN", "EINVAL"],
    "pread64": ["EIO", "EINTR", "EAGAIN", "ENOMEM", "EINVAL", "ENOSYS", "EPERM"],
    "statx": ["EIO", "EINTR", "ENOMEM", "ENOSYS", "EPERM", "EACCES"],
    "fstat": ["EIO", "ENOMEM", "EPERM"],
    "newfstatat": ["EIO", "ENOMEM", "EPERM"],
    "mmap": ["ENOMEM", "EAGAIN", "EINVAL", "ENODEV", "EPERM"],
}

# What a load can do without: it gives the right bytes all the same.
OPTIONAL = {
    "fcntl": ["EIO", "EINTR", "EAGAIN", "ENOMEM", "EINVAL", "ENOSYS", "EPERM", "EACCES"],
    "fstatfs": ["EIO", "EINTR", "ENOSYS", "EPERM"],
    "lseek": ["EIO", "EINVAL", "ENOSYS"],
    "preadv2": ["EIO", "EINTR", "EAGAIN", "EINVAL", "ENOSYS", "EPERM"],
    "madvise": ["EIO", "EINTR", "EAGAIN", "ENOMEM", "EINVAL", "ENOSYS", "EPERM"],
    "mbind": ["EINVAL", "ENOSYS", "EPERM"],
    "munmap": ["ENOMEM", "EINVAL"],
    "mprotect": ["ENOMEM", "EPERM"],
    "clone3": ["EAGAIN", "ENOMEM", "ENOSYS", "EPERM"],
    "sched_getaffinity": ["EINVAL", "ENOSYS", "EPERM"],
    "io_uring_setup": ["EIO", "ENOMEM", "EINVAL", "ENOSYS", "EPERM"],
    "io_uring_enter": ["EIO", "EINTR", "EAGAIN", "EINVAL"],
    "io_uring_register": ["ENOMEM", "EINVAL", "EPERM"],
}

# What some sandboxes and kernels do not have at all.
MISSING = ["fcntl", "fstatfs", "preadv2", "madvise", "mbind", "clone3", "io_uring_setup"]

TIMEOUT_S = 30

CANNOT_TRACE = 77


class Case(NamedTuple):
    """One load, and which of its calls fails: the `nth`, or every one for 0."""

    backend: str
    call: str
    error: str
    nth: int

    def faults(self) -> list[str]:
        when = str(self.nth or "1+")
        fault = f"inject={self.call}:error={self.error}:when={when}"
        return ["-e", f"trace={self.call}", "-e", fault]

    def may_fail(self) -> bool:
        return self.call in NEEDED and self.error != "EINTR"


def main(folder: Path, n_loads: int) -> None:
    expected = make(folder)
    load(folder / "warming.safetensors", {"small": expected["small"]}, "auto")
    cases: list[Case] = []
    for backend in BACKENDS:
        cases += all_cases(backend, count_calls(folder, expected, backend))
    chosen = random.Random(0).sample(cases, n_loads) if n_loads else cases
    endings: Counter[str] = Counter()
    problems: list[str] = []
    n_struck = 0
    for case in chosen:
        child = Child(folder, expected, case.backend)
        n_struck += child.run(case)
        endings[child.ending] += 1
        problems += [f"{case}: {problem}" for problem in child.problems]
    result = {"cases": len(cases), "struck": n_struck, "endings": endings, "problems": problems}
    print(json.dumps(result, indent=1))


def count_calls(folder: Path, expected: dict[str, np.ndarray], backend: str) -> Counter[str]:
    """The calls of a load by their kind, of the thread that makes most of them."""
    child = Child(folder, expected, backend)
    child.run(None)
    if child.problems:
        sys.exit(f"{backend}: without a fault: {child.problems}")
    by_thread: Counter[tuple[str, str]] = Counter()
    for line in child.log.read_text().splitlines():
        thread, call = line.split(maxsplit=1)
        by_thread[thread, call.partition("(")[0]] += 1
    counts: Counter[str] = Counter()
    for (_, call), n_calls in by_thread.items():
        counts[call] = max(counts[call], n_calls)
    return counts


def all_cases(backend: str, counts: Counter[str]) -> Iterator[Case]:
    for call, errors in (NEEDED | OPTIONAL).items():
        # A load that goes on after a fault may make some more.
        last = counts[call] + 2 if counts[call] else 0
        for error in errors:
            first = 0 if call in MISSING and error in ("ENOSYS", "EPERM") else 1
            yield from (Case(backend, call, error, nth) for nth in range(first, last + 1))


def make(folder: Path) -> dict[str, np.ndarray]:
    """Writes the checkpoint, and a smaller one, and gives its tensors."""
    tensors = {
        # Large enough for threads, and for memory in huge pages.
        "large": np.arange(3 << 18, dtype=np.uint32).reshape(768, 1024),
        "medium": np.arange(200_000, dtype=np.uint8).reshape(400, 500),
        "small": np.arange(100, dtype=np.int16),
        "empty": np.zeros((0, 3), np.float32),
    }
    tensorhold.save(tensors, folder / "model.safetensors")
    tensorhold.save({"small": tensors["small"]}, folder / "warming.safetensors")
    return tensors


def load(path: Path, expected: dict[str, np.ndarray], backend: str) -> None:
    """Loads in every way that there is, and compares."""
    parts = {name: tensor[1::2] for name, tensor in expected.items()}
    with tensorhold.open(path, framework="np", backend=backend) as checkpoint:
        check(checkpoint.load(), expected)
        check(checkpoint.load({name: np.s_[1::2] for name in expected}), parts)
        check(dict(checkpoint.stream(memory_limit="1MiB")), expected)
        check({name: checkpoint.slice(name)[1::2] for name in expected}, parts)
        check({name: checkpoint[name] for name in expected}, expected)
    other = "pread" if backend == "pread" else "mmap"
    with safe_open(path, "np", backend=other) as file, file.prefetch(None) as loader:
        check(dict(loader), expected)


def check(tensors: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert tensor.shape == expected[name].shape, name
        assert tensor.tobytes() == expected[name].tobytes(), name


class Child:
    """A process that waits to be traced, loads, waits to be free again, and loads once more."""

    def __init__(self, folder: Path, expected: dict[str, np.ndarray], backend: str) -> None:
        self.log = folder / "calls"
        self.ending = "lost"
        self.problems: list[str] = []
        self.report, write = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        self.process = os.fork()
        if self.process:
            os.close(write)
            return
        os.close(self.report)
        trace_me()
        os.write(write, b"ready")
        for _ in range(2):
            signal.sigwait([signal.SIGUSR1])
            os.write(write, attempt(folder, expected, backend))
        signal.pause()

    def run(self, case: Case | None) -> bool:
        """Carries the case out, and the clean load after it; whether the fault came about."""
        os.read(self.report, 5)
        kept = self.holds()
        tracer = trace(self.process, case, self.log)
        try:
            self.ending = self.attempt()
            self.judge(case)
            if self.ending != "lost":
                self.settle(kept)
        finally:
            tracer.terminate()
            tracer.communicate()
        if self.ending != "lost" and (again := self.attempt()) != "right":
            self.problems.append(f"the next load ended so: {again}")
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.report)
        return "(INJECTED)" in self.log.read_text()

    def attempt(self) -> str:
        os.kill(self.process, signal.SIGUSR1)
        readable, _, _ = select.select([self.report], [], [], TIMEOUT_S)
        if not readable:
            self.problems.append(f"no end after {TIMEOUT_S} s; " + self.where())
            return "lost"
        said = os.read(self.report, 65536).decode()
        if not said:
            self.problems.append("the process died")
        return said or "lost"

    def judge(self, case: Case | None) -> None:
        may_fail = case is not None and case.may_fail()
        is_fine = self.ending == "right" or (may_fail and self.ending.startswith("refused"))
        if not is_fine and self.ending != "lost":
            self.problems.append(self.ending)

    def settle(self, kept: dict[str, int]) -> None:
        """Waits until nothing is left of the load."""
        deadline = time.monotonic() + 2
        while (left := self.holds()) != kept:
            if time.monotonic() > deadline:
                self.problems.append(f"{kept} before, {left} after")
                return
            time.sleep(0.001)

    def holds(self) -> dict[str, int]:
        kinds = {"fd": "descriptors", "task": "threads"}
        return {
            name: len(os.listdir(f"/proc/{self.process}/{kind}")) for kind, name in kinds.items()
        }

    def where(self) -> str:
        folder = Path(f"/proc/{self.process}/task")
        return ", ".join((task / "wchan").read_text() for task in folder.iterdir())


def attempt(folder: Path, expected: dict[str, np.ndarray], backend: str) -> bytes:
    try:
        load(folder / "model.safetensors", expected, backend)
    except (SafetensorError, OSError, MemoryError) as error:
        return f"refused: {type(error).__name__}: {error}".encode()
    except BaseException as error:
        return f"wrong: {type(error).__name__}: {error}".encode()
    return b"right"


def trace_me() -> None:
    """Allows any process to trace this one."""
    set_tracer, anybody = 0x59616D61, ctypes.c_ulong(-1)
    ctypes.CDLL(None).prctl(set_tracer, anybody, 0, 0, 0)


def trace(process: int, case: Case | None, log: Path) -> subprocess.Popen[str]:
    log.write_text("")
    faults = [] if case is None else case.faults()
    command = ["strace", "-f", "-p", str(process), "-o", str(log), *faults]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    if "attached" not in said:
        os.kill(process, signal.SIGKILL)
        print(said.strip(), file=sys.stderr)
        sys.exit(CANNOT_TRACE)
    return tracer


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
