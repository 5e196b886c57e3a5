"""What whole programs meet: hostile files, little memory, Ctrl-C, worker processes, saving over."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

import tensorhold  # noqa: E402
import tensorhold.torch  # noqa: E402

PROLOGUE = """
import os, resource, signal, sys
import numpy, torch
import tensorhold, tensorhold.numpy, tensorhold.torch
# What a shell starts in the background ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
"""


def run(program: str, *arguments: str) -> str:
    """What `program` prints, in a process of its own, since it may end by a signal."""
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + program, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


def empty_tensor(shape: list[int]) -> bytes:
    header = {"t": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize("shape", [[0, 2**62, 2**60], [0, 2**63 - 1, 2], [0, 2**32, 2**32]])
def test_an_empty_tensor_of_an_absurd_shape_does_not_harm_the_process(shape: list[int]) -> None:
    Path("t.safetensors").write_bytes(empty_tensor(shape))
    program = """
data = open("t.safetensors", "rb").read()
calls = [
    lambda: tensorhold.torch.load_file("t.safetensors"),
    lambda: tensorhold.torch.load_file("t.safetensors", backend="pread"),
    lambda: tensorhold.torch.load_file("t.safetensors", device="meta"),
    lambda: tensorhold.torch.load(data),
    lambda: tensorhold.torch.load(bytearray(data)),
    lambda: tensorhold.open("t.safetensors")["t"],
    lambda: tensorhold.open("t.safetensors").load(),
    lambda: tensorhold.numpy.load_file("t.safetensors"),
]
for call in calls:
    try:
        call()
    except (ValueError, RuntimeError, TypeError):
        pass
print("lives")
"""
    assert run(program) == "lives\n"


def test_a_tensor_over_a_buffer_may_outlive_the_interpreter() -> None:
    run("""
data = bytearray(tensorhold.torch.save({"t": torch.ones(4)}))
sys.kept = tensorhold.torch.load(data), tensorhold.numpy.load(data)
""")


def test_a_file_that_is_mapped_is_not_destroyed_by_saving_it_in_place() -> None:
    # A file without a folder can only be written in place, as can a bind-mounted one.
    program = """
tensors = {f"t{i}": torch.full((1_000_000,), float(i)) for i in range(4)}
path = f"/proc/self/fd/{os.memfd_create('model')}"
tensorhold.torch.save_file(tensors, path)
views = tensorhold.torch.load_file(path)
try:
    tensorhold.torch.save_file({name: views[name] for name in ("t2", "t3")}, path)
except OSError:
    pass
now = tensorhold.torch.load_file(path)
print(all(torch.equal(now[name], tensors[name]) for name in now), len(now) in (2, 4))
print(all(torch.equal(views[name], tensors[name]) for name in views))
"""
    assert run(program) == "True True\nTrue\n"


def test_without_memory_for_a_tensor_a_memory_error_names_it() -> None:
    run("""
tensorhold.torch.save_file({"big": torch.ones(80_000_000)}, "big.safetensors")
# More than what is kept of freed memory.
tensorhold.torch.load_file("big.safetensors", backend="pread")
used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000,) * 2)
try:
    tensorhold.torch.load_file("big.safetensors", backend="pread")
except MemoryError as error:
    assert "big" in str(error), error
else:
    raise AssertionError("there was room")
""")


def test_memory_that_was_kept_is_given_back_where_it_is_needed() -> None:
    run("""
tensorhold.torch.save_file({"x": torch.ones(50_000_000)}, "x.safetensors")
tensorhold.torch.save_file({"y": torch.ones(60_000_000)}, "y.safetensors")
tensorhold.open("x.safetensors").load()
used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000,) * 2)
assert tensorhold.torch.load_file("y.safetensors", backend="pread")["y"].sum() == 60_000_000
""")


def test_where_no_map_is_to_be_had_the_automatic_backend_reads() -> None:
    run("""
tensorhold.torch.save_file({"big": torch.ones(50_000_000), "t": torch.arange(3)}, "b.safetensors")
tensorhold.open("b.safetensors").load(["t"])
used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000,) * 2)
checkpoint = tensorhold.open("b.safetensors")
assert checkpoint.info("big").shape == (50_000_000,)
assert checkpoint["t"].tolist() == [0, 1, 2]
""")


def test_owned_tensors_of_a_file_that_shrank_are_an_error_and_no_crash() -> None:
    run("""
tensorhold.save({"t": torch.ones(1_000_000)}, "t.safetensors", durability="none")
checkpoint = tensorhold.open("t.safetensors")
os.truncate("t.safetensors", 10_000)
try:
    checkpoint.load()
except OSError as error:
    assert isinstance(error, tensorhold.SafetensorError), error
else:
    raise AssertionError("bytes from nowhere")
""")


def test_ctrl_c_ends_a_save_that_waits() -> None:
    os.mkfifo("pipe")
    program = """
print("begins", flush=True)
try:
    tensorhold.torch.save_file({"t": torch.ones(1_000_000)}, "pipe")
except KeyboardInterrupt:
    print("interrupted")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + program], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "begins\n"
        reader = os.open("pipe", os.O_RDONLY)
        os.read(reader, 1)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[0] == "interrupted\n"
        os.close(reader)
    finally:
        process.kill()
        process.wait()


def test_a_tensor_from_an_iterator_is_let_go_of_when_the_next_is_asked_for() -> None:
    given: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for i in range(4):
            alive.append(sum(reference() is not None for reference in given))
            tensor = torch.ones(10)
            given.append(weakref.ref(tensor))
            yield f"t{i}", tensor
            del tensor

    tensorhold.save(tensors(), "t.safetensors", durability="none")
    assert alive == [0, 0, 0, 0]


def test_one_name_is_no_list_of_names() -> None:
    tensorhold.save({"weight": torch.ones(1)}, "w.safetensors", durability="none")
    with tensorhold.open("w.safetensors") as checkpoint:
        with pytest.raises(TypeError, match="names"):
            checkpoint.load("weight")
        with pytest.raises(TypeError, match="names"):
            list(checkpoint.stream("weight"))


def test_an_error_in_a_path_object_is_the_caller_s() -> None:
    class Broken:
        def __fspath__(self) -> str:
            raise RuntimeError("the path is not known yet")

    with pytest.raises(RuntimeError, match="not known yet"):
        tensorhold.open(Broken())  # type: ignore[arg-type]


def test_forked_workers_read_through_the_handle_of_their_parent() -> None:
    tensors = {f"t{i}": torch.full((10,), float(i)) for i in range(8)}
    tensorhold.torch.save_file(tensors, "t.safetensors")

    class Items(torch.utils.data.Dataset[torch.Tensor]):
        def __init__(self) -> None:
            self.mapped = tensorhold.safe_open("t.safetensors", "pt")
            self.read = tensorhold.safe_open("t.safetensors", "pt", backend="pread")

        def __len__(self) -> int:
            return len(tensors)

        def __getitem__(self, i: int) -> torch.Tensor:
            return self.mapped.get_tensor(f"t{i}") + self.read.get_slice(f"t{i}")[:]

    loader = torch.utils.data.DataLoader(Items(), num_workers=2, multiprocessing_context="fork")
    assert [batch[0, 0].item() for batch in loader] == [2.0 * i for i in range(8)]
