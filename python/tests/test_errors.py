"""The exceptions: what a program catches, what it reads, what survives a process boundary."""

from __future__ import annotations

import errno
import importlib
import pickle

import pytest

from tensorhold import SafetensorError, _errors

BUILTINS = {
    "HeaderTooSmall": ValueError,
    "HeaderJson": ValueError,
    "ForeignFormat": ValueError,
    "TensorNotFound": KeyError,
    "InvalidSlice": IndexError,
    "InvalidIndex": ValueError,
    "InvalidTensor": ValueError,
    "InvalidConfig": ValueError,
    "Unsupported": NotImplementedError,
    "InvalidArgument": ValueError,
    "UnsupportedDtype": KeyError,
    "Closed": ValueError,
    "NotFound": FileNotFoundError,
    "PermissionDenied": PermissionError,
    "NotRegularFile": OSError,
    "Truncated": OSError,
    "Io": OSError,
    "NoMemory": MemoryError,
    "Device": RuntimeError,
}


@pytest.mark.parametrize(("kind", "builtin"), BUILTINS.items())
def test_each_kind_is_caught_as_its_builtin_and_as_the_root(
    kind: str, builtin: type[Exception]
) -> None:
    error = _errors.from_native(kind, "what: where\nhint: do", "a", "t", (1, 2), "do", None)
    assert isinstance(error, SafetensorError)
    assert isinstance(error, builtin)
    assert str(error) == "what: where\nhint: do"
    assert (error.kind, error.path, error.tensor) == (kind, "a", "t")
    assert (error.bytes, error.hint) == ((1, 2), "do")


@pytest.mark.parametrize("kind", [*_errors._CLASSES, "NoSuchKind"])
def test_errors_cross_process_boundaries_whole(kind: str) -> None:
    error = _errors.from_native(kind, "message", "path", "t", (3, 4), "hint", errno.EACCES)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == "message"
    assert vars(copy) == vars(error)
    if isinstance(error, OSError):
        assert (copy.errno, copy.strerror, copy.filename) == (13, "Permission denied", "path")


def test_an_os_error_carries_the_system_s_own_number() -> None:
    error = _errors.from_native("NotFound", "message", "a.safetensors", os_error=errno.ENOENT)
    assert isinstance(error, FileNotFoundError)
    assert (error.errno, error.filename) == (errno.ENOENT, "a.safetensors")
    assert error.strerror == "No such file or directory"


def test_the_root_takes_any_arguments_as_exceptions_do() -> None:
    assert str(SafetensorError()) == ""
    assert str(SafetensorError("a", "b")) == "('a', 'b')"
    assert SafetensorError("a").args == ("a",)
    assert SafetensorError("a").kind is None


def test_the_root_s_module_can_be_imported() -> None:
    module = importlib.import_module(SafetensorError.__module__)
    assert module.SafetensorError is SafetensorError
