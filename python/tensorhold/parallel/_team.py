"""Ranks that load together: they agree on every step, and end together.

What they agree on goes through the store of the process group, which can be asked without waiting;
the group's collectives move tensors only. So whoever waits for another rank sees that a rank has
failed, or that it shows no sign of life.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from tensorhold._errors import ArgumentError, SafetensorError

__all__ = ["RankError", "Team"]

# How often a rank shows that it lives.
_BEAT_SECONDS = 0.5

# Without a sign of life for so long, a rank is given up once the group is known to be broken.
_GRACE_SECONDS = 3.0

# The same while nothing else says that something is wrong.
_PATIENCE_SECONDS = 10.0

# How often those who wait look for errors of others.
_LOOK_SECONDS = 0.2

# Loads of each group so far, by its name: each has keys of its own in the store.
_loads: dict[str, int] = {}


class RankError(SafetensorError, RuntimeError):
    """Another rank failed, or is gone, while ranks loaded together."""


class Team:
    """The ranks of a process group while they load together."""

    def __init__(self, process_group: Any) -> None:
        import torch.distributed as dist

        if not dist.is_available() or not dist.is_initialized():
            raise ArgumentError(
                "there is no process group to load with",
                kind="InvalidArgument",
                hint='start torch.distributed, or load with `mode="own"`',
            )
        group: Any = process_group
        if group is None:
            group = dist.group.WORLD
        self.group = group
        self.rank: int = dist.get_rank(self.group)
        self.n_ranks: int = dist.get_world_size(self.group)
        name: str = self.group.group_name
        number = _loads[name] = _loads.get(name, 0) + 1
        store: Any = self.group.get_group_store()
        prefix = dist.distributed_c10d.PrefixStore
        self._store = prefix(f"tensorhold/{number}", store)
        self._beats = prefix(f"tensorhold/{number}", store.clone())
        self._timeout: float = store.timeout.total_seconds()
        self._step = 0
        self._end = threading.Event()
        self._is_over = False
        self._pulse = threading.Thread(target=self._beat, name="tensorhold-beat", daemon=True)
        self._pulse.start()

    def __enter__(self) -> Team:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None:
            self._tell(error)
        self._end.set()
        self._pulse.join(_GRACE_SECONDS)

    def gather(self, said: Any) -> list[Any]:
        """What each rank says, by rank. Every rank of the group has to call it."""
        step = self._step
        self._ask(lambda: self._store.set(f"said{step}/{self.rank}", json.dumps(said)))
        self.meet()
        keys = [f"said{step}/{rank}" for rank in range(self.n_ranks)]
        all_said: list[Any] = self._ask(lambda: [json.loads(self._store.get(k)) for k in keys])
        return all_said

    def meet(self) -> None:
        """Waits until every rank is here."""
        key = f"step{self._step}"
        self._step += 1
        self._ask(lambda: self._store.add(key, 1))
        self._wait(lambda: self._ask(lambda: self._store.add(key, 0)) >= self.n_ranks, "ranks")
        if self.rank == 0 and self._step > 2:
            # Every rank has left the step before the last one behind.
            self._ask(lambda: self._store.delete_key(f"step{self._step - 3}"))

    def refuse(self, message: str) -> None:
        """Raises what every rank finds by itself."""
        self._is_over = True
        raise ArgumentError(message, kind="InvalidArgument")

    def begin(self, move: Callable[[], None]) -> Callable[[], None]:
        """Starts what moves tensors between ranks; gives what waits for its end.

        It waits in a thread of its own, since the backends of PyTorch cannot be waited for in any
        way that another rank's error ends.
        """
        wrong: list[BaseException] = []

        def run() -> None:
            try:
                move()
            except BaseException as error:
                wrong.append(error)

        mover = threading.Thread(target=run, name="tensorhold-move", daemon=True)
        mover.start()

        def is_done() -> bool:
            mover.join(0.001)
            return not mover.is_alive()

        def end() -> None:
            self._wait(is_done, "tensors")
            if wrong:
                self._lost(wrong[0])

        return end

    def _wait(self, is_done: Callable[[], bool], what: str) -> None:
        """Waits until it is done; raises what another rank failed with."""
        started = looked = time.monotonic()
        pause = 0.0002
        seen: dict[int, tuple[bytes, float]] = {}
        while not is_done():
            now = time.monotonic()
            if now - looked > _LOOK_SECONDS:
                looked = now
                self._raise_told()
                self._raise_silent(seen)
            if now - started > self._timeout + _GRACE_SECONDS:
                self._raise_late(what)
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)

    def _raise_late(self, what: str) -> None:
        late = [rank for rank in range(self.n_ranks) if self._step_of(rank) < self._step]
        who = ", ".join(f"rank {rank}" for rank in late) or "another rank"
        raise RankError(f"{who}: the {what} did not come within {self._timeout:.0f} s", kind="Rank")

    def _step_of(self, rank: int) -> int:
        """Which step a rank is at, as far as it has said."""
        step = self._sign(rank).partition(b"/")[2]
        return int(step) if step else 0

    def _raise_told(self) -> None:
        if self._ask(lambda: self._store.check(["error"])):
            rank, text = json.loads(self._ask(lambda: self._store.get("error")))
            self._is_over = True
            raise RankError(f"rank {rank}: {text}" if rank is not None else text, kind="Rank")

    def _raise_silent(self, seen: dict[int, tuple[bytes, float]]) -> None:
        """Raises if a rank shows no sign of life any more."""
        now = time.monotonic()
        patience = min(_PATIENCE_SECONDS, self._timeout)
        for rank in range(self.n_ranks):
            sign = self._sign(rank)
            if rank not in seen or seen[rank][0] != sign:
                seen[rank] = (sign, now)
            elif now - seen[rank][1] > patience and not sign.startswith(b"left"):
                self._give_up([rank], patience)

    def _sign(self, rank: int) -> bytes:
        key = f"beat/{rank}"
        is_there = self._ask(lambda: self._store.check([key]))
        return bytes(self._ask(lambda: self._store.get(key))) if is_there else b""

    def _lost(self, cause: BaseException) -> None:
        """Raises the error of the rank that broke the group, or names those that are gone."""
        ranks = [rank for rank in range(self.n_ranks) if rank != self.rank]
        before = {rank: self._sign(rank) for rank in ranks}
        end = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < end:
            self._raise_told()
            time.sleep(0.1)
        silent = [
            r for r in ranks if not before[r].startswith(b"left") and self._sign(r) == before[r]
        ]
        if silent:
            self._give_up(silent, _GRACE_SECONDS, cause)
        raise cause

    def _give_up(
        self, ranks: list[int], seconds: float, cause: BaseException | None = None
    ) -> None:
        who = ", ".join(f"rank {rank}" for rank in ranks)
        text = (
            f"{who}: no sign of life for {seconds:.0f} s: the process has ended, or its host is"
            " out of reach"
        )
        error = RankError(text, kind="Rank", hint="the process group is of no use any more")
        self._say(None, text)
        raise error from cause

    def _tell(self, error: BaseException) -> None:
        """Makes the error known to the others, unless it is theirs."""
        if not self._is_over:
            self._say(self.rank, str(error) or type(error).__name__)

    def _say(self, rank: int | None, text: str) -> None:
        self._is_over = True
        try:
            # The first error is the one that counts.
            if self._store.add("errors", 1) == 1:
                self._store.set("error", json.dumps((rank, text)))
        except RuntimeError:
            # Without a store nobody can be told; the others find that out for themselves.
            return

    def _ask(self, question: Callable[[], Any]) -> Any:
        """The store's answer."""
        try:
            return question()
        except RuntimeError as error:
            self._is_over = True
            raise RankError(
                "rank 0: the store of the process group, which rank 0 keeps unless a launcher does,"
                f" does not answer: {str(error).splitlines()[0]}",
                kind="Rank",
            ) from error

    def _beat(self) -> None:
        number = 0
        try:
            while not self._end.wait(_BEAT_SECONDS if number else 0):
                number += 1
                self._beats.set(f"beat/{self.rank}", f"{number}/{self._step}")
            self._beats.set(f"beat/{self.rank}", f"left/{self._step}")
        except RuntimeError:
            # The store is gone: whoever needs it says so.
            return
