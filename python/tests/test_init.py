"""The names: all that safetensors 0.8.0 has is here, and importing costs no framework."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
from types import ModuleType

import pytest

import tensorhold

FRAMEWORKS = ["torch", "numpy", "jax", "flax", "tensorflow", "mlx", "paddle", "ml_dtypes"]

# What the peer's modules happen to import for themselves.
INCIDENTAL = {"os", "sys", "Any", "Dict", "List", "Optional", "Set", "Tuple", "Union"}


def test_importing_the_package_imports_no_framework() -> None:
    code = f"import sys, tensorhold; print([m for m in {FRAMEWORKS} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_does_not_read_what_is_installed() -> None:
    code = "import sys, tensorhold; print('importlib.metadata' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_version_is_the_distribution_s() -> None:
    assert tensorhold.__version__ == importlib.metadata.version("tensorhold")


def _missing(theirs: ModuleType, ours: ModuleType) -> set[str]:
    return {name for name in dir(theirs) if name not in INCIDENTAL and not hasattr(ours, name)}


def test_the_package_has_every_name_of_the_peer() -> None:
    theirs = pytest.importorskip("safetensors")
    # The peer's submodules appear once imported; ours are tested below.
    names = {
        name
        for name in _missing(theirs, tensorhold)
        if not isinstance(getattr(theirs, name), ModuleType)
    }
    assert names == set()
    native = importlib.import_module("safetensors._safetensors_rust")
    assert _missing(native, importlib.import_module("tensorhold._safetensors_rust")) == set()


@pytest.mark.parametrize("module", ["torch", "numpy", "flax", "mlx"])
def test_each_front_end_has_every_name_of_the_peer_s(module: str) -> None:
    pytest.importorskip("safetensors")
    pytest.importorskip({"flax": "jax", "mlx": "mlx.core"}.get(module, module))
    theirs = importlib.import_module(f"safetensors.{module}")
    ours = importlib.import_module(f"tensorhold.{module}")
    assert _missing(theirs, ours) == set()


def test_a_star_import_leaves_the_builtin_open_alone() -> None:
    names: dict[str, object] = {}
    exec("from tensorhold import *", names)
    assert "open" not in names and "save" not in names
    assert names["safe_open"] is tensorhold.safe_open
