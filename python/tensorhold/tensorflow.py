"""TensorFlow tensors in safetensors files: `save`, `save_file`, `load`, `load_file`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tensorhold import numpy
from tensorhold._errors import DtypeError
from tensorhold._native import TensorSpec, load_bytes, safe_open

if TYPE_CHECKING:
    import os

    import numpy.typing as npt
    from typing_extensions import Buffer

__all__ = ["load", "load_file", "safe_open", "save", "save_file"]


def save(tensors: dict[str, tf.Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file that holds `tensors`.

    Args:
        tensors: Eager tensors or variables by name; the dict stays as it is.
        metadata: Texts to keep beside the tensors.

    Returns:
        The file's bytes; equal input gives equal bytes.

    Raises:
        SafetensorError: A tensor's dtype is none of the format's.

    Example:
        >>> load(save({"a": tf.range(3)}))["a"].numpy()
        array([0, 1, 2], dtype=int32)
    """
    return numpy.save(_host_arrays(tensors), metadata=metadata)


def save_file(
    tensors: dict[str, tf.Tensor],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes `tensors` to `filename`, whole or not at all.

    Args:
        tensors: Eager tensors or variables by name; the dict stays as it is.
        filename: The file to write; an old one is replaced when the new one is complete.
        metadata: Texts to keep beside the tensors.

    Raises:
        SafetensorError: A tensor's dtype is none of the format's, or the file cannot be written.

    Example:
        >>> save_file({"a": tf.ones(2, tf.bfloat16)}, "ones.safetensors")
        >>> load_file("ones.safetensors")["a"].dtype
        tf.bfloat16
    """
    numpy.save_file(_host_arrays(tensors), filename, metadata=metadata)


def load(data: Buffer) -> dict[str, tf.Tensor]:
    """The tensors of a safetensors file that lies in memory.

    Args:
        data: The file's bytes.

    Returns:
        Tensors by name, in the order of the file.

    Raises:
        SafetensorError: The bytes are no valid safetensors file, or TensorFlow lacks a dtype of it.

    Example:
        >>> load(bytearray(save({"a": tf.zeros((1, 2))})))["a"].shape
        TensorShape([1, 2])
    """
    return load_bytes(data, "tf")


def load_file(filename: str | os.PathLike[str], *, backend: str = "mmap") -> dict[str, tf.Tensor]:
    """The tensors of the file `filename`.

    Args:
        filename: The file to read.
        backend: `"mmap"` maps the file; `"pread"` reads it, which suits network file systems.

    Returns:
        Tensors by name, in the order of the file.

    Raises:
        FileNotFoundError: There is no such file.
        SafetensorError: It is no valid safetensors file, or TensorFlow lacks a dtype of it.

    Example:
        >>> save_file({"a": tf.constant([1, 2])}, "pair.safetensors")
        >>> load_file("pair.safetensors", backend="pread")["a"].numpy()
        array([1, 2], dtype=int32)
    """
    with safe_open(filename, framework="tf", backend=backend) as file:
        return file.get_tensors()


def _from_numpy(array: npt.NDArray[Any], dtype_code: str, device: str = "cpu") -> tf.Tensor:
    """A tensor with the numbers of `array`."""
    try:
        return tf.convert_to_tensor(array)
    except ValueError as error:
        if dtype_code not in numpy._ML_DTYPES:
            raise
        message = f"TensorFlow has no dtype for `{dtype_code}` ({array.dtype.name})"
        raise DtypeError(message, kind="UnsupportedDtype") from error


def _narrow(name: str) -> Any:
    """NumPy's type for the narrow integers that TensorFlow calls so, if it has them."""
    try:
        tf.as_dtype(name)
    except TypeError:
        return None
    return numpy._narrow(name)


def _to_numpy(tensor: Any) -> npt.NDArray[Any]:
    """The numbers of `tensor`."""
    return tensor.numpy()


def _describe(name: str, tensor: Any) -> tuple[TensorSpec, object]:
    _refuse_other_dtypes(name, tensor)
    return numpy._describe(name, _to_numpy(tensor))


def _host_arrays(tensors: dict[str, tf.Tensor]) -> dict[str, npt.NDArray[Any]]:
    for name, tensor in tensors.items():
        _refuse_other_dtypes(name, tensor)
    return _tf2np(tensors)


def _refuse_other_dtypes(name: str, tensor: Any) -> None:
    """Raises where elements are no numbers: NumPy gives them as objects, and no one knows why."""
    dtype = getattr(tensor, "dtype", None)
    if dtype in (tf.string, tf.resource, tf.variant):
        message = f"tensor `{name}` has dtype {dtype.name}, which the format cannot hold"
        raise DtypeError(message, kind="UnsupportedDtype", tensor=name)


def _np2tf(numpy_dict: dict[str, npt.NDArray[Any]]) -> dict[str, tf.Tensor]:
    return {name: tf.convert_to_tensor(array) for name, array in numpy_dict.items()}


def _tf2np(tf_dict: dict[str, tf.Tensor]) -> dict[str, npt.NDArray[Any]]:
    return {name: _to_numpy(tensor) for name, tensor in tf_dict.items()}
