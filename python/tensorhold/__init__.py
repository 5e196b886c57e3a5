"""Tensorhold keeps model weights in safetensors files.

All that the package `safetensors` offers is here under the same names (`safe_open`,
`tensorhold.torch.load_file`, ...), and beside it a small interface of our own: `open` gives a
`Checkpoint`, a read-only mapping from names to tensors over one file or many; `save` writes one.

Importing this package imports no framework.

Example:
    >>> import numpy, tensorhold
    >>> tensorhold.save({"weight": numpy.eye(2)}, "eye.safetensors")
    ['eye.safetensors']
    >>> with tensorhold.open("eye.safetensors", framework="np") as checkpoint:
    ...     print(checkpoint.info("weight").shape, checkpoint["weight"].sum())
    (2, 2) 2.0
"""

from tensorhold._convert import convert as convert
from tensorhold._convert import scan as scan
from tensorhold._errors import SafetensorError
from tensorhold._native import PinnedMemory as PinnedMemory
from tensorhold._native import (
    PrefetchLoader,
    TensorMeta,
    TensorSpec,
    _safe_open_handle,
    deserialize,
    safe_open,
    serialize,
    serialize_file,
)
from tensorhold._native import __version__ as __version__
from tensorhold._native import empty_cache as empty_cache
from tensorhold._native import pinned_memory as pinned_memory
from tensorhold._native import set_cache_limit as set_cache_limit
from tensorhold._native import set_pinned_limit as set_pinned_limit
from tensorhold._quantize import dequantize as dequantize
from tensorhold._quantize import quantize as quantize
from tensorhold._quantize import repack as repack
from tensorhold.checkpoint import Checkpoint as Checkpoint
from tensorhold.checkpoint import open as open
from tensorhold.checkpoint import save as save
from tensorhold.checkpoint import save_async as save_async

# A star import gives what `safetensors` gives and no more: `open` would hide the builtin.
__all__ = [
    "PrefetchLoader",
    "SafetensorError",
    "TensorMeta",
    "TensorSpec",
    "_safe_open_handle",
    "deserialize",
    "safe_open",
    "serialize",
    "serialize_file",
]
