"""Filling the parameters and buffers of a PyTorch module with what a rank holds of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tensorhold import _native
from tensorhold._errors import InvalidTensorError
from tensorhold.parallel._asked import own_cores
from tensorhold.parallel._words import placement_words
from tensorhold.torch import _mismatch

if TYPE_CHECKING:
    from tensorhold.checkpoint import Checkpoint

__all__ = ["fill"]


@dataclass
class _Slot:
    """A tensor of the module: under its first name, and the others that it is known by."""

    names: list[str]
    tensor: Any
    share: _native.Share | None = None

    def local(self) -> torch.Tensor:
        """The memory to fill."""
        tensor = self.tensor.detach()
        local: torch.Tensor = tensor if self.share is None else tensor.to_local()
        return local


def fill(
    model: torch.nn.Module,
    checkpoint: Checkpoint,
    device: Any,
    strict: bool,
    threads: int | None,
) -> tuple[list[str], list[str]]:
    slots = _slots(model)
    stored: dict[str, list[_Slot]] = {}
    missing = []
    # Weights that are tied and were divided each by itself are tensors of their own.
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    for slot in slots:
        names = [*slot.names, *(tied[name] for name in slot.names if name in tied)]
        name = next((name for name in names if name in checkpoint), None)
        if name is None:
            missing.append(slot.names[0])
        else:
            _check(name, slot, checkpoint)
            stored.setdefault(name, []).append(slot)
    known = {name for slot in slots for name in slot.names} | stored.keys()
    unexpected = [name for name in checkpoint if name not in known]
    if strict and (missing or unexpected):
        raise RuntimeError(_mismatch(type(model).__name__, missing, unexpected))
    made = []
    for slot in (slot for found in stored.values() for slot in found):
        if slot.tensor.is_meta:
            made.append(slot)
            slot.tensor = _materialized(slot.tensor, device)
    # A name is loaded once at a time.
    for number in range(max(map(len, stored.values()), default=0)):
        turn = {name: found[number] for name, found in stored.items() if number < len(found)}
        parts = {name: slot.share for name, slot in turn.items()}
        into = {name: slot.local() for name, slot in turn.items()}
        checkpoint.load(parts, into=into, threads=threads, cores=own_cores())
    for slot in made:
        for name in slot.names:
            _assign(model, name, slot.tensor)
    return missing, unexpected


def _slots(model: torch.nn.Module) -> list[_Slot]:
    """The tensors of the state dict, each once."""
    by_identity: dict[int, _Slot] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, torch.Tensor):
            # The extra state of a module, which a checkpoint of tensors does not hold.
            continue
        slot = by_identity.setdefault(id(tensor), _Slot([], tensor))
        slot.names.append(name)
        if not slot.names[1:]:
            slot.share = _share(tensor)
    return list(by_identity.values())


def _share(tensor: Any) -> _native.Share | None:
    """The part of a DTensor that this rank holds; nothing for any other tensor."""
    placements = getattr(tensor, "placements", None)
    if placements is None:
        return None
    mesh = tensor.device_mesh
    divisions = []
    for placement, size, rank in zip(placements, mesh.shape, mesh.get_coordinate(), strict=True):
        words = placement_words(placement)
        if words is None:
            raise InvalidTensorError(
                f"a DTensor that is {placement} on an axis cannot be filled", kind="InvalidTensor"
            )
        divisions.append((words, size, rank))
    return _native.Share(list(tensor.shape), divisions)


def _check(name: str, slot: _Slot, checkpoint: Checkpoint) -> None:
    shape, found = tuple(slot.tensor.shape), checkpoint.info(name).shape
    if shape != found:
        raise InvalidTensorError(
            f"`{name}` has shape {list(found)} in the checkpoint, but {list(shape)} in the module",
            kind="InvalidTensor",
            tensor=name,
        )


def _materialized(tensor: Any, device: Any) -> Any:
    """The same with memory, which is still to be filled."""
    if not hasattr(tensor, "placements"):
        made = torch.empty_like(tensor, device=torch.device("cpu" if device is None else device))
    else:
        if device is None:
            device = tensor.device_mesh.device_type
        local = torch.empty_like(tensor.to_local(), device=device)
        made = type(tensor).from_local(
            local,
            tensor.device_mesh,
            tensor.placements,
            run_check=False,
            shape=tensor.shape,
            stride=tensor.stride(),
        )
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(made, requires_grad=tensor.requires_grad)
    return made


def _assign(model: torch.nn.Module, name: str, tensor: Any) -> None:
    """Puts a tensor in the place of the one that the module has under this name."""
    path, _, last = name.rpartition(".")
    module = model.get_submodule(path)
    tensors = module._parameters if last in module._parameters else module._buffers
    tensors[last] = tensor
