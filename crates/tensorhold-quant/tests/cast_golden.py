"""Digests of what PyTorch casts the inputs of `src/cast/tests.rs` to: `cast_golden.txt`.

`python cast_golden.py` writes the file; `python cast_golden.py --check` compares it with the
PyTorch that is installed and leaves it alone. The inputs are built in the same way on both sides:
all there are of 8 and 16 bits; of 32 and 64 bits those at which something changes, and random
ones. It needs an x86-64 processor with AVX2, as PyTorch has other NaNs on others.
"""

import sys
import zlib
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).with_name("cast_golden.txt")
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
}
# The lower bits around which the conversions of an F32 to 16 bits round.
SINGLE_LOW = [
    0,
    1,
    0xFFF,
    0x1000,
    0x1001,
    0x1FFF,
    0x2000,
    0x3000,
    0x3001,
    0x7FFF,
    0x8000,
    0x8001,
    0xFFFF,
]
# The lower bits around which an F64 rounds to an F32, and then once more.
DOUBLE_LOW = [
    0,
    1,
    (1 << 28) - 1,
    1 << 28,
    (1 << 28) + 1,
    (1 << 29) + (1 << 28),
    (1 << 41) - (1 << 28),
    1 << 41,
    (1 << 44) + 1,
    (1 << 46) - 1,
]


def random_bits(count: int) -> np.ndarray:
    """The first numbers of splitmix64 from 0."""
    state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def singles() -> np.ndarray:
    high = np.arange(1 << 16, dtype=np.uint32) << 16
    edges = [high | np.uint32(low) for low in SINGLE_LOW]
    return np.concatenate([*edges, (random_bits(1 << 16) >> np.uint64(32)).astype(np.uint32)])


def doubles() -> np.ndarray:
    """The exponents are all those of an F32, its subnormals, and some on either side."""
    high = np.arange((1023 - 160) << 6, (1023 + 140) << 6, dtype=np.uint64) << np.uint64(46)
    nans = np.uint64(0x7FF << 52) | (
        np.arange(64, dtype=np.uint64) * np.uint64(0x3141592653589) & np.uint64((1 << 52) - 1)
    )
    positive = np.concatenate([*[high | np.uint64(low) for low in DOUBLE_LOW], nans])
    return np.concatenate([positive, positive | np.uint64(1 << 63), random_bits(1 << 16)])


def inputs(dtype: torch.dtype) -> torch.Tensor:
    """All counts are multiples of 64, so that PyTorch does whole vectors only."""
    bits = {
        1: lambda: np.arange(1 << 8, dtype=np.uint8),
        2: lambda: np.arange(1 << 16, dtype=np.uint16).view(np.int16),
        4: lambda: singles().view(np.int32),
        8: lambda: doubles().view(np.int64),
    }[dtype.itemsize]()
    return torch.from_numpy(bits).view(dtype)


def golden() -> str:
    torch.set_num_threads(1)
    lines = []
    for from_name, from_dtype in DTYPES.items():
        elements = inputs(from_dtype)
        for to_name, to_dtype in DTYPES.items():
            digest = zlib.crc32(elements.to(to_dtype).view(torch.uint8).numpy().tobytes())
            lines.append(f"{from_name} {to_name} {len(elements)} {digest:08x}\n")
    return "".join(lines)


def main() -> int:
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        print("PyTorch does not use AVX2 here: nothing compared", file=sys.stderr)
        return 2
    found = golden()
    if "--check" not in sys.argv[1:]:
        GOLDEN.write_text(found)
        return 0
    differing = set(found.splitlines()) - set(GOLDEN.read_text().splitlines())
    for line in sorted(differing):
        print(f"PyTorch {torch.__version__} has: {line}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
