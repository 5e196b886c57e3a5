"""Reading what PyTorch or we have saved."""

from __future__ import annotations

import gc
import io
import os
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import metadata as words
from torch.distributed.checkpoint import planner as planning
from torch.distributed.checkpoint import storage
from torch.futures import Future

from tensorhold import _into, _native
from tensorhold._errors import SourceNotFoundError
from tensorhold.dcp._words import VALUES, in_file, in_torch, values_from_text
from tensorhold.torch import _getdtype

__all__ = ["StorageReader"]


class StorageReader(storage.StorageReader):
    """Reads safetensors files for `torch.distributed.checkpoint.load`.

    Each rank reads what it asks for, straight into the memory that it is for: from the files of a
    save of `StorageWriter` or PyTorch's `HuggingFaceStorageWriter`, or those of any checkpoint.

    Args:
        path: The folder.
        threads: How many threads read, if not as many as the files and the machine deserve.

    Raises:
        FileNotFoundError: The folder has no safetensors files.
        SafetensorError: A file is wrong, pieces of a tensor are missing or overlap, or files of two
            saves are mixed.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        super().__init__()
        self.path = Path(path)
        self._threads = threads
        self._places: dict[words.MetadataIndex, Any] = {}

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        if checkpoint_id:
            self.path = Path(checkpoint_id)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return Path(checkpoint_id).is_dir()

    def read_metadata(self, *_args: Any, **_kwargs: Any) -> words.Metadata:
        files = sorted(self.path.glob("*.safetensors"))
        if not files:
            message = f"{self.path}: there are no safetensors files in the folder"
            raise SourceNotFoundError(message, kind="NotFound")
        pieces = _native.Pieces(files)
        tensors: dict[str, words.TensorStorageMetadata] = {}
        # What ranks need to know beside: the file of each piece, and each value.
        places: dict[words.MetadataIndex, Any] = {}
        for name, dtype, shape, found in pieces.tensors():
            torch_dtype = _getdtype(dtype)
            properties = words.TensorProperties(dtype=torch_dtype)
            size = torch.Size(in_torch(torch_dtype, shape))
            chunks = []
            for file, *place in found:
                offsets, sizes = (torch.Size(in_torch(torch_dtype, dims)) for dims in place)
                chunk = words.ChunkStorageMetadata(offsets, sizes)
                chunks.append(chunk)
                places[words.MetadataIndex(name, chunk.offsets)] = files[file].name
            tensors[name] = words.TensorStorageMetadata(properties, size, chunks)
        values: dict[str, Any] = {}
        for path, beside in zip(files, pieces.metadata(), strict=True):
            values |= values_from_text(str(path), beside.get(VALUES, "{}"))
        places |= {words.MetadataIndex(name): value for name, value in values.items()}
        return words.Metadata(
            state_dict_metadata={
                **tensors,
                **{name: words.BytesStorageMetadata() for name in values},
            },
            storage_data=places,
            storage_meta=words.StorageMeta(checkpoint_id=str(self.path)),
        )

    def set_up_storage_reader(self, metadata: words.Metadata, *_args: Any, **_kwargs: Any) -> None:
        self._places = metadata.storage_data

    def prepare_local_plan(self, plan: planning.LoadPlan) -> planning.LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[planning.LoadPlan]) -> list[planning.LoadPlan]:
        return plans

    def read_data(self, plan: planning.LoadPlan, planner: planning.LoadPlanner) -> Future[None]:
        # What is made here has no cycles; looking for some in all of PyTorch takes as long as it.
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            self._read(plan, planner)
        finally:
            if was_enabled:
                gc.enable()
        finished: Future[None] = Future()
        finished.set_result(None)
        return finished

    def _read(self, plan: planning.LoadPlan, planner: planning.LoadPlanner) -> None:
        files: dict[str, int] = {}
        boxes, done = [], []
        into: dict[str, torch.Tensor] = {}
        for item in plan.items:
            found = self._places[item.storage_index]
            if item.type == planning.LoadItemType.BYTE_IO:
                # The bytes that are unpickled were made here, from a value out of JSON.
                made = io.BytesIO()
                torch.save(found, made)
                made.seek(0)
                planner.load_bytes(item, made)
                continue
            target = planner.resolve_tensor(item).detach()
            name = item.storage_index.fqn
            starts = in_file(target.dtype, item.storage_offsets)
            lengths = in_file(target.dtype, item.lengths)
            ranges = [(start, start + n) for start, n in zip(starts, lengths, strict=True)]
            boxes.append((files.setdefault(found, len(files)), name, ranges))
            into[f"{name} from {list(item.storage_offsets)} on ({len(into)})"] = target
            done.append((item, target))
        described = _into.given(into, _of_torch)
        paths = [self.path / name for name in files]
        _native.Pieces(paths).fill(boxes, list(described.values()), self._threads)
        for item, target in done:
            planner.commit_tensor(item, target)


def _of_torch(_tensor: Any) -> str:
    return "torch"
