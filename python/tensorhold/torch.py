"""PyTorch tensors in safetensors files: `save`, `save_file`, `load`, `load_file` and whole models.

The names that begin with an underscore are here because programs import them from
`safetensors.torch`; they mean what they mean there.
"""

from __future__ import annotations

import sys
from collections import defaultdict  # noqa: F401 (a name that the reference's module has)
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from tensorhold._errors import DtypeError, InvalidTensorError
from tensorhold._into import Place, View, span
from tensorhold._native import (
    TensorSpec,
    deserialize,
    load_bytes,
    on_device,
    pack,
    safe_open,
    serialize,
    serialize_file,
    torch_flatten,
    torch_stream,
)
from tensorhold._torch_storage import (
    _end_ptr,  # noqa: F401 (programs import it from here)
    _filter_shared_not_shared,  # noqa: F401 (likewise)
    _find_shared_tensors,
    _is_complete,  # noqa: F401 (likewise)
    _remove_duplicate_names,
    storage_ptr,
    storage_size,
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
    "load_model",
    "safe_open",
    "save",
    "save_file",
    "save_model",
    "serialize",
    "serialize_file",
    "storage_ptr",
    "storage_size",
]

Device: TypeAlias = str | int | torch.device

# Types that came with later versions of torch than the oldest that we serve.
_float8_e4m3fn = getattr(torch, "float8_e4m3fn", None)
_float8_e4m3fnuz = getattr(torch, "float8_e4m3fnuz", None)
_float8_e5m2 = getattr(torch, "float8_e5m2", None)
_float8_e5m2fnuz = getattr(torch, "float8_e5m2fnuz", None)
_float8_e8m0 = getattr(torch, "float8_e8m0fnu", None)
_float4_e2m1_x2 = getattr(torch, "float4_e2m1fn_x2", None)

# Live tables: programs add to `_TYPES`, and `_getdtype` must see it.
_TYPES: dict[str, Any] = {
    code: dtype
    for code, dtype in {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U64": getattr(torch, "uint64", None),
        "U32": getattr(torch, "uint32", None),
        "U16": getattr(torch, "uint16", None),
        "U8": torch.uint8,
        "BOOL": torch.bool,
        "C64": torch.complex64,
        "F8_E4M3": _float8_e4m3fn,
        "F8_E4M3FNUZ": _float8_e4m3fnuz,
        "F8_E5M2": _float8_e5m2,
        "F8_E5M2FNUZ": _float8_e5m2fnuz,
        "F8_E8M0": _float8_e8m0,
        "F4": _float4_e2m1_x2,
    }.items()
    if dtype is not None
}

# Integers narrower than a byte, which lie one to a byte here and packed in files.
_NARROW: dict[Any, str] = {
    getattr(torch, name): name
    for prefix in ("int", "uint")
    for width in range(1, 8)
    if hasattr(torch, name := f"{prefix}{width}")
}

_NARROW_CODES: dict[str, Any] = {
    ("U" if name[0] == "u" else "I") + name[-1]: dtype for dtype, name in _NARROW.items()
}

_SIZE: dict[Any, int] = {dtype: dtype.itemsize for dtype in _TYPES.values()}


def save(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file that holds `tensors`.

    Args:
        tensors: Dense, contiguous tensors by name, no two of which overlap in memory.
        metadata: Texts to keep beside the tensors.

    Returns:
        The file's bytes; equal input gives equal bytes.

    Raises:
        ValueError: A value is no tensor, is sparse, or is not contiguous.
        RuntimeError: Tensors share memory, or a tensor is on the meta device.
        KeyError: A tensor's dtype is none of the format's.

    Example:
        >>> data = save({"a": torch.arange(3)})
        >>> load(data)
        {'a': tensor([0, 1, 2])}
    """
    hold: list[Any] = []
    return serialize(_flatten_as_ptr(tensors, hold), metadata=metadata)


def save_file(
    tensors: dict[str, torch.Tensor],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes `tensors` to `filename`, whole or not at all.

    The tensors must not change while they are written: the file takes what is there.

    Args:
        tensors: Dense, contiguous tensors by name, no two of which overlap in memory.
        filename: The file to write; an old one is replaced when the new one is complete.
        metadata: Texts to keep beside the tensors.

    Raises:
        ValueError: A value is no tensor, is sparse, or is not contiguous.
        RuntimeError: Tensors share memory, or a tensor is on the meta device.
        KeyError: A tensor's dtype is none of the format's.
        OSError: The file cannot be written; what was there before is still there.

    Example:
        >>> save_file({"a": torch.ones(2, 2, dtype=torch.bfloat16)}, "ones.safetensors")
        >>> load_file("ones.safetensors")["a"].sum()
        tensor(4., dtype=torch.bfloat16)
    """
    hold: list[Any] = []
    serialize_file(_flatten_as_ptr(tensors, hold), filename, metadata=metadata)


def load(data: Buffer, device: Device = "cpu") -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file that lies in memory.

    Args:
        data: The file's bytes. Tensors are views of it where it is writable, copies otherwise.
        device: Where the tensors are to be.

    Returns:
        Tensors by name, in the order of the file.

    Raises:
        SafetensorError: The bytes are no valid safetensors file.

    Example:
        >>> load(memoryview(save({"a": torch.zeros(2)})))
        {'a': tensor([0., 0.])}
    """
    return load_bytes(data, "pt", device)


def load_file(
    filename: str | os.PathLike[str],
    device: Device = "cpu",
    *,
    backend: str = "mmap",
) -> dict[str, torch.Tensor]:
    """The tensors of the file `filename`.

    Args:
        filename: The file to read.
        device: Where the tensors are to be; on the host, mapped, they are views of a private map.
        backend: `"mmap"` maps the file; `"pread"` reads it, which suits network file systems.
            `"gds"` reads large tensors straight into a device, where cuFile or hipFile can.

    Returns:
        Tensors by name, in the order of the file.

    Raises:
        FileNotFoundError: There is no such file.
        SafetensorError: It is no valid safetensors file, or there is no such device.

    Example:
        >>> save_file({"a": torch.arange(4).reshape(2, 2)}, "square.safetensors")
        >>> load_file("square.safetensors", device=torch.device("cpu"))["a"].shape
        torch.Size([2, 2])
    """
    with safe_open(filename, framework="pt", device=device, backend=backend) as file:
        return file.get_tensors()


def save_model(
    model: torch.nn.Module,
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
    force_contiguous: bool = True,
) -> None:
    """Writes the parameters and buffers of `model` to `filename`, shared ones once.

    Of tensors that share memory, the one that covers it is kept; for each of the others the
    metadata maps its name to the kept one's.

    Args:
        model: The model.
        filename: The file to write.
        metadata: Texts to keep beside the tensors.
        force_contiguous: Whether to copy tensors that are not contiguous; `save_file` refuses them.

    Raises:
        RuntimeError: Tensors share memory and none covers all of it.
        ValueError: A tensor is sparse, or is not contiguous and `force_contiguous` is false.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> save_model(model, "linear.safetensors")
        >>> load_model(model, "linear.safetensors")
        (set(), [])
    """
    state_dict = model.state_dict()
    metadata = None if metadata is None else dict(metadata)
    for kept, removed in _remove_duplicate_names(state_dict).items():
        for name in removed:
            metadata = {} if metadata is None else metadata
            metadata.setdefault(name, kept)
            del state_dict[name]
    if force_contiguous:
        state_dict = {name: tensor.contiguous() for name, tensor in state_dict.items()}
    try:
        save_file(state_dict, filename, metadata=metadata)
    except ValueError as error:
        message = (
            f"{error} Or use save_model(..., force_contiguous=True), read the docs for potential"
            " caveats."
        )
        raise ValueError(message) from error


def load_model(
    model: torch.nn.Module,
    filename: str | os.PathLike[str],
    strict: bool = True,
    device: Device = "cpu",
    *,
    backend: str = "mmap",
) -> tuple[set[str], list[str]]:
    """Copies the tensors of `filename` into `model`; returns the names that did not match.

    Args:
        model: The model, its parameters of the shapes that the file has.
        filename: The file to read, written by `save_model` or `save_file`.
        strict: Whether names that do not match are an error.
        device: Where the tensors are read to before they are copied.
        backend: As for `load_file`.

    Returns:
        The names of the model that the file has not, and those of the file that the model has not.

    Raises:
        RuntimeError: Names do not match and `strict` is true, or shapes do not match.

    Example:
        >>> save_file({"weight": torch.ones(1, 2)}, "part.safetensors")
        >>> load_model(torch.nn.Linear(2, 1), "part.safetensors", strict=False)
        ({'bias'}, [])
    """
    state_dict = load_file(filename, device=device, backend=backend)
    shared = _remove_duplicate_names(model.state_dict(), preferred_names=state_dict.keys())
    incompatible = model.load_state_dict(state_dict, strict=False)
    missing, unexpected = set(incompatible.missing_keys), list(incompatible.unexpected_keys)
    for removed in shared.values():
        for name in removed:
            if name in missing:
                missing.remove(name)
            else:
                unexpected.append(name)
    if strict and (missing or unexpected):
        raise RuntimeError(_mismatch(type(model).__name__, missing, unexpected))
    return missing, unexpected


def _mismatch(model: str, missing: Iterable[str], unexpected: Iterable[str]) -> str:
    lines = [f"Error(s) in loading state_dict for {model}:"]
    for what, names in (("Missing", missing), ("Unexpected", unexpected)):
        quoted = ", ".join(f'"{name}"' for name in sorted(names))
        if quoted:
            lines.append(f"    {what} key(s) in state_dict: {quoted}")
    return "\n".join(lines)


def _getdtype(dtype_str: str) -> torch.dtype:
    try:
        return _TYPES[dtype_str]  # type: ignore[no-any-return]
    except KeyError:
        message = f"torch {torch.__version__} has no dtype for `{dtype_str}`"
        raise DtypeError(message, kind="UnsupportedDtype") from None


def _narrow(name: str) -> torch.dtype | None:
    """The type of integers narrower than a byte that this torch calls so, if it has it."""
    return getattr(torch, name, None)


def _view2torch(safeview: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, torch.Tensor]:
    result = {}
    for name, view in safeview:
        dtype, shape = _getdtype(view["dtype"]), list(view["shape"])
        if dtype == _float4_e2m1_x2:
            shape = _packed_shape(name, shape)
        if not len(view["data"]):
            result[name] = torch.empty(shape, dtype=dtype)
            continue
        octets = torch.frombuffer(view["data"], dtype=torch.uint8)
        result[name] = _swap_bytes(octets, dtype).view(dtype).reshape(shape)
    return result


def _packed_shape(name: str, shape: list[int]) -> list[int]:
    """The shape in pairs, as torch counts F4."""
    if not shape or shape[-1] % 2:
        raise DtypeError(
            f"f4_x2 dtype requires that the last dim be divisible by 2 in torch: got {shape}",
            kind="UnsupportedDtype",
            tensor=name,
        )
    return [*shape[:-1], shape[-1] // 2]


def _swap_bytes(octets: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bytes (1-d, uint8) of elements in the file's order, out of the machine's, or the reverse."""
    width = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
    if sys.byteorder == "little" or width == 1:
        return octets
    return octets.reshape(-1, width).flip(1).reshape(-1)


def _host_bytes(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in host memory whose bytes, as they lie, are those that the file takes."""
    _refuse_without_bytes(name, tensor)
    if tensor.dtype not in _SIZE:
        raise DtypeError(
            f"tensor `{name}` has dtype {tensor.dtype}, which the format cannot hold",
            kind="UnsupportedDtype",
            tensor=name,
        )
    # A conjugate or negative view keeps the plain numbers in memory, and a bit beside them.
    dense = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
    if dense.nelement() and not dense.data_ptr():
        hint = "give the tensor inside it, such as `.to_local()` of a DTensor"
        raise InvalidTensorError(
            f"tensor `{name}` of {type(tensor)} has no memory of its own\nhint: {hint}",
            kind="InvalidTensor",
            tensor=name,
            hint=hint,
        )
    if sys.byteorder == "little" or not dense.nelement():
        return dense
    return _swap_bytes(dense.reshape(-1).view(torch.uint8), dense.dtype).contiguous()


def _refuse_without_bytes(name: str, tensor: torch.Tensor) -> None:
    """Raises where `tensor` has no bytes of its elements, one after the other."""
    _refuse_nested(name, tensor)
    if tensor.layout != torch.strided:
        raise _sparse([name])
    if tensor.device.type == "meta":
        raise NotImplementedError(
            f"Cannot copy out of meta tensor; no data! tensor `{name}` is on the meta device\n"
            "hint: give it numbers first: `.to_empty(device=...)` on its module, then load weights"
        )


def _refuse_nested(name: str, tensor: torch.Tensor) -> None:
    if tensor.is_nested:
        hint = "give the tensors of `.unbind()`, or `torch.nested.to_padded_tensor`"
        raise InvalidTensorError(
            f"tensor `{name}` is nested, and the format holds dense tensors only\nhint: {hint}",
            kind="InvalidTensor",
            tensor=name,
            hint=hint,
        )


def _sparse(names: list[str]) -> ValueError:
    return ValueError(
        f"You are trying to save a sparse tensors: `{names}` which this library does not"
        " support. You can make it a dense tensor before saving with `.to_dense()` but be aware"
        " this might make a much larger file than needed."
    )


def _to_ndarray(tensor: torch.Tensor, name: str = "") -> tuple[npt.NDArray[Any], Any]:
    """The bytes of `tensor` as they go into a file, and the tensor that keeps them alive."""
    import ctypes

    import numpy as np

    dense = _host_bytes(name, tensor)
    address, size_bytes = dense.data_ptr(), dense.nelement() * dense.element_size()
    if address == 0:
        return np.empty(0), 0
    pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_ubyte))
    return np.ctypeslib.as_array(pointer, (size_bytes,)), dense


def _tobytes(tensor: torch.Tensor, name: str = "") -> bytes:
    """The bytes of `tensor` as they go into a file."""
    _evaluate_tensors_for_save({name: tensor})
    _check_contiguous(name, tensor)
    return _to_ndarray(tensor, name)[0].tobytes()


def _evaluate_tensors_for_save(tensors: dict[str, torch.Tensor]) -> None:
    """Raises unless `tensors` is a dict of dense tensors that do not overlap."""
    if not isinstance(tensors, dict):
        raise ValueError(f"Expected a dict of [str, torch.Tensor] but received {type(tensors)}")
    sparse = []
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(
                f"Key `{name}` is invalid, expected torch.Tensor but received {type(tensor)}"
            )
        _refuse_nested(name, tensor)
        if tensor.layout != torch.strided:
            sparse.append(name)
    if sparse:
        raise _sparse(sparse)
    failing = [names for names in _find_shared_tensors(tensors) if len(names) > 1]
    if failing:
        raise RuntimeError(
            f"""
            Some tensors share memory, this will lead to duplicate memory on disk and potential differences when loading them again: {failing}.
            A potential way to correctly save your model is to use `save_model`.
            More information at https://huggingface.co/docs/safetensors/torch_shared_tensors
            """  # noqa: E501
        )


def _check_contiguous(name: str, tensor: torch.Tensor) -> None:
    if not tensor.is_contiguous():
        raise ValueError(
            f"You are trying to save a non contiguous tensor: `{name}` which is not allowed. It"
            " either means you are trying to save tensors which are reference of each other in"
            " which case it's recommended to save only the full tensors, and reslice at load time,"
            " or simply call `.contiguous()` on your tensor to pack it before saving."
        )


def _describe(
    name: str, tensor: torch.Tensor, _place: tuple[int, int] | None = None
) -> tuple[TensorSpec, object]:
    """What the writer needs to know of `tensor`, and what holds the bytes to write.

    `_place` is the device and the stream that the tensor is taken to be of.
    """
    if tensor.dtype in _NARROW:
        return _describe_narrow(name, tensor)
    if _place is None and tensor.device.type == "cuda" and _is_plain(tensor):
        ordinal = tensor.get_device()
        stream = torch_stream(ordinal)
        _place = None if stream is None else (ordinal, stream)
    dense = tensor.detach() if _place is not None else _host_bytes(name, tensor)
    spec = TensorSpec(
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=tuple(tensor.shape),
        data_ptr=dense.data_ptr(),
        data_len=dense.nelement() * dense.element_size(),
    )
    return spec if _place is None else on_device(spec, *_place), dense


def _describe_narrow(name: str, tensor: torch.Tensor) -> tuple[TensorSpec, object]:
    _refuse_without_bytes(name, tensor)
    # PyTorch copies and casts no type of these.
    dense = _host_bytes(name, tensor.detach().view(torch.uint8))
    values = TensorSpec(
        dtype=_NARROW[tensor.dtype],
        shape=tuple(tensor.shape),
        data_ptr=dense.data_ptr(),
        data_len=dense.nelement(),
    )
    return pack(values, name)


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether the bytes of `tensor`, as they lie, are those that the file takes."""
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and not tensor.is_nested
        and tensor.layout == torch.strided
        and tensor.dtype in _SIZE
        and tensor.is_contiguous()
        and not tensor.is_conj()
        and not tensor.is_neg()
        and sys.byteorder == "little"
    )


def _describe_writable(name: str, tensor: torch.Tensor) -> View | None:
    """The memory of `tensor`, if it has any that can be written to."""
    tensor = tensor.detach()
    is_memory = tensor.layout == torch.strided and tensor.device.type != "meta"
    if not is_memory or tensor.is_conj() or tensor.is_neg():
        return None
    # Raises where the format has no such type.
    _describe(name, torch.empty(0, dtype=tensor.dtype))
    itemsize = tensor.element_size()
    strides = tuple(stride * itemsize for stride in tensor.stride())
    place = Place(tensor.data_ptr(), tuple(tensor.shape), strides, itemsize)
    first, end = span(place)
    spec = TensorSpec(
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=tuple(tensor.shape),
        data_ptr=first,
        data_len=end - first,
    )
    device = _copied_to(tensor)
    # To other devices PyTorch brings what was made on the host.
    is_reached = device is not None or tensor.device.type == "cpu"
    is_dense = tensor.is_contiguous() and is_reached and tensor.dtype not in _NARROW
    return View(spec, place, is_dense, lambda made: _fill(tensor, made), device)


def _copied_to(tensor: torch.Tensor) -> str | None:
    """The device of `tensor`, if it is one that the engine itself can copy to."""
    return str(tensor.device) if tensor.device.type == "cuda" else None


# Words of all sizes that an element can have; bits are copied, so any type will do.
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _fill(tensor: torch.Tensor, made: torch.Tensor) -> None:
    if tensor.dtype in _NARROW:
        tensor, made = tensor.view(torch.uint8), made.view(torch.uint8)
    if tensor.device.type != "cpu":
        tensor.copy_(made)
        return
    word = _WORDS[tensor.element_size()]
    tensor, made = tensor.view(word), made.view(word)
    try:
        # PyTorch's threads would spin while they wait for processors that the engine's are using.
        import_module("numpy").copyto(tensor.numpy(), made.numpy())
    except (ImportError, RuntimeError):
        # There is no NumPy beside this PyTorch.
        tensor.copy_(made)


def _flatten_as_ptr(
    tensors: dict[str, torch.Tensor], keep_alive_buffer: list[Any]
) -> dict[str, TensorSpec]:
    described = torch_flatten(tensors, keep_alive_buffer)
    if described is not None:
        return described
    _evaluate_tensors_for_save(tensors)
    flattened = {}
    for name, tensor in tensors.items():
        _check_contiguous(name, tensor)
        flattened[name], dense = _describe(name, tensor)
        keep_alive_buffer.append(dense)
    return flattened
