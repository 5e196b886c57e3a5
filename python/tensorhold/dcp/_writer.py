"""Saving as PyTorch does, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch.distributed.checkpoint import metadata as words
from torch.distributed.checkpoint import planner as planning
from torch.distributed.checkpoint import storage
from torch.distributed.checkpoint.planner import WriteItemType
from torch.futures import Future

from tensorhold import _native
from tensorhold._arguments import to_item
from tensorhold._errors import ArgumentError
from tensorhold.dcp._words import (
    FORMAT,
    INDEX,
    SAVE,
    SHARDING,
    VALUES,
    VERSION,
    file_name,
    in_file,
    is_of_a_save,
    sharding_to_text,
    values_to_text,
)

__all__ = ["StorageWriter"]

# What the data of a file begins at a multiple of.
_ALIGNMENT = 4096


class _Written(NamedTuple):
    """A file of a save that is not complete, and what it is to be called."""

    temporary: str
    name: str
    size_bytes: int


class StorageWriter(storage.StorageWriter):
    """Writes safetensors files for `torch.distributed.checkpoint.save` and `async_save`.

    The files are called and described as those of PyTorch's `HuggingFaceStorageWriter`. They get
    their names when all ranks have written theirs, and those of an earlier save go then; until then
    that is what a reader finds. Files of two saves are never taken for one.

    Args:
        path: The folder, which is made if it is not there.
        fqn_to_index_mapping: From the name of each tensor to the number of its file, from 1 on;
            all are in one file where it is None.
        save_distributed: Whether each rank writes what it holds, rather than one rank everything.
        durability: What is on disk for sure on return: `"none"`, the `"data"`, or `"full"`.

    Raises:
        ValueError: A value is neither a tensor, nor made of numbers, texts, None, lists, tuples
            and dicts.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fqn_to_index_mapping: Mapping[str, int] | None = None,
        save_distributed: bool = False,
        durability: Literal["none", "data", "full"] = "data",
    ) -> None:
        super().__init__()
        self.path = Path(path)
        self._numbers = None if fqn_to_index_mapping is None else dict(fqn_to_index_mapping)
        self._save_distributed = save_distributed
        self._durability = durability

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        if checkpoint_id:
            self.path = Path(checkpoint_id)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return True

    def set_up_storage_writer(self, is_coordinator: bool, *_args: Any, **_kwargs: Any) -> None:
        pass

    def storage_meta(self) -> words.StorageMeta:
        return words.StorageMeta(checkpoint_id=str(self.path))

    def prepare_local_plan(self, plan: planning.SavePlan) -> planning.SavePlan:
        self.path.mkdir(parents=True, exist_ok=True)
        return plan

    def prepare_global_plan(self, plans: list[planning.SavePlan]) -> list[planning.SavePlan]:
        key = uuid.uuid4().hex
        numbered = enumerate(plans)
        return [dataclasses.replace(plan, storage_data=(rank, key)) for rank, plan in numbered]

    def write_data(
        self, plan: planning.SavePlan, planner: planning.SavePlanner
    ) -> Future[list[storage.WriteResult]]:
        rank, key = plan.storage_data
        n_files = 1 if self._numbers is None else max(self._numbers.values(), default=1)
        shard = rank if self._save_distributed else None
        results: list[storage.WriteResult] = []
        for (number, part), items in self._by_file(plan.items).items():
            name = file_name(number, n_files, shard, part)
            results += self._write(name, key, items, planner)
        finished: Future[list[storage.WriteResult]] = Future()
        finished.set_result(results)
        return finished

    def _by_file(
        self, items: Iterable[planning.WriteItem]
    ) -> dict[tuple[int, int], list[planning.WriteItem]]:
        """The items by the number of their file, and of its part: a file has a name only once."""
        by_file: dict[tuple[int, int], list[planning.WriteItem]] = {}
        n_before: dict[str, int] = {}
        for item in items:
            name = item.index.fqn
            part = n_before.get(name, 0)
            n_before[name] = part + 1
            by_file.setdefault((self._number(name), part), []).append(item)
        return by_file

    def _number(self, name: str) -> int:
        if self._numbers is None:
            return 1
        number = self._numbers.get(name)
        if number is None:
            raise ArgumentError(
                f"`fqn_to_index_mapping` has no file for `{name}`", kind="InvalidArgument"
            )
        return number

    def _write(
        self, name: str, key: str, items: list[planning.WriteItem], planner: planning.SavePlanner
    ) -> list[storage.WriteResult]:
        tensors: dict[str, torch.Tensor] = {}
        pieces, values = {}, {}
        for item in items:
            fqn = item.index.fqn
            if item.type == WriteItemType.BYTE_IO:
                values[fqn] = _value(planner, item)
                continue
            data = item.tensor_data
            found = planner.resolve_data(item)
            assert data is not None
            assert isinstance(found, torch.Tensor)
            tensors[fqn] = found.detach().contiguous()
            dtype = found.dtype
            pieces[fqn] = (in_file(dtype, data.chunk.offsets), in_file(dtype, data.size))
        beside = {VERSION: "1.0", FORMAT: "pt", SAVE: key, SHARDING: sharding_to_text(pieces)}
        if values:
            beside[VALUES] = values_to_text(values)
        temporary = f".{name}.{key}"
        # Each is written for itself, also where two share memory, as tied weights do.
        described = [to_item(fqn, tensor) for fqn, tensor in tensors.items()]
        target = self.path / temporary
        _native.save(described, target, beside, None, _ALIGNMENT, self._durability, None)
        results = []
        for item in items:
            tensor = tensors.get(item.index.fqn)
            file = _Written(temporary, name, 0 if tensor is None else tensor.nbytes)
            results.append(storage.WriteResult(item.index, file.size_bytes, file))
        return results

    def finish(self, metadata: words.Metadata, results: list[list[storage.WriteResult]]) -> None:
        written = {result.storage_data for of_rank in results for result in of_rank}
        names = {file.temporary: file.name for file in written}
        earlier = {path.name for path in self.path.iterdir() if is_of_a_save(path.name)}
        for temporary, name in names.items():
            os.replace(self.path / temporary, self.path / name)
        for name in earlier - names.keys() - set(names.values()):
            (self.path / name).unlink()
        index = self.path / INDEX
        if self._save_distributed:
            # It could name one file only for each tensor.
            index.unlink(missing_ok=True)
        else:
            self._write_index(index, results)
        if self._durability == "full":
            _sync(self.path)

    def _write_index(self, index: Path, results: list[list[storage.WriteResult]]) -> None:
        files = {result.index.fqn: result.storage_data for one in results for result in one}
        of_tensors = {name: file.name for name, file in files.items() if file.size_bytes}
        total = sum(result.storage_data.size_bytes for one in results for result in one)
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": of_tensors}, indent=2)
        temporary = index.with_name(f".{index.name}.{uuid.uuid4().hex}")
        temporary.write_text(text)
        os.replace(temporary, index)


def _value(planner: planning.SavePlanner, item: planning.WriteItem) -> Any:
    """The value that a planner would pickle."""
    look_up = getattr(planner, "lookup_object", None)
    if look_up is None:
        raise ArgumentError(
            f"the planner gives `{item.index.fqn}`, which is no tensor, only as a pickle",
            kind="InvalidArgument",
            hint="save it in another way, or use a planner that derives from DefaultSavePlanner",
        )
    return look_up(item.index)


def _sync(folder: Path) -> None:
    """Puts the names of a folder on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
