"""Real processes with a gloo group, which run one function after the other."""

from __future__ import annotations

import os
import queue
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# Longer than any of the functions takes on a machine that has other things to do.
_SECONDS = 180


class World:
    """So many ranks, each a process. They are started once, since that takes seconds."""

    def __init__(self, n_ranks: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = mp.get_context("spawn")
        self._orders = [context.Queue() for _ in range(n_ranks)]
        self._answers = context.Queue()
        self._processes = [
            context.Process(
                target=_serve, args=(rank, n_ranks, port, orders, self._answers), daemon=True
            )
            for rank, orders in enumerate(self._orders)
        ]
        for process in self._processes:
            process.start()

    def run(self, function: Callable[..., None], *arguments: Any) -> None:
        """Runs `function(rank, *arguments)` in each rank; raises what went wrong in any."""
        for orders in self._orders:
            orders.put((function, arguments))
        wrong = []
        for _ in self._orders:
            try:
                rank, text = self._answers.get(timeout=_SECONDS)
            except queue.Empty:
                wrong.append(f"a rank did not answer within {_SECONDS} s")
                break
            if text is not None:
                wrong.append(f"rank {rank}: {text}")
        assert not wrong, "\n".join(wrong)

    def run_without(self, victim: int, function: Callable[..., None], *arguments: Any) -> None:
        """The same where one rank dies of it, which gives no answer."""
        for orders in self._orders:
            orders.put((function, arguments))
        wrong = []
        for _ in self._orders[1:]:
            rank, text = self._answers.get(timeout=_SECONDS)
            assert rank != victim, "it is alive"
            if text is not None:
                wrong.append(f"rank {rank}: {text}")
        assert not wrong, "\n".join(wrong)

    def end(self) -> None:
        for process in self._processes:
            process.kill()


def _serve(rank: int, n_ranks: int, port: int, orders: Any, answers: Any) -> None:
    # The folder of the test that starts the ranks is gone when the next one runs.
    os.chdir("/")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    timeout = timedelta(seconds=_SECONDS // 2)
    dist.init_process_group("gloo", rank=rank, world_size=n_ranks, timeout=timeout)
    while True:
        try:
            # The function comes by its name: its module may be imported here.
            function, arguments = orders.get()
            function(rank, *arguments)
        except BaseException:
            answers.put((rank, traceback.format_exc()))
        else:
            answers.put((rank, None))
