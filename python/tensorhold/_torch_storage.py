"""Which PyTorch tensors share memory, and which of them to keep, under the names of `torch.py`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch


def storage_ptr(tensor: torch.Tensor) -> int:
    """The address of the storage that `tensor` lies in; 0 where it has none.

    Example:
        >>> whole = torch.zeros(4)
        >>> storage_ptr(whole[2:]) == whole.data_ptr()
        True
    """
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0


def storage_size(tensor: torch.Tensor) -> int:
    """The size in bytes of the storage that `tensor` lies in.

    Example:
        >>> storage_size(torch.zeros(4)[2:])
        16
    """
    try:
        return tensor.untyped_storage().nbytes()
    except NotImplementedError:
        return tensor.nelement() * tensor.element_size()


def _end_ptr(tensor: torch.Tensor) -> int:
    """The address after the last byte of `tensor`, contiguous or not."""
    if not tensor.nelement():
        return tensor.data_ptr()
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr() + (last + 1) * tensor.element_size()


def _is_complete(tensor: torch.Tensor) -> bool:
    """Whether `tensor` covers the whole of its storage."""
    size_bytes = tensor.nelement() * tensor.element_size()
    return tensor.data_ptr() == storage_ptr(tensor) and size_bytes == storage_size(tensor)


def _find_shared_tensors(state_dict: dict[str, torch.Tensor]) -> list[set[str]]:
    """The names of the tensors, those that overlap in memory in one group."""
    storages: dict[tuple[torch.device, int, int], set[str]] = defaultdict(set)
    for name, tensor in state_dict.items():
        if tensor.device.type == "meta":
            continue
        address, size_bytes = storage_ptr(tensor), storage_size(tensor)
        if address and size_bytes:
            storages[tensor.device, address, size_bytes].add(name)
    return _filter_shared_not_shared(list(storages.values()), state_dict)


def _filter_shared_not_shared(
    tensors: list[set[str]], state_dict: dict[str, torch.Tensor]
) -> list[set[str]]:
    """Splits groups of one storage into groups that overlap."""
    groups: list[set[str]] = []
    for shared in tensors:
        if len(shared) < 2:
            groups.append(shared)
            continue
        areas = sorted(
            (state_dict[name].data_ptr(), _end_ptr(state_dict[name]), name) for name in shared
        )
        end = areas[0][0]
        for i, (start, stop, name) in enumerate(areas):
            if i == 0 or start >= end:
                groups.append({name})
            else:
                groups[-1].add(name)
            # A tensor inside an earlier one must not shorten what is taken.
            end = max(end, stop)
    return groups


def _remove_duplicate_names(
    state_dict: dict[str, torch.Tensor],
    *,
    preferred_names: Iterable[str] | None = None,
    discard_names: Iterable[str] | None = None,
) -> dict[str, list[str]]:
    """For each name to keep of a group that overlaps, the names to remove."""
    preferred_names, discard_names = set(preferred_names or ()), set(discard_names or ())
    removed: dict[str, list[str]] = defaultdict(list)
    for shared in _find_shared_tensors(state_dict):
        complete = {name for name in shared if _is_complete(state_dict[name])}
        if not complete:
            raise RuntimeError(
                "Error while trying to find names to remove to save state dict, but found no"
                f" suitable name to keep for saving amongst: {shared}. None is covering the entire"
                " storage.Refusing to save/load the model since you could be storing much more"
                " memory than needed. Please refer to"
                " https://huggingface.co/docs/safetensors/torch_shared_tensors for more"
                " information. Or open an issue."
            )
        # The names that the file has come first, so that a model loads whatever name was kept.
        candidates = (preferred_names & complete) or (complete - discard_names) or complete
        keep = min(candidates)
        for name in sorted(shared - {keep}):
            removed[keep].append(name)
    return removed
