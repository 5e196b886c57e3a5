"""What other programs make of the parts of quantized weights.

`python scheme_golden.py` writes `scheme_golden.txt` with compressed-tensors 0.20, gptqmodel 7.7,
torchao 0.18 and transformers 5.23, or, where compressed-tensors is 0.11, `scheme_golden_011.txt`,
which has what 0.20 no longer reads. `--check` compares what would be written. Each case has the
parts as bytes, and of the weights a checksum of every row, since they are many.
"""

import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.float4_e2m1fn_x2: "F4",
}

Parts = dict[str, torch.Tensor]
Case = tuple[str, Parts, torch.Tensor]


def seeded(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def integers(name: str, low: int, high: int, *shape: int) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=seeded(name))


def scales(name: str, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=seeded(name)) * 0.02 + 0.001


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def shape_of(tensor: torch.Tensor) -> list[int]:
    """Its shape in a file, where an element of PyTorch may be two."""
    shape = list(tensor.shape)
    if tensor.dtype == torch.float4_e2m1fn_x2:
        shape[-1] *= 2
    return shape


def words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes of each row one after another from the least significant bit on, in I32."""
    planes = codes.numpy()[..., None] >> np.arange(bits) & 1
    rows = planes.astype(np.uint8).reshape(len(codes), -1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 32)))
    packed = np.packbits(rows, axis=1, bitorder="little")
    return torch.from_numpy(packed.copy().view(np.int32))


def some_float8(name: str, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Every finite code."""
    codes = integers(name, 0, 256, *shape).to(torch.uint8)
    values = codes.view(dtype).float()
    return torch.where(values.isfinite(), codes, torch.tensor(1, dtype=torch.uint8)).view(dtype)


def fp8_block_cases() -> Iterator[Case]:
    from compressed_tensors.entrypoints.convert.converters import FP8BlockDequantizer

    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        for rows, columns, block in ((50, 70, (32, 16)), (33, 40, (64, 8)), (7, 520, (5, 512))):
            name = f"fp8 block={block[0]},{block[1]}"
            weight = some_float8(name + str(dtype), dtype, rows, columns)
            grid = (-(-rows // block[0]), -(-columns // block[1]))
            powers = integers(name, 115, 130, *grid).to(torch.uint8).view(torch.float8_e8m0fnu)
            for scale, to in ((scales(name, *grid), torch.bfloat16), (powers, torch.float32)):
                reader = FP8BlockDequantizer(weight_block_size=block, dtype=to)
                parts = {"weight": weight, "weight_scale_inv": scale}
                yield name, parts, reader._create_dequantized_weight(weight, scale)


def decompress(form: str, parts: Parts, **weights: object) -> torch.Tensor:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights))
    reader = BaseCompressor.get_value_from_registry(form)
    return reader.decompress(dict(parts), scheme)["weight"]


def float_and_int_cases() -> Iterator[Case]:
    for to in (torch.float32, torch.bfloat16):
        for strategy, shape in (("tensor", (1,)), ("channel", (20, 1))):
            kind = {"num_bits": 8, "strategy": strategy, "symmetric": True}
            scale = scales(strategy, *shape).to(to)
            weight = some_float8(strategy, torch.float8_e4m3fn, 20, 75)
            parts = {"weight": weight, "weight_scale": scale}
            yield "fp8", parts, decompress("float-quantized", parts, type="float", **kind)
            weight = integers(strategy, -128, 128, 20, 75).to(torch.int8)
            parts = {"weight": weight, "weight_scale": scale}
            yield "int8", parts, decompress("int-quantized", parts, type="int", **kind)
            zeros = integers(strategy + "z", -128, 128, *shape).to(torch.int8)
            parts["weight_zero_point"] = zeros
            kind["symmetric"] = False
            yield "int8", parts, decompress("int-quantized", parts, type="int", **kind)


def pack_cases() -> Iterator[Case]:
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    for bits in range(2, 9):
        for group_size, is_symmetric in ((32, False), (None, True)):
            name = f"pack bits={bits} group={group_size or 0} shape=20,96"
            low, high = -(1 << bits >> 1), 1 << bits >> 1
            grid = (20, 96 // group_size if group_size else 1)
            parts = {
                "weight_packed": pack_to_int32(
                    integers(name, low, high, 20, 96).to(torch.int8), bits
                ),
                "weight_scale": scales(name, *grid).to(torch.bfloat16),
                "weight_shape": torch.tensor([20, 96]),
            }
            if not is_symmetric:
                zeros = integers(name + "z", low, high, *grid).to(torch.int8)
                parts["weight_zero_point"] = pack_to_int32(zeros, bits, packed_dim=0).contiguous()
            weight = decompress(
                "pack-quantized", parts, num_bits=bits, type="int", symmetric=is_symmetric,
                strategy="group" if group_size else "channel", group_size=group_size,
            )  # fmt: skip
            yield name, {k: v for k, v in parts.items() if k != "weight_shape"}, weight


def old_pack_cases() -> Iterator[Case]:
    from compressed_tensors.compressors.quantized_compressors.pack_quantized import (
        pack_to_int32,
        unpack_from_int32,
    )
    from compressed_tensors.quantization.lifecycle.forward import dequantize

    for bits in (2, 3, 4, 5, 6, 7, 8):
        for is_symmetric in (True, False):
            for has_index in (False, True):
                name = f"pack bits={bits} group=32 shape=20,96"
                low, high = -(1 << bits >> 1), 1 << bits >> 1
                parts = {
                    "weight_packed": pack_to_int32(
                        integers(name, low, high, 20, 96).to(torch.int8), bits
                    ),
                    "weight_scale": scales(name, 20, 3).to(torch.bfloat16),
                }
                if not is_symmetric:
                    zeros = integers(name + "z", low, high, 20, 3).to(torch.int8)
                    parts["weight_zero_point"] = pack_to_int32(
                        zeros, bits, packed_dim=0
                    ).contiguous()
                if has_index:
                    order = torch.randperm(96, generator=seeded(name))
                    parts["weight_g_idx"] = (torch.arange(96) // 32)[order].to(torch.int32)
                # Its own `decompress_weight` refuses zeros, and calls these.
                codes = unpack_from_int32(parts["weight_packed"], bits, torch.Size((20, 96)))
                if not is_symmetric:
                    zeros = unpack_from_int32(
                        parts["weight_zero_point"], bits, torch.Size((20, 3)), packed_dim=0
                    )
                weight = dequantize(
                    codes, parts["weight_scale"], None if is_symmetric else zeros,
                    g_idx=parts.get("weight_g_idx"),
                )  # fmt: skip
                yield name, parts, weight


def sparse_cases() -> Iterator[Case]:
    """Weights of which most are zero, and those of which two of each four are."""
    from compressed_tensors.compressors.sparse_compressors.sparse_24_bitmask import (
        Sparse24BitMaskTensor,
    )
    from compressed_tensors.compressors.sparse_compressors.sparse_bitmask import BitmaskTensor

    for dtype in (torch.bfloat16, torch.float32, torch.float8_e4m3fn):
        weight = scales("sparse", 12, 44) - 0.01
        weight = torch.where(integers("sparse", 0, 4, 12, 44) == 0, weight, 0.0)
        weight[3] = 0.0
        for reader in (BitmaskTensor, Sparse24BitMaskTensor):
            packed = reader.from_dense(weight.to(dtype))
            parts = {
                part: getattr(packed, part)
                for part in ("compressed", "bitmask", "row_offsets")
                if hasattr(packed, part)
            }
            yield "sparse shape=12,44", parts, packed.decompress()


def awq_cases() -> Iterator[Case]:
    from compressed_tensors.entrypoints.convert.converters import AutoAWQConverter

    reader = AutoAWQConverter(group_size=32)
    parts = {
        "qweight": integers("awq", -(1 << 31), 1 << 31, 96, 3).to(torch.int32),
        "qzeros": integers("awqz", -(1 << 31), 1 << 31, 3, 3).to(torch.int32),
        "scales": scales("awq", 3, 24).half(),
    }
    made = reader.process({f"a.{name}": part for name, part in parts.items()})
    made = {name.removeprefix("a."): part for name, part in made.items()}
    weight = decompress(
        "pack-quantized", made, num_bits=4, type="int", symmetric=False, strategy="group",
        group_size=32,
    )  # fmt: skip
    yield "awq group=32", parts, weight


def gptq_cases() -> Iterator[Case]:
    from gptqmodel.utils.model_dequant import convert_gptq_file, pack_cols
    from gptqmodel.utils.planar_packing import planar_pack_rows
    from safetensors.torch import save_file

    v1 = [(bits, *kind) for bits in (2, 3, 4, 8) for kind in ((32, "V1", True), (0, "V1", False))]
    for bits, group_size, form, is_ordered in (
        *v1, (3, 32, "V2", False), (4, 32, "V2", True),
        *((bits, 32, "Planar", True) for bits in (3, 5, 6, 7)),
    ):  # fmt: skip
        name = f"gptq bits={bits} group={group_size} format={form}"
        n_groups = 96 // (group_size or 96)
        index = torch.arange(96) // (group_size or 96)
        if is_ordered:
            index = index[torch.randperm(96, generator=seeded(name))]
        codes = integers(name, 0, 1 << bits, 96, 64).to(torch.int32)
        zeros = integers(name + "z", 0, 1 << bits, n_groups, 64).to(torch.int32)
        if form == "Planar":
            packed = planar_pack_rows(codes, bits)
            packed_zeros = pack_cols(zeros, bits, pack_dtype=torch.int32, planar=True)
        else:
            packed, packed_zeros = words(codes.T, bits).T.contiguous(), words(zeros, bits)
        parts = {
            "qweight": packed,
            "qzeros": packed_zeros,
            "scales": scales(name, n_groups, 64).half(),
            "g_idx": index.to(torch.int32),
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            save_file({f"a.{part}": tensor for part, tensor in parts.items()}, path)
            kind = {"V1": "gptq", "V2": "gptq_v2", "Planar": "gptq_p"}[form]
            config = {"bits": bits, "checkpoint_format": kind, "group_size": group_size or -1}
            made = convert_gptq_file(path, torch.float32, config, "cpu")
        yield name, parts, made["a.weight"]


def mx_cases() -> Iterator[Case]:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    scale = integers("mx", 100, 140, 20, 3).to(torch.uint8)
    kind = {"type": "float", "strategy": "group", "group_size": 32, "symmetric": True}
    packed = integers("mx", 0, 256, 20, 48).to(torch.uint8)
    parts = {"weight_packed": packed, "weight_scale": scale}
    yield (
        "mx float=E2m1 names=CompressedTensors",
        parts,
        decompress("mxfp4-pack-quantized", parts, num_bits=4, scale_dtype=torch.uint8, **kind),
    )
    parts = {
        "weight_packed": integers("mx6", 0, 256, 20, 72).to(torch.uint8),
        "weight_scale": scale,
    }
    yield (
        "mx float=E2m3 names=CompressedTensors",
        parts,
        decompress("mxfp6-pack-quantized", parts, num_bits=6, scale_dtype=torch.uint8, **kind),
    )
    parts = {"weight": some_float8("mx8", torch.float8_e4m3fn, 20, 96), "weight_scale": scale}
    yield (
        "fp8 block=1,32",
        parts,
        decompress("mxfp8-quantized", parts, num_bits=8, scale_dtype=torch.uint8, **kind),
    )
    parts = {
        "_blocks": integers("oss", 0, 256, 3, 20, 3, 16).to(torch.uint8),
        "_scales": integers("oss", 100, 140, 3, 20, 3).to(torch.uint8),
    }
    for dtype in (torch.float32, torch.bfloat16):
        weight = convert_moe_packed_tensors(parts["_blocks"], parts["_scales"], dtype=dtype)
        yield "mx float=E2m1 names=GptOss", parts, weight.transpose(1, 2)


def nvfp4_cases() -> Iterator[Case]:
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor
    from torchao.prototype.mx_formats.utils import to_blocked

    packed = integers("nv", 0, 256, 20, 40).to(torch.uint8)
    scale = (scales("nv", 20, 5) * 10000).to(torch.float8_e4m3fn)
    parts = {"weight": packed, "weight_scale": scale, "weight_scale_2": torch.tensor(0.00137)}
    weight = NVFP4Tensor(
        packed, scale, 16, torch.float32, per_tensor_scale=parts["weight_scale_2"]
    ).dequantize(torch.float32)
    yield "nvfp4 names=Modelopt", parts, weight
    tiles = to_blocked(scale.view(torch.uint8)).view(torch.float8_e4m3fn).reshape(128, 8)
    swapped = packed >> 4 | packed << 4
    yield "nvfp4 names=ComfyUi", {**parts, "weight": swapped, "weight_scale": tiles}, weight
    parts = {
        "weight_packed": packed,
        "weight_scale": scale,
        "weight_global_scale": torch.tensor([777.7]),
    }
    yield "nvfp4 names=CompressedTensors", parts, decompress(
        "nvfp4-pack-quantized", parts, num_bits=4, type="float", strategy="tensor_group",
        group_size=16, symmetric=True,
    )  # fmt: skip


def lines(case: Case) -> Iterator[str]:
    name, parts, weight = case
    yield f"case {name}"
    for part, tensor in parts.items():
        shape = ",".join(map(str, shape_of(tensor))) or "-"
        yield f"part {part} {DTYPES[tensor.dtype]} {shape} {bytes_of(tensor).hex()}"
    rows = weight.reshape(-1, weight.shape[-1])
    sums = " ".join(f"{zlib.crc32(bytes_of(row)):08x}" for row in rows)
    yield f"weight {DTYPES[weight.dtype]} {','.join(map(str, weight.shape))} {sums}"


NEW = [
    fp8_block_cases, float_and_int_cases, pack_cases, awq_cases, gptq_cases, mx_cases, nvfp4_cases,
]  # fmt: skip


def check_or_write(golden: Path, makers: list[Callable[[], Iterator[Case]]]) -> int:
    """Writes what the makers make, or with `--check` prints in what the file differs from it."""
    made = [line for maker in makers for case in maker() for line in lines(case)]
    if "--check" not in sys.argv[1:]:
        golden.write_text("\n".join(made) + "\n")
        return 0
    differing = set(made) ^ set(golden.read_text().splitlines())
    for line in sorted(differing):
        print(f"differs: {line[:100]}")
    print(f"{golden.name}: {len(made)} lines, {len(differing)} differ")
    return 1 if differing else 0


def main() -> int:
    is_old = version("compressed_tensors").startswith("0.11.")
    golden = "scheme_golden_011.txt" if is_old else "scheme_golden.txt"
    return check_or_write(
        Path(__file__).with_name(golden), [old_pack_cases, sparse_cases] if is_old else NEW
    )


if __name__ == "__main__":
    sys.exit(main())
