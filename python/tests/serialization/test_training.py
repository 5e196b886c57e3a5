"""Training that is resumed from a file is training that was never interrupted, bit by bit."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from serialization.same import check_same
from torch.nn.utils import parametrizations

from tensorhold import serialization

Optimizer = Callable[[Any], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Optimizer] = {
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-2, amsgrad=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=torch.tensor(1e-2), foreach=False),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9, nesterov=True),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, centered=True, momentum=0.1),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters),
    "lbfgs": lambda parameters: torch.optim.LBFGS(parameters, lr=0.1, max_iter=3),
}


class Model(torch.nn.Module):
    """Tied weights, a buffer, dropout, and a weight that is computed of others."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(12, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.inner = parametrizations.weight_norm(torch.nn.Linear(8, 8))
        self.dropout = torch.nn.Dropout(0.2)
        self.head = torch.nn.Linear(8, 12, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.embed(tokens).mean(1))
        return self.head(self.dropout(torch.relu(self.inner(hidden))))  # type: ignore[no-any-return]


class Run:
    """A run of training, and all that its future depends on."""

    def __init__(self, optimizer: Optimizer) -> None:
        torch.manual_seed(0)
        np.random.seed(1)
        random.seed(2)
        self.model = Model()
        self.optimizer = optimizer(self.model.parameters())
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(self.optimizer, 5)
        self.average = torch.optim.swa_utils.AveragedModel(
            self.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
        )
        self.losses: list[float] = []

    def step(self) -> None:
        tokens = torch.randint(0, 12, (6, 4)) * random.randint(0, 1)
        noise = float(np.random.rand())

        def closure() -> torch.Tensor:
            self.optimizer.zero_grad()
            loss = (self.model(tokens).pow(2).mean() - noise).abs()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        self.losses.append(self.optimizer.step(closure).item())  # type: ignore[union-attr]
        self.schedule.step()
        self.average.update_parameters(self.model)

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.state_dict(),
            "losses": self.losses,
            "random": {
                "python": random.getstate(),
                "numpy": np.random.get_state(),
                "torch": torch.get_rng_state(),
            },
        }

    def resume(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.average.load_state_dict(state["average"])
        self.losses = list(state["losses"])
        random.setstate(state["random"]["python"])
        np.random.set_state(state["random"]["numpy"])
        torch.set_rng_state(state["random"]["torch"])


# Sums over a mapped tensor may take its elements in another order: it lies where the file has it.
WAYS = [*((name, None) for name in OPTIMIZERS), ("adam", True)]


@pytest.mark.parametrize(("name", "mmap"), WAYS)
def test_a_resumed_run_is_an_uninterrupted_one(
    name: str, mmap: bool | None, tmp_path: Path
) -> None:
    optimizer = OPTIMIZERS[name]
    path = tmp_path / "run.safetensors"
    run = Run(optimizer)
    for _ in range(4):
        run.step()
    state = copy.deepcopy(run.state())
    serialization.save(run.state(), path)
    for _ in range(4):
        run.step()
    other = Run(optimizer)
    found = serialization.load(path, mmap=mmap)
    check_same(state, found)
    other.resume(found)
    for _ in range(4):
        other.step()
    assert other.losses == run.losses
    check_same(run.state(), other.state())
    assert other.model.head.weight is other.model.embed.weight
