"""A tensor of PyTorch that stands for a part of one in a file, and is read when it is used.

Functions that copy nothing are run on a tensor without memory, whose strides then say what is
left; `_box.py` says what to read for that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from tensorhold._errors import ArgumentError
from tensorhold.checkpoint import Checkpoint
from tensorhold.parallel._box import Box, box_of, row_strides
from tensorhold.torch import _NARROW_CODES, _getdtype, _packed_shape

__all__ = ["Placeholder"]

Function = Callable[..., Any]

# What a load can cast between.
_FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
_NOWHERE = torch.device("meta")
_PACKED = getattr(torch, "float4_e2m1fn_x2", None)


def _functions(*names: str) -> set[Function]:
    """Functions of PyTorch and methods of its tensors; of attributes, what gets them."""
    found: set[Function] = set()
    for name in names:
        for owner in (torch, torch.Tensor):
            member: Any = getattr(owner, name, None)
            if callable(member):
                found.add(member)
            elif hasattr(member, "__get__"):
                found.add(member.__get__)
    return found


_VIEWS = _functions(
    *("narrow", "chunk", "split", "split_with_sizes", "tensor_split", "__getitem__", "select"),
    *("hsplit", "vsplit", "dsplit", "unbind", "unsafe_chunk", "unsafe_split"),
    *("t", "T", "mT", "transpose", "swapaxes", "swapdims", "permute", "movedim", "moveaxis"),
    *("unflatten", "flatten", "ravel", "view", "reshape", "squeeze", "unsqueeze", "expand"),
    "diagonal",
)
_DEVICE = _functions("device")
_SAME = _functions("detach", "data", "alias", "resolve_conj", "resolve_neg")
_CASTS: dict[Function, torch.dtype] = {
    torch.Tensor.half: torch.float16,
    torch.Tensor.bfloat16: torch.bfloat16,
    torch.Tensor.float: torch.float32,
    torch.Tensor.double: torch.float64,
}
# What the wrapper answers itself.
_FACTS = _functions(
    *("shape", "dtype", "layout", "ndim", "size", "stride", "dim", "ndimension"),
    *("numel", "nelement", "element_size", "itemsize", "nbytes", "storage_offset", "__len__"),
    *("is_contiguous", "is_floating_point", "is_complex", "is_signed", "is_conj", "is_neg"),
    *("is_sparse", "is_quantized", "is_nested", "is_mkldnn", "is_inference", "is_same_size"),
    *("requires_grad", "is_leaf", "grad", "grad_fn", "_version", "__hash__"),
)
# What it would answer wrong: to PyTorch it is on the device that has no memory.
_PLACES = {
    function: kind
    for kind in ("cpu", "cuda", "meta", "xla", "mps", "xpu")
    for function in _functions(f"is_{kind}")
}
# The address that they give would be that of memory that has gone.
_ADDRESSES = _functions("data_ptr", "const_data_ptr", "mutable_data_ptr")
_OPERATORS = {
    *("__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__"),
    *("__ilshift__", "__irshift__", "__iand__", "__ior__", "__ixor__", "__imatmul__"),
}
_WRITERS = {"__setitem__", "__set__", "__delete__"} | _OPERATORS


@dataclass(frozen=True)
class _Part:
    """A part of a tensor of a checkpoint, and what becomes of it on the way."""

    checkpoint: Checkpoint
    name: str
    stored: torch.dtype
    shape: tuple[int, ...]
    # Without memory: its strides and its offset say which elements of the whole it has.
    view: torch.Tensor
    dtype: torch.dtype
    device: torch.device
    # Whether the elements lie one behind the other, whatever the strides of `view`.
    is_dense: bool = False

    @property
    def strides(self) -> tuple[int, ...]:
        return row_strides(self.view.shape) if self.is_dense else self.view.stride()

    def read(self) -> torch.Tensor:
        """A tensor of it, with memory of its own."""
        shape = tuple(self.view.shape)
        if self.device.type == "meta" or not self.view.numel():
            return torch.empty(shape, dtype=self.dtype, device=self.device)
        box = self._box()
        cast = None if self.dtype == self.stored else self.dtype
        parts = {self.name: self._index(box)}
        tensor: torch.Tensor
        (tensor,) = self.checkpoint.load(parts, device=self.device, dtype=cast).values()
        if (shape, box.strides) != (box.shape, row_strides(box.shape)):
            offset = tensor.storage_offset() + box.offset
            tensor = tensor.as_strided(shape, box.strides, offset)
        return tensor.contiguous() if self.is_dense else tensor

    def read_into(self, target: torch.Tensor) -> None:
        """Fills a tensor that `goes_straight_into` is true of."""
        box, target = self._box(), target.detach()
        strides = [1 if dim is None else target.stride(dim) for dim in box.order or ()]
        there = target.as_strided(box.shape, strides, target.storage_offset())
        self.checkpoint.load({self.name: self._index(box)}, into={self.name: there})
        if not target.is_inference():
            torch.autograd.graph.increment_version(target)

    def goes_straight_into(self, target: torch.Tensor) -> bool:
        """Whether it takes no tensor in between, nor any other way of PyTorch's to copy."""
        is_memory = (
            type(target) in (torch.Tensor, torch.nn.Parameter)
            and target.layout == torch.strided
            and target.device.type != "meta"
            and not (target.requires_grad and torch.is_grad_enabled())
            and not (target.is_conj() or target.is_neg())
        )
        is_cast = self.stored in _FLOATS and target.dtype in _FLOATS
        return (
            is_memory
            and target.shape == self.view.shape
            and target.numel() > 0
            and (target.dtype == self.stored or is_cast)
            and self.dtype in (self.stored, target.dtype)
            and self._box().order is not None
        )

    def _box(self) -> Box:
        view = self.view
        if self.stored == _PACKED:
            # PyTorch counts pairs of elements, and indices of the file each of them.
            every = tuple(map(range, self.shape))
            return Box(every, view.stride(), int(view.storage_offset()), None)
        return box_of(self.shape, view.shape, view.stride(), int(view.storage_offset()))

    def _index(self, box: Box) -> Any:
        return None if box.shape == self.shape else box.index


class Placeholder(torch.Tensor):
    """A part of a tensor of a checkpoint, which is read when it is used."""

    _part: _Part

    @classmethod
    def whole(cls, checkpoint: Checkpoint, name: str) -> Placeholder:
        # As a reader sees it: of integers narrower than a byte, not of their container.
        info = checkpoint.slice(name)
        with _naming(name):
            dtype = _NARROW_CODES.get(info.dtype) or _getdtype(info.dtype)
        shape = info.shape
        if info.dtype == "F4":
            shape = tuple(_packed_shape(name, list(shape)))
        # Strides count elements, and any type will do.
        view = torch.empty(shape, dtype=torch.uint8, device=_NOWHERE)
        return cls._of(_Part(checkpoint, name, dtype, shape, view, dtype, torch.device("cpu")))

    @classmethod
    def _of(cls, part: _Part) -> Placeholder:
        made: Placeholder = torch.Tensor._make_wrapper_subclass(
            cls, part.view.shape, strides=part.strides, dtype=part.dtype, device=_NOWHERE
        )
        made._part = part
        return made

    @classmethod
    def __torch_function__(
        cls, func: Function, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = {} if kwargs is None else kwargs
        first = args[0] if args and isinstance(args[0], Placeholder) else None
        if first is not None and func in _FACTS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if first is not None and func in _PLACES:
            return first._part.device.type == _PLACES[func]
        _refuse_writing(func, first, kwargs)
        others = (args[1:] if first is not None else args, kwargs)
        part = _first_part(args, kwargs)
        with contextlib.nullcontext() if part is None else _naming(part.name):
            made = None if first is None else _recorded(func, first, *others)
            if made is None and func is torch.Tensor.copy_ and len(args) > 1:
                made = _copied(*args[:2])
            return func(*_read(args), **_read(kwargs)) if made is None else made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Function, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        # What has passed by the above, such as functions that are called with that switched off.
        return func(*_read(args), **_read({} if kwargs is None else kwargs))

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        device = "" if self._part.device.type == "cpu" else f", {self._part.device}"
        shape = list(self._part.view.shape)
        return f"placeholder of `{self._part.name}`, shape {shape}, {self._part.dtype}{device}"

    def __format__(self, specification: str) -> str:
        return format(self.item() if self.dim() == 0 else repr(self), specification)

    def __dir__(self) -> list[str]:
        return object.__dir__(self)  # type: ignore[return-value]


def _recorded(func: Function, this: Placeholder, args: Any, kwargs: Any) -> Any:
    """What `func` makes of a placeholder without reading it; `None` where that cannot be."""
    if func in _SAME:
        return this
    if func in _DEVICE:
        return this._part.device
    if func is torch.Tensor.__iter__:
        return iter(this.unbind())
    if func in _VIEWS:
        return _viewed(func, this._part, args, kwargs)
    if func is torch.Tensor.contiguous and not args and not kwargs:
        return this if this.is_contiguous() else this._of(replace(this._part, is_dense=True))
    if func is torch.Tensor.to:
        # `copy` makes no difference, as what is read is always a copy.
        asked = {name: value for name, value in kwargs.items() if name != "copy"}
        device, dtype, _, memory_format = torch._C._nn._parse_to(*args[:3], **asked)
        return None if memory_format else _moved(this, device, dtype)
    if args or kwargs:
        return None
    if func is torch.Tensor.cpu:
        return _moved(this, torch.device("cpu"), None)
    if func is torch.Tensor.cuda:
        return _moved(this, torch.device("cuda"), None)
    return _moved(this, None, _CASTS[func]) if func in _CASTS else None


def _viewed(func: Function, part: _Part, args: Any, kwargs: Any) -> Any:
    if any(isinstance(leaf, (torch.Tensor, torch.dtype)) for leaf in tree_leaves((args, kwargs))):
        return None
    try:
        made = func(part.view, *args, **kwargs)
    except RuntimeError:
        if part.is_dense:
            # It can be seen in this way once it lies so.
            return None
        raise
    whole = part.view.untyped_storage()._cdata
    views = [made] if isinstance(made, torch.Tensor) else list(made)
    if any(view.untyped_storage()._cdata != whole for view in views):
        return None
    found = [Placeholder._of(replace(part, view=view)) for view in views]
    return found[0] if isinstance(made, torch.Tensor) else type(made)(found)


def _moved(
    this: Placeholder, device: torch.device | None, dtype: torch.dtype | None
) -> Placeholder | None:
    """The same on another device, of another type; `None` where only PyTorch has that cast."""
    part = this._part
    device = part.device if device is None else device
    dtype = part.dtype if dtype is None else dtype
    is_cast = part.dtype == part.stored and {part.stored, dtype} <= _FLOATS
    if dtype != part.dtype and not is_cast:
        return None
    return this._of(replace(part, device=device, dtype=dtype))


def _copied(target: Any, source: Any) -> torch.Tensor | None:
    """The tensor that a placeholder was read into; `None` where that takes another way."""
    if isinstance(source, Placeholder) and source._part.goes_straight_into(target):
        source._part.read_into(target)
        filled: torch.Tensor = target
        return filled
    return None


def _read(values: Any) -> Any:
    return tree_map_only(Placeholder, lambda one: one._part.read(), values)


def _first_part(args: Any, kwargs: Any) -> _Part | None:
    leaves = tree_leaves((args, kwargs))
    return next((leaf._part for leaf in leaves if isinstance(leaf, Placeholder)), None)


def _refuse_writing(func: Function, first: Placeholder | None, kwargs: Any) -> None:
    written = kwargs.get("out") if isinstance(kwargs.get("out"), Placeholder) else None
    name = getattr(func, "__name__", "")
    if name in _WRITERS or (name.endswith("_") and not name.endswith("__")):
        written = first if written is None else written
    what = "cannot be written to"
    if first is not None and func in _ADDRESSES:
        written, what = first, "has no memory"
    if written is not None:
        hint = "`.clone()` gives a tensor"
        raise ArgumentError(
            f"`{written._part.name}` is a placeholder, which {what}\nhint: {hint}",
            kind="InvalidArgument",
            tensor=written._part.name,
            hint=hint,
        )


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Puts the name of the tensor before what PyTorch says."""
    try:
        yield
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        is_plain = type(error) in (RuntimeError, IndexError, ValueError, TypeError)
        if not is_plain or f"`{name}`" in str(error):
            raise
        raise type(error)(f"`{name}`: {error}") from error
