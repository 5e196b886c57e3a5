"""Whatever is asked for, in whatever way, a device gets what the host gets."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorhold

DTYPES = [torch.bfloat16, torch.float32, torch.float64, torch.int16, torch.uint8, torch.bool]


@st.composite
def models(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Tensors of all sizes, few of them of more than a slot."""
    sizes = st.one_of(st.integers(0, 9), st.integers(200, 700), st.just(2100))
    tensors = {}
    for n in range(draw(st.integers(1, 12))):
        shape = draw(st.lists(sizes, max_size=2))
        dtype = draw(st.sampled_from(DTYPES))
        values = torch.arange(int(torch.Size(shape).numel())).reshape(shape).add_(n)
        tensors[f"{draw(st.sampled_from('abc'))}.{n}"] = values.to(dtype)
    return tensors


@st.composite
def parts(draw: st.DrawFn, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Indices, or None for all, of some of the tensors in some order."""
    names = draw(st.lists(st.sampled_from(sorted(tensors)), unique=True))
    bound = st.none() | st.integers(-800, 800)
    step = st.none() | st.integers(-5, 5).filter(bool)
    part = st.builds(slice, bound, bound, step)

    def index(name: str) -> Any:
        n_dimensions = draw(st.integers(0, tensors[name].dim()))
        return draw(st.none() | st.tuples(*[part] * n_dimensions))

    return {name: index(name) for name in names}


PLACES = st.dictionaries(
    st.sampled_from(["a.*", "b.?", "[bc].*", "*.1*", "*", ""]),
    st.sampled_from(["cpu", "cuda:0", 0]),
)


@settings(max_examples=300)
@given(st.data())
def test_any_load_gives_what_the_host_gets(data: st.DataObject) -> None:
    tensors = data.draw(models())
    wanted = data.draw(parts(tensors))
    dtype = data.draw(st.sampled_from([None, torch.float16, torch.float32]))
    places = data.draw(PLACES | st.just("cuda:0"))
    backend = data.draw(st.sampled_from(["auto", "mmap", "pread", "direct"]))
    shard_bytes = data.draw(st.sampled_from([None, "1MB"]))
    threads = data.draw(st.none() | st.integers(1, 5))
    paths = tensorhold.save(tensors, "m.safetensors", max_shard_size=shard_bytes, durability="none")
    shards = [path for path in paths if path.endswith(".safetensors")]
    with tensorhold.open(shards, backend=backend) as checkpoint:
        expected = checkpoint.load(wanted, dtype=dtype)
        loaded = checkpoint.load(wanted, device=places, dtype=dtype, threads=threads)
        streamed = dict(
            checkpoint.stream(
                wanted, device=places, dtype=dtype, memory_limit="1MB", threads=threads
            )
        )
    for found in (loaded, streamed):
        assert list(found) == list(expected)
        for name, tensor in expected.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name].cpu(), tensor), name
