"""Saves in the background, of several threads, and that are interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorhold

TENSORS = {
    "weight": np.arange(600, dtype=np.float32).reshape(20, 30),
    "bias": np.arange(20, dtype=np.float64),
    "count": np.array(7),
    "empty": np.zeros((0, 3), np.float16),
}


def large(value: int, n_bytes: int = 40_000_000) -> dict[str, Any]:
    return {"large": np.full(n_bytes, value, np.uint8), "small": np.full(3, value, np.uint8)}


def values(path: str) -> set[int]:
    with tensorhold.open(path, framework="np") as checkpoint:
        return {int(value) for name in checkpoint for value in np.unique(checkpoint[name])}


@pytest.mark.parametrize("memory_limit", [None, 0, 100, "10MB"])
@pytest.mark.parametrize("max_shard_size", [None, 2500])
def test_the_files_are_those_of_save(memory_limit: Any, max_shard_size: int | None) -> None:
    options: dict[str, Any] = {
        "metadata": {"k": "v"},
        "max_shard_size": max_shard_size,
        "align": 64,
    }
    handle = tensorhold.save_async(TENSORS, "later", memory_limit=memory_limit, **options)
    expected = tensorhold.save(TENSORS, "now", **options)
    written = handle.wait()
    assert handle.done() and handle.wait() == written
    assert [Path(path).read_bytes() for path in written] == [
        Path(path).read_bytes() for path in expected
    ]
    assert written == [path.replace("now", "later") for path in expected]


@pytest.mark.parametrize("memory_limit", [None, 0, "20MB"])
def test_tensors_may_be_overwritten_on_return(memory_limit: Any) -> None:
    tensors = large(1)
    handle = tensorhold.save_async(tensors, "a.safetensors", memory_limit=memory_limit)
    for tensor in tensors.values():
        tensor[:] = 2
    handle.wait()
    assert values("a.safetensors") == {1}


def test_pairs_from_an_iterator_are_saved() -> None:
    pairs = ((name, tensor.copy()) for name, tensor in TENSORS.items())
    tensorhold.save_async(pairs, "a.safetensors").wait()
    with tensorhold.open("a.safetensors", framework="np") as checkpoint:
        assert set(checkpoint) == set(TENSORS)


def test_saves_to_one_target_are_ordered_by_their_calls() -> None:
    handles = [
        tensorhold.save_async(large(value), "a.safetensors", durability="none")
        for value in range(1, 5)
    ]
    tensorhold.save(large(5), "a.safetensors", durability="none")
    assert all(handle.done() for handle in handles)
    assert values("a.safetensors") == {5}
    assert os.listdir() == ["a.safetensors"]


def test_threads_that_save_to_one_target_leave_one_whole_file() -> None:
    def save(value: int) -> None:
        for _ in range(5):
            tensorhold.save(large(value, 1_000_000), "a.safetensors", durability="none")

    threads = [threading.Thread(target=save, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(values("a.safetensors")) == 1
    assert os.listdir() == ["a.safetensors"]


def test_an_error_is_raised_by_wait_each_time() -> None:
    handle = tensorhold.save_async(TENSORS, "missing/a.safetensors")
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match=r"the folder .* is not there"):
            handle.wait()
    assert handle.done()


def test_arguments_are_judged_by_the_call_itself() -> None:
    for options in ({"align": 7}, {"durability": "some"}, {"memory_limit": "much"}):
        with pytest.raises(ValueError):
            tensorhold.save_async(TENSORS, "a.safetensors", **options)
    with pytest.raises(ValueError):
        tensorhold.save_async([("a", np.ones(1)), ("a", np.ones(1))], "a.safetensors")
    assert os.listdir() == []


def test_an_error_that_nobody_asks_about_is_unraisable(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda hook: told.append(hook.exc_value))
    tensorhold.save_async(TENSORS, "missing/a.safetensors")
    handle = tensorhold.save_async(TENSORS, "missing/b.safetensors")
    while not handle.done() or not told:
        time.sleep(0.01)
    del handle
    assert sorted(error.path for error in told) == [
        os.path.abspath("missing/a.safetensors"),
        os.path.abspath("missing/b.safetensors"),
    ]
    asked = tensorhold.save_async(TENSORS, "missing/c.safetensors")
    with pytest.raises(FileNotFoundError):
        asked.wait()
    del asked
    assert len(told) == 2


def test_progress_ends_with_all_bytes_and_what_it_raises_is_raised_by_wait() -> None:
    seen: list[tuple[int, int]] = []
    tensors = large(1)
    tensorhold.save_async(tensors, "a.safetensors", progress=lambda *of: seen.append(of)).wait()
    assert seen[-1] == (40_000_003, 40_000_003)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)

    def stop(done: int, total: int | None) -> None:
        raise KeyError("enough")

    handle = tensorhold.save_async(large(2), "a.safetensors", progress=stop)
    with pytest.raises(KeyError, match="enough"):
        handle.wait()
    assert values("a.safetensors") == {1}
    assert os.listdir() == ["a.safetensors"]


def test_wait_gives_up_at_its_time_and_the_save_goes_on() -> None:
    go_on = threading.Event()

    def held() -> Any:
        yield "a", np.ones(1)
        go_on.wait()

    thread = threading.Thread(target=tensorhold.save, args=(held(), "a.safetensors"))
    thread.start()
    time.sleep(0.1)
    handle = tensorhold.save_async(large(1), "a.safetensors")
    with pytest.raises(TimeoutError, match=r"after 0\.05 s"):
        handle.wait(timeout=0.05)
    assert not handle.done()
    go_on.set()
    thread.join()
    handle.wait()
    assert values("a.safetensors") == {1}


PROGRAM = """
import sys, threading, numpy as np, tensorhold
tensors = {{str(n): np.full(50_000_000, {value}, np.uint8) for n in range(4)}}
{body}
"""


def run(body: str, value: int = 1) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(body=body, value=value)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )


def test_the_interpreter_finishes_saves_before_it_ends() -> None:
    done = run("tensorhold.save_async(tensors, 'a.safetensors')\nprint('left')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")
    assert values("a.safetensors") == {1}
    assert os.listdir() == ["a.safetensors"]


def test_a_failure_that_nobody_asked_about_is_told_at_the_end() -> None:
    done = run("handle = tensorhold.save_async(tensors, 'missing/a.safetensors')")
    assert done.returncode == 0
    assert "the folder" in done.stderr and "is not there" in done.stderr


def test_a_forked_child_neither_saves_nor_waits() -> None:
    body = """
import os
handle = tensorhold.save_async(tensors, 'a.safetensors')
child = os.fork()
if not child:
    try:
        handle.wait()
    except tensorhold.SafetensorError as error:
        assert "forked" in str(error), error
        raise SystemExit(5)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
handle.wait()
"""
    done = run(body)
    assert done.returncode == 0, done.stderr
    assert values("a.safetensors") == {1}


@pytest.mark.skipif(not hasattr(signal, "SIGINT"), reason="needs signals")
@pytest.mark.parametrize("durability", ["none", "data"])
def test_ctrl_c_ends_a_save_and_leaves_the_old_file(durability: str) -> None:
    tensorhold.save({"old": np.full(1, 9, np.uint8)}, "a.safetensors")
    body = f"""
def interrupt(done, total):
    import os, signal
    if done:
        os.kill(os.getpid(), signal.SIGINT)
try:
    while True:
        tensorhold.save(tensors, "a.safetensors", durability="{durability}", progress=interrupt)
        raise SystemExit("it was not interrupted")
except KeyboardInterrupt:
    print("interrupted")
"""
    done = run(body)
    # A disk so fast that no progress was due has nothing to interrupt.
    if "it was not interrupted" not in done.stderr:
        assert done.stdout == "interrupted\n", done.stderr
        assert values("a.safetensors") == {9}
    assert os.listdir() == ["a.safetensors"]
