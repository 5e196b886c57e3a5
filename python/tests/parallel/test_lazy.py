"""Placeholders, with PyTorch's own tensors as the oracle."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorhold
from tensorhold import parallel
from tensorhold.parallel._box import box_of

DTYPES = [torch.float32, torch.bfloat16, torch.int8, torch.bool, torch.complex64]


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype)


def opened(**tensors: torch.Tensor):
    tensorhold.save(tensors, "x.safetensors", durability="none")
    checkpoint = tensorhold.open("x.safetensors")
    return checkpoint, parallel.lazy(checkpoint)


def indices(size: int):
    bounds = st.one_of(st.none(), st.integers(-size - 1, size + 1))
    slices = st.builds(slice, bounds, bounds, st.one_of(st.none(), st.integers(1, 3)))
    return st.one_of(slices, st.integers(-size, size - 1)) if size else slices


@st.composite
def steps(draw, tensor: torch.Tensor):
    """A function that takes a part of such a tensor, or sees it or makes it in another way."""
    dims, shape = range(tensor.dim()), tensor.shape
    dim = draw(st.sampled_from(dims)) if dims else None
    ways = [lambda t: t.unsqueeze(0), lambda t: t.contiguous(), lambda t: t[None, ...], torch.ravel]
    ways += [lambda t: t.reshape(-1), lambda t: t.expand(2, *shape), lambda t: t + t]
    ways += [lambda t: t.detach().squeeze()]
    if not tensor.is_complex():
        ways += [lambda t: t.to(torch.float16), lambda t: t.double()]
    if dims:
        size = shape[dim]
        start = draw(st.integers(0, size))
        length = draw(st.integers(0, size - start))
        count, picked = draw(st.integers(1, 4)), draw(st.integers(0, 3))
        order = draw(st.permutations(dims))
        index = tuple(draw(indices(size)) for size in shape[: draw(st.integers(1, len(dims)))])
        divisors = [number for number in range(1, size + 1) if size % number == 0]
        ways += [
            lambda t: t.narrow(dim, start, length),
            lambda t: torch.narrow(t, dim, start, length),
            lambda t: _picked(t.chunk(count, dim), picked),
            lambda t: _picked(torch.split(t, count, dim=dim), picked),
            lambda t: _picked(t.tensor_split(count, dim), picked),
            lambda t: _picked(t.unbind(dim), picked) if size else t,
            lambda t: t[index],
            lambda t: t.select(0, index[0]) if isinstance(index[0], int) else t[..., index[0]],
            lambda t: t.permute(*order),
            lambda t: t.transpose(0, dim),
            lambda t: t.flatten(0, dim),
            lambda t: t[torch.tensor([0, 0])] if shape[0] else t,
        ]
        if divisors:
            divisor = draw(st.sampled_from(divisors))
            ways.append(lambda t: t.unflatten(dim, (divisor, size // divisor)))
        if len(dims) == 2:
            ways += [lambda t: t.t(), lambda t: t.T]
    return draw(st.sampled_from(ways))


def _picked(parts, number):
    return parts[min(number, len(parts) - 1)]


@given(st.data())
def test_any_chain_of_steps_gives_what_pytorch_gives(data):
    shape = data.draw(st.lists(st.integers(0, 5), max_size=3))
    expected = numbers(*shape, dtype=data.draw(st.sampled_from(DTYPES)))
    checkpoint, weights = opened(x=expected)
    found = weights["x"]
    for _ in range(data.draw(st.integers(0, 5))):
        step = data.draw(steps(expected))
        try:
            expected = step(expected)
        except RuntimeError as error:
            with pytest.raises(type(error)):
                step(found)
            return
        found = step(found)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert torch.equal(torch.empty_like(expected).copy_(found), expected)
    wide = torch.zeros(*expected.shape, 2, dtype=expected.dtype)[..., 1]
    assert torch.equal(wide.copy_(found), expected)
    assert torch.equal(found + 0 if expected.dtype != torch.bool else found.clone(), expected)
    if checkpoint.stats is not None:
        assert checkpoint.stats.read_bytes <= weights["x"].nbytes


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.data())
def test_a_box_holds_the_elements_of_its_view(shape, data):
    whole = torch.arange(torch.Size(shape).numel())
    size = data.draw(st.lists(st.integers(1, 4), max_size=3))
    stride = [data.draw(st.integers(0, 12)) for _ in size]
    reach = sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if reach >= len(whole):
        return
    offset = data.draw(st.integers(0, len(whole) - 1 - reach))
    box = box_of(shape, size, stride, offset)
    held = whole.reshape(shape)[box.index].clone()
    found = held.as_strided(size, box.strides, box.offset)
    assert torch.equal(found, whole.as_strided(size, stride, offset))


@pytest.mark.parametrize(
    ("take", "n_elements"),
    [
        (lambda w: w.narrow(0, 64, 32), 32 * 512),
        (lambda w: w.chunk(4, 0)[2], 64 * 512),
        (lambda w: w[128:130].t(), 2 * 512),
        (lambda w: w.unflatten(0, (4, 64))[1, :8], 8 * 512),
        (lambda w: w.view(2, -1)[1].view(128, 512)[3], 512),
        (lambda w: w.narrow(0, 8, 8).contiguous().narrow(0, 2, 2).to(torch.float16), 2 * 512),
        (lambda w: w[5:5], 0),
    ],
)
def test_only_what_is_used_is_read(take, n_elements):
    whole = numbers(256, 512)
    checkpoint, weights = opened(w=whole)
    part = take(weights["w"])
    assert checkpoint.stats is None
    target = torch.full(part.shape, -1.0)
    assert torch.equal(target.copy_(part), take(whole))
    read = 0 if checkpoint.stats is None else checkpoint.stats.read_bytes
    assert read == 4 * n_elements


def test_columns_go_to_a_tensor_of_their_own_size():
    whole = numbers(8, 100_000)
    checkpoint, weights = opened(w=whole)
    target = torch.empty(8, 25_000).copy_(weights["w"].narrow(1, 50_000, 25_000))
    assert torch.equal(target, whole[:, 50_000:75_000])
    assert checkpoint.stats.wanted_bytes == target.nbytes
    assert checkpoint.stats.read_bytes < whole.nbytes


class Column(torch.nn.Parameter):
    """A parameter with a loader of its own, as inference engines have them."""

    def load_shard(self, loaded: torch.Tensor, rank: int, n_ranks: int) -> None:
        size = self.data.shape[0]
        assert isinstance(loaded, torch.Tensor)
        assert loaded.shape[0] == size * n_ranks
        shard = loaded.narrow(0, rank * size, size)
        assert self.data.shape == shard.shape
        self.data.copy_(shard)


def test_loaders_of_engines_take_them_for_tensors():
    whole = {"qkv": numbers(12, 4), "down": numbers(4, 8), "scale": torch.tensor(2.5)}
    checkpoint, weights = opened(**whole)
    column = Column(torch.zeros(6, 4), requires_grad=False)
    column.load_shard(weights["qkv"], rank=1, n_ranks=2)
    assert torch.equal(column.data, whole["qkv"][6:])
    assert checkpoint.stats.read_bytes == column.nbytes
    # A part of a fused parameter, in another type.
    fused = torch.nn.Parameter(torch.zeros(4, 16, dtype=torch.bfloat16))
    version = fused._version
    fused.data.narrow(1, 4, 4).copy_(weights["down"].chunk(2, dim=1)[1])
    assert fused._version == version
    assert torch.equal(fused[:, 4:8], whole["down"][:, 4:].bfloat16())
    scale = torch.nn.Parameter(torch.zeros(1))
    loaded = weights["scale"]
    if len(loaded.shape) == 0:
        loaded = loaded.reshape(1)
    assert scale.size() == loaded.size()
    scale.data.fill_(loaded.item())
    assert scale.item() == 2.5


def test_a_module_is_filled_by_load_state_dict():
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    _, weights = opened(**state)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(-1)
    before = module[0].weight._version
    module.load_state_dict(weights)
    assert module[0].weight._version > before
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_other_functions_are_given_tensors():
    whole = numbers(4, 6)
    _, weights = opened(w=whole)
    part, expected = weights["w"][1:3], whole[1:3]
    assert torch.equal(torch.cat([part, part]), torch.cat([expected, expected]))
    assert torch.equal(torch.nn.functional.linear(whole, part), whole @ expected.T)
    assert torch.equal(part.to(torch.int32), expected.to(torch.int32))
    assert torch.equal(part.view(torch.int32), expected.view(torch.int32))
    assert np.array_equal(np.asarray(part), expected.numpy())
    assert [row.tolist() for row in part] == part.tolist() == expected.tolist()
    assert float(part[0, 1]) == 7.0
    assert type(copy.deepcopy(part)) is torch.Tensor
    assert torch.equal(pickle.loads(pickle.dumps(part)), expected)
    with torch._C.DisableTorchFunctionSubclass():
        assert torch.equal(part + 1, expected + 1)
    assert torch.equal(torch.zeros(2, 2, 6).copy_(part), expected.expand(2, 2, 6))
    x = torch.zeros(2, 6)
    x += part
    assert torch.equal(x, expected)
    assert (part.device, part.is_cpu, part.is_meta) == (torch.device("cpu"), True, False)
    assert part.to("meta").clone().is_meta
    assert part in {part}


def test_bytes_of_elements_in_pairs_are_right():
    packed = torch.arange(64, dtype=torch.uint8).view(torch.float4_e2m1fn_x2).reshape(8, 8)
    _, weights = opened(w=packed)
    part = weights["w"].narrow(1, 2, 3)
    assert part.shape == (8, 3)
    assert torch.equal(part.contiguous().view(torch.uint8), packed.view(torch.uint8)[:, 2:5])


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda w: w.zero_(), ValueError, "`w` is a placeholder, which cannot be written to"),
        (lambda w: w.__setitem__(0, 1), ValueError, "cannot be written to\nhint: `.clone()` gives"),
        (lambda w: torch.add(1, 1, out=w), ValueError, "`w` is a placeholder"),
        (torch.nn.Parameter, ValueError, "`w` is a placeholder"),
        (lambda w: setattr(torch.zeros(4, 6), "data", w), RuntimeError, "incompatible tensor type"),
        (lambda w: w.data_ptr(), ValueError, "`w` is a placeholder, which has no memory"),
        (lambda w: w.narrow(0, 3, 3), RuntimeError, "`w`: start (3) + length (3) exceeds"),
        (lambda w: w[7], IndexError, "`w`: index 7 is out of bounds"),
        (lambda w: torch.empty(3).copy_(w), RuntimeError, "`w`: The size of tensor a (3)"),
        (lambda w: torch.ones(3) @ w, RuntimeError, "`w`: "),
    ],
)
def test_what_cannot_be_done_is_refused(use, error, message):
    _, weights = opened(w=numbers(4, 6))
    with pytest.raises(error) as caught:
        use(weights["w"])
    assert message in str(caught.value)


def test_what_cannot_be_read_is_named():
    checkpoint, weights = opened(w=numbers(4, 6))
    assert len(weights) == 1
    assert list(weights) == ["w"]
    assert "v" not in weights
    with pytest.raises(KeyError, match="v"):
        weights["v"]
    part = weights["w"][1:]
    checkpoint.close()
    with pytest.raises(tensorhold.SafetensorError, match="closed"):
        part.clone()


def test_a_leaf_that_needs_gradients_is_no_target_of_copies():
    _, weights = opened(w=numbers(2))
    with pytest.raises(RuntimeError, match="`w`: a leaf Variable that requires grad"):
        torch.nn.Parameter(torch.zeros(2)).copy_(weights["w"])
    target = torch.zeros(2, requires_grad=True) * 1
    target.copy_(weights["w"]).sum().backward()
    assert torch.equal(target, numbers(2))


def test_threads_share_placeholders():
    whole = numbers(64, 64)
    _, weights = opened(w=whole)
    shared = weights["w"]

    def take(number: int) -> bool:
        dim, at = number % 2, number % 60
        target = torch.empty(4, 64) if dim == 0 else torch.empty(64, 4)
        return torch.equal(target.copy_(shared.narrow(dim, at, 4)), whole.narrow(dim, at, 4))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(take, range(200)))
