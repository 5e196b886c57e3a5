"""Rules by name, as the engine takes them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from tensorhold._errors import ArgumentError
from tensorhold.checkpoint import Checkpoint
from tensorhold.parallel._words import engine_words

__all__ = ["engine_rules", "given_rules", "rules_of"]

_Axes = Sequence[tuple[str, int]]

# What programs call the axes of their meshes: one that a mesh has not is taken for one of size 1.
_USUAL_AXES = {"tp", "pp", "ep", "dp", "cp", "fsdp"}


def engine_rules(rules: Mapping[str, Any], axes: _Axes) -> list[tuple[str, str, tuple[Any, ...]]]:
    """Each rule as a pattern, an axis and what it says.

    What a mesh has no axis for, it does not divide: rules for that are left out.
    """
    names = [name for name, _ in axes]
    found = []
    for pattern, said in rules.items():
        by_axis = said.items() if isinstance(said, Mapping) else [(None, said)]
        for axis, style in by_axis:
            usual, words = engine_words(pattern, style)
            if axis is not None:
                usual = axis
            elif usual not in names and len(names) == 1 and names[0] not in _USUAL_AXES:
                usual = names[0]
            if usual in names or usual not in _USUAL_AXES:
                found.append((pattern, usual, words))
    if not found and any(size > 1 for _, size in axes):
        mesh = ",".join(f"{name}={size}" for name, size in axes)
        raise ArgumentError(
            f"no rule is for an axis of the mesh {mesh}: each rank would hold everything",
            kind="InvalidArgument",
            hint='give rules, such as {"model.layers.*.mlp.down_proj": "rowwise"}',
        )
    return found


class ModelRules(dict[str, Any]):
    """The rules of a model, and which of its weights are one with another."""

    def __init__(self, rules: Mapping[str, Any], tied: Mapping[str, str]) -> None:
        super().__init__(rules)
        self.tied = dict(tied)


def given_rules(
    source: Any, mesh: Any, rules: Mapping[str, Any] | None, tied: Mapping[str, str] | None
) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """What was given, or else what the model says whose configuration lies beside the checkpoint.

    Raises:
        ValueError: No rules were given, and there is no such model.
    """
    if rules is None:
        sizes = mesh.values() if isinstance(mesh, Mapping) else mesh.shape
        rules = {} if prod(sizes) == 1 else _rules_beside(source)
    if tied is None:
        tied = getattr(rules, "tied", {})
        if tied:
            # Some checkpoints have both.
            checkpoint = source if isinstance(source, Checkpoint) else Checkpoint(source)
            tied = {name: kept for name, kept in tied.items() if name not in checkpoint}
            if checkpoint is not source:
                checkpoint.close()
    return rules, tied


def rules_of(model: Any) -> dict[str, Any]:
    """The rules that a model of `transformers` has for itself: its `tp_plan`, and its stages.

    With these rules, `load` also knows which weights are tied.

    Args:
        model: The model; one on the `meta` device will do.

    Raises:
        ValueError: The model has no plan.
    """
    rules: dict[str, Any] = dict(getattr(model, "tp_plan", None) or {})
    if not rules:
        raise ArgumentError(f"{type(model).__name__} has no `tp_plan`", kind="InvalidArgument")
    prefix = getattr(model, "base_model_prefix", "")
    prefix = f"{prefix}." if prefix and hasattr(model, prefix) else ""
    modules = list(getattr(model.config, "base_model_pp_plan", None) or {})
    if "layers" in modules:
        at = modules.index("layers")
        for number, module in enumerate(modules):
            style = "stages" if number == at else "first_stage" if number < at else "last_stage"
            rules[prefix + module] = _beside(rules.get(prefix + module), style)
        rules["lm_head"] = _beside(rules.get("lm_head"), "last_stage")
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    names = [*(name for name, _ in model.named_parameters()), *tied]
    return ModelRules(
        {pattern: said for pattern, said in rules.items() if _names_any(pattern, names)}, tied
    )


def _rules_beside(source: Any) -> dict[str, Any]:
    """The rules of the model whose `config.json` lies beside a checkpoint."""
    folder = _folder(source)
    if not (folder / "config.json").is_file():
        _refuse(f"no rules were given, and there is no `config.json` beside {folder / '*'}")
    try:
        import torch
        import transformers
    except ImportError as error:
        _refuse(f"no rules were given, and there is no `transformers` to ask for them: {error}")
    try:
        # Its model is one that `transformers` has: no code that came with the checkpoint is run.
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        _refuse(f"no rules were given, and {folder / 'config.json'} does not say them: {error}")
    (name, *_) = config.architectures or ["none"]
    model = getattr(transformers, name, None)
    if not isinstance(model, type) or not issubclass(model, transformers.PreTrainedModel):
        _refuse(f"no rules were given, and `transformers` has no model `{name}`")
    with torch.device("meta"):
        return rules_of(model(config))


def _folder(source: Any) -> Path:
    if isinstance(source, Checkpoint):
        source = source.files
    first = source if isinstance(source, (str, os.PathLike)) else next(iter(source), "")
    path = Path(first)
    return path if path.is_dir() else path.parent


def _refuse(what: str) -> NoReturn:
    hint = 'give `rules`, such as {"model.layers.*.mlp.down_proj": "rowwise"}, or `rules_of(model)`'
    raise ArgumentError(f"{what}\nhint: {hint}", kind="InvalidArgument", hint=hint)


def _names_any(pattern: str, names: Sequence[str]) -> bool:
    """Whether a pattern of a plan, in which `*` is one part of a name, is that of any tensor."""
    parts = re.escape(pattern).replace(r"\*", r"[^.]+")
    return any(re.match(rf"{parts}(\.|$)", name) for name in names)


def _beside(tensor_style: str | None, stage_style: str) -> dict[str, str]:
    """What is said of a module along both axes."""
    tensors = {} if tensor_style is None else {"tp": tensor_style}
    return tensors | {"pp": stage_style}
