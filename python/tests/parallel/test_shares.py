"""Shares of one process, with PyTorch's own division of tensors as the oracle."""

from __future__ import annotations

import itertools
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.tensor.placement_types import Replicate, Shard, _StridedShard

import tensorhold
from tensorhold import parallel

DTYPES = [torch.float32, torch.bfloat16, torch.int8, torch.bool]


def divided(tensor: torch.Tensor, placement: object, size: int, rank: int) -> torch.Tensor:
    """What PyTorch gives `rank` of `size` along an axis."""
    if isinstance(placement, Replicate):
        return tensor
    parts, _ = placement._split_tensor(tensor, size, with_padding=False)
    return parts[rank]


@st.composite
def cases(draw):
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    dims = st.integers(0, len(shape) - 1)
    placement = st.one_of(
        st.just(Replicate()),
        st.builds(Shard, dims),
        st.builds(
            lambda dim, factor: _StridedShard(dim, split_factor=factor), dims, st.integers(1, 4)
        ),
    )
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    placements = [draw(placement) for _ in sizes]
    return shape, sizes, placements, draw(st.sampled_from(DTYPES))


@given(cases())
def test_shares_are_those_of_pytorch(case):
    shape, sizes, placements, dtype = case
    tensor = torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype)
    tensorhold.save({"x.weight": tensor}, "x.safetensors", durability="none")
    mesh = {f"a{number}": size for number, size in enumerate(sizes)}
    rules = {"x": dict(zip(mesh, placements, strict=True))}
    with tensorhold.open("x.safetensors") as checkpoint:
        for rank, seat in enumerate(itertools.product(*map(range, sizes))):
            expected = tensor
            for placement, size, at in zip(placements, sizes, seat, strict=True):
                expected = divided(expected, placement, size, at)
            held = parallel.load(checkpoint, mesh=mesh, rank=rank, rules=rules)["x.weight"]
            assert held.dtype == dtype
            assert torch.equal(held, expected)
            assert checkpoint.stats.wanted_bytes == expected.nbytes


def model(n_layers=4, n_experts=4):
    """Tensors by the names that checkpoints have."""
    tensors = {"model.embed_tokens.weight": torch.randn(10, 8)}
    for layer in range(n_layers):
        prefix = f"model.layers.{layer}"
        tensors |= {
            f"{prefix}.self_attn.q_proj.weight": torch.randn(16, 8),
            f"{prefix}.self_attn.k_proj.weight": torch.randn(4, 8),
            f"{prefix}.self_attn.q_proj.bias": torch.randn(16),
            f"{prefix}.self_attn.qkv.weight": torch.randn(16 + 4 + 4, 8),
            f"{prefix}.self_attn.o_proj.weight": torch.randn(8, 16),
            f"{prefix}.self_attn.o_proj.bias": torch.randn(8),
            f"{prefix}.mlp.experts.gate_up_proj": torch.randn(n_experts, 12, 8),
        }
        for expert in range(n_experts):
            tensors[f"{prefix}.moe.experts.{expert}.up.weight"] = torch.randn(6, 8)
    return tensors | {"model.norm.weight": torch.randn(8), "lm_head.weight": torch.randn(10, 8)}


RULES = {
    "model.layers": parallel.Stages(),
    "model.embed_tokens": "first_stage",
    "model.norm": "last_stage",
    "lm_head": {"pp": "last_stage", "tp": "colwise"},
    "model.layers.*.self_attn.q_proj": "colwise",
    "model.layers.*.self_attn.k_proj": parallel.Heads(0, 2),
    "model.layers.*.self_attn.qkv": parallel.Fused(0, [16, 4, 4], heads=[8, 2, 2]),
    "model.layers.*.self_attn.o_proj": "rowwise",
    "model.layers.*.mlp.experts.gate_up_proj": {"tp": "packed_colwise", "ep": parallel.Shard(0)},
    "model.layers.*.moe.experts": "experts",
}


@pytest.fixture
def checkpoint():
    tensors = model()
    tensorhold.save(tensors, "model", max_shard_size="4KB", durability="none")
    return tensors


def test_a_rank_of_three_axes_gets_its_part_of_each(checkpoint):
    tp = {rank: parallel.load("model", mesh={"tp": 4}, rank=rank, rules=RULES) for rank in range(4)}
    layer = "model.layers.1"
    kept = f"{layer}.self_attn.k_proj.weight"
    # Two heads of two rows, each for two of the ranks.
    assert torch.equal(tp[0][kept], checkpoint[kept][:2])
    assert torch.equal(tp[1][kept], checkpoint[kept][:2])
    assert torch.equal(tp[3][kept], checkpoint[kept][2:])
    qkv = checkpoint[f"{layer}.self_attn.qkv.weight"]
    expected = torch.cat([qkv[8:12], qkv[18:20], qkv[22:24]])
    assert torch.equal(tp[2][f"{layer}.self_attn.qkv.weight"], expected)
    fused = checkpoint[f"{layer}.mlp.experts.gate_up_proj"]
    gate, up = fused.chunk(2, dim=1)
    grid = {"pp": 2, "ep": 2, "tp": 2}
    held = parallel.load("model", mesh=grid, rank=3, rules=RULES)
    expected = torch.cat([gate[2:, 3:], up[2:, 3:]], dim=1)
    assert torch.equal(held[f"{layer}.mlp.experts.gate_up_proj"], expected)
    assert {name.split(".")[5] for name in held if ".moe." in name} == {"2", "3"}
    assert {name.split(".")[2] for name in held if ".layers." in name} == {"0", "1"}
    assert "model.embed_tokens.weight" in held
    assert "lm_head.weight" not in held


def test_the_shares_of_all_ranks_are_the_checkpoint(checkpoint):
    for mesh in ({"tp": 2}, {"pp": 4}, {"pp": 2, "tp": 2}, {"pp": 3, "ep": 2, "tp": 2}):
        n_ranks = torch.Size(mesh.values()).numel()
        seen = set()
        for rank in range(n_ranks):
            for name, share in parallel.shares("model", mesh=mesh, rank=rank, rules=RULES).items():
                dims = [[range(*pair) for pair in ranges] for ranges in share.ranges]
                positions = [list(itertools.chain(*ranges)) for ranges in dims]
                seen |= {(name, *at) for at in itertools.product(*positions)}
        assert len(seen) == sum(tensor.numel() for tensor in checkpoint.values())


def test_a_tied_weight_is_on_both_ends_of_a_pipeline():
    tensors = model()
    head = tensors.pop("lm_head.weight")
    tensors["model.embed_tokens.weight"] = head
    tensorhold.save(tensors, "tied.safetensors", durability="none")
    tied = {"lm_head.weight": "model.embed_tokens.weight"}
    grid = {"pp": 2, "tp": 2}
    first = parallel.load("tied.safetensors", mesh=grid, rank=0, rules=RULES, tied=tied)
    last = parallel.load("tied.safetensors", mesh=grid, rank=3, rules=RULES, tied=tied)
    assert torch.equal(first["model.embed_tokens.weight"], head)
    assert "lm_head.weight" not in first
    assert torch.equal(last["lm_head.weight"], head[5:])
    assert "model.embed_tokens.weight" not in last


@pytest.mark.parametrize(
    ("mesh", "rules", "message"),
    [
        (
            {"tp": 2},
            {"model.layer.*.q_proj": "colwise"},
            "rule `model.layer.*.q_proj` names no tensor",
        ),
        ({"tp": 2}, {}, "no rule is for an axis of the mesh tp=2"),
        ({"tp": 2}, {"lm_head": "sideways"}, "there is no style `sideways`"),
        ({"tp": 2}, {"lm_head": 3}, "rule `lm_head` says 3, which is no style and no placement"),
        ({"tp": 0}, RULES, "axis `tp` of the mesh has no rank"),
        ({"tp": 3}, RULES, "2 heads can neither be divided by 3 ranks"),
        ({"pp": 2}, {"model.layers": parallel.Stages([3, 3])}, "divides 6 layers, but there are 4"),
        (
            {"ep": 2},
            {"**.moe.experts": parallel.Experts([[0, 1], [2]])},
            "gives expert 3 to no rank",
        ),
        ({"tp": 2}, {"model.norm": parallel.Shard(1)}, "cannot divide a tensor of 1 dimensions"),
        ({"tp": 2}, {"lm_head": {"t": "colwise"}}, "is for axis `t`, which the mesh has not"),
    ],
)
def test_what_does_not_fit_is_refused_before_bytes_move(checkpoint, mesh, rules, message):
    with pytest.raises(tensorhold.SafetensorError) as caught:
        parallel.load("model", mesh=mesh, rank=0, rules=rules)
    assert message in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_rank_outside_and_a_missing_shard_are_refused(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="rank 2 is none of the 2 ranks of the mesh tp=2"):
        parallel.load("model", mesh={"tp": 2}, rank=2, rules=RULES)
    with pytest.raises(ValueError, match="there is no process group"):
        parallel.load("model", mesh={"tp": 2}, rules=RULES)
    with pytest.raises(ValueError, match="no rule names it"):
        parallel.load("model", mesh={"tp": 2}, rank=0, rules=RULES, unmatched="refuse")
    next((tmp_path / "model").glob("model-*.safetensors")).unlink()
    with pytest.raises(tensorhold.SafetensorError, match="is named by the index, but is not in"):
        parallel.load("model", mesh={"tp": 2}, rank=0, rules=RULES)


def test_ranks_of_a_machine_have_its_processors_together(monkeypatch):
    model = torch.nn.Linear(1 << 10, 1 << 14, bias=False)
    tensorhold.save(model.state_dict(), "large.safetensors", durability="none")
    with tensorhold.open("large.safetensors", backend="pread") as checkpoint:

        def n_threads() -> int:
            parallel.load(checkpoint, mesh={"tp": 1}, rank=0, rules={"**": "colwise"})
            n_loading = checkpoint.stats.n_threads
            parallel.load_into(model, checkpoint)
            assert checkpoint.stats.n_threads == n_loading
            return n_loading

        checkpoint.load()
        n_alone = checkpoint.stats.n_threads
        for unknown in ("", "none", "0"):
            monkeypatch.setenv("LOCAL_WORLD_SIZE", unknown)
            assert n_threads() == n_alone
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
        assert n_threads() == n_alone
        for n_ranks in (os.cpu_count(), 1000):
            monkeypatch.setenv("LOCAL_WORLD_SIZE", str(n_ranks))
            assert n_threads() == 0
