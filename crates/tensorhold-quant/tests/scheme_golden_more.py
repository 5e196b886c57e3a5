"""What other programs make of the parts of weights that they quantized themselves.

`python scheme_golden_more.py` writes `scheme_golden_more.txt` with bitsandbytes 0.50, gptqmodel
7.7, hqq 0.2.8, optimum-quanto 0.2.7, MLX 0.32, torchao 0.18, autoawq 0.2.9, modelopt 0.47,
comfy-kitchen 0.2.40, compressed-tensors 0.20 and transformers 5.23.
`--check` compares what would be written. The form is that of `scheme_golden.py`, beside which this
lies.
"""

import ast
import importlib.util
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from scheme_golden import Case, Parts, check_or_write, integers, scales, seeded, some_float8

GOLDEN = Path(__file__).with_name("scheme_golden_more.txt")


def some_weights(name: str, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(name))


def bitsandbytes_4bit_cases() -> Iterator[Case]:
    from bitsandbytes.functional import QuantState, dequantize_4bit, quantize_4bit

    for kind, shape, block, is_nested, dtype in (
        ("nf4", (20, 128), 64, False, torch.float32),
        ("nf4", (20, 128), 64, False, torch.bfloat16),
        ("fp4", (20, 128), 64, False, torch.float32),
        # Blocks that cross rows, and the last of which is not full.
        ("nf4", (21, 70), 64, False, torch.float32),
        ("nf4", (7, 9), 64, False, torch.float32),
        ("fp4", (11, 100), 128, False, torch.bfloat16),
        ("nf4", (36, 512), 64, True, torch.float32),
        ("nf4", (36, 512), 64, True, torch.bfloat16),
        ("nf4", (301, 70), 64, True, torch.float32),
    ):
        name = f"{kind} {shape} {block}"
        packed, state = quantize_4bit(
            some_weights(name, *shape).to(dtype), blocksize=block, quant_type=kind,
            compress_statistics=is_nested,
        )  # fmt: skip
        stored = state.as_dict(packed=True)
        state = QuantState.from_dict(dict(stored), device=torch.device("cpu"))
        parts = {"weight": packed}
        parts |= {f"weight.{part}": stored[part] for part in stored if "quant_state" not in part}
        case = f"bnb4 table={kind} shape={shape[0]},{shape[1]} block={block}"
        if is_nested:
            case += f" nested={state.state2.blocksize} offset={float(state.offset)!r}"
        # Its kernel has -0 for code 8 of FP4, for which its own table has 0.
        made = dequantize_4bit(packed, state) + 0.0
        yield case, parts, made
        if is_nested and shape[1] == 512:
            # The same bytes in elements of another type.
            floats = parts | {"weight": packed.reshape(-1).view(torch.bfloat16).reshape(-1, 1)}
            yield case, floats, made


def gptqmodel_cases() -> Iterator[Case]:
    """Weights of bitsandbytes, by the names that GPTQModel saves them under."""
    from bitsandbytes.functional import QuantState, dequantize_4bit, quantize_4bit

    rename = function_of(
        "gptqmodel/nn_modules/qlinear/bitsandbytes.py", "_packed_state_key_to_buffer_name"
    )
    for kind, shape, is_nested in (("fp4", (20, 128), False), ("nf4", (36, 512), True)):
        packed, state = quantize_4bit(
            some_weights(f"gptqmodel {kind}", *shape), blocksize=64, quant_type=kind,
            compress_statistics=is_nested,
        )  # fmt: skip
        stored = state.as_dict(packed=True)
        state = QuantState.from_dict(dict(stored), device=torch.device("cpu"))
        named = {rename(part): tensor for part, tensor in stored.items()}
        del named["weight_quant_state"]
        case = f"bnb4 table={kind} shape={shape[0]},{shape[1]} block=64"
        if is_nested:
            case += f" nested={state.state2.blocksize} offset={float(state.offset)!r}"
        yield case, {"weight": packed} | named, dequantize_4bit(packed, state) + 0.0


def function_of(file: str, name: str) -> Callable[..., Any]:
    """A function of a module that cannot be imported for what it imports itself."""
    path = next(path for folder in sys.path if (path := Path(folder) / file).is_file())
    body = ast.parse(path.read_text()).body
    body = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == name]
    names: dict[str, Any] = {}
    exec(compile(ast.Module(body, []), str(path), "exec"), names)
    return names[name]


def bitsandbytes_8bit_cases() -> Iterator[Case]:
    from bitsandbytes.functional import int8_vectorwise_dequant

    parts = {
        "weight": integers("scb", -127, 128, 20, 75).to(torch.int8),
        "SCB": scales("scb", 20) * 100,
    }
    yield "bnb8", parts, int8_vectorwise_dequant(parts["weight"], parts["SCB"])


def mlx_cases() -> Iterator[Case]:
    import mlx.core as mx

    def tensor(array: "mx.array") -> torch.Tensor:
        if array.dtype == mx.bfloat16:
            return torch.from_numpy(np.array(array.view(mx.uint16))).view(torch.bfloat16)
        return torch.from_numpy(np.array(array))

    for bits in (2, 3, 4, 5, 6, 8):
        for group in (32, 64, 128):
            name = f"mlx mode=affine bits={bits} group={group}"
            weight = mx.array(some_weights(name, 10, 128).numpy()).astype(mx.bfloat16)
            codes, scale, bias = mx.quantize(weight, group_size=group, bits=bits)
            parts = {"weight": tensor(codes), "scales": tensor(scale), "biases": tensor(bias)}
            # In the type of the scales it rounds twice. Of these scales a product is exact in F32.
            exact = (scale.astype(mx.float32), bias.astype(mx.float32))
            made = mx.dequantize(codes, *exact, group_size=group, bits=bits)
            yield name, parts, tensor(made)
    experts = mx.array(some_weights("mlx experts", 3, 10, 64).numpy()).astype(mx.bfloat16)
    codes, scale, bias = mx.quantize(experts, group_size=64, bits=4)
    parts = {"weight": tensor(codes), "scales": tensor(scale), "biases": tensor(bias)}
    exact = (scale.astype(mx.float32), bias.astype(mx.float32))
    made = mx.dequantize(codes, *exact, group_size=64, bits=4)
    yield "mlx mode=affine bits=4 group=64", parts, tensor(made)
    for mode, bits, group in (("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)):
        weight = mx.array(some_weights(mode, 20, 96).numpy())
        codes, scale = mx.quantize(weight, group_size=group, bits=bits, mode=mode)
        made = mx.dequantize(codes, scale, group_size=group, bits=bits, mode=mode)
        parts = {"weight": tensor(codes), "scales": tensor(scale)}
        yield f"mlx mode={mode} bits={bits} group={group}", parts, tensor(made)


def hqq_cases() -> Iterator[Case]:
    from hqq.core.quantize import Quantizer

    for bits in (8, 4, 3, 2, 1):
        for axis in (0, 1):
            # The last has groups that cross rows.
            for shape, group in (((16, 128), 64), ((16, 128), None), ((32, 80), 64)):
                if bits == 3 and group is None:
                    continue  # It does not drop what fills up the last words, and fails.
                name = f"hqq bits={bits} axis={axis} group={group or 0} shape={shape[0]},{shape[1]}"
                yield hqq_case(Quantizer, name, shape, bits, axis, group)


def hqq_case(
    quantizer: type, name: str, shape: tuple[int, ...], bits: int, axis: int, group: int | None
) -> Case:
    codes, meta = quantizer.quantize(
        some_weights(name, *shape), nbits=bits, axis=axis, group_size=group, optimize=False,
        compute_dtype=torch.float32, device="cpu", bitpack=True,
    )  # fmt: skip
    made = quantizer.dequantize(codes, meta)
    return name, {"W_q": codes, "scale": meta["scale"], "zero": meta["zero"]}, made


def quanto_cases() -> Iterator[Case]:
    # Its own code in Python, where the other would be compiled first.
    name = "optimum.quanto.library.extensions.cpp"
    sys.modules[name] = ModuleType(name)
    from optimum.quanto import QLinear, freeze, qfloat8_e4m3fn, qint2, qint4, qint8

    kinds = {"qint2": qint2, "qint4": qint4, "qint8": qint8, "qfloat8": qfloat8_e4m3fn}
    for kind, qtype in kinds.items():
        for shape in ((16, 128), (10, 160)):
            linear = torch.nn.Linear(shape[1], shape[0], bias=False)
            linear.weight.data = some_weights(kind, *shape)
            module = QLinear.from_module(linear, weights=qtype)
            freeze(module)
            parts = {k: v for k, v in module.state_dict().items() if k.startswith("weight.")}
            case = {"qint8": "int8", "qfloat8": "fp8"}.get(
                kind, f"quanto bits={kind[-1]} shape={shape[0]},{shape[1]}"
            )
            yield case, parts, module.weight.dequantize()


def bitnet_cases() -> Iterator[Case]:
    from transformers.integrations.bitnet import pack_weights, unpack_weights

    codes = integers("bitnet", -1, 2, 20, 30)
    parts = {"weight": pack_weights(codes), "weight_scale": torch.tensor([0.0137])}
    unpacked = unpack_weights(parts["weight"], torch.float32)
    yield "bitnet scale=Multiplies", parts, unpacked * parts["weight_scale"]
    yield "bitnet scale=Divides", parts, unpacked / parts["weight_scale"]


def awq_module(name: str) -> ModuleType:
    """One file of autoawq, since the package as a whole needs much that this does not."""
    helper = ModuleType("awq.utils.module")
    helper.try_import = lambda _: (None, "")  # type: ignore[attr-defined]
    sys.modules["awq.utils.module"] = helper
    path = distribution("autoawq").locate_file(f"awq/modules/linear/{name}.py")
    spec = importlib.util.spec_from_file_location(name, str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def awq_gemv_cases() -> Iterator[Case]:
    WQLinear_GEMV = awq_module("gemv").WQLinear_GEMV
    for group in (32, 64, 128):
        codes = integers(f"gemv {group}", 0, 16, 24, 384)
        zeros = integers(f"gemvz {group}", 0, 16, 24, 384 // group)
        scale = scales(f"gemv {group}", 24, 384 // group).half()
        spread = [part.repeat_interleave(group, 1) for part in (zeros, scale)]
        linear = torch.nn.Linear(384, 24, bias=False)
        linear.weight.data = ((codes - spread[0]) * spread[1].float()).half()
        made = WQLinear_GEMV.from_linear(linear, 4, group, False, scale, zeros)
        parts = {part: getattr(made, part) for part in ("qweight", "qzeros", "scales")}
        yield f"awqgemv group={group}", parts, (codes - spread[0]) * spread[1].float()


def awq_fast_cases() -> Iterator[Case]:
    pack_intweight = awq_module("gemv_fast").pack_intweight
    for group, n_there in ((64, 8), (128, 8)):
        codes = integers(f"fast {group}", 0, 16, 24, 384)
        zeros = integers(f"fastz {group}", 0, 16, 24, 384 // group)
        # Scales of which the product with a zero is exact in F16, as is the sum in F32.
        scale = integers(f"fasts {group}", 1, 64, 24, 384 // group) / 4096
        spread = [part.repeat_interleave(group, 1) for part in (zeros, scale)]
        fill = (0, 0, 0, n_there - 384 // group)
        parts = {
            "qweight": pack_intweight(codes.int(), interleave=4, kstride=64),
            "scales": torch.nn.functional.pad(scale.T, fill).half(),
            "qzeros": torch.nn.functional.pad(-(scale * zeros).T, fill).half(),
        }
        yield f"awqfast group={group}", parts, (codes - spread[0]) * spread[1]


def modelopt_cases() -> Iterator[Case]:
    from modelopt.torch.export.quant_utils import pack_int4_in_uint8

    codes = integers("w4a16", -8, 8, 20, 96)
    scale = scales("w4a16", 20, 3)
    weight = codes * scale.repeat_interleave(32, 1)
    parts = {"weight": pack_int4_in_uint8(weight, scale, 32), "weight_scale": scale}
    yield "w4a16awq group=32", parts, weight


def modelopt_float_cases() -> Iterator[Case]:
    from modelopt.torch.quantization.qtensor import (
        FP8QTensor,
        MXFP4QTensor,
        MXFP8QTensor,
        NVFP4QTensor,
    )

    weight = some_weights("modelopt", 20, 96)
    tensor, scale, second = NVFP4QTensor.quantize(weight, 16)
    made = tensor.dequantize(scale=scale, double_scale=second, block_sizes={-1: 16})
    # Its table has 0 for code 8, which is -0.
    packed = tensor._quantized_data
    codes = torch.stack((packed & 15, packed >> 4), -1).reshape(20, 96)
    made = torch.where(codes == 8, -0.0, made)
    parts = {"weight": tensor._quantized_data, "weight_scale": scale, "weight_scale_2": second}
    yield "nvfp4 names=Modelopt", parts, made
    tensor, scale = MXFP4QTensor.quantize(weight, 32)
    made = tensor.dequantize(scale=scale, block_sizes={-1: 32})
    parts = {"weight": tensor._quantized_data, "weight_scale": scale.reshape(20, 3)}
    yield "mx float=E2m1 names=Modelopt", parts, made
    # The same codes in elements of their own type.
    floats = parts | {"weight": parts["weight"].view(torch.float4_e2m1fn_x2)}
    yield "mx float=E2m1 names=Modelopt", floats, made
    tensor, scale = MXFP8QTensor.quantize(weight)
    parts = {"weight": tensor._quantized_data, "weight_scale": scale}
    yield "fp8 block=1,32", parts, tensor.dequantize(scale=scale)
    blocks = {-2: 16, -1: 32}
    tensor, scale = FP8QTensor.quantize(weight, block_sizes=blocks)
    # The shape that FP8_PB_WO has, and the last block of which is not full.
    parts = {"weight": tensor._quantized_data, "weight_scale": scale.reshape(2, 1, 3, 1)}
    yield "fp8 block=16,32", parts, tensor.dequantize(scale=scale, block_sizes=blocks)


def comfy_cases() -> Iterator[Case]:
    import comfy_kitchen

    weight = some_weights("comfy", 48, 96)
    second = torch.tensor(0.00137)
    codes, scale = comfy_kitchen.quantize_nvfp4(weight, second)
    made = comfy_kitchen.dequantize_nvfp4(codes, second, scale, torch.float32)
    parts = {"weight": codes, "weight_scale": scale, "weight_scale_2": second}
    yield "nvfp4 names=ComfyUi", parts, made
    codes, scale = comfy_kitchen.quantize_mxfp8(weight)
    made = comfy_kitchen.dequantize_mxfp8(codes, scale, torch.float32)
    parts = {"weight": codes, "weight_scale": scale}
    yield "mx float=E4m3 names=Modelopt scales=Tiles", parts, made
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        codes = weight.to(dtype)
        made = comfy_kitchen.dequantize_per_tensor_fp8(codes, second, torch.float32)
        yield "fp8", {"weight": codes, "scale_weight": second}, made


def other_float8_cases() -> Iterator[Case]:
    from compressed_tensors.entrypoints.convert.converters import FP8BlockDequantizer

    reader = FP8BlockDequantizer(weight_block_size=(32, 16), dtype=torch.float32)
    for dtype in (torch.float8_e4m3fnuz, torch.float8_e5m2fnuz):
        weight = some_float8(str(dtype), dtype, 50, 70)
        scale = scales(str(dtype), 2, 5)
        parts = {"weight": weight, "weight_scale_inv": scale}
        yield "fp8 block=32,16", parts, reader._create_dequantized_weight(weight, scale)
    experts = some_float8("experts", torch.float8_e4m3fn, 3, 50, 70)
    scale = scales("experts", 3, 2, 5)
    made = [reader._create_dequantized_weight(*pair) for pair in zip(experts, scale, strict=True)]
    yield "fp8 block=32,16", {"": experts, "_scale_inv": scale}, torch.stack(made)


def torchao_cases() -> Iterator[Case]:
    from torchao.prototype.mx_formats.mx_tensor import MXTensor
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor
    from torchao.quantization import Int8Tensor, IntxUnpackedToInt8Tensor, PerRow
    from torchao.quantization.granularity import PerBlock, PerTensor
    from torchao.quantization.quantize_.workflows import Float8Tensor

    square = some_weights("torchao", 128, 128)
    weight = square[:20]
    for granularity, case in (
        (PerTensor(), "fp8"), (PerRow(), "fp8"), (PerBlock([128, 128]), "fp8 block=128,128"),
    ):  # fmt: skip
        rows = square if isinstance(granularity, PerBlock) else weight
        tensor = Float8Tensor.from_hp(rows, granularity=granularity)
        yield case, parts_of(tensor), tensor.dequantize()
    tensor = Int8Tensor.from_hp(weight, PerRow())
    yield "int8", parts_of(tensor), tensor.dequantize()
    for dtype in (torch.float32, torch.bfloat16):
        tensor = IntxUnpackedToInt8Tensor.from_hp(
            weight.to(dtype), (1, 32), torch.int4, mapping_type=asymmetric()
        )
        yield "int8 group=32", parts_of(tensor), tensor.dequantize()
    for is_tiled in (False, True):
        order = "Tiles" if is_tiled else "Rows"
        for dtype, float_name in ((torch.float8_e4m3fn, "E4m3"), (torch.float4_e2m1fn_x2, "E2m1")):
            tensor = MXTensor.to_mx(weight, dtype, 32, is_swizzled_scales=is_tiled)
            case = f"mx float={float_name} names=Torchao scales={order}"
            yield case, parts_of(tensor), tensor.dequantize(torch.float32)
        for scale in (None, torch.tensor(0.0137)):
            tensor = NVFP4Tensor.to_nvfp4(
                weight, per_tensor_scale=scale, is_swizzled_scales=is_tiled
            )
            case = "nvfp4 names=Torchao" + ("Tiles" if is_tiled else "")
            yield case, parts_of(tensor), tensor.dequantize(torch.float32)


def asymmetric() -> object:
    from torchao.quantization.quant_primitives import MappingType

    return MappingType.ASYMMETRIC


def parts_of(tensor: torch.Tensor) -> Parts:
    names = [*tensor.tensor_data_names, *getattr(tensor, "optional_tensor_data_names", [])]
    parts = {name: getattr(tensor, name) for name in names}
    return {name: part for name, part in parts.items() if part is not None}


MAKERS = [
    bitsandbytes_4bit_cases, bitsandbytes_8bit_cases, gptqmodel_cases, mlx_cases, hqq_cases,
    quanto_cases,
    bitnet_cases, awq_gemv_cases, awq_fast_cases, modelopt_cases,
    modelopt_float_cases, comfy_cases, other_float8_cases, torchao_cases,
]  # fmt: skip

if __name__ == "__main__":
    sys.exit(check_or_write(GOLDEN, MAKERS))
