"""TensorFlow and Paddle, each in a process of its own: they bear no other frameworks in theirs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("framework", ["tensorflow", "paddle"])
def test_the_front_end_passes_its_tests(framework: str) -> None:
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    cases = HERE / "isolated" / f"{framework}_cases.py"
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(HERE.parent / "pyproject.toml")]
    done = subprocess.run([*command, str(cases)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
