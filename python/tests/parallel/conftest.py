"""Ranks, which are started for the first test that needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from ranks import World


@pytest.fixture(scope="session")
def _worlds() -> Iterator[dict[int, World]]:
    worlds: dict[int, World] = {}
    yield worlds
    for world in worlds.values():
        world.end()


@pytest.fixture
def run(_worlds: dict[int, World]) -> Callable[..., None]:
    """Runs a function in each of so many ranks."""

    def run(function: Callable[..., None], n_ranks: int, *arguments: object) -> None:
        if n_ranks not in _worlds:
            _worlds[n_ranks] = World(n_ranks)
        try:
            _worlds[n_ranks].run(function, *arguments)
        except BaseException:
            # Who knows where its ranks stand.
            _worlds.pop(n_ranks).end()
            raise

    return run
