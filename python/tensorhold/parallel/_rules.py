"""Rules by name, as the engine takes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tensorhold._errors import ArgumentError
from tensorhold.parallel._words import engine_words

__all__ = ["engine_rules", "rules_of"]

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


def rules_of(model: Any) -> dict[str, Any]:
    """The rules that a model of `transformers` has for itself: its `tp_plan`, and its stages.

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
    # A tied weight has one name here, and in the checkpoint.
    names = [name for name, _ in model.named_parameters()]
    return {pattern: said for pattern, said in rules.items() if _names_any(pattern, names)}


def _names_any(pattern: str, names: Sequence[str]) -> bool:
    """Whether a pattern of a plan, in which `*` is one part of a name, is that of any tensor."""
    parts = re.escape(pattern).replace(r"\*", r"[^.]+")
    return any(re.match(rf"{parts}(\.|$)", name) for name in names)


def _beside(tensor_style: str | None, stage_style: str) -> dict[str, str]:
    """What is said of a module along both axes."""
    tensors = {} if tensor_style is None else {"tp": tensor_style}
    return tensors | {"pp": stage_style}
