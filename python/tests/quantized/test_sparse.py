"""Weights whose zeros are left out, of the bytes that compressed-tensors 0.11 made."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import tensorhold
from tensorhold import parallel

GOLDEN = Path(__file__).parents[3] / "crates/tensorhold-quant/tests/scheme_golden_011.txt"
DTYPES = {
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F8_E4M3": torch.float8_e4m3fn,
    "I64": torch.int64,
    "U8": torch.uint8,
}


class Case(NamedTuple):
    parts: dict[str, torch.Tensor]
    dtype: str
    shape: list[int]
    rows: list[int]

    @property
    def format(self) -> str:
        return "sparse-bitmask" if "row_offsets" in self.parts else "sparse-24-bitmask"

    @property
    def dense(self) -> torch.Tensor:
        """All elements, put in their places by NumPy."""
        bits = np.unpackbits(self.parts["bitmask"].numpy(), axis=1, bitorder="little")
        mask = torch.from_numpy(bits[:, : self.shape[1]].astype(bool))
        width = self.parts["compressed"].element_size()
        raw = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[width]
        dense = torch.zeros(self.shape, dtype=raw)
        dense[mask] = self.parts["compressed"].reshape(-1).view(raw)
        return dense.view(DTYPES[self.dtype])


def _cases() -> Iterator[Case]:
    is_sparse, parts = False, {}
    for line in GOLDEN.read_text().splitlines():
        kind, *words = line.split(" ")
        if kind == "case":
            is_sparse, parts = words[0] == "sparse", {}
        elif is_sparse and kind == "part":
            name, dtype, sizes, data = words
            shape = [int(size) for size in sizes.split(",")]
            tensor = torch.frombuffer(bytearray.fromhex(data), dtype=DTYPES[dtype])
            parts[name] = tensor.reshape(shape)
        elif is_sparse:
            shape = [int(size) for size in words[1].split(",")]
            parts["shape"] = torch.tensor(shape)
            yield Case(parts, words[0], shape, [int(row, 16) for row in words[2:]])


CASES = list(_cases())
SCALED = [case for case in CASES if case.dtype == "F8_E4M3"]


def _checkpoint(case: Case, **more: torch.Tensor) -> str:
    parts = {f"up.{name}": part for name, part in {**case.parts, **more}.items()}
    Path("model").mkdir()
    tensorhold.save({**parts, "norm.weight": torch.ones(4)}, "model/model.safetensors")
    section: dict[str, Any] = {
        "quant_method": "compressed-tensors",
        "sparsity_config": {"format": case.format},
    }
    Path("model/config.json").write_text(json.dumps({"quantization_config": section}))
    return "model"


def _name(case: Case) -> str:
    return f"{case.format}-{case.dtype}"


def test_all_that_compressed_tensors_wrote_is_here() -> None:
    assert sorted(map(_name, CASES)) == [
        f"{format}-{dtype}"
        for format in ("sparse-24-bitmask", "sparse-bitmask")
        for dtype in ("BF16", "F32", "F8_E4M3")
    ]


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_rows_are_those_of_compressed_tensors(case: Case) -> None:
    with tensorhold.open(_checkpoint(case)) as checkpoint:
        [weight] = checkpoint.quantization.weights.values()
        assert (weight.name, weight.scheme, weight.error) == ("up.weight", case.format, None)
        logical = checkpoint.logical("up.weight")
        assert (logical.dtype, list(logical.shape)) == (case.dtype, case.shape)
        found = checkpoint.dequantize("up.weight")[...]
    assert found.dtype == DTYPES[case.dtype]
    rows = found.view(torch.uint8).numpy()
    assert [zlib.crc32(row.tobytes()) for row in rows] == case.rows


INDICES = [np.s_[3], np.s_[2:9, 5:40], np.s_[::5, ::-3], np.s_[-1, None, 7], np.s_[4:4]]


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=_name)
def test_a_slice_is_that_of_the_weight(case: Case, index: Any) -> None:
    with tensorhold.open(_checkpoint(case)) as checkpoint:
        found = checkpoint.dequantize("up.weight", dtype=torch.float32)[index]
    # PyTorch has no steps backwards.
    expected = torch.from_numpy(case.dense.float().numpy()[index].copy())
    assert torch.equal(found, expected)


@pytest.mark.parametrize("scale", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("case", SCALED, ids=_name)
def test_floats_of_a_byte_are_scaled_and_rounded_once(case: Case, scale: torch.dtype) -> None:
    scales = (torch.arange(12) / 7 + 0.3).to(scale).reshape(12, 1)
    expected = (case.dense.float() * scales.float()).bfloat16()
    with tensorhold.open(_checkpoint(case, weight_scale=scales)) as checkpoint:
        state = checkpoint.load(dequantize=True, dtype=torch.bfloat16)
        assert sorted(state) == ["norm.weight", "up.weight"]
        assert torch.equal(state["up.weight"], expected)
        found = checkpoint.dequantize("up.weight", dtype=torch.bfloat16)[2:7, 9:30]
        assert torch.equal(found, expected[2:7, 9:30])


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_a_checkpoint_is_written_and_verified(case: Case) -> None:
    source = _checkpoint(case)
    run = [sys.executable, "-m", "tensorhold.cli"]
    shown = subprocess.run([*run, "verify", source], check=True, capture_output=True, text=True)
    assert f"1 {case.format}" in shown.stdout
    subprocess.run([*run, "dequantize", source, "numbers/", "--verify"], check=True)
    with tensorhold.open("numbers") as checkpoint:
        assert sorted(checkpoint) == ["norm.weight", "up.weight"]
        found = checkpoint["up.weight"][...]
    assert torch.equal(found.view(torch.uint8), case.dense.view(torch.uint8))
    assert "quantization_config" not in Path("numbers/config.json").read_text()


def test_bits_that_do_not_count_the_values_are_refused() -> None:
    case = next(case for case in CASES if case.format == "sparse-bitmask")
    bits = case.parts["bitmask"].clone()
    bits[5, 0] ^= 1
    source = _checkpoint(case, bitmask=bits)
    with tensorhold.open(source) as checkpoint:
        with pytest.raises(ValueError, match="part `bitmask`: row 5 has "):
            checkpoint.dequantize("up.weight")[...]
        # Another row is as it was.
        assert torch.equal(checkpoint.dequantize("up.weight")[4], case.dense[4])
    run = [sys.executable, "-m", "tensorhold.cli", "verify", source]
    shown = subprocess.run(run, check=False, capture_output=True, text=True)
    assert shown.returncode == 1
    assert "`bitmask`: row 5 has " in shown.stdout


@pytest.mark.parametrize("case", CASES[:2], ids=_name)
@pytest.mark.parametrize("rule", ["colwise", "rowwise"])
def test_a_rank_has_its_share_as_numbers(case: Case, rule: str) -> None:
    options: dict[str, Any] = {"mesh": {"tp": 2}, "rank": 1, "rules": {"up.weight": rule}}
    source = _checkpoint(case)
    held = parallel.load(source, dequantize=True, **options)["up.weight"]
    assert torch.equal(held, case.dense[6:] if rule == "colwise" else case.dense[:, 22:])
    with pytest.raises(NotImplementedError, match="its zeros are left out") as caught:
        parallel.load(source, **options)
    assert "dequantize=True" in str(caught.value.hint)  # type: ignore[attr-defined]
