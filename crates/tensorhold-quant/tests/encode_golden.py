"""What compressed-tensors 0.20.0 makes of weights: digests of scales, zeros and codes.

    python encode_golden.py > encode_golden.txt
    python encode_golden.py --check

Weights are made of a counter, here and in `encode_golden.rs`. Needs compressed-tensors and torch.
"""

import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from compressed_tensors.compressors.mx_utils import compress_mx_scale
from compressed_tensors.compressors.nvfp4.helpers import pack_fp4_to_uint8
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils.helpers import (
    calculate_qparams,
    generate_gparam,
    maybe_pad_tensor_for_block_quant,
)

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
KINDS = {
    "int4": (4, True),
    "int4-asym": (4, False),
    "int8": (8, True),
    "int8-asym": (8, False),
    "int3": (3, True),
}
ROWS, COLUMNS = 40, 192


def weights(seed: int, dtype: torch.dtype) -> torch.Tensor:
    """Signed numbers of 16 powers of two, a row and a group of zeros, and a row of halves."""
    counter = np.arange(ROWS * COLUMNS, dtype=np.uint64) + seed * 7919
    mixed = (counter * 2654435761) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 2246822519) & 0xFFFFFFFF
    mixed ^= mixed >> 13
    exponent = 112 + (mixed >> 23 & 15)
    bits = (mixed & 0x807FFFFF) | exponent << 23
    array = bits.astype(np.uint32).view(np.float32).reshape(ROWS, COLUMNS).copy()
    array[3] = 0
    array[5, :32] = 0
    array[7] = (np.arange(COLUMNS) % 31 - 15) * 0.5
    array[9] = np.abs(array[9])
    array[11] = -np.abs(array[11])
    return torch.from_numpy(array).to(dtype)


def grouped(
    weight: torch.Tensor, kind: str
) -> tuple[torch.Tensor, torch.Tensor, dict[str, object]]:
    """The least and greatest of each group, and what compressed-tensors calls these groups."""
    if kind == "tensor":
        return weight.amin().reshape(1), weight.amax().reshape(1), {"strategy": "tensor"}
    if kind == "channel":
        return weight.amin(1, keepdim=True), weight.amax(1, keepdim=True), {"strategy": "channel"}
    high, wide = (int(size) for size in kind.split("x"))
    if high == 1:
        parts = weight.unflatten(-1, (-1, wide))
        return parts.amin(-1), parts.amax(-1), {"strategy": "group", "group_size": wide}
    padded = maybe_pad_tensor_for_block_quant(weight, (high, wide))
    blocks = padded.unflatten(1, (-1, wide)).unflatten(0, (-1, high))
    block = {"strategy": "block", "block_structure": [high, wide]}
    return blocks.amin((1, 3)), blocks.amax((1, 3)), block


def plain(weight: torch.Tensor, kind: str, args: dict[str, object]) -> list[bytes]:
    least, greatest, strategy = grouped(weight, kind)
    args = QuantizationArgs(**args, **strategy)
    scale, zero = calculate_qparams(least, greatest, args)
    zeros = None if args.symmetric else zero
    codes = quantize(weight, scale, zeros, args, dtype=args.pytorch_dtype())
    if args.type == "int":
        lowest = 1 << (args.num_bits - 1)
        stored = zero if not args.symmetric else torch.zeros(scale.shape)
        return [numbers(scale), as_bytes(stored, lowest), as_bytes(codes, lowest)]
    return [numbers(scale), b"\0" * scale.numel(), codes.view(torch.uint8).numpy().tobytes()]


def powers(weight: torch.Tensor, bits: int) -> list[bytes]:
    weight = wide(weight)
    least, greatest, strategy = grouped(weight, "1x32")
    args = QuantizationArgs(num_bits=bits, type="float", scale_dtype="torch.uint8", **strategy)
    scale, zero = calculate_qparams(least, greatest, args)
    assert not zero.any()
    stored = compress_mx_scale(scale, torch.uint8).numpy()
    if bits == 8:
        codes = quantize(weight, scale, None, args, dtype=torch.float8_e4m3fn).view(torch.uint8)
    else:
        codes = nibbles(quantize(weight, scale, None, args))
    values = np.ldexp(np.float32(1), stored.astype(np.int32) - 127).astype(np.float32)
    return [values.tobytes(), b"\0" * scale.numel(), codes.numpy().tobytes()]


def two_scales(weight: torch.Tensor) -> list[bytes]:
    of = wide(weight)
    total = generate_gparam(of.amin(), of.amax())
    least, greatest, _ = grouped(weight, "1x16")
    args = QuantizationArgs(
        num_bits=4,
        type="float",
        strategy="tensor_group",
        group_size=16,
        scale_dtype="torch.float8_e4m3fn",
    )
    scale, _ = calculate_qparams(least, greatest, args, global_scale=total)
    codes = nibbles(quantize(weight, scale, None, args, global_scale=total))
    return [numbers(scale), b"\0" * scale.numel(), codes.numpy().tobytes(), numbers(total)]


def wide(weight: torch.Tensor) -> torch.Tensor:
    """In F16 numbers that scales are made of are infinite or 0; in F32 they are not."""
    return weight.float() if weight.dtype == torch.float16 else weight


def nibbles(values: torch.Tensor) -> torch.Tensor:
    packed = pack_fp4_to_uint8(values)
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten()


def numbers(tensor: torch.Tensor) -> bytes:
    return tensor.float().contiguous().numpy().tobytes()


def as_bytes(codes: torch.Tensor, lowest: int) -> bytes:
    return (codes.to(torch.int32) + lowest).to(torch.uint8).contiguous().numpy().tobytes()


def lines() -> list[str]:
    found = []
    for seed in range(3):
        for name, dtype in DTYPES.items():
            weight = weights(seed, dtype)
            for kind in ("tensor", "channel", "16x64", "32x128", "1x64"):
                args = {"num_bits": 8, "type": "float"}
                found.append((seed, name, "fp8", kind, plain(weight, kind, args)))
            for code, (bits, is_symmetric) in KINDS.items():
                for kind in ("channel", "1x32", "1x64"):
                    args = {"num_bits": bits, "type": "int", "symmetric": is_symmetric}
                    found.append((seed, name, code, kind, plain(weight, kind, args)))
            found.append((seed, name, "mxfp4", "1x32", powers(weight, 4)))
            found.append((seed, name, "mxfp8", "1x32", powers(weight, 8)))
            found.append((seed, name, "nvfp4", "1x16", two_scales(weight)))
    text = []
    for seed, name, code, kind, parts in found:
        sums = " ".join(f"{zlib.crc32(part):08x}" for part in parts)
        text.append(f"{seed} {name} {code} {kind} {sums}")
    return text


def main() -> None:
    text = "\n".join(lines()) + "\n"
    if "--check" not in sys.argv:
        sys.stdout.write(text)
    elif text != Path(__file__).with_suffix(".txt").read_text():
        sys.exit("compressed-tensors has other scales or codes now")


if __name__ == "__main__":
    main()
