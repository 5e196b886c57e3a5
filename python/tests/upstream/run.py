"""Runs the published test-suite of `safetensors` 0.8.0 against tensorhold.

    python tests/upstream/run.py [--sdist FILE] [pytest option ...]

The suite comes from the source distribution, which pip downloads unless `--sdist` names it; it is
no part of this repository. As in the project's own CI the tests run in `bindings/python`, here of a
throw-away copy. TensorFlow and Paddle run in processes of their own. Tests of a framework that is
not installed are left out, and said to be.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "0.8.0"
SHA256 = "fabaf3e0f18a6618d9b36560682562157f77c2b71fcffc7b432be2baed9d753d"
HERE = Path(__file__).parent

# What each test file imports, file by file; every group is one process.
GROUPS = [
    {
        "test_simple.py": ["numpy", "torch"],
        "test_pt_comparison.py": ["torch"],
        "test_pt_model.py": ["torch"],
        "test_pread_backend.py": ["numpy", "torch"],
        "test_threadable.py": ["numpy"],
        "test_multithreaded.py": ["numpy", "torch"],
        "test_handle.py": ["numpy", "fsspec"],
        "test_flax_comparison.py": ["jax", "flax"],
        "test_mlx_comparison.py": ["mlx"],
    },
    {"test_tf_comparison.py": ["tensorflow", "h5py"]},
    {"test_paddle_comparison.py": ["paddle"]},
]

# Tests that are not run, each with the reason. None is here because tensorhold fails it.
NEEDS_CUDA = "needs a CUDA build of Paddle; the suite does not skip it without one"
NOT_RUN = {
    "test_paddle_comparison.py::WithOpenCase::test_paddle_tensor_gpu": NEEDS_CUDA,
    "test_paddle_comparison.py::WithOpenCase::test_paddle_slice_gpu": NEEDS_CUDA,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, add_help=False)
    parser.add_argument("--sdist", type=Path)
    options, pytest_options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        sdist = options.sdist or download(Path(folder))
        tests = unpack(sdist, Path(folder))
        codes = [run_group(tests, group, pytest_options) for group in GROUPS]
    return max(codes)


def download(folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "download"]
    which = ["--no-deps", "--no-binary", "safetensors", f"safetensors=={VERSION}"]
    subprocess.run([*pip, *which, "-d", str(folder)], check=True)
    return folder / f"safetensors-{VERSION}.tar.gz"


def unpack(sdist: Path, folder: Path) -> Path:
    """The folder `bindings/python` of the source distribution, with our alias beside its tests."""
    digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
    if digest != SHA256:
        sys.exit(f"{sdist}: sha256 is {digest}, not {SHA256}")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder)  # what it holds is known by its digest
    tests = folder / f"safetensors-{VERSION}" / "bindings" / "python"
    shutil.copy(HERE / "alias_conftest.py", tests / "conftest.py")
    return tests


def run_group(folder: Path, group: dict[str, list[str]], pytest_options: list[str]) -> int:
    files = []
    for file, modules in group.items():
        absent = [module for module in modules if importlib.util.find_spec(module) is None]
        if absent:
            print(f"{file}: left out, {', '.join(absent)} is not installed", flush=True)
        else:
            files.append(f"tests/{file}")
    if not files:
        return 0
    deselect = []
    for test, reason in NOT_RUN.items():
        if f"tests/{test.partition(':')[0]}" in files and not _paddle_has_cuda():
            print(f"{test}: not run, {reason}", flush=True)
            deselect.append(f"--deselect=tests/{test}")
    # `-c` of its own file: ours is for our tests.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    rootdir = f"--rootdir={folder}"
    return subprocess.run(
        [*command, rootdir, *deselect, *pytest_options, *files], cwd=folder
    ).returncode


def _paddle_has_cuda() -> bool:
    code = "import paddle, sys; sys.exit(not paddle.device.cuda.device_count())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
