"""What a person finds of experts whose weights lie in one tensor, after they were quantized."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from transformers.integrations.finegrained_fp8 import FP8Experts

import tensorhold
from tensorhold.torch import save_file

LAYER = "model.layers.0.mlp"
SIZES = {
    "vocab_size": 64,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}


def model(folder: Path, inner: int = 128) -> transformers.PreTrainedModel:
    """A model in a folder, its experts in one tensor, as Transformers has them in memory."""
    torch.manual_seed(7)
    config = transformers.Qwen3MoeConfig(**SIZES, moe_intermediate_size=inner, dtype="bfloat16")
    made = transformers.Qwen3MoeForCausalLM(config).to(torch.bfloat16).eval()
    folder.mkdir()
    state = {name: tensor.contiguous() for name, tensor in made.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    made.config.architectures = ["Qwen3MoeForCausalLM"]
    made.config.save_pretrained(folder)
    return made


def test_experts_are_blocks_of_fp8_that_transformers_reads(tmp_path: Path) -> None:
    before = model(tmp_path / "source")
    done = tensorhold.quantize(tmp_path / "source", "fp8", "fp8-finegrained", verify=True)
    errors = {tensor.name: tensor.relative_error for tensor in done.tensors if not tensor.kept}
    assert {f"{LAYER}.experts.gate_up_proj", f"{LAYER}.experts.down_proj"} < errors.keys()
    assert max(errors.values()) < 0.04
    config = json.loads(Path("fp8/config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "fp8" and config["weight_block_size"] == [128, 128]
    ignored = ["lm_head", *(f"model.layers.{layer}.mlp.gate" for layer in range(2))]
    assert config["modules_to_not_convert"] == ignored

    with tensorhold.open("fp8") as checkpoint:
        codes = checkpoint[f"{LAYER}.experts.gate_up_proj"][...]
        scales = checkpoint[f"{LAYER}.experts.gate_up_proj_scale_inv"][...]
        numbers = checkpoint.load(dequantize=True, dtype=torch.float32)
    assert codes.dtype == torch.float8_e4m3fn and scales.shape == (4, 2, 1)
    weights = before.get_parameter(f"{LAYER}.experts.gate_up_proj").detach().float()
    blocks = weights.reshape(4, 2, 128, 1, 128).abs().amax(dim=(2, 4))
    assert torch.equal(scales, blocks / 448)
    whole = scales.repeat_interleave(128, 1).repeat_interleave(128, 2)
    assert torch.equal(numbers[f"{LAYER}.experts.gate_up_proj"], codes.float() * whole)

    with torch.device("meta"):
        theirs = FP8Experts(before.config, (128, 128)).state_dict()
    with tensorhold.open("fp8") as checkpoint:
        for name, tensor in theirs.items():
            ours = checkpoint[f"{LAYER}.experts.{name}"][...]
            assert (ours.dtype, ours.shape) == (tensor.dtype, tensor.shape), name


def test_experts_that_no_format_holds_stay_and_are_not_taken_for_quantized(tmp_path: Path) -> None:
    model(tmp_path / "source", inner=96)
    for scheme in ("fp8-finegrained", "fp8-block"):
        done = tensorhold.quantize(tmp_path / "source", scheme, scheme)
        kept = {tensor.name: tensor.kept for tensor in done.tensors}
        why = "the weights of several experts in one tensor"
        assert kept[f"{LAYER}.experts.gate_up_proj"] == why
    # Rows of 192 are no whole blocks; the engine must not look for scales.
    config = json.loads(Path("fp8-finegrained/config.json").read_text())["quantization_config"]
    assert f"{LAYER}.experts" in config["modules_to_not_convert"]


def test_one_half_of_experts_alone_is_refused(tmp_path: Path) -> None:
    model(tmp_path / "source")
    with pytest.raises(ValueError, match="are quantized together"):
        tensorhold.quantize(
            tmp_path / "source", "out", "fp8-finegrained", ignore=["**.experts.down_proj"]
        )
    assert not Path("out").exists()
