"""Checkpoints: one table of tensors over a file or many, and the way to write them.

`open` and `save` are `tensorhold.open` and `tensorhold.save`. Both take any of the six frameworks;
`save` (`_saving.py`) tells them apart by the tensors and imports only the one that made them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tensorhold import _into, _native
from tensorhold._arguments import front_end_of, to_config_text, to_dtype_name, to_size_bytes
from tensorhold._errors import ArgumentError
from tensorhold._native import DequantizedSlice, SaveHandle, TensorInfo, TensorSlice
from tensorhold._saving import save, save_async

if TYPE_CHECKING:
    from os import PathLike

    from typing_extensions import Self

__all__ = [
    "Checkpoint",
    "DequantizedSlice",
    "SaveHandle",
    "TensorInfo",
    "TensorSlice",
    "open",
    "save",
    "save_async",
]


class Checkpoint(Mapping[str, Any]):
    """A read-only mapping from names to tensors, over one safetensors file or many.

    Opening reads headers only. `checkpoint[name]` gives a tensor that is a view of the file where
    the framework can hold one; `load` gives tensors that own their memory. Names come file by file,
    in the order in which the tensors lie.

    Args:
        source: A file, a folder, a `*.safetensors.index.json`, or a list of files.
        framework: What to make tensors of: `pt`, `np`, `jax`, `tf`, `mlx` or `paddle`.
        device: Where tensors are to be.
        strict: Whether to refuse what the published format forbids though readers take it.
        backend: `"auto"`, `"mmap"`, `"pread"`, `"direct"` to read past the page cache, `"shared"`
            never to, since other processes read the same files, or `"gds"` to read large tensors
            straight into a device, where cuFile or hipFile can.
        quantization_config: What is said of quantization in place of what files beside the
            checkpoint say, as `quantization_config` of a `config.json`: a mapping or its JSON.

    Raises:
        FileNotFoundError: There is no such file.
        SafetensorError: A file is no valid safetensors file, or the index and the files disagree.

    Example:
        >>> import numpy as np
        >>> _ = save({"a": np.arange(3), "b": np.eye(2, dtype=np.float32)}, "ab.safetensors")
        >>> checkpoint = Checkpoint("ab.safetensors", framework="np")
        >>> sorted(checkpoint), "c" in checkpoint, checkpoint["a"]
        (['a', 'b'], False, array([0, 1, 2]))
        >>> checkpoint.close()
    """

    def __init__(
        self,
        source: str | PathLike[str] | Sequence[str | PathLike[str]],
        *,
        framework: str = "pt",
        device: Any = "cpu",
        strict: bool = True,
        backend: str = "auto",
        quantization_config: Mapping[str, Any] | str | None = None,
    ) -> None:
        self._source = source
        config = to_config_text(quantization_config)
        self._native = _native.Checkpoint(source, framework, device, strict, backend, config)
        self._stats: _native.TransferStats | None = None

    @classmethod
    def _placed(
        cls,
        files: Sequence[tuple[str, Sequence[tuple[str, str, Sequence[int], int]]]],
        *,
        framework: str = "pt",
        backend: str = "auto",
    ) -> Self:
        """Files of any format: each a path, and of its tensors name, dtype, shape and position."""
        native = _native.Checkpoint.placed(files, framework, "cpu", backend)
        return cls._of(native, [path for path, _ in files])

    @classmethod
    def _of(cls, native: _native.Checkpoint, source: Any) -> Self:
        """What is open already."""
        made = cls.__new__(cls)
        made._source, made._native, made._stats = source, native, None
        return made

    def __getitem__(self, name: str) -> Any:
        return self._native.tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._native.keys())

    def __len__(self) -> int:
        return self._native.n_tensors()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._native.contains(name)

    # A mapping compares by its values; values here are tensors on disk.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._source!r})"

    @property
    def metadata(self) -> dict[str, str]:
        """The texts kept beside the tensors, of all files together; the first file's text wins."""
        return self._native.metadata()

    @property
    def files(self) -> list[str]:
        """The paths of the files, in the order in which their tensors come."""
        return self._native.files()

    def info(self, name: str) -> TensorInfo:
        """What the header says of a tensor: `.dtype .shape .offsets .position .size_bytes .file`.

        Raises:
            KeyError: No tensor has this name.

        Example:
            >>> import numpy as np
            >>> _ = save({"a": np.zeros((2, 3), np.int8)}, "a.safetensors")
            >>> with open("a.safetensors", framework="np") as checkpoint:
            ...     info = checkpoint.info("a")
            >>> info.dtype, info.shape, info.offsets
            ('I8', (2, 3), (0, 6))
        """
        return self._native.info(name)

    @property
    def quantization(self) -> _native.Quantization:
        """What is quantized: `.schemes .weights .findings .companions .config`.

        A weight has the name, `.shape` and `.dtype` that it has without quantization, its
        `.scheme`, the tensors that are its `.parts`, and an `.error` where it cannot be read. It
        is found by the headers, the configurations beside the files, and small tensors.

        Raises:
            ConfigError: A configuration cannot be read, and tensors are quantized.

        Example:
            >>> import numpy as np
            >>> parts = {
            ...     "up.weight": np.ones((4, 6), np.int8),
            ...     "up.weight_scale": np.ones((4, 1), np.float32),
            ... }
            >>> _ = save(parts, "int8.safetensors")
            >>> with open("int8.safetensors", framework="np") as checkpoint:
            ...     quantization = checkpoint.quantization
            >>> quantization.schemes
            {'int-quantized': 1}
            >>> weight = quantization.weights["up.weight"]
            >>> weight.shape, weight.dtype, weight.parts["weight_scale"]
            ((4, 6), 'F32', 'up.weight_scale')
        """
        return self._native.quantization()

    def logical(self, name: str) -> _native.Logical:
        """What a weight is without quantization: `.dtype .shape .scheme`; of others their own.

        Args:
            name: The name that the weight has without quantization, whatever its parts are called.

        Raises:
            KeyError: No weight and no tensor has this name.
            NotImplementedError: It is known what the weight is written in, but that is not read.
            ValueError: The parts of the weight do not fit together.

        Example:
            >>> import numpy as np
            >>> _ = save({"a": np.zeros((2, 3), np.int8)}, "a.safetensors")
            >>> with open("a.safetensors", framework="np") as checkpoint:
            ...     checkpoint.logical("a")
            Logical(dtype="I8", shape=[2, 3], scheme=None)
        """
        return self._native.logical(name)

    def slice(self, name: str) -> TensorSlice:
        """A tensor to take a part of by `[...]`, reading no bytes but the ones asked for.

        Indexing is NumPy's basic indexing: integers, ranges with steps, `...` and `None`.

        Raises:
            KeyError: No tensor has this name.

        Example:
            >>> import numpy as np
            >>> _ = save({"a": np.arange(12).reshape(3, 4)}, "a.safetensors")
            >>> with open("a.safetensors", framework="np") as checkpoint:
            ...     checkpoint.slice("a")[::-2, 1:3]
            array([[ 9, 10],
                   [ 1,  2]])
        """
        return self._native.slice(name)

    def dequantize(self, name: str, dtype: Any = None) -> DequantizedSlice:
        """A weight as numbers, to take all or a part of by `[...]`, reading what that needs.

        A quantized weight has the name that it has in a checkpoint that is not quantized, whatever
        its packed parts are called: `X.weight` for `X.qweight`, `X.scales` and so on. Any other
        tensor is given as it is, or cast if it is of floats.

        Args:
            name: The weight.
            dtype: What its values are given as: any float of 8 to 64 bits. Where `None`, the type
                that the checkpoint says, most often that of its scales.

        Raises:
            KeyError: No weight and no tensor has this name.
            SafetensorError: The weight is of a format that is not read, or its parts do not suit
                each other.

        Example:
            >>> import ml_dtypes
            >>> import numpy as np
            >>> codes = np.array([[1, 2], [3, -4]], ml_dtypes.float8_e4m3fn)
            >>> parts = {"up.weight": codes, "up.weight_scale": np.full(1, 0.5, np.float32)}
            >>> _ = save(parts, "fp8.safetensors")
            >>> with open("fp8.safetensors", framework="np") as checkpoint:
            ...     weight = checkpoint.dequantize("up.weight", dtype=np.float32)
            ...     print(weight.dtype, weight.shape, weight[1:])
            F32 (2, 2) [[ 1.5 -2. ]]
        """
        return _native.dequantize(self._native, name, to_dtype_name(dtype))

    def load(
        self,
        names: Iterable[str] | Mapping[str, Any] | None = None,
        *,
        device: Any = None,
        dtype: Any = None,
        into: Mapping[str, Any] | None = None,
        dequantize: bool = False,
        threads: int | None = None,
        cores: int | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> dict[str, Any]:
        """Tensors that own their memory and outlive the checkpoint, by name, read in parallel.

        Args:
            names: Which tensors, in the order to give them; all where `None`. A mapping gives
                parts: from a name to an index as for `slice`, or to `None` for all of it.
            device: Where they are to be, if elsewhere than the checkpoint's device. A mapping
                says it by names: from a pattern such as `"layers.*"` to a device. The first that
                matches counts; `"*"` and `""` match all.
            dtype: What floats are cast to while they are read, with the values that PyTorch's
                cast gives; other types stay what they are.
            into: Tensors to fill instead of new ones, by name: of the same shape, on any device,
                views with strides among them. They are given back. Those of another float type
                are cast to.
            dequantize: Whether quantized weights are given as numbers, by the names and shapes
                that they have without quantization, and not the tensors that they are made of. A
                weight that cannot be so given is refused before any byte is read.
            threads: How many threads read, if not as many as the file and the machine deserve.
            cores: How many of the machine's processors to count on, where other processes load
                at the same time; all that this one may use where None.
            progress: Called now and then with the bytes done and the bytes in all.

        Raises:
            KeyError: No tensor has one of these names.
            TypeError: `names` is a single name.
            ValueError: A tensor of `into` cannot be filled.

        Example:
            >>> import numpy as np
            >>> _ = save({"a": np.ones((2, 2)), "b": np.zeros(1)}, "ab.safetensors")
            >>> with open("ab.safetensors", framework="np") as checkpoint:
            ...     tensors = checkpoint.load(["b"])
            ...     columns = checkpoint.load({"a": np.s_[:, :1]}, dtype=np.float32)
            >>> tensors
            {'b': array([0.])}
            >>> columns["a"].shape, columns["a"].dtype
            ((2, 1), dtype('float32'))
        """
        wanted = _wanted(names)
        into = {} if into is None else into
        if dequantize:
            given = (device, to_dtype_name(dtype), threads, cores, progress)
            tensors = self._load_dequantized(wanted, into, *given)
            tensors.update(into)
            return tensors
        known = self if wanted is None else set(wanted)
        _refuse_unknown(into, known)
        tensors, self._stats = self._native.load(
            wanted,
            device,
            to_dtype_name(dtype),
            _into.given(into, front_end_of),
            threads,
            cores,
            progress,
        )
        tensors.update(into)
        return tensors

    def _load_dequantized(
        self,
        wanted: Sequence[str] | Mapping[str, Any] | None,
        into: Mapping[str, Any],
        device: Any,
        dtype: str | None,
        threads: int | None,
        cores: int | None,
        progress: Callable[[int, int], object] | None,
    ) -> dict[str, Any]:
        """What `load` gives with numbers in the place of quantized weights."""
        logical = dict(_native.logical_names(self._native))
        asked = list(logical) if wanted is None else wanted
        _refuse_unknown(into, set(asked))
        filled = _into.given(into, front_end_of)
        quantized = {name for name in asked if logical.get(name, False)}
        numbers, others = _parted(asked, quantized)
        filled_numbers, filled_others = _parted(filled, quantized)
        # Whatever is refused is refused before the first byte is read.
        n_bytes = _native.dequantized_bytes(self._native, numbers, dtype)
        total = n_bytes + self._native.plan(others, dtype).size_bytes

        def tell(done: int) -> object:
            return progress(done, total) if progress is not None else None

        made = _native.dequantize_all(
            self._native,
            numbers,
            device,
            dtype,
            filled_numbers,
            cores if threads is None else threads,
            None if progress is None else lambda done, _: tell(done),
        )
        rest, self._stats = self._native.load(
            others,
            device,
            dtype,
            filled_others,
            threads,
            cores,
            None if progress is None else lambda done, _: tell(n_bytes + done),
        )
        rest.update(made)
        return {name: rest[name] for name in asked}

    def stream(
        self,
        names: Iterable[str] | Mapping[str, Any] | None = None,
        *,
        device: Any = None,
        dtype: Any = None,
        memory_limit: int | str = "1GiB",
        threads: int | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Pairs of a name and a tensor that owns its memory, read ahead while they are used.

        Args:
            names: Which tensors, in the order to give them; all where `None`. A mapping gives
                parts, as for `load`.
            device: Where they are to be, if elsewhere than the checkpoint's device; a mapping says
                it by patterns of names, as for `load`.
            dtype: What floats are cast to, as for `load`.
            memory_limit: The most memory of tensors that were read ahead: bytes, `"500MB"` or
                `"1GiB"`. A single tensor may be larger.
            threads: How many threads read.

        Raises:
            KeyError: No tensor has one of these names.
            TypeError: `names` is a single name.

        Example:
            >>> import numpy as np
            >>> _ = save({"a": np.ones(1), "b": np.zeros(1)}, "ab.safetensors")
            >>> with open("ab.safetensors", framework="np") as checkpoint:
            ...     for name, tensor in checkpoint.stream():
            ...         print(name, tensor)
            a [1.]
            b [0.]
        """
        limit = to_size_bytes(memory_limit)
        loader = self._native.prefetch(_wanted(names), device, to_dtype_name(dtype), limit, threads)
        return self._taken(loader)

    def _taken(self, loader: _native.PrefetchLoader) -> Iterator[tuple[str, Any]]:
        with loader:
            for name in loader.names():
                yield name, loader.take(name)
            self._stats = loader.stats()

    def plan(
        self, names: Iterable[str] | Mapping[str, Any] | None = None, *, dtype: Any = None
    ) -> _native.LoadPlan:
        """What `load` would read, to print and to count, without reading it.

        Raises:
            KeyError: No tensor has one of these names.

        Example:
            >>> import numpy as np
            >>> _ = save({"a": np.ones((4, 2), np.float32)}, "a.safetensors")
            >>> with open("a.safetensors", framework="np") as checkpoint:
            ...     print(checkpoint.plan({"a": np.s_[:2]}))
            a.safetensors 4096..4112: a F32 [2, 2] of [4, 2] -> buffer 0 at 0, 16 bytes
            1 requests, 1 files, 1 buffers, 16 bytes
        """
        return self._native.plan(_wanted(names), to_dtype_name(dtype))

    @property
    def stats(self) -> _native.TransferStats | None:
        """What the last `load` or finished `stream` did: bytes, seconds, how each file was read.

        Example:
            >>> import numpy as np
            >>> _ = save({"a": np.ones(4), "b": np.ones(2)}, "ab.safetensors")
            >>> with open("ab.safetensors", framework="np") as checkpoint:
            ...     _ = checkpoint.load(device={"a": "cpu", "*": "cpu"})
            ...     checkpoint.stats.wanted_bytes, checkpoint.stats.device_bytes
            (48, {})
        """
        return self._stats

    def close(self) -> None:
        """Lets go of the files. Tensors that are views stay valid and keep what they need."""
        self._native.close()


def open(
    source: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    framework: str = "pt",
    device: Any = "cpu",
    strict: bool = True,
    backend: str = "auto",
    quantization_config: Mapping[str, Any] | str | None = None,
) -> Checkpoint:
    """The checkpoint at `source`: a read-only mapping from names to tensors.

    Args:
        source: A file, a folder, a `*.safetensors.index.json`, or a list of files.
        framework: What to make tensors of: `pt`, `np`, `jax`, `tf`, `mlx` or `paddle`.
        device: Where tensors are to be.
        strict: Whether to refuse what the published format forbids though readers take it.
        backend: `"auto"`, `"mmap"`, `"pread"`, `"direct"` to read past the page cache, `"shared"`
            never to, since other processes read the same files, or `"gds"` to read large tensors
            straight into a device, where cuFile or hipFile can.
        quantization_config: What is said of quantization in place of what files beside the
            checkpoint say, as `quantization_config` of a `config.json`: a mapping or its JSON.

    Raises:
        FileNotFoundError: There is no such file.
        SafetensorError: A file is no valid safetensors file, or the index and the files disagree.

    Example:
        >>> import numpy as np
        >>> _ = save({"a": np.arange(3)}, "a.safetensors", metadata={"made by": "hand"})
        >>> with open("a.safetensors", framework="np") as checkpoint:
        ...     print(list(checkpoint), checkpoint.metadata)
        ['a'] {'made by': 'hand'}
    """
    return Checkpoint(
        source,
        framework=framework,
        device=device,
        strict=strict,
        backend=backend,
        quantization_config=quantization_config,
    )


def _refuse_unknown(into: Iterable[str], known: Container[str]) -> None:
    for name in into:
        if name not in known:
            raise ArgumentError(
                f"`into` has a tensor for `{name}`, which is not to be loaded",
                kind="InvalidArgument",
                tensor=name,
            )


def _parted(names: Any, chosen: Container[str]) -> tuple[Any, Any]:
    """Those of a list of names, or of a mapping from names, that are chosen, and the others."""
    one = [name for name in names if name in chosen]
    other = [name for name in names if name not in chosen]
    if isinstance(names, Mapping):
        return {name: names[name] for name in one}, {name: names[name] for name in other}
    return one, other


def _wanted(
    names: Iterable[str] | Mapping[str, Any] | None,
) -> Sequence[str] | Mapping[str, Any] | None:
    """`names`, unless they are the letters of one name."""
    if isinstance(names, str):
        message = f'names must be an iterable of names, not a `str`; give ["{names}"]'
        raise TypeError(message)
    return names if names is None or isinstance(names, Mapping) else list(names)
