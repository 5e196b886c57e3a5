"""The command `tensorhold` that the wheel installs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tensorhold


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tensorhold", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).with_name("tensorhold")
    if not command.exists():
        pytest.skip("tensorhold is on the path, but not installed")
    assert subprocess.run([command, "--version"], capture_output=True).returncode == 0


def test_a_checkpoint_is_inspected() -> None:
    tensorhold.save({"weight": np.zeros((2, 3), np.float32)}, "a.safetensors")
    done = run("inspect", "a.safetensors")
    assert done.returncode == 0, done.stderr
    assert "weight" in done.stdout and "F32" in done.stdout
    assert done.stderr == ""


def test_what_cannot_be_done_is_told_on_stderr_with_a_code() -> None:
    done = run("inspect", "missing.safetensors")
    assert done.returncode != 0 and done.stdout == ""
    assert "missing.safetensors" in done.stderr
    assert run("abacus").returncode == 2
