"""NumPy arrays in safetensors files: `save`, `save_file`, `load`, `load_file`.

With the package `ml_dtypes` every type of the format has an array type, and so have integers of 1,
2 and 4 bits, which files keep packed in tensors of U8. Types narrower than a byte lie packed in the
file and one element to a byte in the array: an array has its logical shape.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tensorhold._errors import DtypeError, InvalidTensorError, SafetensorError
from tensorhold._into import Place, View, span
from tensorhold._native import (
    TensorSpec,
    deserialize,
    load_bytes,
    numpy_flatten,
    pack,
    safe_open,
    serialize,
    serialize_file,
)

if TYPE_CHECKING:
    import os

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

Array: TypeAlias = npt.NDArray[Any]

# A live table: programs add to it, and `_getdtype` must see it. The types of `ml_dtypes` join it
# when one is first asked for, so that importing this module does not import the package.
_TYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "U64": np.uint64,
    "I32": np.int32,
    "U32": np.uint32,
    "I16": np.int16,
    "U16": np.uint16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": bool,
    "C64": np.complex64,
}

_ML_DTYPES = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F6_E2M3": "float6_e2m3fn",
    "F6_E3M2": "float6_e3m2fn",
    "F4": "float4_e2m1fn",
}

# Integers narrower than a byte, which `ml_dtypes` has one to a byte and files packed.
_NARROW = frozenset({"int1", "int2", "int4", "uint1", "uint2", "uint4"})

# Elements per group, and bytes that a group takes in the file: the first element lies lowest.
_GROUPS = {
    "float4_e2m1fn": (2, 1),
    "float6_e2m3fn": (4, 3),
    "float6_e3m2fn": (4, 3),
}


def save(tensor_dict: Mapping[str, Array], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file that holds `tensor_dict`.

    Args:
        tensor_dict: Arrays by name, of any shape, strides and byte order.
        metadata: Texts to keep beside the tensors.

    Returns:
        The file's bytes; equal input gives equal bytes.

    Raises:
        SafetensorError: An array's dtype is none of the format's.

    Example:
        >>> data = save({"a": np.arange(6, dtype=np.int16).reshape(2, 3).T})
        >>> load(data)["a"]
        array([[0, 3],
               [1, 4],
               [2, 5]], dtype=int16)
    """
    hold: list[object] = []
    return serialize(_flatten(tensor_dict, hold), metadata=metadata)


def save_file(
    tensor_dict: Mapping[str, Array],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes `tensor_dict` to `filename`, whole or not at all.

    Args:
        tensor_dict: Arrays by name, of any shape, strides and byte order.
        filename: The file to write; an old one is replaced when the new one is complete.
        metadata: Texts to keep beside the tensors.

    Raises:
        SafetensorError: An array's dtype is none of the format's, or the file cannot be written.

    Example:
        >>> save_file({"a": np.ones(3)}, "ones.safetensors", metadata={"made by": "hand"})
        >>> load_file("ones.safetensors")
        {'a': array([1., 1., 1.])}
    """
    hold: list[object] = []
    serialize_file(_flatten(tensor_dict, hold), filename, metadata=metadata)


def load(data: Buffer) -> dict[str, Array]:
    """The arrays of a safetensors file that lies in memory.

    Args:
        data: The file's bytes. Arrays are views of it where it is writable, copies otherwise.

    Returns:
        Arrays by name, in the order of the file.

    Raises:
        SafetensorError: The bytes are no valid safetensors file.

    Example:
        >>> data = bytearray(save({"a": np.zeros(2, np.uint8)}))
        >>> data[-1] = 7
        >>> load(data)["a"]
        array([0, 7], dtype=uint8)
    """
    return load_bytes(data, "np")


def load_file(filename: str | os.PathLike[str], *, backend: str = "mmap") -> dict[str, Array]:
    """The arrays of the file `filename`.

    Args:
        filename: The file to read.
        backend: `"mmap"` maps the file; `"pread"` reads it, which suits network file systems.

    Returns:
        Arrays by name, in the order of the file.

    Raises:
        FileNotFoundError: There is no such file.
        SafetensorError: It is no valid safetensors file.

    Example:
        >>> save_file({"a": np.ones((2, 2), np.float16)}, "half.safetensors")
        >>> load_file("half.safetensors", backend="pread")["a"].dtype
        dtype('float16')
    """
    with safe_open(filename, framework="np", backend=backend) as file:
        return file.get_tensors()


def _getdtype(dtype_str: str) -> np.dtype[Any]:
    if dtype_str not in _TYPES and dtype_str in _ML_DTYPES:
        _add_ml_dtypes()
    try:
        dtype: np.dtype[Any] = np.dtype(_TYPES[dtype_str])
    except KeyError:
        raise _no_dtype(dtype_str) from None
    return dtype


def _add_ml_dtypes() -> None:
    try:
        import ml_dtypes
    except ImportError:
        return
    for code, name in _ML_DTYPES.items():
        if hasattr(ml_dtypes, name):
            _TYPES.setdefault(code, getattr(ml_dtypes, name))


def _narrow(name: str) -> Any:
    """The type of integers narrower than a byte that `ml_dtypes` calls so, if it is there."""
    if name not in _NARROW:
        return None
    try:
        import ml_dtypes
    except ImportError:
        return None
    return getattr(ml_dtypes, name, None)


def _no_dtype(code: str) -> DtypeError:
    if code in _ML_DTYPES:
        hint = "install `ml_dtypes`, which brings the type to numpy"
        message = f"numpy has no dtype for `{code}` on its own\nhint: {hint}"
        return DtypeError(message, kind="UnsupportedDtype", hint=hint)
    return DtypeError(f"`{code}` is no element type of the format", kind="UnsupportedDtype")


def _flatten(
    tensor_dict: Mapping[str, Array], keep_alive_buffer: list[object]
) -> dict[str, TensorSpec]:
    described = numpy_flatten(tensor_dict, keep_alive_buffer)
    if described is not None:
        return described
    if not hasattr(tensor_dict, "items"):
        raise InvalidTensorError(
            f"Expected a dict of [str, np.ndarray] but received {type(tensor_dict)}",
            kind="InvalidTensor",
        )
    flattened = {}
    for name, array in tensor_dict.items():
        flattened[name], kept = _describe(name, array)
        keep_alive_buffer.append(kept)
    return flattened


def _describe_writable(name: str, array: Array) -> View | None:
    """The memory of `array`, if it can be written to."""
    if not isinstance(array, np.ndarray) or not array.flags.writeable:
        return None
    # Raises where the format has no such type, or keeps no mask.
    _describe(name, array.reshape(-1)[:0] if array.flags.c_contiguous else array[..., :0])
    place = Place(array.ctypes.data, array.shape, array.strides, array.itemsize)
    first, end = span(place)
    is_packed = array.dtype.name in _GROUPS or array.dtype.name in _NARROW
    is_stored_so = not is_packed and array.dtype.isnative
    spec = TensorSpec(
        dtype=array.dtype.name,
        shape=array.shape,
        data_ptr=first,
        data_len=end - first,
    )
    is_dense = array.flags.c_contiguous and is_stored_so
    return View(spec, place, is_dense, lambda made: np.copyto(array, made, casting="equiv"))


def _describe(name: str, array: object) -> tuple[TensorSpec, object]:
    """What the writer needs to know of `array`, and what holds the bytes to write."""
    if not isinstance(array, np.ndarray | np.generic):
        raise InvalidTensorError(
            f"Key `{name}` is invalid, expected np.ndarray but received {type(array)}",
            kind="InvalidTensor",
            tensor=name,
        )
    if isinstance(array, np.ma.MaskedArray):
        hint = "give `.filled()`, or `.data` to leave the mask out"
        raise InvalidTensorError(
            f"array `{name}` is masked, and a file keeps no mask\nhint: {hint}",
            kind="InvalidTensor",
            tensor=name,
            hint=hint,
        )
    # Not `ascontiguousarray`, which gives a scalar a dimension.
    dense = np.asarray(array, order="C")
    shape = dense.shape
    if dense.dtype.name in _GROUPS:
        dense = _pack(dense)
    elif not _is_little_endian(dense):
        dense = dense.byteswap(inplace=False)
    try:
        spec = TensorSpec(
            dtype=array.dtype.name,
            shape=shape,
            data_ptr=dense.ctypes.data,
            data_len=dense.nbytes,
        )
    except SafetensorError as error:
        message = f"array `{name}` has dtype {array.dtype}, which the format cannot hold"
        raise DtypeError(message, kind="UnsupportedDtype", tensor=name) from error
    return pack(spec, name) if dense.dtype.name in _NARROW else (spec, dense)


def _pack(array: Array) -> Array:
    """The bytes (1-d, uint8) in which a file holds elements narrower than a byte."""
    n_elements, n_bytes = _GROUPS[array.dtype.name]
    width_bits = 8 * n_bytes // n_elements
    short = -array.size % n_elements
    octets = np.pad(array.reshape(-1).view(np.uint8), (0, short))
    values = octets.reshape(-1, n_elements).astype(np.uint32)
    groups = np.zeros(values.shape[0], np.uint32)
    for i in range(n_elements):
        groups |= (values[:, i] & ((1 << width_bits) - 1)) << (i * width_bits)
    return np.stack([groups >> (8 * i) & 0xFF for i in range(n_bytes)], -1).astype(np.uint8).ravel()


def _unpack(packed: Array, code: str, shape: Iterable[int]) -> Array:
    """An array of the logical `shape` out of packed bytes (1-d, uint8)."""
    dtype = _getdtype(code)
    n_elements, n_bytes = _GROUPS[dtype.name]
    width_bits = 8 * n_bytes // n_elements
    octets = packed.reshape(-1, n_bytes).astype(np.uint32)
    groups = np.zeros(octets.shape[0], np.uint32)
    for i in range(n_bytes):
        groups |= octets[:, i] << (8 * i)
    mask = (1 << width_bits) - 1
    values = np.stack([groups >> (i * width_bits) & mask for i in range(n_elements)], -1)
    return values.astype(np.uint8).view(dtype).reshape(tuple(shape))


def _view2np(safeview: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, Array]:
    result = {}
    for name, tensor in safeview:
        dtype = _getdtype(tensor["dtype"])
        if dtype.name in _GROUPS:
            octets = np.frombuffer(tensor["data"], np.uint8)
            result[name] = _unpack(octets, tensor["dtype"], tensor["shape"])
            continue
        array: Array = np.frombuffer(tensor["data"], dtype=dtype).reshape(tensor["shape"])
        result[name] = array if sys.byteorder == "little" else array.byteswap(inplace=False)
    return result


def _is_little_endian(tensor: Array) -> bool:
    byteorder = tensor.dtype.byteorder
    if byteorder == "=":
        return sys.byteorder == "little"
    if byteorder in "|<>":
        return byteorder != ">"
    raise ValueError(f"Unexpected byte order {byteorder}")
