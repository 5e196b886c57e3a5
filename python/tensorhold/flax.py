"""JAX arrays in safetensors files: `save`, `save_file`, `load`, `load_file`.

JAX decides about 64-bit types: unless `jax_enable_x64` is set, it makes 32-bit arrays of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from tensorhold import numpy
from tensorhold._errors import DtypeError
from tensorhold._native import TensorSpec, load_bytes, safe_open

if TYPE_CHECKING:
    import os

    import numpy.typing as npt
    from typing_extensions import Buffer

__all__ = ["load", "load_file", "safe_open", "save", "save_file"]


def save(tensors: dict[str, Array], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file that holds `tensors`.

    Args:
        tensors: Arrays by name; the dict stays as it is.
        metadata: Texts to keep beside the tensors.

    Returns:
        The file's bytes; equal input gives equal bytes.

    Raises:
        SafetensorError: An array's dtype is none of the format's.

    Example:
        >>> load(save({"a": jnp.arange(3)}))
        {'a': Array([0, 1, 2], dtype=int32)}
    """
    return numpy.save(_jnp2np(tensors), metadata=metadata)


def save_file(
    tensors: dict[str, Array],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes `tensors` to `filename`, whole or not at all.

    Args:
        tensors: Arrays by name; the dict stays as it is.
        filename: The file to write; an old one is replaced when the new one is complete.
        metadata: Texts to keep beside the tensors.

    Raises:
        SafetensorError: An array's dtype is none of the format's, or the file cannot be written.

    Example:
        >>> save_file({"a": jnp.ones(2, jnp.bfloat16)}, "ones.safetensors")
        >>> load_file("ones.safetensors")
        {'a': Array([1, 1], dtype=bfloat16)}
    """
    numpy.save_file(_jnp2np(tensors), filename, metadata=metadata)


def load(data: Buffer) -> dict[str, Array]:
    """The arrays of a safetensors file that lies in memory.

    Args:
        data: The file's bytes.

    Returns:
        Arrays by name, in the order of the file, on JAX's default device.

    Raises:
        SafetensorError: The bytes are no valid safetensors file, or JAX lacks a dtype of it.

    Example:
        >>> load(bytearray(save({"a": jnp.zeros((1, 2))})))
        {'a': Array([[0., 0.]], dtype=float32)}
    """
    return load_bytes(data, "flax")


def load_file(filename: str | os.PathLike[str], *, backend: str = "mmap") -> dict[str, Array]:
    """The arrays of the file `filename`.

    Args:
        filename: The file to read.
        backend: `"mmap"` maps the file; `"pread"` reads it, which suits network file systems.

    Returns:
        Arrays by name, in the order of the file, on JAX's default device.

    Raises:
        FileNotFoundError: There is no such file.
        SafetensorError: It is no valid safetensors file, or JAX lacks a dtype of it.

    Example:
        >>> save_file({"a": jnp.arange(2) + 1j}, "complex.safetensors")
        >>> load_file("complex.safetensors", backend="pread")
        {'a': Array([0.+1.j, 1.+1.j], dtype=complex64)}
    """
    with safe_open(filename, framework="flax", backend=backend) as file:
        return file.get_tensors()


def _from_numpy(array: npt.NDArray[Any], dtype_code: str, device: str = "cpu") -> Array:
    """A JAX array with the numbers of `array`."""
    try:
        return jnp.array(array)
    except (TypeError, ValueError, RuntimeError) as error:
        if dtype_code not in numpy._ML_DTYPES:
            raise
        message = f"JAX has no dtype for `{dtype_code}` ({array.dtype.name})"
        raise DtypeError(message, kind="UnsupportedDtype") from error


def _narrow(name: str) -> Any:
    """NumPy's type for the integers narrower than a byte that JAX calls so, if it has them."""
    # It has a name for those of one bit, but makes no arrays of them.
    is_held = hasattr(jnp, name) and name not in ("int1", "uint1")
    return numpy._narrow(name) if is_held else None


def _to_numpy(tensor: Any) -> npt.NDArray[Any]:
    """The numbers of `tensor`, not copied where they lie in host memory."""
    return np.asarray(tensor)


def _describe(name: str, tensor: Any) -> tuple[TensorSpec, object]:
    return numpy._describe(name, _to_numpy(tensor))


def _np2jnp(numpy_dict: dict[str, npt.NDArray[Any]]) -> dict[str, Array]:
    return {name: jnp.array(array) for name, array in numpy_dict.items()}


def _jnp2np(jnp_dict: dict[str, Array]) -> dict[str, npt.NDArray[Any]]:
    return {name: _to_numpy(tensor) for name, tensor in jnp_dict.items()}
