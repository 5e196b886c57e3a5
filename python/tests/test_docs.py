"""The examples in the docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import subprocess
import sys

import pytest

MODULES = {
    "tensorhold": None,
    "tensorhold._convert": "torch",
    "tensorhold._quantize": "torch",
    "tensorhold._errors": None,
    "tensorhold._saving": "numpy",
    "tensorhold.checkpoint": "numpy",
    "tensorhold.dropin": None,
    "tensorhold.parallel": "torch",
    "tensorhold.parallel._lazy": "torch",
    "tensorhold.parallel._load": "torch",
    "tensorhold.parallel._words": "torch",
    "tensorhold.numpy": "numpy",
    "tensorhold.torch": "torch",
    "tensorhold.flax": "jax",
    "tensorhold.mlx": "mlx",
    "tensorhold.dcp": "torch",
    "tensorhold.serialization": "torch",
    "tensorhold.serialization._files": "torch",
    "tensorhold.serialization._register": "torch",
    "tensorhold.serialization._words": "torch",
}


@pytest.mark.parametrize(("module", "framework"), MODULES.items())
def test_examples_run(module: str, framework: str | None) -> None:
    if framework is not None:
        pytest.importorskip(framework)
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("framework", ["tensorflow", "paddle"])
def test_examples_run_in_a_process_of_their_own(framework: str) -> None:
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    code = (
        f"import doctest, sys, tensorhold.{framework} as module\n"
        "result = doctest.testmod(module)\n"
        "sys.exit(result.failed or not result.attempted)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
