"""Quantized weights in parallel: packed pieces that are weights of their own, and numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import quantized_programs as programs
import torch

import tensorhold
from tensorhold import parallel


@pytest.mark.parametrize("n_ranks", [2, 4])
@pytest.mark.parametrize("scheme", programs.SCHEMES)
def test_the_piece_of_a_rank_is_a_checkpoint_of_slices(run, tmp_path, scheme, n_ranks):
    path = programs.model(scheme, tmp_path / "model")
    run(programs.load_pieces, n_ranks, path, scheme, n_ranks, "own")
    run(programs.load_numbers, n_ranks, path, n_ranks)


@pytest.mark.parametrize("mode", ["node", "broadcast", "scatter"])
@pytest.mark.parametrize("scheme", ["gptq in order", "pack-quantized"])
def test_every_mode_gives_the_same_pieces(run, tmp_path, scheme, mode):
    path = programs.model(scheme, tmp_path / "model")
    run(programs.load_pieces, 2, path, scheme, 2, mode)


@pytest.mark.parametrize("scheme", programs.SCHEMES)
def test_what_is_read_is_what_is_held(tmp_path, scheme):
    path = programs.model(scheme, tmp_path / "model")
    with tensorhold.open(path) as checkpoint:
        for rank in range(8):
            options = {"mesh": {"tp": 8}, "rank": rank, "rules": programs.RULES}
            shares = parallel.shares(checkpoint, **options)
            planned = checkpoint.plan(shares).size_bytes
            held = parallel.load(checkpoint, **options)
            assert {name: share.shape for name, share in shares.items()} == {
                name: tuple(tensor.shape) for name, tensor in held.items()
            }
            n_bytes = sum(tensor.nbytes for tensor in held.values())
            assert checkpoint.stats.wanted_bytes == planned == n_bytes


def test_shares_say_of_which_weight_they_are_parts(tmp_path):
    path = programs.model("gptq in order", tmp_path / "model")
    shares = parallel.shares(path, mesh={"tp": 4}, rank=3, rules=programs.RULES)
    share = shares["layers.0.down.qweight"]
    assert (share.weight, share.placements) == ("layers.0.down.weight", [("Shard", -1)])
    assert (share.shape, share.full_shape) == ((16, 256), (64, 256))
    assert shares["layers.0.down.g_idx"].rewritten == [0] * 64 + [1] * 64
    assert shares["layers.0.up.g_idx"].rewritten is None
    assert shares["layers.0.up.bias"].weight is None
    shares = parallel.shares(path, mesh={"tp": 4}, rank=3, rules=programs.RULES, dequantize=True)
    assert shares["layers.0.down.weight"].ranges == [[(0, 256)], [(384, 512)]]
    assert "layers.0.down.qweight" not in shares


def test_a_cut_that_cannot_be_made_is_refused_and_its_ways_out_work(tmp_path):
    path = programs.model("fp8", tmp_path / "model")
    options = {"mesh": {"tp": 3}, "rank": 1}
    with pytest.raises(ValueError, match="cut at 86, inside a unit of 32: the nearest") as caught:
        parallel.load(path, rules={"layers.*.up.weight": "colwise"}, **options)
    assert caught.value.tensor == "layers.0.up.weight"
    assert "`Blocks(0, 32)`" in caught.value.hint
    assert "dequantize=True" in caught.value.hint
    whole = tensorhold.open(path).load(dequantize=True)["layers.0.up.weight"]
    blocks = {"layers.*.up.weight": parallel.Blocks(0, 32)}
    held = parallel.load(path, rules=blocks, **options)
    assert held["layers.0.up.weight"].shape == (96, 512)
    assert held["layers.0.up.weight_scale_inv"].shape == (3, 8)
    numbers = parallel.load(path, rules=blocks, dequantize=True, **options)
    assert torch.equal(numbers["layers.0.up.weight"], whole[96:192])
    anywhere = {"layers.*.up.weight": "colwise"}
    numbers = parallel.load(path, rules=anywhere, dequantize=True, **options)
    assert torch.equal(numbers["layers.0.up.weight"], whole[86:172])


@pytest.mark.parametrize("framework", ["pt", "np"])
def test_fused_matrices_are_divided_one_by_one(tmp_path, framework):
    path = programs.model("gptq in order", tmp_path / "model")
    rules = {"layers.*.up.weight": parallel.Fused(0, [128, 64, 64])}
    with tensorhold.open(path, framework=framework) as checkpoint:
        whole = checkpoint.load(dequantize=True)["layers.0.up.weight"]
        options = {"mesh": {"tp": 2}, "rank": 1, "rules": rules}
        held = parallel.load(checkpoint, dequantize=True, **options)["layers.0.up.weight"]
        rows = [*range(64, 128), *range(160, 192), *range(224, 256)]
        assert np.array_equal(np.asarray(held), np.asarray(whole)[rows])
        codes = np.asarray(parallel.load(checkpoint, **options)["layers.0.up.qweight"])
        assert np.array_equal(codes, np.asarray(checkpoint["layers.0.up.qweight"])[:, rows])


def test_groups_are_counted_from_the_first_in_any_framework(tmp_path):
    path = programs.model("gptq in order", tmp_path / "model")
    with tensorhold.open(path, framework="np") as checkpoint:
        held = parallel.load(checkpoint, mesh={"tp": 4}, rank=3, rules=programs.RULES)
    groups = held["layers.0.down.g_idx"]
    assert groups.dtype == np.int32
    assert groups.tolist() == [0] * 64 + [1] * 64


def test_what_would_change_codes_is_refused(tmp_path):
    path = programs.model("fp8", tmp_path / "model")
    options = {"mesh": {"tp": 2}, "rank": 0, "rules": programs.RULES}
    with pytest.raises(ValueError, match="`dtype` would change the codes in its part"):
        parallel.load(path, dtype=torch.bfloat16, **options)
    with pytest.raises(ValueError, match="is divided, and is no DTensor then"):
        parallel.load(path, as_dtensor=True, **options)
    with pytest.raises(ValueError, match="with `dequantize` each rank reads its own"):
        parallel.load(path, mode="node", dequantize=True, **options)
    with pytest.raises(ValueError, match=r"quantization, such as `layers\.0\.down\.weight`"):
        parallel.load(path, mesh={"tp": 2}, rank=0, rules={"**.weight_scale_inv": "colwise"})


def test_a_tied_weight_that_is_quantized_is_read_as_numbers(tmp_path):
    path = programs.model("awq", tmp_path / "model")
    tied = {"head.weight": "layers.0.up.weight"}
    options = {"mesh": {"tp": 2}, "rank": 1, "rules": {"head": "colwise"}, "tied": tied}
    with pytest.raises(tensorhold.SafetensorError, match="which is quantized"):
        parallel.load(path, **options)
    held = parallel.load(path, dequantize=True, **options)
    assert torch.equal(held["head.weight"], held["layers.0.up.weight"][128:])


def test_the_rules_of_a_model_are_those_of_its_quantized_checkpoint(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=programs.ROWS,
        intermediate_size=programs.COLUMNS,
        num_hidden_layers=1,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=128,
        architectures=["LlamaForCausalLM"],
    )
    tensors = transformers.LlamaForCausalLM(config).state_dict()
    name = "model.layers.0.mlp.down_proj"
    del tensors[f"{name}.weight"]
    path = programs.save(
        tensors | programs.gptq(name), "gptq", tmp_path / "m", max_shard_size="9MB"
    )
    said = config.to_dict() | json.loads((Path(path) / "config.json").read_text())
    (Path(path) / "config.json").write_text(json.dumps(said))
    whole = tensorhold.open(path).load(dequantize=True)
    held = parallel.load(path, mesh={"tp": 4}, rank=1)
    assert held[f"{name}.qweight"].shape == (16, programs.ROWS)
    assert held[f"{name}.scales"].shape == (8, programs.ROWS)
    held = parallel.load(path, mesh={"tp": 4}, rank=1, dequantize=True)
    assert torch.equal(held[f"{name}.weight"], whole[f"{name}.weight"][:, 128:256])
    key = "model.layers.0.self_attn.k_proj.weight"
    assert torch.equal(held[key], whole[key][32:64])
