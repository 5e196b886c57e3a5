"""Quantized weights read as numbers; what they are is computed here, by NumPy and PyTorch alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import tensorhold

FP8_CONFIG = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
GPTQ_CONFIG = {
    "quantization_config": {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 64,
        "sym": True,
        "desc_act": False,
        "checkpoint_format": "gptq_v2",
    }
}


def _fp8(rows: int, columns: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A weight in blocks, and what it is, computed in F32."""
    generator = torch.Generator().manual_seed(rows * columns)
    codes = torch.randn(rows, columns, generator=generator).to(torch.float8_e4m3fn)
    grid = (-(-rows // 128), -(-columns // 128))
    scales = torch.rand(grid, generator=generator) + 0.5
    wide = scales.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]
    return {"up.weight": codes, "up.weight_scale_inv": scales}, codes.float() * wide


def _gptq(rows: int, columns: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A symmetric weight of 4 bits, packed down the inputs, and what it is."""
    random = np.random.default_rng(rows * columns)
    codes = random.integers(0, 16, (columns, rows), np.uint32)
    scales = random.uniform(0.5, 2, (columns // 64, rows)).astype(np.float16)
    shifts = 4 * np.arange(8, dtype=np.uint32)
    packed = (codes.reshape(columns // 8, 8, rows) << shifts[None, :, None]).sum(1, dtype=np.uint32)
    zeros = np.full((columns // 64, rows // 8), 0x88888888, np.uint32)
    weight = (codes.astype(np.float32) - 8) * np.repeat(scales.astype(np.float32), 64, axis=0)
    parts = {
        "down.qweight": torch.from_numpy(packed.view(np.int32)),
        "down.qzeros": torch.from_numpy(zeros.view(np.int32)),
        "down.scales": torch.from_numpy(scales),
    }
    return parts, torch.from_numpy(np.ascontiguousarray(weight.T))


def _checkpoint(parts: dict[str, Any], config: dict[str, Any]) -> str:
    tensors = {**parts, "norm.weight": torch.arange(6, dtype=torch.float32)}
    Path("model").mkdir()
    tensorhold.save(tensors, "model/model.safetensors")
    Path("model/config.json").write_text(json.dumps(config))
    return "model"


@pytest.fixture
def fp8() -> tuple[str, torch.Tensor]:
    parts, weight = _fp8(300, 700)
    return _checkpoint(parts, FP8_CONFIG), weight


INDICES = [
    np.s_[...],
    np.s_[5],
    np.s_[17:200, 3:600],
    np.s_[::7, ::-3],
    np.s_[-3:, None, 129],
    np.s_[4:4],
]


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16, torch.float32])
def test_a_slice_of_blocks_is_that_of_the_weight(
    fp8: tuple[str, torch.Tensor], index: Any, dtype: torch.dtype | None
) -> None:
    source, weight = fp8
    with tensorhold.open(source) as checkpoint:
        part = checkpoint.dequantize("up.weight", dtype=dtype)
        assert part.shape == (300, 700)
        found = part[index]
    # PyTorch has no steps backwards.
    expected = torch.from_numpy(weight.numpy()[index].copy())
    assert torch.equal(found, expected.to(found.dtype))
    assert dtype in (None, found.dtype)


def test_gptq_is_read_by_the_name_of_the_weight() -> None:
    parts, weight = _gptq(256, 512)
    with tensorhold.open(_checkpoint(parts, GPTQ_CONFIG)) as checkpoint:
        found = checkpoint.dequantize("down.weight", dtype="bfloat16")
        assert found.dtype == "BF16"
        assert torch.equal(found[...], weight.bfloat16())
        assert torch.equal(found[8:70, 3:65], weight[8:70, 3:65].bfloat16())


def test_frameworks_have_the_same_numbers(fp8: tuple[str, torch.Tensor]) -> None:
    source, weight = fp8
    expected = weight.bfloat16().view(torch.uint16).numpy()
    with tensorhold.open(source, framework="np") as checkpoint:
        found = checkpoint.dequantize("up.weight", dtype=ml_dtypes.bfloat16)[...]
        assert found.dtype == ml_dtypes.bfloat16
        assert np.array_equal(found.view(np.uint16), expected)
    with tensorhold.open(source, framework="jax") as checkpoint:
        found = np.asarray(checkpoint.dequantize("up.weight", dtype="BF16")[...])
        assert np.array_equal(found.view(np.uint16), expected)


def test_what_is_not_quantized_is_cast_and_sliced(fp8: tuple[str, torch.Tensor]) -> None:
    with tensorhold.open(fp8[0]) as checkpoint:
        norm = checkpoint.dequantize("norm.weight")
        assert (norm.dtype, norm.shape) == ("F32", (6,))
        half = checkpoint.dequantize("norm.weight", dtype=torch.float16)[1::2]
        with pytest.raises(KeyError):
            checkpoint.dequantize("nothing")
    assert torch.equal(half, torch.tensor([1.0, 3.0, 5.0], dtype=torch.float16))


def test_indices_of_other_kinds_are_refused(fp8: tuple[str, torch.Tensor]) -> None:
    with tensorhold.open(fp8[0]) as checkpoint:
        weight = checkpoint.dequantize("up.weight")
        with pytest.raises(tensorhold.SafetensorError, match="a slice takes integers"):
            weight[[1, 2]]
        with pytest.raises(tensorhold.SafetensorError, match="out of"):
            weight[300]


def test_load_gives_weights_without_their_parts(fp8: tuple[str, torch.Tensor]) -> None:
    source, weight = fp8
    told: list[tuple[int, int]] = []
    with tensorhold.open(source) as checkpoint:
        progress = lambda done, total: told.append((done, total))  # noqa: E731
        tensors = checkpoint.load(dequantize=True, dtype=torch.bfloat16, progress=progress)
        assert sorted(tensors) == ["norm.weight", "up.weight"]
        assert torch.equal(tensors["up.weight"], weight.bfloat16())
        assert tensors["norm.weight"].dtype == torch.bfloat16
        assert told[-1] == (300 * 700 * 2 + 12, 300 * 700 * 2 + 12)

        some = checkpoint.load({"up.weight": np.s_[:2]}, dequantize=True)
        assert list(some) == ["up.weight"]
        expected = weight[:2].to(some["up.weight"].dtype)
        assert torch.equal(some["up.weight"], expected)
        # The parts are still there for who asks for them.
        assert checkpoint.load(["up.weight"])["up.weight"].dtype == torch.float8_e4m3fn
        with pytest.raises(KeyError):
            checkpoint.load(["nothing"], dequantize=True)


@pytest.mark.parametrize("is_dense", [True, False])
def test_load_fills_tensors_of_the_caller(fp8: tuple[str, torch.Tensor], is_dense: bool) -> None:
    source, weight = fp8
    room = torch.zeros(300, 700 if is_dense else 900, dtype=torch.float16)
    into = {"up.weight": room[:, :700], "norm.weight": torch.zeros(6)}
    with tensorhold.open(source) as checkpoint:
        tensors = checkpoint.load(dequantize=True, into=into)
        assert tensors["up.weight"] is into["up.weight"]
        assert torch.equal(into["up.weight"], weight.half())
        assert torch.equal(into["norm.weight"], torch.arange(6.0))
        with pytest.raises(ValueError, match="shape"):
            checkpoint.load(dequantize=True, into={"up.weight": torch.zeros(300, 701)})
        with pytest.raises(ValueError, match="not to be loaded"):
            wrong = {"up.weight_scale_inv": torch.zeros(3, 6)}
            checkpoint.load(dequantize=True, into=wrong)


def test_what_progress_raises_ends_the_load(fp8: tuple[str, torch.Tensor]) -> None:
    def end(done: int, total: int) -> None:
        raise RuntimeError("enough")

    with tensorhold.open(fp8[0]) as checkpoint, pytest.raises(RuntimeError, match="enough"):
        checkpoint.load(dequantize=True, progress=end)


def test_a_broken_weight_is_refused_before_any_byte_is_read() -> None:
    parts, _ = _fp8(300, 700)
    parts["up.weight_scale_inv"] = torch.ones(2, 6)
    with tensorhold.open(_checkpoint(parts, FP8_CONFIG)) as checkpoint:
        room = torch.full((6,), 7.0)
        with pytest.raises(tensorhold.SafetensorError, match="weight_scale_inv") as raised:
            checkpoint.load(dequantize=True, into={"norm.weight": room})
        assert raised.value.tensor == "up.weight"
        assert torch.equal(room, torch.full((6,), 7.0))


READS = """
import sys
import tensorhold
def read_bytes():
    return int(open("/proc/self/io").read().split("rchar: ")[1].split()[0])
with tensorhold.open("model", framework="np", backend="pread") as checkpoint:
    weight = checkpoint.dequantize("up.weight", dtype="F16")
    weight[:1]
    before = read_bytes()
    weight[2048:3072]
    rows = read_bytes() - before
    before = read_bytes()
    weight[:, 16384:32768]
    print(rows, read_bytes() - before)
"""


def test_a_slice_reads_the_bytes_that_it_needs() -> None:
    parts = {
        "up.weight": torch.zeros(4096, 65536, dtype=torch.float8_e4m3fn),
        "up.weight_scale_inv": torch.ones(32, 512),
    }
    _checkpoint(parts, FP8_CONFIG)
    program = [sys.executable, "-c", READS]
    out = subprocess.run(program, check=True, capture_output=True, text=True).stdout
    rows, columns = map(int, out.split())
    # A quarter of the rows, and of the columns; the file that is asked counts, too.
    for found, scales in [(rows, 8 * 512 * 4), (columns, 32 * 512 * 4)]:
        needed = 1024 * 65536
        assert needed < found < needed + scales + 65536


def _tensorhold(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "tensorhold.cli", *arguments]
    return subprocess.run(program, check=False, capture_output=True, text=True)


def test_the_command_writes_a_checkpoint_that_is_not_quantized(
    fp8: tuple[str, torch.Tensor],
) -> None:
    source, weight = fp8
    done = _tensorhold("dequantize", source, "plain", "--dtype", "bf16", "--verify")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["plain/config.json", "plain/model.safetensors"]
    assert json.loads(Path("plain/config.json").read_text()) == {}
    with tensorhold.open("plain") as checkpoint:
        tensors = checkpoint.load()
    assert torch.equal(tensors["up.weight"], weight.bfloat16())
    assert torch.equal(tensors["norm.weight"], torch.arange(6.0))
    again = _tensorhold("dequantize", source, "plain")
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_the_command_keeps_a_configuration_that_is_there(fp8: tuple[str, torch.Tensor]) -> None:
    Path("plain").mkdir()
    Path("plain/config.json").write_text('{"mine": 1}')
    done = _tensorhold("dequantize", fp8[0], "plain", "--max-shard-size", "300KB")
    assert done.returncode == 0, done.stderr
    assert "note: plain/config.json stays as it is\n" in done.stderr
    assert Path("plain/config.json").read_text() == '{"mine": 1}'
    assert Path("plain/model.safetensors.index.json").exists()


def test_the_function_writes_shards_and_tells_of_them(fp8: tuple[str, torch.Tensor]) -> None:
    source, weight = fp8
    told: list[tuple[int, int]] = []
    done = tensorhold.dequantize(
        source,
        "plain",
        dtype=torch.float32,
        max_shard_size="300KB",
        verify=True,
        progress=lambda done, total: told.append((done, total)),
    )
    assert done.n_weights == 1
    assert done.n_copied > 0
    assert told[-1][0] == told[-1][1]
    assert [Path(path).name for path in done.paths][-1] == "model.safetensors.index.json"
    with tensorhold.open("plain") as checkpoint:
        assert torch.equal(checkpoint["up.weight"], weight.float())


def test_the_folder_of_the_source_is_refused(fp8: tuple[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="folder of the checkpoint"):
        tensorhold.dequantize(fp8[0], fp8[0])
