"""Checkpoints of ranks, put together and divided anew by the command line."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from rank_programs import (
    load_awkward,
    load_resharded,
    save_and_load_divided,
    save_awkward,
    save_divided,
)
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)

import tensorhold
from tensorhold.dcp import StorageReader, StorageWriter


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "tensorhold.cli", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120)


def done(*arguments: object) -> list[str]:
    result = command(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def divided() -> dict[str, torch.Tensor]:
    """What `save_divided` saves."""
    torch.manual_seed(3)
    whole = {name: torch.randn(7, 6) for name in ("rows", "columns", "both")}
    whole["twice"] = torch.arange(40).reshape(10, 4)
    whole["same"] = torch.randn(5).bfloat16()
    return whole


def awkward() -> dict[str, torch.Tensor]:
    """What `save_awkward` saves."""
    return {
        "integers": torch.arange(35).reshape(7, 5),
        "flags": torch.arange(11) % 3 == 0,
        "scalar": torch.tensor(3.5),
        "columns": torch.arange(21.0).bfloat16().reshape(3, 7),
        "bytes": torch.arange(9, dtype=torch.uint8).view(torch.float8_e8m0fnu),
    }


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape, name
        octets = [one.flatten().view(torch.uint8) for one in (found[name], tensor)]
        assert torch.equal(*octets), name


@pytest.mark.parametrize("writer", ["ours", "theirs"])
def test_what_ranks_have_saved_is_put_together(run, writer, tmp_path):
    run(save_divided, 4, str(tmp_path / "saved"), writer)
    written = done("consolidate", tmp_path / "saved", tmp_path / "whole")
    assert written == [str(tmp_path / "whole" / "model.safetensors")]
    same(load_file(written[0]), divided())
    *shards, index = done(
        "consolidate", tmp_path / "saved", tmp_path / "shards", "--max-shard-size", "200"
    )
    assert len(shards) > 2 and index.endswith("model.safetensors.index.json")
    same(tensorhold.open(tmp_path / "shards").load(), divided())


def test_integers_scalars_and_narrow_types_stay_what_they_are(run, tmp_path):
    """PyTorch 2.15 ends with a traceback for the first and writes 0.0 for the second."""
    run(save_awkward, 4, str(tmp_path / "saved"))
    (path,) = done("consolidate", tmp_path / "saved", tmp_path / "whole")
    same(tensorhold.open(path).load(), awkward())


def test_the_result_is_aligned_and_says_what_it_is_for(run, tmp_path):
    run(save_divided, 4, str(tmp_path / "saved"), "theirs")
    (path,) = done("consolidate", tmp_path / "saved", tmp_path / "whole.safetensors")
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    assert (8 + length) % 64 == 0
    assert header["__metadata__"] == {"format": "pt"}


@pytest.mark.parametrize("writer", ["ours", "theirs"])
def test_holes_are_refused(run, writer, tmp_path):
    """PyTorch 2.15 fills them with zeros."""
    saved = tmp_path / "saved"
    run(save_divided, 4, str(saved), writer)
    next(saved.glob("shard-00003-*")).unlink()
    for arguments in (
        ("consolidate", saved, tmp_path / "whole"),
        ("reshard", saved, tmp_path / "ranks", "--mesh", "tp=2"),
    ):
        refused = command(*arguments)
        assert refused.returncode == 2
        assert "elements in the files of the folder" in refused.stderr
        assert "shard-0000" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_values_that_are_no_tensors_are_kept(tmp_path):
    state = {"w": torch.ones(2), "step": 3, "best": float("inf"), "betas": (0.9, 0.99)}
    dcp.save(state, storage_writer=StorageWriter(tmp_path / "saved"), no_dist=True)
    done("reshard", tmp_path / "saved", tmp_path / "ranks", "--mesh", "tp=2")
    done("consolidate", tmp_path / "ranks", tmp_path / "whole")
    for folder in ("ranks", "whole"):
        found = {"w": torch.zeros(2), "step": 0, "best": 0.0, "betas": ()}
        dcp.load(found, storage_reader=StorageReader(tmp_path / folder), no_dist=True)
        assert torch.equal(found.pop("w"), state["w"])
        assert found == {"step": 3, "best": float("inf"), "betas": (0.9, 0.99)}


def test_a_file_with_a_pickle_in_front_is_named(tmp_path):
    """PyTorch 2.15 writes one where a value is no tensor."""
    state = {"w": torch.ones(2), "step": 3}
    dcp.save(state, storage_writer=HuggingFaceStorageWriter(tmp_path / "saved"), no_dist=True)
    refused = command("consolidate", tmp_path / "saved", tmp_path / "whole")
    assert refused.returncode == 2
    assert "model-00001-of-00001.safetensors" in refused.stderr
    assert not (tmp_path / "whole").exists()


RULES = ("--rule", "rows=Shard(0)", "--rule", "columns=Shard(1)", "--rule", "twice=packed_colwise")


@pytest.mark.parametrize("reader", ["ours", "theirs"])
def test_what_is_resharded_is_loaded_on_any_mesh(run, reader, tmp_path):
    run(save_divided, 4, str(tmp_path / "saved"), "theirs")
    written = done("reshard", tmp_path / "saved", tmp_path / "tp3", "--mesh", "tp=3", *RULES)
    names = [Path(path).name for path in written]
    assert [name for name in names if "part" not in name] == [
        f"shard-{rank:05}-model-00001-of-00001.safetensors" for rank in (1, 2, 3)
    ]
    # Several pieces of one tensor, of which PyTorch 2.15 writes the last one only.
    assert any(name.endswith("-part-00001.safetensors") for name in names)
    run(load_resharded, 2, str(tmp_path / "tp3"), reader)
    run(load_resharded, 4, str(tmp_path / "tp3"), reader)


@pytest.mark.parametrize("reader", ["ours", "theirs"])
def test_a_plain_checkpoint_is_resharded(run, reader, tmp_path):
    state = awkward()
    if reader == "theirs":
        del state["bytes"]
    save_file(state, tmp_path / "model.safetensors")
    rules = ("--rule", "integers=Shard(0)", "--rule", "columns=Shard(1)")
    source = tmp_path / "model.safetensors"
    done("reshard", source, tmp_path / "ranks", "--mesh", "dp=2,tp=3", *rules)
    run(load_awkward, 4, str(tmp_path / "ranks"), reader)
    (path,) = done("consolidate", tmp_path / "ranks", tmp_path / "whole")
    same(tensorhold.open(path).load(), state)


def test_empty_tensors_and_ranks_without_any_are_no_holes(tmp_path):
    state = {"empty": torch.zeros(0, 3), "short": torch.arange(2)}
    save_file(state, tmp_path / "model.safetensors")
    rules = ("--rule", "short=Shard(0)", "--rule", "empty=Shard(0)")
    source = tmp_path / "model.safetensors"
    assert len(done("reshard", source, tmp_path / "ranks", "--mesh", "tp=4", *rules)) == 2
    (path,) = done("consolidate", tmp_path / "ranks", tmp_path / "whole")
    same(load_file(path), state)
    found = {"empty": torch.zeros(0, 3), "short": torch.zeros(2, dtype=torch.int64)}
    dcp.load(found, storage_reader=HuggingFaceStorageReader(tmp_path / "ranks"), no_dist=True)
    same(found, state)


def test_a_model_and_its_optimizer_are_resharded(run, tmp_path):
    run(save_and_load_divided, 4, str(tmp_path / "saved"))
    (before,) = done("consolidate", tmp_path / "saved", tmp_path / "before")
    rules = ("--rule", "**.up.weight=colwise", "--rule", "**.down.weight=rowwise")
    done("reshard", tmp_path / "saved", tmp_path / "tp2", "--mesh", "tp=2", *rules)
    (after,) = done("consolidate", tmp_path / "tp2", tmp_path / "after")
    assert command("diff", before, after).stdout.startswith("the same")
