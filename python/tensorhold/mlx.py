"""MLX arrays in safetensors files: `save`, `save_file`, `load`, `load_file`.

MLX computes with 64-bit floats on the CPU alone: where its default device is a GPU, F64 tensors
become 32-bit arrays, as MLX itself makes them of NumPy's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from tensorhold import numpy
from tensorhold._errors import DtypeError
from tensorhold._native import TensorSpec, load_bytes, safe_open

if TYPE_CHECKING:
    import os

    import numpy.typing as npt
    from typing_extensions import Buffer

__all__ = ["load", "load_file", "safe_open", "save", "save_file"]


def save(tensors: dict[str, mx.array], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file that holds `tensors`.

    Args:
        tensors: Arrays by name.
        metadata: Texts to keep beside the tensors.

    Returns:
        The file's bytes; equal input gives equal bytes.

    Raises:
        SafetensorError: An array's dtype is none of the format's.

    Example:
        >>> load(save({"a": mx.arange(3)}))
        {'a': array([0, 1, 2], dtype=int32)}
    """
    return numpy.save(_mx2np(tensors), metadata=metadata)


def save_file(
    tensors: dict[str, mx.array],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes `tensors` to `filename`, whole or not at all.

    Args:
        tensors: Arrays by name.
        filename: The file to write; an old one is replaced when the new one is complete.
        metadata: Texts to keep beside the tensors.

    Raises:
        SafetensorError: An array's dtype is none of the format's, or the file cannot be written.

    Example:
        >>> save_file({"a": mx.ones(2, dtype=mx.bfloat16)}, "ones.safetensors")
        >>> load_file("ones.safetensors")
        {'a': array([1, 1], dtype=bfloat16)}
    """
    numpy.save_file(_mx2np(tensors), filename, metadata=metadata)


def load(data: Buffer) -> dict[str, mx.array]:
    """The arrays of a safetensors file that lies in memory.

    Args:
        data: The file's bytes.

    Returns:
        Arrays by name, in the order of the file.

    Raises:
        SafetensorError: The bytes are no valid safetensors file, or MLX lacks a dtype of it.

    Example:
        >>> load(bytearray(save({"a": mx.zeros((1, 2))})))
        {'a': array([[0, 0]], dtype=float32)}
    """
    return load_bytes(data, "mlx")


def load_file(filename: str | os.PathLike[str], *, backend: str = "mmap") -> dict[str, mx.array]:
    """The arrays of the file `filename`.

    Args:
        filename: The file to read.
        backend: `"mmap"` maps the file; `"pread"` reads it, which suits network file systems.

    Returns:
        Arrays by name, in the order of the file.

    Raises:
        FileNotFoundError: There is no such file.
        SafetensorError: It is no valid safetensors file, or MLX lacks a dtype of it.

    Example:
        >>> save_file({"a": mx.array([1, 2])}, "pair.safetensors")
        >>> load_file("pair.safetensors", backend="pread")
        {'a': array([1, 2], dtype=int32)}
    """
    with safe_open(filename, framework="mlx", backend=backend) as file:
        return file.get_tensors()


def _from_numpy(array: npt.NDArray[Any], dtype_code: str, device: str = "cpu") -> mx.array:
    """An MLX array with the numbers of `array`."""
    if dtype_code == "BF16":
        return mx.array(array.view(np.uint16)).view(mx.bfloat16)
    if dtype_code in numpy._ML_DTYPES:
        message = f"MLX has no dtype for `{dtype_code}` ({array.dtype.name})"
        raise DtypeError(message, kind="UnsupportedDtype")
    if dtype_code == "F64" and mx.default_device().type == mx.DeviceType.cpu:
        return mx.array(array, dtype=mx.float64)
    return mx.array(array)


def _narrow(_name: str) -> None:
    """MLX has no integers narrower than a byte."""


def _to_numpy(tensor: Any) -> npt.NDArray[Any]:
    """The numbers of `tensor`, not copied."""
    if tensor.dtype == mx.bfloat16:
        # NumPy's buffers have no letter for the type.
        return np.asarray(tensor.view(mx.uint16)).view(numpy._getdtype("BF16"))
    return np.asarray(tensor)


def _describe(name: str, tensor: Any) -> tuple[TensorSpec, object]:
    return numpy._describe(name, _to_numpy(tensor))


def _np2mx(numpy_dict: dict[str, npt.NDArray[Any]]) -> dict[str, mx.array]:
    return {name: mx.array(array) for name, array in numpy_dict.items()}


def _mx2np(mx_dict: dict[str, mx.array]) -> dict[str, npt.NDArray[Any]]:
    return {name: _to_numpy(tensor) for name, tensor in mx_dict.items()}
