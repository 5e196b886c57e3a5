"""Codes in every order of bits, and the numbers that codes are: `codec_golden.txt`.

`python codec_golden.py` writes the file; `python codec_golden.py --check` compares it with what it
would write. Both need numpy and ml_dtypes alone. `--packages` compares what is built here with what
the packages that write these formats make, those of them that are installed, and says which.
"""

import importlib
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

GOLDEN = Path(__file__).with_name("codec_golden.txt")
# Neither whole words nor whole units of 32 codes.
N_CODES = 101
WIDTHS = range(1, 9)
STRIDED_WIDTHS = (1, 2, 3, 4, 8)
FLOATS = {
    "E2m1": ("float4_e2m1fn", 16),
    "E2m3": ("float6_e2m3fn", 64),
    "E3m2": ("float6_e3m2fn", 64),
    "E4m3": ("float8_e4m3fn", 256),
    "E5m2": ("float8_e5m2", 256),
    "E4m3Fnuz": ("float8_e4m3fnuz", 256),
    "E5m2Fnuz": ("float8_e5m2fnuz", 256),
    "E8m0": ("float8_e8m0fnu", 256),
}
# The tables of bitsandbytes, as its source has them.
NF4 = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
]
FP4_TWELFTHS = [0, 0.0625, 8, 12, 4, 6, 2, 3]
BLOCKED = [(1, 1), (128, 4), (129, 5), (300, 37), (32, 130), (0, 3), (3, 0)]

Bits = np.ndarray


def some_codes(bits: int, count: int) -> np.ndarray:
    """Codes that show every bit pattern of few bits, and do not repeat with a word."""
    mixed = np.arange(count, dtype=np.uint64) * np.uint64(2654435761) >> np.uint64(13)
    return (mixed & np.uint64((1 << bits) - 1)).astype(np.uint8)


def bits_of(codes: np.ndarray, bits: int) -> Bits:
    """One row for each code, its lowest bit first."""
    return (codes[:, None] >> np.arange(bits, dtype=np.uint8) & 1).astype(np.uint8)


def filled(codes: np.ndarray, multiple: int) -> np.ndarray:
    return np.pad(codes, (0, -len(codes) % multiple))


def pack_lsb(codes: np.ndarray, bits: int) -> np.ndarray:
    return np.packbits(bits_of(codes, bits).reshape(-1), bitorder="little")


def pack_lsb_words(codes: np.ndarray, bits: int) -> np.ndarray:
    return filled(pack_lsb(codes, bits), 4)


def pack_padded(codes: np.ndarray, bits: int) -> np.ndarray:
    per_word = 32 // bits
    rows = bits_of(filled(codes, per_word), bits).reshape(-1, per_word * bits)
    return np.packbits(np.pad(rows, ((0, 0), (0, 32 - per_word * bits))), bitorder="little")


def pack_planar(codes: np.ndarray, bits: int) -> np.ndarray:
    blocks = bits_of(filled(codes, 32), bits).reshape(-1, 32, bits)
    planes, below = [], 0
    for width in (8, 4, 2, 1):
        if bits & width:
            planes.append(blocks[:, :, below : below + width].reshape(len(blocks), -1))
            below += width
    return np.packbits(np.concatenate(planes, axis=1), bitorder="little")


def pack_awq(codes: np.ndarray, bits: int) -> np.ndarray:
    columns = filled(codes, 8).reshape(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]]
    return pack_lsb(columns.reshape(-1), bits)


def pack_high_nibble_first(codes: np.ndarray, bits: int) -> np.ndarray:
    pairs = filled(codes, 2).reshape(-1, 2)
    return pack_lsb(pairs[:, ::-1].reshape(-1), bits)


def pack_strided(codes: np.ndarray, bits: int, high_first: bool) -> np.ndarray:
    container = 32 if bits == 3 else 8
    n_parts = container // bits
    parts = filled(codes, n_parts).reshape(n_parts, -1)
    if high_first:
        parts = parts[::-1]
    rows = bits_of(parts.T.reshape(-1), bits).reshape(-1, n_parts * bits)
    return np.packbits(np.pad(rows, ((0, 0), (0, container - n_parts * bits))), bitorder="little")


ORDERS: dict[str, tuple[Callable[[np.ndarray, int], np.ndarray], tuple[int, ...]]] = {
    "lsb": (pack_lsb, tuple(WIDTHS)),
    "lsb_words": (pack_lsb_words, tuple(WIDTHS)),
    "padded": (pack_padded, tuple(WIDTHS)),
    "planar": (pack_planar, tuple(WIDTHS)),
    "awq": (pack_awq, (4,)),
    "high_nibble_first": (pack_high_nibble_first, (4,)),
    "strided_low": (lambda codes, bits: pack_strided(codes, bits, False), STRIDED_WIDTHS),
    "strided_high": (lambda codes, bits: pack_strided(codes, bits, True), STRIDED_WIDTHS),
}


def values() -> dict[str, np.ndarray]:
    tables = {}
    for name, (dtype, count) in FLOATS.items():
        codes = np.arange(count, dtype=np.uint8)
        tables[name] = codes.view(getattr(ml_dtypes, dtype)).astype(np.float32)
    positive = np.array(FP4_TWELFTHS, dtype=np.float32) / np.float32(12)
    tables["Nf4"] = np.array(NF4, dtype=np.float32)
    # Code 8 is +0: the source has a negative zero that is an integer.
    tables["BitsandbytesFp4"] = np.concatenate([positive, 0 - positive])
    return tables


def blocked_offsets(n_rows: int, n_columns: int) -> np.ndarray:
    row, column = np.indices((n_rows, n_columns), dtype=np.uint32)
    tile = row // 128 * np.uint32(-(-n_columns // 4)) + column // 4
    return tile * 512 + row % 32 * 16 + row % 128 // 32 * 4 + column % 4


def golden() -> str:
    lines = []
    for name, (pack, widths) in ORDERS.items():
        for bits in widths:
            codes = some_codes(bits, N_CODES)
            packed = pack(codes, bits).tobytes().hex()
            lines.append(f"order {name} {bits} {codes.tobytes().hex()} {packed}\n")
    for name, table in values().items():
        # There are many NaNs, and one is as good as another.
        patterns = np.where(np.isnan(table), np.uint32(0x7FC00000), table.view(np.uint32))
        lines.append(f"values {name} {' '.join(f'{pattern:x}' for pattern in patterns)}\n")
    for n_rows, n_columns in BLOCKED:
        digest = zlib.crc32(blocked_offsets(n_rows, n_columns).astype("<u4").tobytes())
        lines.append(f"blocked {n_rows} {n_columns} {digest:08x}\n")
    return "".join(lines)


def same(mine: np.ndarray, theirs: np.ndarray, what: str) -> None:
    if mine.tobytes() != np.ascontiguousarray(theirs).tobytes():
        sys.exit(f"{what}: not the same")


def check_compressed_tensors() -> str:
    import compressed_tensors
    import torch

    try:
        from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

        pack_words, kind = pack_lsb_words, "lsb_words"
    except ImportError:
        from compressed_tensors.compressors.quantized_compressors.pack_quantized import (
            pack_to_int32,
        )

        pack_words, kind = pack_padded, "padded"
    for bits in WIDTHS:
        codes = some_codes(bits, N_CODES)
        signed = torch.from_numpy(codes.astype(np.int16) - (1 << (bits - 1))).to(torch.int8)
        same(pack_words(codes, bits), pack_to_int32(signed[None], bits).numpy(), f"{kind}({bits})")
    if kind == "padded":
        return f"compressed-tensors {compressed_tensors.__version__}: padded"
    from compressed_tensors.compressors.mxfp6.helpers import unpack_fp6_from_uint8
    from compressed_tensors.entrypoints.convert.converters import AutoAWQConverter

    codes = some_codes(6, 96)
    packed = torch.from_numpy(pack_lsb(codes, 6))
    found = unpack_fp6_from_uint8(packed, 1, 96, torch.float32).numpy()
    same(values()["E2m3"][codes], found, "E2m3 in lsb(6)")
    codes = some_codes(4, 96)
    words = torch.from_numpy(pack_awq(codes, 4).view(np.int32))[None]
    nibbles, _ = AutoAWQConverter.unpack_awq(words, None, 4)
    nibbles, _ = AutoAWQConverter.reverse_awq_order(nibbles, None, 4)
    same(codes, (nibbles & 15).numpy().astype(np.uint8), "awq")
    return f"compressed-tensors {compressed_tensors.__version__}: lsb_words, lsb(6), awq, E2m3"


def check_gptqmodel() -> str:
    import torch
    from gptqmodel.utils.planar_packing import planar_pack_rows

    for bits in (2, 3, 4, 5, 6, 7, 8):
        codes = some_codes(bits, 96)
        found = planar_pack_rows(torch.from_numpy(codes.astype(np.int32))[:, None], bits)
        same(pack_planar(codes, bits), found.numpy(), f"planar({bits})")
    return "gptqmodel: planar"


def check_hqq() -> str:
    import torch
    from hqq.core.bitpack import BitPack

    packers = {
        1: BitPack.pack_1bit_u8,
        2: BitPack.pack_2bit_u8,
        3: BitPack.pack_3bit_32,
        4: BitPack.pack_4bit_u8,
        8: BitPack.pack_8bit_u8,
    }
    for bits, pack in packers.items():
        codes = some_codes(bits, 96)
        rows = filled(codes, 32 // bits if bits == 3 else 8).reshape(-1, 1)
        found = pack(torch.from_numpy(rows.astype(np.int32))).numpy()
        same(pack_strided(codes, bits, True), found, f"strided({bits}), high first")
    return "hqq: strided, high first"


def check_quanto() -> str:
    import torch
    from optimum.quanto.tensor.packed import pack_weights

    for bits in (2, 4):
        codes = some_codes(bits, N_CODES)
        found = pack_weights(torch.from_numpy(codes), bits).numpy()
        same(pack_strided(codes, bits, False), found, f"strided({bits}), low first")
    return "optimum-quanto: strided, low first"


def check_bitsandbytes() -> str:
    import bitsandbytes
    import torch
    from bitsandbytes.functional import QuantState, dequantize_4bit, get_4bit_type

    for name, kind in {"Nf4": "nf4", "BitsandbytesFp4": "fp4"}.items():
        table = values()[name]
        code = get_4bit_type(kind, device="cpu")
        same(table, code.numpy(), name)
        codes = some_codes(4, 128)
        state = QuantState(
            absmax=torch.ones(2), shape=(128,), code=code, blocksize=64, quant_type=kind,
            dtype=torch.float32,
        )  # fmt: skip
        packed = torch.from_numpy(pack_high_nibble_first(codes, 4))[:, None]
        found = dequantize_4bit(packed, state).numpy()
        same(table[codes], found, f"{name} in high_nibble_first")
    return f"bitsandbytes {bitsandbytes.__version__}: Nf4, BitsandbytesFp4, high_nibble_first"


def check_torchao() -> str:
    import torch
    from torchao.prototype.mx_formats.utils import to_blocked

    for n_rows, n_columns in BLOCKED:
        if n_rows * n_columns == 0:
            continue
        scales = np.arange(1, n_rows * n_columns + 1, dtype=np.int32).reshape(n_rows, n_columns)
        blocked = to_blocked(torch.from_numpy(scales)).numpy().reshape(-1)
        same(scales, blocked[blocked_offsets(n_rows, n_columns)], f"blocked {n_rows} {n_columns}")
    return "torchao: blocked"


def check_torch() -> str:
    import torch

    for name, (dtype, count) in FLOATS.items():
        if count == 256:
            codes = torch.arange(256, dtype=torch.uint8).view(getattr(torch, dtype))
            found, mine = codes.float().numpy(), values()[name]
            same(np.nan_to_num(mine, nan=-7), np.nan_to_num(found, nan=-7), name)
    return f"torch {torch.__version__}: floats of 8 bits"


CHECKS = {
    "torch": check_torch,
    "compressed_tensors": check_compressed_tensors,
    "gptqmodel": check_gptqmodel,
    "hqq": check_hqq,
    "optimum.quanto": check_quanto,
    "bitsandbytes": check_bitsandbytes,
    "torchao": check_torchao,
}


def check_packages() -> None:
    for package, check in CHECKS.items():
        try:
            importlib.import_module(package)
        except ImportError as error:
            print(f"{package}: not compared ({error})")
            continue
        print(check())


def main() -> int:
    if "--packages" in sys.argv[1:]:
        check_packages()
        return 0
    made = golden()
    if "--check" not in sys.argv[1:]:
        GOLDEN.write_text(made)
        return 0
    differing = set(made.splitlines()) ^ set(GOLDEN.read_text().splitlines())
    for line in sorted(differing):
        print(f"differs: {line[:100]}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
