"""Computes the golden weights with NumPy and ml_dtypes alone, and nothing of ours.

`python scheme_check.py` reads the parts of every case of `scheme_golden*.txt`, makes the weight of
them in the plainest way, and compares the checksums of its rows.
"""

import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

Array = np.ndarray
Fields = dict[str, str]
Parts = dict[str, Array]

DTYPES = {
    "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I64": np.int64,
    "I32": np.uint32, "U32": np.uint32, "I16": np.uint16, "I8": np.int8, "U8": np.uint8,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz, "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu, "F4": np.uint8,
}  # fmt: skip
MINIFLOATS = {
    "E2m1": (4, ml_dtypes.float4_e2m1fn),
    "E2m3": (6, ml_dtypes.float6_e2m3fn),
    "E4m3": (8, ml_dtypes.float8_e4m3fn),
}


def single(array: Array) -> Array:
    """Numbers as F32; bytes are powers of two."""
    if array.dtype in (np.uint8, ml_dtypes.float8_e8m0fnu):
        return np.ldexp(np.float32(1), array.view(np.uint8).astype(int) - 127)
    return array.astype(np.float32)


def bits(array: Array, width: int, n_codes: int, word: int = 0) -> Array:
    """Codes of each row from the lowest bit on; with `word`, as many as go into so many bits."""
    rows = np.ascontiguousarray(array).view(np.uint8).reshape(array.shape[0], -1)
    planes = np.unpackbits(rows, axis=1, bitorder="little")
    if word:
        planes = planes.reshape(len(rows), -1, word)[:, :, : word // width * width]
    planes = planes.reshape(len(rows), -1)
    planes = planes[:, : planes.shape[1] // width * width].reshape(len(rows), -1, width)
    return (planes @ (1 << np.arange(width)))[:, :n_codes]


def planes(array: Array, width: int, n_codes: int) -> Array:
    """Codes of each row in planes of 4, 2 and 1 bits, 32 at a time."""
    words = array.reshape(len(array), -1, width)
    codes, place = 0, 0
    for plane in (size for size in (8, 4, 2, 1) if width & size):
        part = np.ascontiguousarray(words[:, :, place : place + plane])
        found = bits(part.reshape(-1, plane), plane, 32).reshape(len(array), -1)
        codes, place = codes + (found << place), place + plane
    return codes[:, :n_codes]


def strided(array: Array, width: int, is_high_first: bool) -> Array:
    """Codes of which every element has one of each part; the parts follow one another."""
    n_parts = 8 * array.dtype.itemsize // width
    order = range(n_parts)[::-1] if is_high_first else range(n_parts)
    return np.concatenate([array >> (part * width) & ((1 << width) - 1) for part in order])


def spread(array: Array, shape: tuple[int, ...], block: tuple[int, int]) -> Array:
    """A number for each element of a matrix, or of several, whose blocks have one each."""
    array = array.repeat(block[0], -2).repeat(block[1], -1)
    return array[..., : shape[-2], : shape[-1]]


def columns(array: Array, size: int) -> Array:
    return array.repeat(size, -1)


def untile(array: Array, n_rows: int, n_columns: int) -> Array:
    """Scales out of the tiles of cuBLAS."""
    tiles = array.reshape(-(-n_rows // 128), -(-n_columns // 4), 32, 4, 4)
    rows = tiles.transpose(0, 3, 2, 1, 4).reshape(-(-n_rows // 128) * 128, -1)
    return rows[:n_rows, :n_columns]


def first(parts: Parts, *names: str) -> Array:
    return next(parts[name] for name in names if name in parts)


def fp8(parts: Parts, fields: Fields) -> Array:
    weight = first(parts, "weight", "qdata", "weight._data", "").astype(np.float32)
    scale = single(next(part for name, part in parts.items() if "scale" in name))
    if "block" not in fields:
        return weight * (scale.reshape(-1, 1) if scale.size > 1 else scale.reshape(1))
    block = [int(size) for size in fields["block"].split(",")]
    grid = [-(-size // step) for size, step in zip(weight.shape[-2:], block, strict=True)]
    scale = scale.reshape(*weight.shape[:-2], *grid)
    return weight * spread(scale, weight.shape, block)


def int8(parts: Parts, fields: Fields) -> Array:
    weight = first(parts, "weight", "qdata", "weight._data").astype(np.float32)
    scale = single(first(parts, "weight_scale", "scale", "weight._scale"))
    zero = parts.get("weight_zero_point", parts.get("zero_point", np.zeros_like(scale)))
    size = int(fields.get("group", 0)) or weight.shape[1]
    scale, zero = (array.reshape(-1, array.shape[-1]) for array in (scale, zero.astype(np.float32)))
    return (weight - columns(zero, size)) * columns(scale, size)


def pack(parts: Parts, fields: Fields) -> Array:
    width, size = int(fields["bits"]), int(fields["group"])
    rows, n_columns = (int(number) for number in fields["shape"].split(","))
    words = parts["weight_packed"]
    word = 32 if words.shape[1] == -(-n_columns // (32 // width)) else 0
    codes = bits(words, width, n_columns, word).astype(np.float32)
    scale = single(parts["weight_scale"])
    zero = np.full_like(scale, 1 << width >> 1)
    if "weight_zero_point" in parts:
        zero = bits(parts["weight_zero_point"].T, width, rows, word).T.astype(np.float32)
    group = parts.get("weight_g_idx", np.arange(n_columns) // (size or n_columns)).astype(int)
    return (codes - zero[:, group]) * scale[:, group]


def gptq(parts: Parts, fields: Fields) -> Array:
    width = int(fields["bits"])
    n_columns, rows = len(parts["g_idx"]), parts["qweight"].shape[1]
    read = planes if fields["format"] == "Planar" else bits
    codes = read(np.ascontiguousarray(parts["qweight"].T), width, n_columns).astype(np.float32)
    zero = read(parts["qzeros"], width, rows).astype(int)
    zero = (zero + (fields["format"] == "V1")) % (1 << width)
    group = parts["g_idx"].astype(int)
    return (codes - zero.T[:, group].astype(np.float32)) * single(parts["scales"]).T[:, group]


def awq(parts: Parts, fields: Fields) -> Array:
    def read(words: Array) -> Array:
        nibbles = bits(words, 4, words.shape[1] * 8).reshape(len(words), -1, 8)
        return nibbles[:, :, [0, 4, 1, 5, 2, 6, 3, 7]].reshape(len(words), -1).astype(np.float32)

    size = int(fields["group"])
    zero, scale = (columns(part.T, size) for part in (read(parts["qzeros"]), parts["scales"]))
    return (read(parts["qweight"]).T - zero) * single(scale)


def awqgemv(parts: Parts, fields: Fields) -> Array:
    size, n_columns = int(fields["group"]), parts["qweight"].shape[1] * 8
    codes = bits(parts["qweight"], 4, n_columns).astype(np.float32)
    zero = columns(bits(parts["qzeros"], 4, parts["scales"].shape[1]), size)[:, :n_columns]
    return (codes - zero.astype(np.float32)) * columns(single(parts["scales"]), size)[:, :n_columns]


def awqfast(parts: Parts, fields: Fields) -> Array:
    lines, n_columns = parts["qweight"].shape
    nibbles = bits(parts["qweight"], 4, n_columns * 4)
    nibbles = nibbles.reshape(lines, n_columns // 64, 4, 2, 4, 2, 4)
    # Of a line: 64 columns at a time, the row, 32 columns, the pair, which of the pair, the octet.
    codes = nibbles.transpose(0, 2, 1, 3, 6, 4, 5).reshape(lines * 4, n_columns)
    scale, bias = (
        columns(single(parts[name]).T, int(fields["group"]))[:, :n_columns]
        for name in ("scales", "qzeros")
    )
    return codes.astype(np.float32) * scale + bias


def w4a16awq(parts: Parts, fields: Fields) -> Array:
    pairs = parts["weight"]
    codes = np.stack((pairs & 15, pairs >> 4), 1).reshape(-1, pairs.shape[1]).astype(np.float32)
    codes -= 16 * (codes > 7)
    return codes * columns(single(parts["weight_scale"]), int(fields["group"]))


def mx(parts: Parts, fields: Fields) -> Array:
    width, kind = MINIFLOATS[fields["float"]]
    scale = first(parts, "weight_scale", "scale", "_scales")
    codes = first(parts, "weight_packed", "weight", "_blocks", "qdata").view(np.uint8)
    rows = codes.reshape(scale.shape[0] * scale.shape[1] if codes.ndim == 4 else len(codes), -1)
    rows = bits(rows, width, rows.shape[1] * 8 // width).astype(np.uint8).view(kind)
    if fields.get("scales") == "Tiles":
        scale = untile(scale.view(np.uint8), len(rows), -(-rows.shape[1] // 32))
    weight = rows.astype(np.float32) * columns(single(scale).reshape(len(rows), -1), 32)
    return weight.reshape(*scale.shape[:-1], -1)


def nvfp4(parts: Parts, fields: Fields) -> Array:
    codes = first(parts, "weight_packed", "weight", "qdata")
    if fields["names"] == "ComfyUi":
        codes = codes >> 4 | codes << 4
    rows = bits(codes, 4, codes.shape[1] * 2).astype(np.uint8).view(ml_dtypes.float4_e2m1fn)
    scale = first(parts, "weight_scale", "scale")
    if fields["names"] in ("ComfyUi", "TorchaoTiles"):
        scale = untile(scale.view(np.uint8), len(rows), rows.shape[1] // 16)
        scale = np.ascontiguousarray(scale).view(ml_dtypes.float8_e4m3fn)
    scale = scale.astype(np.float32)
    for name in ("weight_scale_2", "per_tensor_scale"):
        scale = scale * parts.get(name, np.float32(1)).reshape(1)
    scale = scale / parts.get("weight_global_scale", np.ones(1, np.float32))
    return rows.astype(np.float32) * columns(scale, 16)


def bnb4(parts: Parts, fields: Fields) -> Array:
    # GPTQModel's names have no second dot.
    parts = {name.replace("weight_", "weight."): part for name, part in parts.items()}
    packed = parts["weight"].view(np.uint8).reshape(-1)
    shape = [int(size) for size in fields["shape"].split(",")]
    codes = np.stack((packed >> 4, packed & 15), 1).reshape(-1)[: np.prod(shape)]
    absmax = parts["weight.absmax"]
    if "nested" in fields:
        scale = parts["weight.nested_absmax"].repeat(int(fields["nested"]))[: len(absmax)]
        absmax = parts["weight.nested_quant_map"][absmax] * scale + np.float32(fields["offset"])
    flat = parts["weight.quant_map"][codes] * absmax.repeat(int(fields["block"]))[: len(codes)]
    # A zero of either sign is 0 there.
    return (flat + np.float32(0)).reshape(shape)


def bnb8(parts: Parts, _: Fields) -> Array:
    product = parts["weight"].astype(np.float32) * parts["SCB"][:, None]
    return product * np.float32(7.874015718698502e-3)


def mlx(parts: Parts, fields: Fields) -> Array:
    width, size = int(fields["bits"]), int(fields["group"])
    words, scale = parts["weight"], parts["scales"]
    n_columns = scale.shape[-1] * size
    codes = bits(words.reshape(-1, words.shape[-1]), width, n_columns)
    codes = codes.reshape(*scale.shape[:-1], n_columns)
    if fields["mode"] == "affine":
        product = codes.astype(np.float32) * columns(single(scale), size)
        return product + columns(single(parts["biases"]), size)
    kind = MINIFLOATS["E4m3" if width == 8 else "E2m1"][1]
    if fields["mode"] == "nvfp4":
        scale = scale.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    return codes.astype(np.uint8).view(kind).astype(np.float32) * columns(single(scale), size)


def hqq(parts: Parts, fields: Fields) -> Array:
    width, size = int(fields["bits"]), int(fields["group"])
    shape = [int(number) for number in fields["shape"].split(",")]
    codes = parts["W_q"] if width == 8 else strided(parts["W_q"], width, is_high_first=True)
    if width == 3:
        codes = codes[: size if fields["axis"] == "0" else np.prod(shape) // size]
    product = (codes.astype(np.float32) - single(parts["zero"])) * single(parts["scale"])
    return product.reshape(shape)


def quanto(parts: Parts, fields: Fields) -> Array:
    codes = strided(parts["weight._data._data"], int(fields["bits"]), is_high_first=False)
    scale = single(parts["weight._scale"])
    product = scale * codes[: len(scale)].astype(np.float32)
    shape = [int(number) for number in fields["shape"].split(",")]
    return (product - single(parts["weight._shift"])).reshape(shape)


def bitnet(parts: Parts, fields: Fields) -> Array:
    codes = strided(parts["weight"], 2, is_high_first=False).astype(np.float32) - 1
    scale = parts["weight_scale"]
    return codes * scale if fields["scale"] == "Multiplies" else codes / scale


def sparse(parts: Parts, fields: Fields) -> Array:
    shape = [int(number) for number in fields["shape"].split(",")]
    mask = np.unpackbits(parts["bitmask"], axis=1, bitorder="little")[:, : shape[1]].astype(bool)
    weight = np.zeros(shape, parts["compressed"].dtype)
    weight[mask] = parts["compressed"].reshape(-1)
    return weight


KINDS: dict[str, Callable[[Parts, Fields], Array]] = {
    kind.__name__: kind
    for kind in (
        fp8, int8, pack, gptq, awq, awqgemv, awqfast, w4a16awq, mx, nvfp4, bnb4, bnb8, mlx, hqq,
        quanto, bitnet, sparse,
    )
}  # fmt: skip


def part(dtype: str, shape: str, data: str) -> Array:
    sizes = [int(size) for size in shape.split(",") if size != "-"]
    if dtype == "F4":
        sizes[-1] //= 2
    return np.frombuffer(bytes.fromhex(data), DTYPES[dtype]).reshape(sizes)


def is_right(name: str, parts: Parts, dtype: str, sums: list[str]) -> bool:
    kind, *fields = name.split(" ")
    weight = KINDS[kind](parts, dict(field.split("=") for field in fields))
    rows = np.ascontiguousarray(weight.astype(DTYPES[dtype])).reshape(len(sums), -1)
    return [f"{zlib.crc32(row.tobytes()):08x}" for row in rows] == sums


def main() -> int:
    n_cases, wrong = 0, []
    name, parts = "", {}
    for path in sorted(Path(__file__).parent.glob("scheme_golden*.txt")):
        for line in path.read_text().splitlines():
            word, _, rest = line.partition(" ")
            if word == "case":
                name, parts = rest, {}
            elif word == "part":
                part_name, *described = rest.split(" ")
                parts[part_name] = part(*described)
            else:
                dtype, _, *sums = rest.split(" ")
                n_cases += 1
                if not is_right(name, parts, dtype, sums):
                    wrong.append(f"{path.name}: {name} as {dtype}")
    print("\n".join([*wrong, f"{n_cases} weights, {len(wrong)} differ"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
