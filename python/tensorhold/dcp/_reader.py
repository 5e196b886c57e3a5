"""Reading what PyTorch or we have saved."""

from __future__ import annotations

import io
import os
from math import prod
from operator import gt, lt
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch.distributed.checkpoint import metadata as words
from torch.distributed.checkpoint import planner as planning
from torch.distributed.checkpoint import storage
from torch.futures import Future

from tensorhold import _into, _native
from tensorhold._errors import InvalidTensorError, SafetensorError, SourceNotFoundError
from tensorhold.dcp._words import SAVE, SHARDING, VALUES, sharding_from_text, values_from_text
from tensorhold.torch import _getdtype

__all__ = ["StorageReader"]


class _Piece(NamedTuple):
    """Where a piece of a tensor is: its file, its place in the whole, its shape."""

    file: str
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    def ends(self) -> tuple[int, ...]:
        return tuple(at + size for at, size in zip(self.offsets, self.sizes, strict=True))

    def overlaps(self, other: _Piece) -> bool:
        starts = map(max, self.offsets, other.offsets)
        return all(map(lt, starts, map(min, self.ends(), other.ends())))


class _Tensor:
    """A tensor, of which files hold pieces."""

    def __init__(self, name: str, dtype: str) -> None:
        self._name, self._dtype = name, dtype
        self._shape: tuple[int, ...] | None = None
        self.pieces: list[_Piece] = []

    def add(self, piece: _Piece, dtype: str, shape: tuple[int, ...] | None) -> None:
        if len(piece.offsets) != len(piece.sizes) or shape not in (None, self._shape or shape):
            self._refuse(piece, "has pieces of different shapes")
        if dtype != self._dtype:
            self._refuse(piece, f"is {dtype} here, and {self._dtype} in another file")
        self._shape = self._shape or shape
        self.pieces.append(piece)

    def metadata(self) -> words.TensorStorageMetadata:
        chunks = [
            words.ChunkStorageMetadata(torch.Size(piece.offsets), torch.Size(piece.sizes))
            for piece in self.pieces
        ]
        properties = words.TensorProperties(dtype=_getdtype(self._dtype))
        return words.TensorStorageMetadata(properties, torch.Size(self._size()), chunks)

    def index(self, piece: _Piece) -> words.MetadataIndex:
        return words.MetadataIndex(self._name, torch.Size(piece.offsets))

    def _size(self) -> tuple[int, ...]:
        """The shape of the whole, of which no element may be missing or there twice."""
        first, *others = self.pieces
        if any(len(piece.sizes) != len(first.sizes) for piece in others):
            self._refuse(first, "has pieces of different numbers of dimensions")
        reach = (
            tuple(map(max, *(piece.ends() for piece in self.pieces))) if others else first.ends()
        )
        size = reach if self._shape is None else self._shape
        if len(size) != len(reach) or any(map(gt, reach, size)):
            self._refuse(first, f"has a piece that passes its shape {list(size)}")
        ordered = sorted(self.pieces, key=lambda piece: piece.offsets)
        for number, piece in enumerate(ordered):
            for other in ordered[number + 1 :]:
                if other.offsets[:1] >= piece.ends()[:1] and piece.offsets:
                    break
                if piece.overlaps(other):
                    self._refuse(other, "has two pieces with the same elements")
        n_found = sum(prod(piece.sizes) for piece in self.pieces)
        if n_found != prod(size):
            self._refuse(
                first, f"has {n_found} of {prod(size)} elements in the files of the folder"
            )
        return size

    def _refuse(self, piece: _Piece, what: str) -> NoReturn:
        raise InvalidTensorError(
            f"{piece.file}: tensor `{self._name}` {what}",
            kind="InvalidTensor",
            tensor=self._name,
            hint="a file of the save is missing, or is of another save",
        )


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
        found: dict[str, _Tensor] = {}
        values: dict[str, Any] = {}
        saves = set()
        pieces = _native.Pieces(files)
        for path, infos, beside in zip(files, pieces.infos(), pieces.metadata(), strict=True):
            saves.add(beside.get(SAVE))
            values |= values_from_text(str(path), beside.get(VALUES, "{}"))
            sharding = sharding_from_text(str(path), beside.get(SHARDING, "{}"))
            for info in infos:
                offsets, shape = sharding.get(info.name, ((0,) * len(info.shape), None))
                tensor = found.setdefault(info.name, _Tensor(info.name, info.dtype))
                tensor.add(_Piece(path.name, offsets, info.shape), info.dtype, shape)
        if len(saves) > 1:
            raise SafetensorError(f"{self.path}: the folder has files of {len(saves)} saves")
        return words.Metadata(
            state_dict_metadata={
                **{name: tensor.metadata() for name, tensor in found.items()},
                **{name: words.BytesStorageMetadata() for name in values},
            },
            # What ranks need to know beside: the file of each piece, and each value.
            storage_data={
                **{
                    tensor.index(piece): piece.file
                    for tensor in found.values()
                    for piece in tensor.pieces
                },
                **{words.MetadataIndex(name): value for name, value in values.items()},
            },
            storage_meta=words.StorageMeta(checkpoint_id=str(self.path)),
        )

    def set_up_storage_reader(self, metadata: words.Metadata, *_args: Any, **_kwargs: Any) -> None:
        self._places = metadata.storage_data

    def prepare_local_plan(self, plan: planning.LoadPlan) -> planning.LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[planning.LoadPlan]) -> list[planning.LoadPlan]:
        return plans

    def read_data(self, plan: planning.LoadPlan, planner: planning.LoadPlanner) -> Future[None]:
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
            pairs = zip(item.storage_offsets, item.lengths, strict=True)
            ranges = [(start, start + length) for start, length in pairs]
            boxes.append((files.setdefault(found, len(files)), name, ranges))
            into[f"{name} from {list(item.storage_offsets)} on ({len(into)})"] = target
            done.append((item, target))
        described = _into.given(into, _of_torch)
        paths = [self.path / name for name in files]
        _native.Pieces(paths).fill(boxes, list(described.values()), self._threads)
        for item, target in done:
            planner.commit_tensor(item, target)
        finished: Future[None] = Future()
        finished.set_result(None)
        return finished


def _of_torch(_tensor: Any) -> str:
    return "torch"
