"""Distributed checkpoints: ours and PyTorch's readers and writers, in all pairs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from rank_programs import (
    load_resharded,
    save_and_load_divided,
    save_async_and_load,
    save_divided,
)
from safetensors import safe_open
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)

import tensorhold
import tensorhold.torch
from tensorhold.dcp import StorageReader, StorageWriter

DTYPES = list(tensorhold.torch._TYPES.values())


def state() -> dict:
    torch.manual_seed(0)
    bits = {
        dtype: torch.randint(0, 2, (3, 4 * dtype.itemsize), dtype=torch.uint8) for dtype in DTYPES
    }
    tensors = {str(dtype)[6:]: found.view(dtype) for dtype, found in bits.items()}
    return tensors | {
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "nested": {"a": torch.ones(2)},
    }


def blank(of: dict) -> dict:
    return {
        name: blank(value)
        if isinstance(value, dict)
        else torch.empty_like(value)
        if isinstance(value, torch.Tensor)
        else None
        for name, value in of.items()
    }


def same(one: dict, other: dict) -> bool:
    return all(
        same(value, other[name])
        if isinstance(value, dict)
        else octets(value) == octets(other[name])
        for name, value in one.items()
    )


def octets(tensor: torch.Tensor) -> bytes:
    return tensor.flatten().view(torch.uint8).numpy().tobytes()


def load(into: dict, reader) -> dict:
    dcp.load(into, storage_reader=reader, no_dist=True)
    return into


def test_what_we_save_we_load_and_pytorch_does():
    saved = state()
    dcp.save(saved, storage_writer=StorageWriter("ours"), no_dist=True)
    assert same(saved, load(blank(saved), StorageReader("ours")))
    # What PyTorch's reader has words for.
    known = {str(dtype)[6:] for dtype in safetensors.torch._TYPES.values()}
    for name in {str(dtype)[6:] for dtype in DTYPES} - known:
        del saved[name]
    dcp.save(saved, storage_writer=StorageWriter("ours"), no_dist=True)
    assert same(saved, load(blank(saved), HuggingFaceStorageReader("ours")))


def test_what_pytorch_saves_we_load():
    saved = state()
    dcp.save(saved, storage_writer=HuggingFaceStorageWriter("theirs"), no_dist=True)
    assert same(saved, load(blank(saved), StorageReader("theirs")))


def test_the_files_are_described_as_pytorchs_are():
    saved = {"a": torch.ones(2, 2), "b": torch.zeros(3)}
    numbers = {"a": 1, "b": 2}
    dcp.save(
        saved, storage_writer=StorageWriter("ours", fqn_to_index_mapping=numbers), no_dist=True
    )
    theirs = HuggingFaceStorageWriter("theirs", fqn_to_index_mapping=numbers)
    dcp.save(saved, storage_writer=theirs, no_dist=True)
    names = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    for folder in ("ours", "theirs"):
        found = {path.name for path in Path(folder).iterdir()}
        assert found == set(names)
    indexes = [json.loads(Path(folder, names[2]).read_text()) for folder in ("ours", "theirs")]
    assert indexes[0] == indexes[1]
    for name in names[:2]:
        with safe_open(f"ours/{name}", "pt") as ours, safe_open(f"theirs/{name}", "pt") as his:
            said, known = ours.metadata(), his.metadata()
            assert {key: said[key] for key in ("DCP_VERSION", "format")} == {
                key: known[key] for key in ("DCP_VERSION", "format")
            }
            sharding = json.loads(said["DCP_SHARDING_INFO"])
            offsets = {
                fqn: {"saved_offsets": one["saved_offsets"]} for fqn, one in sharding.items()
            }
            assert offsets == json.loads(known["DCP_SHARDING_INFO"])
    # Any reader of safetensors takes them.
    assert set(tensorhold.open("ours")) == {"a", "b"}


def test_values_that_are_no_tensors_are_kept_without_a_pickle():
    saved = {
        "w": torch.ones(2),
        "step": 3,
        "lr": 0.5,
        "name": "run",
        "betas": (0.9, 0.99),
        "none": None,
    }
    dcp.save(saved, storage_writer=StorageWriter("ours"), no_dist=True)
    found = load(
        {"w": torch.zeros(2), "step": 0, "lr": 0.0, "name": "", "betas": 0, "none": 1},
        StorageReader("ours"),
    )
    assert torch.equal(found.pop("w"), saved.pop("w"))
    assert found == saved
    (path,) = [path for path in Path("ours").iterdir() if path.suffix == ".safetensors"]
    assert b"PK" not in path.read_bytes()
    with pytest.raises(
        CheckpointException, match="`odd` holds a complex, which a file of tensors cannot keep"
    ):
        dcp.save({"odd": 1j}, storage_writer=StorageWriter("odd"), no_dist=True)


@pytest.mark.parametrize("writer", ["ours", "theirs"])
def test_meshes_of_other_sizes_read_what_ranks_have_saved(run, writer, tmp_path):
    run(save_divided, 4, str(tmp_path / "saved"), writer)
    run(load_resharded, 2, str(tmp_path / "saved"), "ours")
    run(load_resharded, 2, str(tmp_path / "saved"), "theirs")


def test_a_divided_model_and_its_optimizer_come_back(run, tmp_path):
    run(save_and_load_divided, 4, str(tmp_path / "saved"))
    run(save_async_and_load, 2, str(tmp_path / "async"))


def test_a_hole_is_refused(run, tmp_path):
    saved = tmp_path / "saved"
    run(save_divided, 4, str(saved), "theirs")
    shutil.copytree(saved, tmp_path / "torn")
    next((tmp_path / "torn").glob("shard-00002-*")).unlink()
    reader = StorageReader(tmp_path / "torn")
    with pytest.raises(tensorhold.SafetensorError, match="elements in the files of the folder"):
        reader.read_metadata()
    run(save_divided, 4, str(saved), "ours")
    assert not [path for path in saved.iterdir() if path.name.startswith(".")]
    next(saved.glob("shard-00004-*")).unlink()
    with pytest.raises(tensorhold.SafetensorError, match="elements in the files of the folder"):
        StorageReader(saved).read_metadata()


def test_files_of_two_saves_are_not_taken_for_one(run, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    run(save_divided, 4, str(one), "ours")
    run(save_divided, 4, str(other), "ours")
    name = next(one.glob("shard-00001-*")).name
    shutil.copy(other / name, one / name)
    with pytest.raises(tensorhold.SafetensorError, match="files of 2 saves"):
        StorageReader(one).read_metadata()


def test_a_save_takes_the_place_of_the_one_before(run, tmp_path):
    saved = tmp_path / "saved"
    run(save_divided, 4, str(saved), "ours")
    dcp.save({"w": torch.ones(2)}, storage_writer=StorageWriter(saved), no_dist=True)
    assert {path.name for path in saved.iterdir()} == {
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
    }


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"w": 3}',
        '{"w": {"saved_offsets": [-1]}}',
        '{"w": {"saved_offsets": [0, 0]}}',
        '{"w": {"saved_offsets": [0], "global_shape": [1]}}',
        '{"w": {"saved_offsets": [1]}}',
        "[" * 100_000,
    ],
)
def test_what_a_file_says_of_its_pieces_is_not_believed(text, tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    tensorhold.save(
        {"w": torch.ones(2)}, path / "x.safetensors", metadata={"DCP_SHARDING_INFO": text}
    )
    with pytest.raises(tensorhold.SafetensorError, match=r"x\.safetensors"):
        StorageReader(path).read_metadata()
