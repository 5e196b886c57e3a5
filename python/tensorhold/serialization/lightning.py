"""Checkpoints of Lightning in safetensors files.

    trainer = lightning.Trainer(plugins=[tensorhold.serialization.lightning.CheckpointIO()])

`CheckpointIO` is made when it is first asked for, of the Lightning that the program has imported,
be it `lightning` or `pytorch_lightning`.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib import import_module
from typing import Any

from tensorhold.serialization._files import load, save
from tensorhold.serialization._install import is_safetensors

__all__ = ["CheckpointIO"]

CheckpointIO: type

_PACKAGES = {"lightning": "lightning.fabric", "pytorch_lightning": "lightning_fabric"}


class _Methods:
    """What both Lightnings ask of a plugin that saves and loads checkpoints."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Writes a checkpoint, whole or not at all.

        Raises:
            ValueError: A part of it cannot be kept; the message says where it is.
            TypeError: There are storage options.
        """
        if storage_options is not None:
            raise TypeError("there are no storage options for safetensors files")
        if _is_remote(path):
            with import_module("fsspec").open(str(path), "wb") as file:
                save(checkpoint, file)
            return
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        save(checkpoint, path)

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> Any:
        """Reads a checkpoint; one that is no safetensors file is read as Lightning reads it."""
        if _is_remote(path):
            with import_module("fsspec").open(str(path), "rb") as file:
                if is_safetensors(file):
                    return load(file, map_location)
        elif is_safetensors(path):
            return load(path, map_location)
        known = {} if weights_only is None else {"weights_only": weights_only}
        parent: Any = super()
        return parent.load_checkpoint(path, map_location, **known)


def _is_remote(path: Any) -> bool:
    return "://" in str(path)


def __getattr__(name: str) -> Any:
    if name != "CheckpointIO":
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    found = tuple(inner for outer, inner in _PACKAGES.items() if outer in sys.modules)
    return _plugin(found or _installed())


def _installed() -> tuple[str, ...]:
    for package in _PACKAGES.values():
        try:
            import_module(package)
        except ImportError:
            continue
        return (package,)
    raise ImportError("there is no Lightning: `pip install lightning`")


@cache
def _plugin(packages: tuple[str, ...]) -> type:
    bases = [import_module(f"{package}.plugins.io").TorchCheckpointIO for package in packages]
    words = {"__module__": __name__, "__doc__": "Keeps checkpoints in safetensors files."}
    return type("CheckpointIO", (_Methods, *bases), words)
