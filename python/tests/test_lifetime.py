"""What tensors hold, for how long, and what other threads may do meanwhile."""

import gc
import os
import threading
import time
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

import tensorhold  # noqa: E402
import tensorhold.numpy  # noqa: E402
import tensorhold.torch  # noqa: E402
from tensorhold import safe_open  # noqa: E402


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    tensors = {"a": torch.arange(50_000), "b": torch.ones(3, 4)}
    tensorhold.torch.save_file(tensors, path)
    return path


def test_numpy_arrays_survive_the_truncation_of_their_file(file: Path) -> None:
    arrays = tensorhold.numpy.load_file(file)
    with safe_open(file, "np") as handle:
        single = handle.get_tensor("a")
    os.truncate(file, 0)
    assert arrays["a"].sum() == single.sum() == sum(range(50_000))


def test_a_program_may_rewrite_the_file_its_arrays_came_from(file: Path) -> None:
    arrays = tensorhold.numpy.load_file(file)
    with open(file, "wb") as target:
        target.write(tensorhold.numpy.save(arrays))
    assert (tensorhold.numpy.load_file(file)["a"] == arrays["a"]).all()


def test_views_outlive_the_handle_and_the_name_of_the_file(file: Path) -> None:
    with safe_open(file, "pt") as handle:
        view = handle.get_tensor("a")
        part = handle.get_slice("b")[1:, ::2]
    file.unlink()
    gc.collect()
    assert view.sum() == sum(range(50_000))
    assert part.tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_writing_to_a_view_never_reaches_the_file(file: Path) -> None:
    before = file.read_bytes()
    first = tensorhold.torch.load_file(file)["b"]
    first.zero_()
    assert first.sum() == 0
    assert tensorhold.torch.load_file(file)["b"].sum() == 12
    assert file.read_bytes() == before


def test_what_load_gives_is_not_the_file(file: Path) -> None:
    with tensorhold.open(file) as checkpoint:
        owned = checkpoint.load()
    os.truncate(file, 0)
    assert owned["a"].sum() == sum(range(50_000))


def test_each_tensor_has_a_storage_of_its_own(file: Path) -> None:
    tensors = tensorhold.torch.load_file(file)
    for tensor in tensors.values():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
        assert tensor.storage_offset() == 0
    tensorhold.torch.save_file(tensors, file)


def test_closing_a_handle_in_one_thread_leaves_another_with_an_error_or_a_tensor(
    file: Path,
) -> None:
    handle = safe_open(file, "pt")
    outcomes: set[str] = set()

    def read() -> None:
        for _ in range(2_000):
            try:
                assert handle.get_tensor("b").sum() == 12
                outcomes.add("tensor")
            except tensorhold.SafetensorError as error:
                assert str(error) == "File is closed"
                outcomes.add("closed")

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    while "tensor" not in outcomes:
        time.sleep(0.001)
    handle.__exit__(None, None, None)
    for thread in threads:
        thread.join()
    assert outcomes == {"tensor", "closed"}


def test_other_threads_run_while_bytes_are_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    large = {"w": torch.zeros(256 << 20, dtype=torch.uint8)}
    works = [
        lambda: tensorhold.torch.save_file(large, path),
        lambda: tensorhold.torch.load_file(path, backend="pread"),
        lambda: tensorhold.numpy.load_file(path),
    ]
    for work in works:
        thread = threading.Thread(target=work)
        thread.start()
        turns = 0
        while thread.is_alive():
            turns += 1
            time.sleep(0.0001)
        assert turns > 20, "another thread stood still while bytes moved"


def test_the_collector_runs_again_after_a_load(file: Path) -> None:
    assert gc.isenabled()
    tensorhold.torch.load_file(file)
    assert gc.isenabled()
    with pytest.raises(FileNotFoundError):
        tensorhold.torch.load_file(file.with_name("missing"))
    assert gc.isenabled()


def test_a_bytes_like_file_is_viewed_where_it_is_writable(file: Path) -> None:
    data = bytearray(file.read_bytes())
    tensors = tensorhold.torch.load(data)
    data[-1:] = b"\x40"
    assert tensors["b"][-1, -1] != 1.0
    tensors = tensorhold.torch.load(bytes(data))
    tensors["b"].zero_()
    assert data[-1] == 0x40


def read_bytes() -> int:
    """The bytes that this process has read by system calls."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        pytest.skip("the system does not count what a process reads")
    return int(counters.read_text().split("rchar: ")[1].split()[0])


def test_a_slice_by_reads_fetches_its_own_bytes_only(tmp_path: Path) -> None:
    path = tmp_path / "wide.safetensors"
    wide = torch.arange(4 << 20, dtype=torch.int32).reshape(256, 16384)
    tensorhold.torch.save_file({"w": wide}, path)
    for index in [(slice(None), slice(0, 64)), (7,), (slice(0, 256, 16),), (slice(1, 3), slice(5))]:
        with safe_open(path, "pt", backend="pread") as handle:
            part = handle.get_slice("w")
            before = read_bytes()
            tensor = part[index]
            fetched = read_bytes() - before
        assert torch.equal(tensor, wide[index])
        assert fetched < tensor.nbytes + (8 << 10), f"{fetched} for {tensor.nbytes} at {index}"
