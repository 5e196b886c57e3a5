"""Forks again and again while threads of this process load; every child loads by itself.

forking_load.py PATH N_CHILDREN
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time

import numpy as np

import tensorhold

TIMEOUT_S = 30


def main(path: str, n_children: int) -> None:
    expected = load(path, "auto")
    is_done = threading.Event()
    loading = [threading.Thread(target=load_on, args=[path, n, is_done]) for n in range(2)]
    for thread in loading:
        thread.start()
    chance = random.Random(0)
    backends = ["auto", "mmap", "pread", "direct"]
    running = tensorhold.open(path, framework="np").stream(memory_limit="5MB")
    next(running)
    for n in range(n_children):
        time.sleep(chance.random() * 0.01)
        child = os.fork()
        if not child:
            os._exit(0 if is_equal(load(path, backends[n % 4]), expected) else 1)
        status = wait(child)
        assert status == 0, f"child {n} ended with {status}"
    is_done.set()
    for thread in loading:
        thread.join()
    assert all(np.array_equal(tensor, expected[name]) for name, tensor in running)


def load(path: str, backend: str) -> dict[str, np.ndarray]:
    with tensorhold.open(path, framework="np", backend=backend) as checkpoint:
        if os.getpid() % 2:
            return dict(checkpoint.stream(memory_limit="5MB"))
        return checkpoint.load()


def load_on(path: str, number: int, is_done: threading.Event) -> None:
    while not is_done.is_set():
        load(path, ["auto", "direct"][number])


def is_equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def wait(child: int) -> int:
    """The child's status; it is killed where it does not end."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -signal.SIGKILL


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
