"""Every file of the corpus gets from Python the verdict that `testdata/corpus.toml` states."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import tensorhold
from tensorhold import SafetensorError, deserialize, safe_open

if sys.version_info < (3, 11):
    pytest.skip("tomllib comes with Python 3.11", allow_module_level=True)
import tomllib

TESTDATA = Path(__file__).parents[2] / "testdata"
CORPUS = tomllib.loads((TESTDATA / "corpus.toml").read_text())
STORED = [case for case in CORPUS["case"] if "generate" not in case]


def header_of(path: Path) -> dict[str, Any]:
    """The table by Python's own JSON reader, an oracle that shares nothing with the engine."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])


def kind(call: Any) -> str:
    """What came of a call: `accept`, or the kind of its error."""
    try:
        call()
    except SafetensorError as error:
        assert str(error), "an error must say something"
        return str(error.kind)
    return "accept"


@pytest.mark.parametrize("case", STORED, ids=lambda case: case["file"])
def test_drop_in_calls_give_the_compatible_verdict(case: dict[str, Any]) -> None:
    path = TESTDATA / case["file"]
    for backend in ("mmap", "pread"):
        assert (
            kind(lambda backend=backend: safe_open(path, "np", backend=backend))
            == case["compatible"]
        )
    expected = case.get("header", case["compatible"])
    assert kind(lambda: deserialize(path.read_bytes())) in (expected, case["compatible"])


@pytest.mark.parametrize("case", STORED, ids=lambda case: case["file"])
def test_the_new_api_is_strict_unless_told_otherwise(case: dict[str, Any]) -> None:
    path = TESTDATA / case["file"]
    if path.suffix != ".safetensors":
        pytest.skip("not a name that is opened as a file of tensors")
    assert kind(lambda: tensorhold.open(path, framework="np")) == case["strict"]
    assert kind(lambda: tensorhold.open(path, framework="np", strict=False)) == case["compatible"]


@pytest.mark.parametrize(
    "case", [case for case in STORED if "tensors" in case], ids=lambda case: case["file"]
)
def test_what_is_accepted_has_the_table_that_json_shows(case: dict[str, Any]) -> None:
    path = TESTDATA / case["file"]
    with tensorhold.open(path, framework="np", strict=False) as checkpoint:
        assert len(checkpoint) == case["n_tensors"]
        for expected in case["tensors"]:
            info = checkpoint.info(expected["name"])
            found = (info.dtype, list(info.shape), list(info.offsets))
            assert found == (expected["dtype"], expected["shape"], expected["offsets"])
        if case["strict"] == "accept":
            header = header_of(path)
            header.pop("__metadata__", None)
            assert set(checkpoint) == set(header)


@pytest.mark.parametrize("case", CORPUS["index"], ids=lambda case: case["folder"])
def test_an_index_gets_its_verdict(case: dict[str, Any]) -> None:
    path = TESTDATA / case["folder"] / "model.safetensors.index.json"
    assert kind(lambda: tensorhold.open(path, framework="np")) == case["verdict"]
