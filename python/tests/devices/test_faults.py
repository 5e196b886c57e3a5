"""Every failure of the runtime is an exception that names call and device, and leaves nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from devices.double import Double

import tensorhold
import tensorhold.torch
from tensorhold._errors import DeviceError

PREFIX = "hip" if "hip" in os.path.basename(os.environ["TENSORHOLD_RUNTIME"]) else "cuda"

# Without these nothing can be loaded.
NEEDED = [
    "GetDeviceCount",
    "StreamCreateWithFlags",
    "EventCreateWithFlags",
    "EventRecord",
    "StreamWaitEvent",
    "StreamSynchronize",
    "MemcpyAsync",
]
# Without these there is another way.
REPLACED = ["HostRegister", "DeviceGetPCIBusId", "DeviceGetAttribute"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file of more than one slot, and its tensors."""
    tensors = {f"small.{n}": torch.full((9,), n) for n in range(50)}
    tensors |= {f"large.{n}": torch.full((3000, 1000), n, dtype=torch.int32) for n in range(3)}
    path = tmp_path_factory.mktemp("faults") / "model.safetensors"
    tensorhold.save(tensors, path, durability="none")
    return path, tensors


@pytest.fixture
def model(saved: tuple[Path, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    Path("model.safetensors").symlink_to(saved[0])
    return saved[1]


def load() -> dict[str, torch.Tensor]:
    with tensorhold.open("model.safetensors", device="cuda:0") as checkpoint:
        return checkpoint.load()


def assert_loads(model: dict[str, torch.Tensor]) -> None:
    found = load()
    assert all(torch.equal(found[name].cpu(), tensor) for name, tensor in model.items())


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("code", [1, 2, 700, 999])
@pytest.mark.parametrize("call", NEEDED)
def test_a_failing_call_is_named(
    call: str, code: int, nth: int, model: dict[str, torch.Tensor], double: Double
) -> None:
    double.configure(f"fail={call}:{nth}:{code}")
    n_failures = double.report()["failures"]
    try:
        assert_loads(model)
    except (DeviceError, MemoryError) as error:
        assert isinstance(error, tensorhold.SafetensorError)
        assert isinstance(error, MemoryError) == (code == 2), error
        assert f"{PREFIX}{call}" in str(error)
        assert call == "GetDeviceCount" or f"{PREFIX}:0" in str(error)
        assert f"code {code}" in str(error)
    else:
        # It was not called so often.
        assert nth == 2
        assert double.report()["failures"] == n_failures
    double.configure("fail=")
    assert_loads(model)


@pytest.mark.parametrize("call", REPLACED)
def test_a_call_that_is_not_needed_may_fail(
    call: str, model: dict[str, torch.Tensor], double: Double
) -> None:
    double.configure(f"fail={call}:0:1")
    assert_loads(model)


def test_a_prefetch_tells_whoever_waits(model: dict[str, torch.Tensor], double: Double) -> None:
    double.configure("fail=MemcpyAsync:2:700")
    with tensorhold.safe_open("model.safetensors", "pt", device="cuda:0") as file:
        loader = file.prefetch()
        with pytest.raises(DeviceError, match=rf"{PREFIX}MemcpyAsync.*{PREFIX}:0"):
            dict(loader)
        loader.close()


def by_tensor() -> None:
    with tensorhold.safe_open("model.safetensors", "pt", device="cuda:0") as file:
        file.get_tensor("large.1")


def by_slice() -> None:
    with tensorhold.safe_open("model.safetensors", "pt", device="cuda:0") as file:
        file.get_slice("large.1")[5:2000]


def by_stream() -> None:
    with tensorhold.open("model.safetensors", device="cuda:0") as checkpoint:
        for _ in checkpoint.stream(memory_limit="13MB"):
            pass


def by_into() -> None:
    into = {"large.1": torch.zeros(3000, 1000, dtype=torch.int32)}
    with tensorhold.open("model.safetensors") as checkpoint:
        checkpoint.load(["large.1"], into=into)


def by_patterns() -> None:
    with tensorhold.open("model.safetensors") as checkpoint:
        checkpoint.load(device={"small.*": "cuda:1", "large.0": "cpu", "*": "cuda:0"})


@pytest.mark.parametrize("way", [by_tensor, by_slice, by_stream, by_into, by_patterns, load])
@pytest.mark.parametrize("call", ["MemcpyAsync", "EventRecord", "StreamSynchronize"])
def test_every_way_tells_of_a_failing_call(
    way: Callable[[], object],
    call: str,
    model: dict[str, torch.Tensor],
    double: Double,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # PyTorch takes the tensors to fill for the host's.
    monkeypatch.setattr(tensorhold.torch, "_copied_to", lambda tensor: "cuda:0")
    double.configure(f"fail={call}:1:700")
    with pytest.raises(DeviceError, match=rf"`{PREFIX}{call}` failed on {PREFIX}:[01]: .*700"):
        way()
    double.configure("fail=")
    way()
    assert_loads(model)


@pytest.mark.parametrize("scribbles", ["scribble=1,reuse=1,delay_us=300,seed=7", "latency_us=200"])
def test_slow_and_late_copies_carry_the_right_bytes(
    scribbles: str, model: dict[str, torch.Tensor], double: Double
) -> None:
    double.configure(scribbles)
    for _ in range(3):
        assert_loads(model)


def test_a_device_that_is_not_there_is_counted(model: dict[str, torch.Tensor]) -> None:
    with tensorhold.open("model.safetensors") as checkpoint:
        with pytest.raises(DeviceError, match="there is no device 7: this machine has 2"):
            checkpoint.load(device="cuda:7")
        with pytest.raises(DeviceError, match="there is no device 7"):
            checkpoint.load(device=torch.device("cuda", 7))


def test_a_file_that_shrinks_leaves_nothing(model: dict[str, torch.Tensor]) -> None:
    shutil.copy("model.safetensors", "short.safetensors")
    with tensorhold.open("short.safetensors") as checkpoint:
        os.truncate("short.safetensors", 1 << 20)
        with pytest.raises(tensorhold.SafetensorError, match=r"short\.safetensors"):
            checkpoint.load(device="cuda:0")
