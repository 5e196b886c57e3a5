"""Quantized checkpoints, and what ranks do with them, in a module that their processes import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

import tensorhold
from tensorhold import parallel

RULES = {"layers.*.up": "colwise", "layers.*.down": "rowwise"}
ROWS, COLUMNS = 256, 512


def noise(*shape: int) -> torch.Tensor:
    """Integers of 32 bits of any value."""
    return torch.randint(-(2**31), 2**31 - 1, shape, dtype=torch.int64).int()


def scales(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return (torch.rand(*shape) + 0.5).to(dtype)


def gptq(module: str) -> dict[str, torch.Tensor]:
    """Four bits in groups of 64, which inputs are in by activation."""
    groups = COLUMNS // 64
    return {
        f"{module}.qweight": noise(COLUMNS // 8, ROWS),
        f"{module}.qzeros": noise(groups, ROWS // 8),
        f"{module}.scales": scales(groups, ROWS),
        f"{module}.g_idx": torch.randperm(COLUMNS).int() % groups,
    }


def gptq_in_order(module: str) -> dict[str, torch.Tensor]:
    return gptq(module) | {f"{module}.g_idx": torch.arange(COLUMNS).int() // 64}


def awq(module: str) -> dict[str, torch.Tensor]:
    groups = COLUMNS // 64
    return {
        f"{module}.qweight": noise(COLUMNS, ROWS // 8),
        f"{module}.qzeros": noise(groups, ROWS // 8),
        f"{module}.scales": scales(groups, ROWS),
    }


def packed(module: str) -> dict[str, torch.Tensor]:
    groups = COLUMNS // 64
    return {
        f"{module}.weight_packed": noise(ROWS, COLUMNS // 8),
        f"{module}.weight_scale": scales(ROWS, groups, dtype=torch.bfloat16),
        f"{module}.weight_zero_point": noise(ROWS // 8, groups),
        f"{module}.weight_shape": torch.tensor([ROWS, COLUMNS]),
    }


def fp8(module: str) -> dict[str, torch.Tensor]:
    return {
        f"{module}.weight": torch.randn(ROWS, COLUMNS).to(torch.float8_e4m3fn),
        f"{module}.weight_scale_inv": scales(ROWS // 32, COLUMNS // 64, dtype=torch.float32),
    }


_GROUPS = {"bits": 4, "group_size": 64}
_GPTQ = {"quant_method": "gptq", "checkpoint_format": "gptq_v2"} | _GROUPS
_WEIGHTS = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 64}
SCHEMES: dict[str, tuple[Any, dict[str, Any]]] = {
    "gptq": (gptq, _GPTQ | {"desc_act": True}),
    "gptq in order": (gptq_in_order, _GPTQ),
    "awq": (awq, {"quant_method": "awq", "version": "gemm", "zero_point": True} | _GROUPS),
    "pack-quantized": (
        packed,
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": _WEIGHTS}},
        },
    ),
    "fp8": (fp8, {"quant_method": "fp8", "weight_block_size": [32, 64]}),
}  # fmt: skip


def save(tensors: dict[str, torch.Tensor], scheme: str, folder: str | Path, **options: Any) -> str:
    """A checkpoint with its configuration."""
    tensorhold.save(tensors, folder, durability="none", **options)
    config = {"quantization_config": SCHEMES[scheme][1]}
    (Path(folder) / "config.json").write_text(json.dumps(config))
    return str(folder)


def model(scheme: str, folder: Path) -> str:
    """Layers with quantized weights and others, in two files at least."""
    torch.manual_seed(3)
    tensors = {"norm.weight": torch.randn(9)}
    for layer in range(2):
        tensors |= SCHEMES[scheme][0](f"layers.{layer}.up")
        tensors |= SCHEMES[scheme][0](f"layers.{layer}.down")
        tensors[f"layers.{layer}.up.bias"] = torch.randn(ROWS)
        tensors[f"layers.{layer}.down.bias"] = torch.randn(ROWS)
    path = save(tensors, scheme, folder, max_shard_size="200KB")
    assert len(tensorhold.open(path).files) > 1
    return path


def expected(path: str, rank: int, n_ranks: int) -> dict[str, torch.Tensor]:
    """What a rank is to hold, as numbers, out of the whole weights."""
    whole = tensorhold.open(path).load(dequantize=True, dtype=torch.float32)
    held = {}
    for name, tensor in whole.items():
        if ".up." in name:
            tensor = tensor.chunk(n_ranks)[rank]
        elif name.endswith("down.weight"):
            tensor = tensor.chunk(n_ranks, 1)[rank]
        held[name] = tensor
    return held


def check(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def load_pieces(rank: int, path: str, scheme: str, n_ranks: int, mode: str) -> None:
    """A rank's tensors are a checkpoint by themselves, of its slices."""
    mesh = {"tp": n_ranks}
    held = parallel.load(path, mesh=mesh, rules=RULES, mode=mode)
    folder = Path(path).with_name(f"{scheme} {mode} {n_ranks} {rank}")
    save(held, scheme, folder, max_shard_size="1GB")
    piece = tensorhold.open(folder)
    check(piece.load(dequantize=True, dtype=torch.float32), expected(path, rank, n_ranks))


def load_numbers(rank: int, path: str, n_ranks: int) -> None:
    held = parallel.load(
        path, mesh={"tp": n_ranks}, rules=RULES, dequantize=True, dtype=torch.float32
    )
    assert parallel.stats().why == "each rank makes the numbers that it holds"
    check(held, expected(path, rank, n_ranks))
