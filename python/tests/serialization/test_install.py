"""`torch.save` and `torch.load` go our way for safetensors files, and PyTorch's for all others."""

from __future__ import annotations

import inspect
import io
import pickle
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import safetensors.torch
import torch
from serialization.same import check_same

import tensorhold
from tensorhold import serialization
from tensorhold.serialization._install import is_safetensors

STATE = {"step": 3, "weights": [torch.arange(4.0), torch.ones(2, 2).t()], (1, 2): None}
OF_TORCH = torch.save, torch.load


@pytest.fixture(autouse=True)
def _nothing_stays_installed() -> Iterator[None]:
    yield
    serialization.uninstall()
    assert (torch.save, torch.load) == OF_TORCH
    assert (torch.serialization.save, torch.serialization.load) == OF_TORCH


def test_safetensors_files_are_written_by_suffix_and_read_by_content(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    with serialization.install():
        torch.save(STATE, path)
        torch.save(STATE, f=str(tmp_path / "also.safetensors"))
        check_same(STATE, torch.load(path))
        check_same(STATE, torch.load(str(path), "cpu", weights_only=True, mmap=True))
        renamed = path.rename(tmp_path / "state.pt")
        check_same(STATE, torch.load(f=renamed, pickle_module=pickle, weights_only=False))
        check_same(STATE, torch.serialization.load(tmp_path / "also.safetensors"))
        with renamed.open("rb") as file:
            check_same(STATE, torch.load(file))
        memory = io.BytesIO(b"before" + renamed.read_bytes())
        memory.seek(6)
        check_same(STATE, torch.load(memory, map_location=lambda storage, _: storage))
        moved = torch.load(renamed, map_location={"cpu": "meta"})
        assert moved["weights"][0].is_meta


def test_everything_else_goes_on_to_torch_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    with serialization.install():
        torch.save(STATE, path)
        assert zipfile.is_zipfile(path)
        check_same(STATE, torch.load(path, weights_only=True))
        torch.save(STATE, path, pickle_protocol=4, _use_new_zipfile_serialization=False)
        check_same(STATE, torch.load(path, weights_only=False))
        memory = io.BytesIO()
        torch.save(STATE, memory)
        memory.seek(0)
        check_same(STATE, torch.load(memory, mmap=None))
        torch.save(len, path)
        with pytest.raises(pickle.UnpicklingError, match="Weights only"):
            torch.load(path, weights_only=True)
        assert torch.load(path, weights_only=False) is len
        with pytest.raises(FileNotFoundError):
            torch.load(tmp_path / "nowhere.safetensors")
        with pytest.raises(AttributeError):
            torch.load(5)
    torch.save(STATE, tmp_path / "x.safetensors")
    assert zipfile.is_zipfile(tmp_path / "x.safetensors")


def test_plain_safetensors_files_are_the_dict_that_torch_gives(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    safetensors.torch.save_file({"a": torch.ones(2)}, path)
    with serialization.install():
        check_same({"a": torch.ones(2)}, torch.load(path))
        check_same({"a": torch.ones(2)}, torch.load(io.BytesIO(path.read_bytes())))


def test_other_suffixes_keep_what_they_can(tmp_path: Path) -> None:
    kept, other = tmp_path / "kept.pt", tmp_path / "other.pt"
    with serialization.install((".safetensors", ".pt")):
        torch.save(STATE, kept)
        torch.save({"hook": len}, other)
        assert is_safetensors(kept)
        assert zipfile.is_zipfile(other)
        assert torch.load(other, weights_only=False) == {"hook": len}
        check_same(STATE, torch.load(kept))
        with pytest.raises(ValueError, match=r'root\["hook"\]: a function cannot be kept'):
            torch.save({"hook": len}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="`pt` is no suffix"):
        serialization.install("pt")


def test_installing_twice_is_installing_once(tmp_path: Path) -> None:
    with serialization.install():
        ours = torch.save, torch.load
        assert ours != OF_TORCH
        assert inspect.signature(torch.load) == inspect.signature(OF_TORCH[1])
        with serialization.install(".pt"):
            assert (torch.save, torch.load) == ours
            torch.save([1], tmp_path / "x.pt")
        torch.save([1], tmp_path / "y.pt")
    assert is_safetensors(tmp_path / "x.pt")
    assert not is_safetensors(tmp_path / "y.pt")
    serialization.install()
    serialization.install()
    serialization.uninstall()
    serialization.uninstall()
    assert (torch.save, torch.load) == OF_TORCH


def test_a_wrapper_around_ours_goes_on_to_torch_when_ours_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, serialization.install():
        ours = torch.save
        patch.setattr(torch, "save", lambda *args, **kwargs: ours(*args, **kwargs))
        serialization.uninstall()
        torch.save([1], tmp_path / "x.safetensors")
        assert zipfile.is_zipfile(tmp_path / "x.safetensors")
        with serialization.install():
            torch.save([1], tmp_path / "x.safetensors")
            assert is_safetensors(tmp_path / "x.safetensors")
    torch.save, torch.serialization.save = OF_TORCH[0], OF_TORCH[0]


def test_what_only_looks_like_safetensors_goes_on_to_torch(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for data in (b"", b"{", b"\x10" + bytes(7) + b"[]", b"\xff" * 8 + b"{}", bytes(8) + b"{"):
        path.write_bytes(data)
        assert not is_safetensors(path)
        assert not is_safetensors(io.BytesIO(data))
    path.write_bytes(b"PK\x03\x04" + bytes(4) + b"{" + b" " * 0x04034B50)
    assert not is_safetensors(path)
    assert not is_safetensors(tmp_path)
    assert not is_safetensors(5)


def test_files_of_the_hub_are_read_by_content(tmp_path: Path) -> None:
    serialization.save(STATE, tmp_path / "model-0123.pt")
    with serialization.install():
        found = torch.hub.load_state_dict_from_url(
            (tmp_path / "model-0123.pt").as_uri(), model_dir=str(tmp_path / "cache"), progress=False
        )
    check_same(STATE, found)


def test_weights_of_exported_programs_come_back(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).eval()
    inputs = (torch.randn(4, 3),)
    program = torch.export.export(model, inputs)
    path = tmp_path / "weights.safetensors"
    with serialization.install():
        torch.save({"weights": program.state_dict, "constants": program.constants}, path)
        found = torch.load(path)
    expected = program.module()(*inputs)
    for tensor in program.state_dict.values():
        tensor.data.zero_()
    check_same(dict(program.constants), dict(found["constants"]))
    module = program.module()
    module.load_state_dict(found["weights"])
    assert torch.equal(module(*inputs), expected)


class _TorchCheckpointIO:
    """What stands in the place of Lightning's own plugin."""

    def load_checkpoint(self, path: Any, map_location: Any = None, **words: Any) -> Any:
        return ("of Lightning", path, map_location, words)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Any:
    names = ["lightning", "lightning.fabric", "lightning.fabric.plugins"]
    for name in [*names, "lightning.fabric.plugins.io"]:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    vars(sys.modules["lightning.fabric.plugins.io"])["TorchCheckpointIO"] = _TorchCheckpointIO
    from tensorhold.serialization import lightning

    lightning._plugin.cache_clear()
    return lightning.CheckpointIO()


def test_the_plugin_keeps_checkpoints_of_lightning(plugin: Any, tmp_path: Path) -> None:
    assert isinstance(plugin, _TorchCheckpointIO)
    path = tmp_path / "folder" / "epoch=1.ckpt"
    plugin.save_checkpoint(STATE, path)
    assert is_safetensors(path)
    check_same(STATE, plugin.load_checkpoint(path))
    check_same(STATE, plugin.load_checkpoint(str(path), map_location=lambda storage, _: storage))
    torch.save(STATE, tmp_path / "old.ckpt")
    old = plugin.load_checkpoint(tmp_path / "old.ckpt", weights_only=True)
    assert old == ("of Lightning", tmp_path / "old.ckpt", "cpu", {"weights_only": True})
    remote = "memory://folder/epoch=2.ckpt"
    plugin.save_checkpoint(STATE, remote)
    check_same(STATE, plugin.load_checkpoint(remote))
    with pytest.raises(TypeError, match="no storage options"):
        plugin.save_checkpoint(STATE, path, storage_options={})
    with pytest.raises(ValueError, match="cannot be kept"):
        plugin.save_checkpoint({"x": len}, path)
    check_same(STATE, plugin.load_checkpoint(path))


def test_without_lightning_the_plugin_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorhold.serialization import lightning

    for name in ("lightning", "pytorch_lightning", "lightning.fabric", "lightning_fabric"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "lightning")
    monkeypatch.delitem(sys.modules, "pytorch_lightning")
    with pytest.raises(ImportError, match="pip install lightning"):
        _ = lightning.CheckpointIO
    with pytest.raises(AttributeError, match="no attribute `other`"):
        _ = lightning.other


def test_a_map_of_devices_reaches_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "placed.safetensors"
    root = '{"version":1,"root":[{"$tensor":"w","device":"cuda:7"}]}'
    tensorhold.save({"w": torch.ones(2)}, path, metadata={"TENSORHOLD_TREE": root})
    for location in ("cpu", {"cuda:7": "cpu"}, lambda storage, _: storage):
        assert serialization.load(path, map_location=location)[0].tolist() == [1, 1]
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="tensors were on cuda:7") as caught:
            serialization.load(path)
        assert 'map_location="cpu"' in str(caught.value)
