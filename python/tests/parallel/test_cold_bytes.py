"""The bytes that each rank has the system fetch from storage, as the system counts them."""

from __future__ import annotations

import subprocess
import warnings

import pytest
import torch
from cold_programs import count_fetched

import tensorhold
from tensorhold import parallel

N_RANKS = 4


@pytest.mark.parametrize("share_mib", [4, 16, 32])
@pytest.mark.parametrize(
    ("n_columns", "mesh", "rules"),
    [
        (1024, {"tp": N_RANKS}, {"layers.*": "colwise"}),
        # Of each row 128 KiB for each rank.
        (131072, {"tp": N_RANKS}, {"layers.*": "rowwise"}),
        (2048, {"pp": N_RANKS}, {"layers": parallel.Stages()}),
    ],
    ids=["rows", "columns", "stages"],
)
def test_a_rank_fetches_its_pages_and_no_others(run, tmp_path, share_mib, n_columns, mesh, rules):
    found = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True)
    if found.stdout.strip() not in ("ext2/ext3", "xfs"):
        # In memory nothing is fetched; elsewhere the system may count, or read ahead, otherwise.
        warnings.warn(f"{tmp_path} is on {found.stdout.strip()}: not counted", stacklevel=1)
        return
    # As many tensors as ranks.
    shape = (share_mib * 2**20 // (4 * n_columns), n_columns)
    paths = [str(tmp_path / name) for name in ("big.safetensors", "small.safetensors")]
    for path, at in zip(paths, (shape, (8, 8)), strict=True):
        tensors = {f"layers.{number}.weight": torch.ones(at) for number in range(4)}
        tensorhold.save(tensors, path, durability="full")
    run(count_fetched, N_RANKS, *paths, mesh, rules)
