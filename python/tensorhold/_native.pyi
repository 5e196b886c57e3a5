# The extension module, written in Rust. Nobody imports it but this package.
#
# What the extension asks of the package in return:
#   tensorhold._errors.from_native(kind, message, path, tensor, bytes, hint, os_error)
#       makes the exception to raise; `kind` is the name of an `ErrorKind` (`"TensorNotFound"`).
#   tensorhold.numpy._getdtype(code)
#       the numpy dtype of a byte-wide type (`"BF16"` -> ml_dtypes' bfloat16).
#   tensorhold.numpy._unpack(packed, code, shape)
#       an array of the logical shape out of packed bytes (1-d, uint8): F4, F6_E2M3, F6_E3M2.
#   tensorhold.<torch|numpy|flax|tensorflow|mlx|paddle>._narrow(name)
#       the framework's type of integers narrower than a byte (`"int4"`) that tensors of U8 (torch)
#       or arrays of it (NumPy's type) are viewed as; None where it has none.
#   tensorhold.<flax|tensorflow|mlx|paddle>._from_numpy(array, code, device)
#       the framework's tensor out of an array that one of the two functions above has typed.
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, TypeAlias, final

from typing_extensions import Buffer, Self

__all__ = [
    "Checkpoint",
    "DequantizedSlice",
    "GdsStats",
    "LoadPlan",
    "Logical",
    "Pieces",
    "PinnedMemory",
    "PrefetchLoader",
    "PySafeSlice",
    "QuantFinding",
    "Quantization",
    "QuantizedWeight",
    "SaveHandle",
    "Share",
    "TensorInfo",
    "TensorMeta",
    "TensorSlice",
    "TensorSpec",
    "TransferStats",
    "__version__",
    "_safe_open_handle",
    "cli_main",
    "convert",
    "dequantize",
    "dequantize_all",
    "dequantize_files",
    "dequantized_bytes",
    "deserialize",
    "empty_cache",
    "finish_saves",
    "load_bytes",
    "logical_names",
    "numpy_flatten",
    "on_device",
    "open_foreign",
    "pack",
    "pinned_memory",
    "quantize",
    "repack",
    "safe_open",
    "save",
    "save_async",
    "scan",
    "serialize",
    "serialize_file",
    "set_cache_limit",
    "set_pinned_limit",
    "torch_flatten",
    "torch_stream",
]

__version__: str

_StrPath: TypeAlias = str | PathLike[str]
# A name, `TensorSpec` of its bytes, and whatever keeps those bytes alive.
_SaveItem: TypeAlias = tuple[str, TensorSpec, object]

# Whole tensors, or parts of them.
_Names: TypeAlias = Sequence[str] | Mapping[str, Any]

class _NamedFile(Protocol):
    name: _StrPath
    def fileno(self) -> int: ...

@final
class TensorSpec:
    def __new__(cls, *, dtype: str, shape: Sequence[int], data_ptr: int, data_len: int) -> Self: ...
    # `dtype` takes a framework's name. That of integers narrower than a byte (`int4`) describes
    # values, one to a byte, which `pack` packs. `float4_e2m1fn_x2` doubles the last dimension;
    # `float4_e2m1fn`, `float6_e2m3fn` and `float6_e3m2fn` take the logical shape. Bytes are packed.
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> list[int]: ...
    @property
    def data_ptr(self) -> int: ...
    @property
    def data_len(self) -> int: ...

@final
class PySafeSlice:
    def get_shape(self) -> list[int]: ...
    def get_dtype(self) -> str: ...
    def __getitem__(self, index: Any, /) -> Any: ...

@final
class safe_open:
    def __new__(
        cls,
        filename: _StrPath,
        framework: str,
        device: Any = None,
        *,
        backend: str = "mmap",
    ) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def keys(self) -> list[str]: ...
    def offset_keys(self) -> list[str]: ...
    def metadata(self) -> dict[str, str] | None: ...
    def get_tensor(self, name: str) -> Any: ...
    def get_tensors(self) -> dict[str, Any]: ...
    def get_slice(self, name: str) -> PySafeSlice: ...
    def get_tensor_meta(self, name: str) -> TensorMeta: ...
    def prefetch(
        self,
        plan: dict[str, Any] | None = None,
        *,
        device: Any = None,
        threads: int | None = None,
    ) -> PrefetchLoader: ...

@final
class _safe_open_handle:
    def __new__(
        cls,
        f: _NamedFile,
        framework: str,
        device: Any = None,
        *,
        backend: str = "mmap",
    ) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def keys(self) -> list[str]: ...
    def offset_keys(self) -> list[str]: ...
    def metadata(self) -> dict[str, str] | None: ...
    def get_tensor(self, name: str) -> Any: ...
    def get_tensors(self) -> dict[str, Any]: ...
    def get_slice(self, name: str) -> PySafeSlice: ...
    def get_tensor_meta(self, name: str) -> TensorMeta: ...
    def prefetch(
        self,
        plan: dict[str, Any] | None = None,
        *,
        device: Any = None,
        threads: int | None = None,
    ) -> PrefetchLoader: ...

# The packed bytes of a description of integers narrower than a byte, and what keeps these alive.
# `name` is what errors call the tensor.
def pack(spec: TensorSpec, name: str) -> tuple[TensorSpec, object]: ...

# The same description, of bytes on a device of CUDA or HIP, written by what `stream` was given.
def on_device(spec: TensorSpec, ordinal: int, stream: int) -> TensorSpec: ...
def serialize(
    tensor_dict: dict[str, TensorSpec], metadata: dict[str, str] | None = None
) -> bytes: ...
def serialize_file(
    tensor_dict: dict[str, TensorSpec],
    filename: _StrPath,
    metadata: dict[str, str] | None = None,
) -> None: ...
def deserialize(bytes: Buffer) -> list[tuple[str, dict[str, Any]]]: ...

# The tensors of a file that lies in memory, in offset order. A writable buffer is viewed and kept
# alive by its tensors where the framework can view it; a read-only one is copied.
def load_bytes(data: Buffer, framework: str, device: Any = None) -> dict[str, Any]: ...

# The current stream of a device, where the engine itself can copy from it.
def torch_stream(ordinal: int) -> int | None: ...

# Descriptions of dense, contiguous tensors (exactly `Tensor` or `Parameter`) of the CPU or of a
# device that the engine copies from, no two of one storage, whose bytes are what is to be written;
# None when anything at all is otherwise. Appends to `hold` what must outlive the writing.
def torch_flatten(tensors: object, hold: list[object]) -> dict[str, TensorSpec] | None: ...

# The same for arrays: C-contiguous, of the machine's byte order (little), of a byte-wide type.
def numpy_flatten(arrays: object, hold: list[object]) -> dict[str, TensorSpec] | None: ...

@final
class TensorInfo:
    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    # From the start of the file's data, as in the header.
    @property
    def offsets(self) -> tuple[int, int]: ...
    # Of the first byte in the file.
    @property
    def position(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    # The path of the file that holds the tensor.
    @property
    def file(self) -> str: ...

# Indexing clamps as numpy does; `[]` reads no bytes but the ones it gives.
@final
class TensorSlice:
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, index: Any, /) -> Any: ...

# A weight that is made numbers of as it is sliced.
@final
class DequantizedSlice:
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, index: Any, /) -> Any: ...

# What a load would read: `str` of it has a line for each tensor.
@final
class LoadPlan:
    @property
    def size_bytes(self) -> int: ...
    def __len__(self) -> int: ...

# What a load did, and how. `reading_seconds` and `waiting_seconds` are of all threads together.
@final
class TransferStats:
    @property
    def wanted_bytes(self) -> int: ...
    @property
    def read_bytes(self) -> int: ...
    @property
    def n_reads(self) -> int: ...
    @property
    def n_threads(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def reading_seconds(self) -> float: ...
    @property
    def waiting_seconds(self) -> float: ...
    @property
    def gb_per_second(self) -> float: ...
    # By the name of each device that the engine itself brings tensors to, the bytes of those.
    @property
    def device_bytes(self) -> dict[str, int]: ...
    # `mapped`, `copied`, `buffered` or `direct`, for each file.
    @property
    def ways(self) -> list[str]: ...
    # What became of `backend="gds"`; None where it was not asked for.
    @property
    def gds(self) -> GdsStats | None: ...

# `reason`: why not all that could have gone past the host did, or why `is_direct` is not known.
@final
class GdsStats:
    @property
    def read_bytes(self) -> int: ...
    @property
    def is_direct(self) -> bool | None: ...
    @property
    def reason(self) -> str | None: ...

# Each tensor is given out once, by `take` or by iterating.
@final
class PrefetchLoader:
    def names(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def take(self, name: str) -> Any: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> tuple[str, Any]: ...
    def stats(self) -> TransferStats: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
        /,
    ) -> None: ...

# What the header says of a tensor, in the reference's words.
@final
class TensorMeta:
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> list[int]: ...
    @property
    def data_offsets(self) -> tuple[int, int]: ...

@final
class QuantFinding:
    @property
    def kind(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def tensor(self) -> str | None: ...

@final
class QuantizedWeight:
    @property
    def name(self) -> str: ...
    @property
    def scheme(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...] | None: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def bits_per_weight(self) -> float | None: ...
    @property
    def parts(self) -> dict[str, str]: ...
    @property
    def error(self) -> str | None: ...
    @property
    def findings(self) -> list[QuantFinding]: ...

@final
class Quantization:
    @property
    def config(self) -> str | None: ...
    @property
    def schemes(self) -> dict[str, int]: ...
    @property
    def weights(self) -> dict[str, QuantizedWeight]: ...
    @property
    def companions(self) -> list[str]: ...
    @property
    def findings(self) -> list[QuantFinding]: ...
    def __len__(self) -> int: ...

@final
class Logical:
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def scheme(self) -> str | None: ...

# `source`: a file, a folder, an index, or a list of files. Raises TensorNotFound for unknown names
# and Closed after `close`.
@final
class Checkpoint:
    def __new__(
        cls,
        source: _StrPath | Sequence[_StrPath],
        framework: str,
        device: Any,
        strict: bool,
        backend: str,
        quantization_config: str | None,
    ) -> Self: ...
    # Of each file its path, and name, dtype, shape and position of its tensors.
    @staticmethod
    def placed(
        files: Sequence[tuple[_StrPath, Sequence[tuple[str, str, Sequence[int], int]]]],
        framework: str,
        device: Any,
        backend: str,
    ) -> Checkpoint: ...
    # File by file, in offset order.
    def keys(self) -> list[str]: ...
    def contains(self, name: str) -> bool: ...
    def n_tensors(self) -> int: ...
    def info(self, name: str) -> TensorInfo: ...
    # What headers, configurations beside the files and small tensors say; found once.
    def quantization(self) -> Quantization: ...
    def logical(self, name: str) -> Logical: ...
    def metadata(self) -> dict[str, str]: ...
    def files(self) -> list[str]: ...
    # A view of the map where there is one.
    def tensor(self, name: str) -> Any: ...
    def slice(self, name: str) -> TensorSlice: ...
    # Tensors that own their memory, in the order of `names`, or of `keys`, and what was done. A
    # mapping from names to indices gives parts. `device` is a device, or a mapping from patterns of
    # names to devices. `into`: descriptions of writable tensors, with what keeps them alive, the
    # front end, what copies a tensor of it to them, whether that is to be done (they are not
    # dense), and the device if it is not the host. `progress` is called with the bytes done and the
    # bytes in all; what it raises ends the load.
    def load(
        self,
        names: _Names | None,
        device: Any,
        dtype: str | None,
        into: Mapping[
            str, tuple[TensorSpec, object, str, Callable[[Any], object], bool, str | None]
        ]
        | None,
        threads: int | None,
        cores: int | None,
        progress: Callable[[int, int], object] | None,
    ) -> tuple[dict[str, Any], TransferStats]: ...
    def prefetch(
        self,
        names: _Names | None,
        device: Any,
        dtype: str | None,
        memory_limit: int | None,
        threads: int | None,
    ) -> PrefetchLoader: ...
    def plan(self, names: _Names | None, dtype: str | None) -> LoadPlan: ...
    # The axes of the mesh with their sizes; the rank; rules as a pattern, an axis and what the rule
    # says; whether they are to name every tensor; names to give to tensors that are kept under
    # others; whether quantized weights are to be as they are without quantization.
    def shares(
        self,
        asked: tuple[
            Sequence[tuple[str, int]],
            int,
            Sequence[tuple[str, str, tuple[Any, ...]]],
            bool,
            Sequence[tuple[str, str]],
            bool,
        ],
    ) -> dict[str, Share]: ...
    # The size of the files, how much of it is in the page cache if that is known, and whether a
    # file is on a network file system.
    def residence(self) -> tuple[int, int | None, bool]: ...
    def close(self) -> None: ...

# The names that tensors have without quantization, each with whether it is a quantized weight's.
def logical_names(checkpoint: Checkpoint) -> list[tuple[str, bool]]: ...
def dequantize(checkpoint: Checkpoint, name: str, dtype: str | None) -> DequantizedSlice: ...

# The bytes that `dequantize_all` makes of quantized weights; it refuses what that refuses.
def dequantized_bytes(checkpoint: Checkpoint, names: _Names, dtype: str | None) -> int: ...

# Arguments as of `Checkpoint.load`. Those of `into` that are filled in place come as None.
def dequantize_all(
    checkpoint: Checkpoint,
    names: _Names,
    device: Any,
    dtype: str | None,
    into: Mapping[str, tuple[TensorSpec, object, str, Callable[[Any], object], bool, str | None]],
    threads: int | None,
    progress: Callable[[int, int], object] | None,
) -> dict[str, Any]: ...

# Files that may hold pieces of the same tensors. A box is a file's number, a name, and for each
# dimension the first position and the end; it goes to what comes at the same place of `into`, which
# is described as for `Checkpoint.load`.
@final
class Pieces:
    def __new__(cls, paths: Sequence[_StrPath]) -> Self: ...
    # Name, dtype and shape of each whole tensor; and of each piece the file's number, its first
    # positions in the whole, and its shape.
    def tensors(
        self,
    ) -> list[tuple[str, str, list[int], list[tuple[int, list[int], list[int]]]]]: ...
    def metadata(self) -> list[dict[str, str]]: ...
    def fill(
        self,
        boxes: Sequence[tuple[int, str, Sequence[tuple[int, int]]]],
        into: Sequence[tuple[TensorSpec, object, str, Callable[[Any], object], bool, str | None]],
        threads: int | None,
    ) -> TransferStats: ...

# Of each dimension of a tensor the positions that a rank holds.
@final
class Share:
    # Each division is a placement, the number of ranks along its axis, and the rank's place there.
    def __new__(
        cls, shape: Sequence[int], divisions: Sequence[tuple[tuple[Any, ...], int, int]]
    ) -> Self: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def full_shape(self) -> tuple[int, ...]: ...
    # First and end of each range, in the order in which they are held.
    @property
    def ranges(self) -> list[list[tuple[int, int]]]: ...
    @property
    def placements(self) -> list[tuple[Any, ...]]: ...
    @property
    def is_whole(self) -> bool: ...
    # The quantized weight that the tensor is a part of.
    @property
    def weight(self) -> str | None: ...
    # The integers that are to be in place of those in the file.
    @property
    def rewritten(self) -> list[int] | None: ...

# Writes one file, or, where `max_shard_size` is given and passed, shards with an index. A list is
# laid out before it is written; an iterator is drained one item at a time, none kept. `progress` is
# called with the bytes done and the bytes in all (None for an iterator). Returns the paths written.
def save(
    tensors: list[_SaveItem] | Iterator[_SaveItem],
    target: _StrPath,
    metadata: Mapping[str, str] | None,
    max_shard_size: int | None,
    align: int,
    durability: Literal["none", "data", "full"],
    progress: Callable[[int, int | None], object] | None,
) -> list[Path]: ...

# Returns as soon as the bytes are copied or written; not copied is what passes `memory_limit`. The
# arguments are those of `save`, but `tensors` is a list.
def save_async(
    items: list[_SaveItem],
    target: _StrPath,
    metadata: Mapping[str, str] | None,
    max_shard_size: int | None,
    align: int,
    durability: Literal["none", "data", "full"],
    progress: Callable[[int, int | None], object] | None,
    memory_limit: int | None,
) -> SaveHandle: ...

# Waits for the saves that go on. Failures that nobody asked about go to `sys.unraisablehook`.
def finish_saves() -> None: ...

# `wait` raises TimeoutError where the save still goes on.
@final
class SaveHandle:
    def wait(self, timeout: float | None = None) -> list[str]: ...
    def done(self) -> bool: ...

# How much pinned memory there is to copy to devices from: `in_use_bytes` are in the hands of a
# thread, or with copies under way.
@final
class PinnedMemory:
    @property
    def pinned_bytes(self) -> int: ...
    @property
    def unpinned_bytes(self) -> int: ...
    @property
    def limit_bytes(self) -> int: ...
    @property
    def in_use_bytes(self) -> int: ...
    @property
    def peak_in_use_bytes(self) -> int: ...

def pinned_memory() -> PinnedMemory: ...

# In the place of `TENSORHOLD_PINNED_MB`. There is always room for 8 MiB.
def set_pinned_limit(limit_bytes: int) -> None: ...

# Memory that is kept for the next tensors, that of freed ones and pinned memory: frees what is not
# in use, and says how many bytes; and sets how much of freed ones is kept (256 MiB unless set).
def empty_cache() -> int: ...
def set_cache_limit(limit_bytes: int) -> None: ...

# Runs the command line; `arguments` without the program's name. Returns the exit code.
def cli_main(arguments: Iterable[str]) -> int: ...

# The tensors that lie in the file as they are, with the tree in the metadata, and a file in memory
# with the others; None for a file of no known format.
def open_foreign(
    path: _StrPath, framework: str, device: Any, backend: str
) -> tuple[Checkpoint, bytes] | None: ...

# The paths written, how many values were left out, and what is odd about the source.
def convert(
    source: _StrPath,
    target: _StrPath,
    max_shard_size: int | None,
    values: str,
    dtype: str | None,
    root: str | None,
    dequantize: bool,
    verify: bool,
    align: int,
    durability: str,
    progress: Callable[[int, int], object] | None,
) -> tuple[list[Path], int, list[dict[str, Any]]]: ...
def scan(path: _StrPath) -> dict[str, Any]: ...

# The paths written, and what became of each tensor.
def quantize(
    source: _StrPath,
    target: _StrPath,
    scheme: str,
    group_size: int | None,
    block: list[int] | None,
    scale_dtype: str | None,
    include: list[str],
    ignore: list[str],
    max_shard_size: int | None,
    threads: int | None,
    verify: bool,
    dry_run: bool,
    align: int,
    durability: str,
    progress: Callable[[int, int], object] | None,
) -> tuple[list[Path], list[Path], list[dict[str, Any]]]: ...

# The paths written, those of copied files, how many weights there are, and how many tensors were
# copied.
def dequantize_files(
    source: _StrPath,
    target: _StrPath,
    dtype: str | None,
    quantization_config: str | None,
    max_shard_size: int | None,
    threads: int | None,
    verify: bool,
    align: int,
    durability: str,
    progress: Callable[[int, int], object] | None,
) -> tuple[list[Path], list[Path], int, int]: ...

# The paths written, those of copied files, how many weights there are, and the names of those that
# were rounded.
def repack(
    source: _StrPath,
    target: _StrPath,
    layout: str,
    allow_rounding: bool,
    quantization_config: str | None,
    max_shard_size: int | None,
    threads: int | None,
    verify: bool,
    align: int,
    durability: str,
    progress: Callable[[int, int], object] | None,
) -> tuple[list[Path], list[Path], int, list[str]]: ...
