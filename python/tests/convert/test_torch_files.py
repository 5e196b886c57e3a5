"""Checkpoints of PyTorch hold what PyTorch itself says, read without running anything."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from convert import checkpoints, containers
from convert.checkpoints import KNOWN_FILES, Checkpoint, all_checkpoints
from convert.compare import check_converted, check_same

import tensorhold
from tensorhold import _native, serialization

_EVERY = [*all_checkpoints(), *KNOWN_FILES]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module", params=_EVERY, ids=lambda each: each.name)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: Any) -> tuple[Path, Any]:
    """A file that PyTorch has written, and what it says is in it."""
    made: Checkpoint = request.param
    path: Path = tmp_path_factory.mktemp("written") / "old.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.write(made.make(), path)
        return path, torch.load(path, weights_only=False)


def test_there_are_more_than_a_hundred_and_twenty() -> None:
    assert len(_EVERY) >= 120


def test_a_converted_checkpoint_is_what_torch_loads(checkpoint: tuple[Path, Any]) -> None:
    path, expected = checkpoint
    done = tensorhold.convert(path, "new.safetensors", durability="none", verify=True)
    assert done.n_dropped == 0
    check_converted(expected, serialization.load("new.safetensors"))


def test_a_loaded_checkpoint_is_what_torch_loads(checkpoint: tuple[Path, Any]) -> None:
    path, expected = checkpoint
    check_same(expected, serialization.load(path))


def test_nothing_in_it_is_to_be_feared(checkpoint: tuple[Path, Any]) -> None:
    found = tensorhold.scan(checkpoint[0])
    assert found.verdict == "harmless", (found.imports, found.findings)


def test_the_command_finds_nothing_in_harmless_files() -> None:
    paths = []
    for number, each in enumerate(KNOWN_FILES):
        paths.append(f"{number}.pt")
        each.write(each.make(), Path(paths[-1]))
    assert _native.cli_main(["scan", *paths]) == 0


def test_a_pickled_module_gives_the_tensors_of_its_state_dict() -> None:
    model = checkpoints.model()
    torch.save(model, "model.pt")
    tensorhold.convert("model.pt", "model.safetensors", durability="none")
    found = safetensors.torch.load_file("model.safetensors")
    check_converted(dict(sorted(model.state_dict().items())), dict(sorted(found.items())))
    assert tensorhold.scan("model.pt").verdict == "harmless"


class Program(torch.nn.Module):
    """Something to make a TorchScript program of."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 2)
        self.parts = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.ReLU()])
        self.register_buffer("seen", torch.arange(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.parts[0](self.first(x))


def test_a_torchscript_program_gives_the_tensors_of_its_state_dict() -> None:
    torch.jit.save(torch.jit.script(Program()), "program.pt")
    tensorhold.convert("program.pt", "program.safetensors", durability="none")
    found = safetensors.torch.load_file("program.safetensors")
    expected = torch.jit.load("program.pt").state_dict()
    check_converted(dict(sorted(expected.items())), dict(sorted(found.items())))


def test_a_torchscript_program_is_said_to_have_code() -> None:
    torch.jit.save(torch.jit.script(Program()), "program.pt")
    found = tensorhold.scan("program.pt")
    assert found.verdict == "unknown"
    assert [each.kind for each in found.findings] == ["Code"]


# Where PyTorch refuses, or reads what it has not written.


@pytest.mark.parametrize("dtype", checkpoints.RECENT, ids=str)
def test_recent_types_are_read_of_older_streams_too(dtype: torch.dtype) -> None:
    containers.save(checkpoints.views(dtype), Path("old.pt"), _use_new_zipfile_serialization=False)
    with pytest.raises(AttributeError, match="UntypedStorage"):
        torch.load("old.pt", weights_only=False)
    tensorhold.convert("old.pt", "new.safetensors", durability="none", verify=True)
    check_converted(checkpoints.views(dtype), serialization.load("new.safetensors"))


@pytest.mark.parametrize("is_zip", [True, False])
def test_names_of_storages_that_are_texts_are_refused(is_zip: bool) -> None:
    value = {"w": torch.ones(2)}
    torch.save(value, "old.pt", pickle_protocol=0, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(AssertionError, match="saved_id must be a tuple"):
        torch.load("old.pt", weights_only=False)
    with pytest.raises(ValueError, match="a persistent value is named by no tuple"):
        tensorhold.convert("old.pt", "new.safetensors")
    assert not Path("new.safetensors").exists()
