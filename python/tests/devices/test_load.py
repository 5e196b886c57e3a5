"""Loads onto a device give the bytes that loads into the host's memory give."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import DTYPES, file_bytes, n_elements, values

import tensorhold
import tensorhold.torch

# The types of the format that this PyTorch has.
CODES = [code for code in DTYPES if code in tensorhold.torch._TYPES]
SHAPES = [(), (0,), (3, 0, 2), (1,), (2, 4), (7, 6, 2), (64, 33, 2)]

# More than the ring holds unless somebody says otherwise.
LARGE_BYTES = 300 << 20


def octets(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8) if flat.dtype != torch.uint8 else flat


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert torch.equal(octets(found[name]), octets(tensor)), name


def all_types(codes: list[str]) -> bytes:
    tensors = {}
    for code in codes:
        for shape in SHAPES:
            # A type of half bytes comes in pairs.
            if DTYPES[code][0] < 8 and (not shape or shape[-1] % 2):
                continue
            name = f"{code}.{'x'.join(map(str, shape))}"
            tensors[name] = (code, shape, values(code, n_elements(shape)))
    return file_bytes(tensors)


def many(n_tensors: int) -> dict[str, torch.Tensor]:
    chance = random.Random(0)
    return {
        f"layers.{n}.weight": torch.full((chance.randrange(40), 3), n, dtype=torch.int32)
        for n in range(n_tensors)
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of a model with large and small tensors."""
    folder = tmp_path_factory.mktemp("model")
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"layers.{n}.{part}": torch.randn(shape, generator=generator, dtype=dtype)
        for n in range(6)
        for part, shape, dtype in [
            ("weight", (700, 700), torch.bfloat16),
            ("gate", (300, 1100), torch.float32),
            ("norm", (700,), torch.float32),
            ("scale", (), torch.float64),
        ]
    }
    tensorhold.save(tensors, folder, max_shard_size="4MB", durability="none")
    return folder


def test_every_type_and_shape_arrives(device: str) -> None:
    Path("types.safetensors").write_bytes(all_types(CODES))
    with tensorhold.open("types.safetensors") as checkpoint:
        expected = checkpoint.load()
        assert_equal(checkpoint.load(device=device), expected)
        assert_equal(dict(checkpoint.stream(device=device)), expected)


def test_an_empty_file_gives_no_tensors(device: str) -> None:
    Path("none.safetensors").write_bytes(file_bytes({}))
    with tensorhold.open("none.safetensors") as checkpoint:
        assert checkpoint.load(device=device) == {}


def test_thousands_of_small_tensors_arrive(device: str) -> None:
    tensors = many(5000)
    tensorhold.save(tensors, "many.safetensors", durability="none")
    with tensorhold.open("many.safetensors") as checkpoint:
        assert_equal(checkpoint.load(list(tensors), device=device), tensors)


def test_small_tensors_have_a_storage_object_each(device: str) -> None:
    tensorhold.save(many(10), "few.safetensors", durability="none")
    with tensorhold.open("few.safetensors") as checkpoint:
        tensors = checkpoint.load(device=device)
    kept = tensors["layers.3.weight"]
    expected = kept.clone()
    # What one of them is overwritten with, or freed, the others do not see.
    tensors["layers.2.weight"].fill_(77)
    del tensors
    assert torch.equal(kept, expected)


def test_a_tensor_larger_than_the_ring_arrives(device: str) -> None:
    pattern = torch.arange(LARGE_BYTES // 8).mul_(2_654_435_761)
    tensorhold.save({"large": pattern}, "large.safetensors", durability="none")
    with tensorhold.open("large.safetensors") as checkpoint:
        assert_equal(checkpoint.load(device=device), {"large": pattern})


@pytest.mark.parametrize(
    "part",
    [
        np.s_[3],
        np.s_[-1, ..., 1],
        np.s_[2:40],
        np.s_[::7],
        np.s_[::-1],
        np.s_[:, 5:500:3],
        np.s_[..., 1:2],
        np.s_[10:2],
        np.s_[None, 4:9, None, ::2],
        np.s_[::3, ::-5, 0],
    ],
    ids=str,
)
def test_parts_are_those_of_the_host(part: Any, device: str) -> None:
    tensor = torch.arange(60 * 700 * 2, dtype=torch.int32).reshape(60, 700, 2)
    tensorhold.save({"a": tensor}, "a.safetensors", durability="none")
    with tensorhold.open("a.safetensors") as checkpoint:
        assert_equal(checkpoint.load({"a": part}, device=device), checkpoint.load({"a": part}))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "float8_e4m3fn"])
def test_casts_are_those_of_the_host(dtype: str, folder: Path, device: str) -> None:
    with tensorhold.open(folder) as checkpoint:
        wanted = getattr(torch, dtype)
        assert_equal(checkpoint.load(device=device, dtype=wanted), checkpoint.load(dtype=wanted))


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 33])
@pytest.mark.parametrize("backend", ["auto", "mmap", "pread", "direct", "gds"])
def test_any_threads_give_the_same_shards(
    threads: int, backend: str, folder: Path, device: str
) -> None:
    with tensorhold.open(folder, backend=backend) as checkpoint:
        expected = checkpoint.load()
        assert_equal(checkpoint.load(device=device, threads=threads), expected)


def test_a_stream_gives_all_in_order(folder: Path, device: str) -> None:
    with tensorhold.open(folder, device=device) as checkpoint:
        found = dict(checkpoint.stream(memory_limit="2MB"))
    with tensorhold.open(folder) as checkpoint:
        assert_equal(found, checkpoint.load())


def test_a_stream_that_is_left_ends_its_copies(folder: Path, device: str) -> None:
    with tensorhold.open(folder, device=device) as checkpoint:
        stream = checkpoint.stream()
        name, tensor = next(stream)
        del stream
        assert torch.equal(octets(tensor), octets(checkpoint.load([name], device="cpu")[name]))


def test_threads_take_and_iterate_at_once(device: str) -> None:
    tensors = many(800) | {f"large.{n}": torch.full((600, 500), n) for n in range(6)}
    tensorhold.save(tensors, "mixed.safetensors", durability="none")
    found: dict[str, torch.Tensor] = {}
    failures: list[BaseException] = []

    def consume(number: int) -> None:
        names = random.Random(number).sample(list(tensors), 100)
        try:
            for name in names if number % 2 else []:
                try:
                    found[name] = loader.take(name)
                except ValueError as error:
                    assert "already delivered" in str(error)
            found.update(loader)
        except BaseException as error:
            failures.append(error)

    with (
        tensorhold.safe_open("mixed.safetensors", "pt", device=device) as file,
        file.prefetch() as loader,
    ):
        threads = [threading.Thread(target=consume, args=[n]) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert_equal({name: found[name] for name in tensors}, tensors)
    assert len(found) == len(tensors)


def test_tensors_outlive_the_checkpoint(folder: Path, device: str) -> None:
    with tensorhold.open(folder) as checkpoint:
        expected = checkpoint.load()
        found = checkpoint.load(device=device)
    del checkpoint
    assert_equal(found, expected)
