"""Paddle tensors in safetensors files: `save`, `save_file`, `load`, `load_file`.

Paddle reads U16 as bfloat16, here as in `safetensors`: NumPy has no such type, so files written by
way of it hold bfloat16 under the name U16, and Paddle has no 16-bit unsigned integers of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from tensorhold import numpy
from tensorhold._errors import DtypeError
from tensorhold._native import (
    TensorSpec,
    deserialize,
    load_bytes,
    safe_open,
    serialize,
    serialize_file,
)

if TYPE_CHECKING:
    import os

    import numpy.typing as npt
    from typing_extensions import Buffer

__all__ = [
    "TensorSpec",
    "deserialize",
    "load",
    "load_file",
    "safe_open",
    "save",
    "save_file",
    "serialize",
    "serialize_file",
]

# Paddle's type, and the type of the same width by which NumPy hands it over, if another.
_KNOWN: dict[str, tuple[str, Any]] = {
    "F64": ("float64", None),
    "F32": ("float32", None),
    "F16": ("float16", None),
    "BF16": ("bfloat16", np.uint16),
    "I64": ("int64", None),
    "I32": ("int32", None),
    "I16": ("int16", None),
    "I8": ("int8", None),
    "U64": ("uint64", np.int64),
    "U32": ("uint32", np.int32),
    "U8": ("uint8", None),
    "BOOL": ("bool", None),
    "F8_E4M3": ("float8_e4m3fn", np.uint8),
    "F8_E5M2": ("float8_e5m2", np.uint8),
    "C64": ("complex64", None),
}

# Live tables: programs add to `_TYPES`, and `_getdtype` must see it.
_TYPES: dict[str, Any] = {
    code: getattr(paddle, name) for code, (name, _) in _KNOWN.items() if hasattr(paddle, name)
}

_SIZE: dict[Any, int] = {
    dtype: np.dtype(_KNOWN[code][1] or _KNOWN[code][0]).itemsize for code, dtype in _TYPES.items()
}

# Types of the same width that NumPy can swap the bytes of.
NPDTYPES: dict[Any, Any] = {
    dtype: np.dtype(_KNOWN[code][1] or _KNOWN[code][0]) for code, dtype in _TYPES.items()
}


def save(tensors: dict[str, paddle.Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file that holds `tensors`.

    Args:
        tensors: Contiguous tensors by name.
        metadata: Texts to keep beside the tensors.

    Returns:
        The file's bytes; equal input gives equal bytes.

    Raises:
        ValueError: A value is no tensor, or is not contiguous.
        KeyError: A tensor's dtype is none of the format's.

    Example:
        >>> load(save({"a": paddle.arange(3)}))["a"].tolist()
        [0, 1, 2]
    """
    hold: list[object] = []
    return serialize(_flatten(tensors, hold), metadata=metadata)


def save_file(
    tensors: dict[str, paddle.Tensor],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes `tensors` to `filename`, whole or not at all.

    Args:
        tensors: Contiguous tensors by name.
        filename: The file to write; an old one is replaced when the new one is complete.
        metadata: Texts to keep beside the tensors.

    Raises:
        ValueError: A value is no tensor, or is not contiguous.
        KeyError: A tensor's dtype is none of the format's.
        OSError: The file cannot be written; what was there before is still there.

    Example:
        >>> save_file({"a": paddle.ones([2], dtype="bfloat16")}, "ones.safetensors")
        >>> load_file("ones.safetensors")["a"].dtype == paddle.bfloat16
        True
    """
    hold: list[object] = []
    serialize_file(_flatten(tensors, hold), filename, metadata=metadata)


def load(data: Buffer, device: str = "cpu") -> dict[str, paddle.Tensor]:
    """The tensors of a safetensors file that lies in memory.

    Args:
        data: The file's bytes.
        device: Where the tensors are to be: `"cpu"`, `"cuda:0"`, ...

    Returns:
        Tensors by name, in the order of the file.

    Raises:
        SafetensorError: The bytes are no valid safetensors file, or Paddle lacks a dtype of it.

    Example:
        >>> load(bytearray(save({"a": paddle.zeros([1, 2])})))["a"].tolist()
        [[0.0, 0.0]]
    """
    return load_bytes(data, "paddle", _device(device))


def load_file(
    filename: str | os.PathLike[str], device: str | int = "cpu", *, backend: str = "mmap"
) -> dict[str, paddle.Tensor]:
    """The tensors of the file `filename`.

    Args:
        filename: The file to read.
        device: Where the tensors are to be: `"cpu"`, `"cuda:0"`, ...
        backend: `"mmap"` maps the file; `"pread"` reads it, which suits network file systems.

    Returns:
        Tensors by name, in the order of the file.

    Raises:
        FileNotFoundError: There is no such file.
        SafetensorError: It is no valid safetensors file, or Paddle lacks a dtype of it.

    Example:
        >>> save_file({"a": paddle.to_tensor([1, 2])}, "pair.safetensors")
        >>> load_file("pair.safetensors", backend="pread")["a"].tolist()
        [1, 2]
    """
    with safe_open(filename, framework="paddle", device=_device(device), backend=backend) as file:
        return file.get_tensors()


def _device(device: str | int) -> str | int:
    """The name that `safe_open` knows for what Paddle calls `gpu`."""
    return device.replace("gpu", "cuda", 1) if isinstance(device, str) else device


def _place(device: str) -> str:
    """The name that Paddle knows for what `safe_open` calls `cuda`."""
    return f"gpu:{device}" if device.isdigit() else device.replace("cuda", "gpu", 1)


def _from_numpy(array: npt.NDArray[Any], dtype_code: str, device: str = "cpu") -> paddle.Tensor:
    """A tensor with the numbers of `array`."""
    place = _place(device)
    if dtype_code == "U16":
        return paddle.to_tensor(array, place=place)
    dtype = _getdtype(dtype_code)
    carrier = _KNOWN[dtype_code][1] if dtype_code in _KNOWN else None
    if carrier is None:
        return paddle.to_tensor(array, place=place)
    # By way of 16-bit integers paddle has already made the type; the view is then none.
    return paddle.to_tensor(array.view(carrier), place=place).view(dtype)


def _narrow(_name: str) -> None:
    """Paddle has no integers narrower than a byte."""


def _to_numpy(tensor: Any) -> npt.NDArray[Any]:
    """The numbers of `tensor`."""
    array = tensor.detach().cpu().numpy()
    dtype = numpy._getdtype(_code(tensor.dtype))
    return array if array.dtype == dtype else array.view(dtype)


def _code(dtype: Any) -> str:
    for code, known in _TYPES.items():
        if known == dtype:
            return code
    raise DtypeError(f"the format cannot hold {dtype}", kind="UnsupportedDtype")


def _getdtype(dtype_str: str) -> paddle.dtype:
    try:
        return _TYPES[dtype_str]
    except KeyError:
        message = f"Paddle has no dtype for `{dtype_str}`"
        raise DtypeError(message, kind="UnsupportedDtype") from None


def _np2paddle(
    numpy_dict: dict[str, npt.NDArray[Any]], device: str = "cpu"
) -> dict[str, paddle.Tensor]:
    return {name: paddle.to_tensor(array, place=device) for name, array in numpy_dict.items()}


def _paddle2np(paddle_dict: dict[str, paddle.Tensor]) -> dict[str, npt.NDArray[Any]]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in paddle_dict.items()}


def _view2paddle(
    safeview: Iterable[tuple[str, dict[str, Any]]], device: str = "cpu"
) -> dict[str, paddle.Tensor]:
    result = {}
    for name, view in safeview:
        code = view["dtype"]
        array = numpy._view2np([(name, view)])[name]
        result[name] = _from_numpy(array, code, device)
    return result


def _check_contiguous(name: str, tensor: paddle.Tensor) -> None:
    if not tensor.is_contiguous():
        raise ValueError(
            f"You are trying to save a non contiguous tensor: `{name}` which is not allowed. It"
            " either means you are trying to save tensors which are reference of each other in"
            " which case it's recommended to save only the full tensors, and reslice at load time,"
            " or simply call `.contiguous()` on your tensor to pack it before saving."
        )


def _to_ndarray(tensor: paddle.Tensor, name: str) -> tuple[npt.NDArray[Any], Any]:
    """The bytes of `tensor` as they go into a file, and the tensor that keeps them alive."""
    import ctypes

    _check_contiguous(name, tensor)
    if tensor.dtype not in _SIZE:
        raise DtypeError(
            f"tensor `{name}` has dtype {tensor.dtype}, which the format cannot hold",
            kind="UnsupportedDtype",
            tensor=name,
        )
    host = tensor if tensor.place.is_cpu_place() else tensor.cpu()
    size_bytes = int(np.prod(host.shape)) * _SIZE[host.dtype]
    address = host.data_ptr() if size_bytes else 0
    if address == 0:
        return np.empty(0), 0
    pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_ubyte))
    data: npt.NDArray[Any] = np.ctypeslib.as_array(pointer, (size_bytes,))
    if sys.byteorder == "big":
        data = data.view(NPDTYPES[host.dtype]).byteswap(inplace=False)
    return data, host


def _describe(name: str, tensor: Any) -> tuple[TensorSpec, object]:
    """What the writer needs to know of `tensor`, and what holds the bytes to write."""
    dense = tensor if tensor.is_contiguous() else tensor.contiguous()
    array, host = _to_ndarray(dense, name)
    spec = TensorSpec(
        dtype=str(tensor.dtype).rpartition(".")[2],
        shape=list(tensor.shape),
        data_ptr=array.ctypes.data,
        data_len=array.nbytes,
    )
    return spec, (array, host)


def _flatten(
    tensors: dict[str, paddle.Tensor], keep_alive_buffer: list[object]
) -> dict[str, TensorSpec]:
    if not isinstance(tensors, dict):
        raise ValueError(f"Expected a dict of [str, paddle.Tensor] but received {type(tensors)}")
    for name, tensor in tensors.items():
        if not isinstance(tensor, paddle.Tensor):
            raise ValueError(
                f"Key `{name}` is invalid, expected paddle.Tensor but received {type(tensor)}"
            )
    flattened = {}
    for name, tensor in tensors.items():
        _check_contiguous(name, tensor)
        flattened[name], kept = _describe(name, tensor)
        keep_alive_buffer.append(kept)
    return flattened
