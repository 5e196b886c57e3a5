"""What a checkpoint says of its quantized weights, as they are without quantization."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tensorhold

BLOCKS = {"quant_method": "fp8", "weight_block_size": [128, 128]}


def fp8(name: str, rows: int = 200, columns: int = 300) -> dict[str, torch.Tensor]:
    scales = torch.ones(-(-rows // 128), -(-columns // 128))
    return {
        f"{name}.weight": torch.zeros(rows, columns).to(torch.float8_e4m3fn),
        f"{name}.weight_scale_inv": scales,
    }


def gptq(name: str, zero: int) -> dict[str, np.ndarray[Any, Any]]:
    """Weights [64, 96] of 4 bits in groups of 32, whose stored zeros are all `zero`."""
    word = int.from_bytes(bytes([zero << 4 | zero] * 4), "little")
    return {
        f"{name}.qweight": np.zeros((12, 64), np.int32),
        f"{name}.qzeros": np.full((3, 8), word, np.uint32).view(np.int32),
        f"{name}.scales": np.ones((3, 64), np.float16),
        f"{name}.g_idx": np.arange(96, dtype=np.int32) // 32,
    }


def configure(config: dict[str, Any], file: str = "config.json") -> None:
    Path(file).write_text(json.dumps(config))


def save(tensors: dict[str, Any]) -> str:
    tensorhold.save(tensors, "model.safetensors", durability="none")
    return "model.safetensors"


def test_a_weight_has_the_shape_and_type_that_it_has_without_quantization() -> None:
    path = save(fp8("a") | {"norm.weight": torch.ones(7)})
    configure({"torch_dtype": "bfloat16", "quantization_config": BLOCKS})
    checkpoint = tensorhold.open(path)
    found = checkpoint.quantization
    assert found.schemes == {"fp8": 1}
    assert found.config == "config.json, `quantization_config`"
    weight = found.weights["a.weight"]
    assert (weight.shape, weight.dtype, weight.scheme) == ((200, 300), "BF16", "fp8")
    assert weight.parts == {"weight": "a.weight", "weight_scale_inv": "a.weight_scale_inv"}
    assert weight.error is None
    assert weight.findings == []
    assert weight.bits_per_weight == pytest.approx((200 * 300 + 24) * 8 / (200 * 300))
    logical = checkpoint.logical("a.weight")
    assert (logical.dtype, logical.shape, logical.scheme) == ("BF16", (200, 300), "fp8")
    plain = checkpoint.logical("norm.weight")
    assert (plain.dtype, plain.shape, plain.scheme) == ("F32", (7,), None)
    with pytest.raises(KeyError):
        checkpoint.logical("no.weight")


def test_a_packed_weight_is_named_as_without_quantization() -> None:
    path = save(gptq("a", 7))
    with tensorhold.open(path, framework="np") as checkpoint:
        assert list(checkpoint.quantization.weights) == ["a.weight"]
        assert checkpoint.logical("a.weight").shape == (64, 96)
        assert checkpoint.logical("a.weight").dtype == "F16"


def test_nothing_is_quantized_where_nothing_is() -> None:
    found = tensorhold.open(save({"a.weight": torch.ones(3)})).quantization
    assert len(found) == 0
    assert (found.schemes, found.config, found.findings) == ({}, None, [])


def test_a_scale_in_another_shard_is_found() -> None:
    tensors = fp8("a")
    tensorhold.save(tensors, "shards", max_shard_size=60_000, durability="none")
    configure({"quantization_config": BLOCKS}, "shards/config.json")
    checkpoint = tensorhold.open("shards")
    assert len(set(checkpoint.info(name).file for name in checkpoint)) == 2
    assert checkpoint.logical("a.weight").shape == (200, 300)


def test_a_configuration_that_is_given_takes_the_place_of_those_beside_the_files() -> None:
    path = save(fp8("a"))
    with pytest.raises(
        ValueError, match=r"suits blocks of 100 to 199 rows and 100 to 149 columns"
    ) as caught:
        tensorhold.open(path).logical("a.weight")
    assert caught.value.kind == "InvalidConfig"  # type: ignore[attr-defined]
    assert "weight_block_size" in caught.value.hint  # type: ignore[attr-defined]
    for config in (BLOCKS, json.dumps(BLOCKS), {"quantization_config": BLOCKS}):
        checkpoint = tensorhold.open(path, quantization_config=config)
        assert checkpoint.logical("a.weight").shape == (200, 300)
    configure({"quantization_config": {**BLOCKS, "weight_block_size": [64, 64]}})
    assert tensorhold.open(path).quantization.weights["a.weight"].error is not None
    assert tensorhold.open(path, quantization_config=BLOCKS).logical("a.weight").shape == (200, 300)


def test_the_versions_of_gptq_are_told_apart_by_their_zeros() -> None:
    path = save(gptq("a", 8))
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True}
    checkpoint = tensorhold.open(
        path, framework="np", quantization_config={**config, "checkpoint_format": "gptq"}
    )
    weight = checkpoint.quantization.weights["a.weight"]
    assert weight.error is None
    assert [finding.kind for finding in weight.findings] == ["conflict"]
    assert "stored as 8" in weight.findings[0].message


def test_a_weight_of_two_readings_is_refused_with_both() -> None:
    tensors = gptq("a", 8)
    rng = np.random.default_rng(0)
    tensors["a.qzeros"] = rng.integers(-(2**31), 2**31, (3, 8)).astype(np.int32)
    path = save(tensors)
    with pytest.raises(ValueError, match=r"version 1.*version 2") as caught:
        tensorhold.open(path, framework="np").logical("a.weight")
    assert "checkpoint_format" in caught.value.hint  # type: ignore[attr-defined]


def test_what_is_known_and_not_read_is_named() -> None:
    path = save({"a.B": np.zeros((6, 128), np.int32), "a.s": np.ones((1, 64), np.float16)})
    checkpoint = tensorhold.open(path, framework="np")
    weight = checkpoint.quantization.weights["a.weight"]
    assert weight.scheme == "marlin"
    assert weight.shape is None
    with pytest.raises(NotImplementedError, match="marlin is not read"):
        checkpoint.logical("a.weight")


def test_parts_without_their_weight_are_told() -> None:
    path = save({"a.weight_scale": torch.ones(1), "b.self_attn.k_scale": torch.ones(1)})
    found = tensorhold.open(path).quantization
    assert [(finding.kind, finding.tensor) for finding in found.findings] == [
        ("orphan", "a.weight_scale")
    ]
    assert found.companions == ["b.self_attn.k_scale"]


@pytest.mark.parametrize(
    ("size", "text"),
    [(200_000_000, ""), (0, "[" * 100_000), (0, '{"quantization_config": {'), (0, "\udcff")],
)
def test_a_configuration_that_cannot_be_read_is_refused(size: int, text: str) -> None:
    path = save(fp8("a"))
    Path("config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    if size:
        with open("config.json", "r+b") as file:  # sparse
            file.truncate(size)
    checkpoint = tensorhold.open(path)
    with pytest.raises(ValueError, match=r"config\.json") as caught:
        _ = checkpoint.quantization
    assert caught.value.kind == "InvalidConfig"  # type: ignore[attr-defined]
    # Whoever wants the tensors as they are needs no configuration.
    assert checkpoint["a.weight"].shape == (200, 300)


@pytest.mark.parametrize("block", [[0, 128], [-1, 128], [2**62, 2**62], "128", [1e300, 1], [128]])
def test_blocks_that_cannot_be_are_refused(block: Any) -> None:
    path = save(fp8("a"))
    config = {**BLOCKS, "weight_block_size": block}
    checkpoint = tensorhold.open(path, quantization_config=config)
    with pytest.raises(ValueError, match=r"."):
        checkpoint.logical("a.weight")
