"""What each rank does in the tests of models of `transformers`, at random weights.

It is a module of its own, since the processes of the ranks import it.
"""

from __future__ import annotations

import torch
import transformers
from torch.distributed.tensor import DTensor
from transformers.distributed import DistributedConfig

import tensorhold
from tensorhold import parallel

_SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 4,
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "num_experts": 4}

MODELS = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**_SIZES)),
    "tied": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**_SIZES, tie_word_embeddings=True)
    ),
    "mixtral": lambda: transformers.MixtralForCausalLM(
        transformers.MixtralConfig(**_SIZES, num_experts_per_tok=2, num_local_experts=4)
    ),
    "qwen3_moe": lambda: transformers.Qwen3MoeForCausalLM(
        transformers.Qwen3MoeConfig(**_SIZES, **_EXPERTS)
    ),
}


def whole(name: str) -> torch.nn.Module:
    torch.manual_seed(5)
    return MODELS[name]().eval()


def save(name: str, path: str) -> None:
    """The checkpoint of a model, in which a tied weight has one name, and its configuration."""
    model = whole(name)
    first = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}
    tensors = {
        key: tensor.detach()
        for key, tensor in model.state_dict(keep_vars=True).items()
        if first.pop(id(tensor), None) is not None
    }
    tensorhold.save(tensors, path, max_shard_size="20KB", durability="none")
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(path)


def _divided(name: str, sizes: dict[str, int]) -> tuple[torch.nn.Module, object]:
    """The model as `transformers` divides it by its own plan, at other weights, and its meshes."""
    torch.manual_seed(6)
    model = MODELS[name]().eval()
    if name == "tied":
        # As `transformers` has it while it loads: divided each by itself.
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    settings = DistributedConfig(**{f"{axis}_size": size for axis, size in sizes.items()})
    settings, _, meshes = type(model).prepare_distribute_model(settings)
    return type(model).maybe_distribute_model(model, settings, meshes), meshes


def _compares(model: torch.nn.Module, name: str) -> None:
    tokens = torch.arange(12).reshape(2, 6) * 5
    with torch.no_grad():
        expected, found = whole(name)(tokens).logits, model(tokens).logits
    if isinstance(found, DTensor):
        found = found.full_tensor()
    torch.testing.assert_close(found, expected)


def fill_model(rank: int, name: str, path: str, sizes: dict[str, int]) -> None:
    model, _ = _divided(name, sizes)
    missing, unexpected = parallel.load_into(model, path, strict="pp" not in sizes)
    assert not missing
    assert bool(unexpected) == ("pp" in sizes)
    _compares(model, name)


def load_by_plan(rank: int, name: str, path: str, n_ranks: int) -> None:
    model, meshes = _divided(name, {"tp": n_ranks})
    expected = whole(name).state_dict()
    for rules in (parallel.rules_of(whole(name)), None):
        held = parallel.load(path, mesh=meshes.get_mesh("tp"), rules=rules, as_dtensor=True)
        n_divided = 0
        for key, parameter in model.named_parameters():
            assert torch.equal(held[key].full_tensor(), expected[key]), key
            if isinstance(parameter, DTensor):
                n_divided += 1
                assert held[key].placements == parameter.placements, key
        assert n_divided > 20
