"""Whether what was read is what PyTorch reads."""

from __future__ import annotations

from typing import Any

import torch
from serialization.same import _Comparison, bits, check_same

__all__ = ["check_converted", "check_same"]


def check_converted(expected: Any, found: Any) -> None:
    """Fails where values differ, as `check_same` does.

    Of tensors with gaps in memory that share with nobody, a file has the values, without the gaps.
    """
    _Converted().check(expected, found, "root")


class _Converted(_Comparison):
    def check_tensors(self, one: torch.Tensor, other: torch.Tensor, path: str) -> None:
        if not _lies_otherwise(one, other):
            super().check_tensors(one, other, path)
            return
        assert not _is_dense(one) and other.is_contiguous(), (path, one.stride(), other.stride())
        assert (one.dtype, one.shape) == (other.dtype, other.shape), path
        assert one.requires_grad == other.requires_grad, path
        assert bits(one) == bits(other), (path, one, other)
        storage = other.untyped_storage()._cdata
        assert -storage not in self.storages, f"{path}: it shares with another"


def _lies_otherwise(one: torch.Tensor, other: torch.Tensor) -> bool:
    is_plain = one.layout == torch.strided and not (one.is_nested or one.is_quantized)
    return is_plain and one.device.type != "meta" and one.stride() != other.stride()


def _is_dense(each: torch.Tensor) -> bool:
    """Whether each place between its first and its last is that of one element."""
    span = sum((n - 1) * stride for n, stride in zip(each.shape, each.stride(), strict=True))
    return span + 1 == each.numel()
