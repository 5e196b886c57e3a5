"""What programs import from `safetensors._safetensors_rust`, the extension module of the peer."""

from tensorhold import __version__
from tensorhold._errors import SafetensorError
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

__all__ = [
    "PrefetchLoader",
    "SafetensorError",
    "TensorMeta",
    "TensorSpec",
    "__version__",
    "_safe_open_handle",
    "deserialize",
    "safe_open",
    "serialize",
    "serialize_file",
]
