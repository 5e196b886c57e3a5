"""Streams a checkpoint and prints as JSON its bytes, the seconds, and the most memory that took.

peak_memory.py PATH BACKEND MEMORY_LIMIT
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

import tensorhold


def main(path: str, backend: str, memory_limit: str) -> None:
    tensorhold.save({"a": np.zeros(9)}, "warming.safetensors", durability="none")
    stream_all("warming.safetensors", backend, memory_limit)
    # The peak starts anew from what is held now.
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    begun = time.monotonic()
    n_bytes = stream_all(path, backend, memory_limit)
    result = {
        "bytes": n_bytes,
        "seconds": time.monotonic() - begun,
        "peak_bytes": peak_bytes() - before,
    }
    print(json.dumps(result))


def stream_all(path: str, backend: str, memory_limit: str) -> int:
    n_bytes = 0
    with tensorhold.open(path, framework="np", backend=backend) as checkpoint:
        for _, tensor in checkpoint.stream(memory_limit=memory_limit):
            n_bytes += tensor.nbytes
    return n_bytes


def peak_bytes() -> int:
    """The most memory that was resident, files' pages left out."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])
