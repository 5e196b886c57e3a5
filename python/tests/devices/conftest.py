"""Which device the tests of this folder run on, and what the double must not have seen.

With `TENSORHOLD_RUNTIME` they run on the library that it names (`make double` builds two), else on
the device of this machine's PyTorch.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
import torch
from devices.double import Double

import tensorhold

RUNTIME = os.environ.get("TENSORHOLD_RUNTIME")
DOUBLE = Double(RUNTIME) if RUNTIME is not None and os.path.exists(RUNTIME) else None
IS_DOUBLE = DOUBLE is not None and DOUBLE.is_one

if RUNTIME is not None and DOUBLE is None:
    pytest.exit(f"TENSORHOLD_RUNTIME is `{RUNTIME}`, where no file is", returncode=4)
if RUNTIME is None and not torch.cuda.is_available():
    pytest.exit(
        "the tests of devices need one: set TENSORHOLD_RUNTIME to a path that `make double` prints,"
        " or run them where PyTorch has a CUDA device",
        returncode=4,
    )

# What only the double can be told to do.
ONLY_DOUBLE = [
    "test_faults.py",
    "test_gds.py",
    "test_processes.py",
    "test_several.py",
    "test_unified.py",
]
collect_ignore = [] if IS_DOUBLE else ONLY_DOUBLE


def pytest_report_header() -> str:
    if IS_DOUBLE:
        return f"devices: the double {RUNTIME}, whose tensors PyTorch takes for the host's"
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "unknown"
    return f"devices: {RUNTIME or 'the runtime of PyTorch'}, cuda:0 is {name}"


@pytest.fixture
def device() -> str:
    return "cuda:0"


@pytest.fixture
def double() -> Double:
    """The double, as it is at first."""
    assert DOUBLE is not None
    return DOUBLE


@pytest.fixture(autouse=True)
def _leaves_nothing() -> Iterator[None]:
    """No test may leave a stream, an event or a copy behind, or do what a runtime forbids."""
    if DOUBLE is None or not IS_DOUBLE:
        yield
        return
    tensorhold.empty_cache()
    DOUBLE.reset()
    yield
    DOUBLE.configure("fail=,delay_us=0,held=0")
    gc.collect()
    tensorhold.empty_cache()
    report = DOUBLE.report()
    assert report["violations"] == []
    assert report["under_way"] == 0
    assert report["storage"]["files"] == 0
    assert report["streams"]["live"] == report["events"]["live"] == 0
    assert report["pinned"]["bytes"] == 0
    assert [memory["live"] for memory in report["devices"]] == [0, 0]
