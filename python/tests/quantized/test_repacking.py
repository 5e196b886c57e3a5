"""What a person finds who writes a quantized checkpoint in the layout of another program."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import tensorhold

ROWS, COLUMNS = 64, 192


def floats(folder: Path) -> Path:
    folder.mkdir()
    weights = np.random.default_rng(7).normal(0, 0.05, (2, ROWS, COLUMNS)).astype(np.float16)
    tensors = {f"layers.{n}.up.weight": weights[n] for n in range(2)}
    tensors |= {
        "norm.weight": np.ones(8, np.float16),
        "layers.0.up.bias": np.ones(ROWS, np.float16),
    }
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text('{"hidden_size": 192, "rms_norm_eps": 1e-06}')
    return folder


def weights(folder: str | Path) -> dict[str, bytes]:
    with tensorhold.open(folder, framework="np") as checkpoint:
        names = checkpoint.quantization.weights
        return {name: checkpoint.dequantize(name, "F32")[...].tobytes() for name in names}


def config(folder: str | Path) -> dict[str, object]:
    return json.loads(Path(folder, "config.json").read_text())["quantization_config"]


@pytest.mark.parametrize("scheme", ["int4", "int4-asym"])
def test_integers_go_round_all_layouts_and_come_back_as_they_were(
    scheme: str, tmp_path: Path
) -> None:
    tensorhold.quantize(floats(tmp_path / "source"), "packed", scheme, group_size=32)
    before, first = "packed", weights("packed")
    for layout in ("gptq", "awq", "gptq", "pack-quantized", "awq", "pack-quantized"):
        target = f"{before}-{layout}"
        done = tensorhold.repack(before, target, layout)
        assert (done.n_weights, done.rounded) == (2, [])
        assert weights(target) == first
        before = target
    assert (
        Path(before, "model.safetensors").read_bytes()
        == Path("packed/model.safetensors").read_bytes()
    )
    assert config(before)["config_groups"] == config("packed")["config_groups"]
    kept = json.loads(Path(before, "config.json").read_text())
    assert (kept["hidden_size"], kept["rms_norm_eps"]) == (192, 1e-06)


def test_the_order_of_awq_is_that_of_its_kernels(tmp_path: Path) -> None:
    tensorhold.quantize(floats(tmp_path / "source"), "packed", "int4-asym", group_size=64)
    tensorhold.repack("packed", "gptq", "gptq")
    tensorhold.repack("packed", "awq", "awq")
    assert config("awq") == {
        "quant_method": "awq",
        "version": "gemm",
        "bits": 4,
        "group_size": 64,
        "zero_point": True,
        "modules_to_not_convert": ["lm_head"],
    }
    gptq, awq = (
        safetensors.numpy.load_file(f"{name}/model.safetensors") for name in ("gptq", "awq")
    )
    shifts = np.arange(8, dtype=np.uint32) * 4
    for part in ("qweight", "qzeros"):
        words = awq[f"layers.0.up.{part}"].view(np.uint32)
        nibbles = (words[..., None] >> shifts & 15).reshape(*words.shape[:-1], -1, 8)
        columns = nibbles[..., [0, 4, 1, 5, 2, 6, 3, 7]].reshape(words.shape[0], -1)
        words = gptq[f"layers.0.up.{part}"].view(np.uint32)
        if part == "qweight":
            rows = (words[:, None] >> shifts[None, :, None] & 15).reshape(-1, words.shape[1])
        else:
            rows = (words[..., None] >> shifts & 15).reshape(words.shape[0], -1)
        assert (columns == rows).all()


def gptq(folder: Path, index: np.ndarray, format: str = "gptq") -> Path:
    """Codes of 4 bits with zeros of all kinds."""
    folder.mkdir()
    random = np.random.default_rng(11)
    words = random.integers(0, 2**32, (COLUMNS // 8, ROWS), np.uint32)
    zeros = random.integers(0, 2**32, (COLUMNS // 32, ROWS // 8), np.uint32)
    tensors = {
        "up.qweight": words.view(np.int32),
        "up.qzeros": zeros.view(np.int32),
        "up.scales": random.random((COLUMNS // 32, ROWS)).astype(np.float16),
        "up.g_idx": index.astype(np.int32),
    }
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    quantization = {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 32,
        "checkpoint_format": format,
    }
    quantization |= {"desc_act": bool((np.diff(index) < 0).any()), "sym": False}
    (folder / "config.json").write_text(json.dumps({"quantization_config": quantization}))
    return folder


def test_zeros_of_version_1_are_those_of_version_2(tmp_path: Path) -> None:
    source = gptq(tmp_path / "one", np.arange(COLUMNS) // 32)
    for layout in ("gptq", "awq", "pack-quantized"):
        tensorhold.repack(source, layout, layout)
        assert weights(layout) == weights(source)
    assert config("gptq")["checkpoint_format"] == "gptq_v2"


def test_groups_in_another_order_stay_in_gptq_alone(tmp_path: Path) -> None:
    index = np.random.default_rng(1).permutation(np.arange(COLUMNS) // 32)
    source = gptq(tmp_path / "order", index, "gptq_v2")
    tensorhold.repack(source, "gptq", "gptq")
    assert weights("gptq") == weights(source)
    assert config("gptq")["desc_act"] is True
    for layout in ("awq", "pack-quantized"):
        with pytest.raises(tensorhold.SafetensorError, match=r"desc_act.*up\.weight"):
            tensorhold.repack(source, layout, layout)
        assert not Path(layout).exists()


def nvfp4(folder: Path, scale: float, **others: np.ndarray) -> Path:
    """NVFP4 of modelopt."""
    folder.mkdir()
    random = np.random.default_rng(13)
    scales = random.random((ROWS, COLUMNS // 16)).astype(ml_dtypes.float8_e4m3fn)
    tensors = {
        "up.weight": random.integers(0, 256, (ROWS, COLUMNS // 2), np.uint8),
        "up.weight_scale": scales,
        "up.weight_scale_2": np.float32(scale).reshape(()),
        **others,
    }
    tensorhold.save(tensors, folder / "model.safetensors")
    quantization = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
    (folder / "config.json").write_text(json.dumps({"quantization_config": quantization}))
    return folder


def test_nvfp4_with_an_exact_reciprocal_goes_there_and_back(tmp_path: Path) -> None:
    source = nvfp4(
        tmp_path / "modelopt", 2**-12, **{"up.input_scale": np.float32(0.25).reshape(())}
    )
    done = tensorhold.repack(source, "there", "nvfp4-pack-quantized")
    assert done.rounded == [] and weights("there") == weights(source)
    with tensorhold.open("there", framework="np") as checkpoint:
        assert checkpoint["up.weight_global_scale"].tolist() == [4096.0]
        assert checkpoint["up.input_global_scale"].tolist() == [4.0]
    assert config("there")["config_groups"]["group_0"]["input_activations"]["dynamic"] == "local"
    tensorhold.repack("there", "back", "modelopt-nvfp4")
    assert weights("back") == weights(source)
    assert (
        Path("back/model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    )


def test_nvfp4_without_one_is_refused_or_told(tmp_path: Path) -> None:
    source = nvfp4(tmp_path / "modelopt", 0.0123)
    with pytest.raises(tensorhold.SafetensorError, match="allow_rounding"):
        tensorhold.repack(source, "there", "nvfp4-pack-quantized")
    assert not Path("there").exists()
    done = tensorhold.repack(source, "there", "nvfp4-pack-quantized", allow_rounding=True)
    assert done.rounded == ["up.weight"]
    for name, before in weights(source).items():
        ours = np.frombuffer(weights("there")[name], np.float32)
        theirs = np.frombuffer(before, np.float32)
        np.testing.assert_allclose(ours, theirs, rtol=2**-22)


def test_parts_that_would_be_lost_are_refused(tmp_path: Path) -> None:
    source = nvfp4(tmp_path / "awq", 0.5, **{"up.pre_quant_scale": np.ones(COLUMNS, np.float32)})
    with pytest.raises(tensorhold.SafetensorError, match=r"pre_quant_scale"):
        tensorhold.repack(source, "there", "nvfp4-pack-quantized")


def test_tiles_of_comfyui_become_rows(tmp_path: Path) -> None:
    rows = nvfp4(tmp_path / "rows", 0.5)
    with tensorhold.open(rows, framework="np") as checkpoint:
        tensors = {name: checkpoint[name] for name in checkpoint}
    codes, scales = tensors["up.weight"], tensors["up.weight_scale"].view(np.uint8)
    padded = np.zeros((128, COLUMNS // 16), np.uint8)
    padded[:ROWS] = scales
    tiles = padded.reshape(1, 4, 32, -1, 4).transpose(0, 3, 2, 1, 4)
    tensors["up.weight"] = codes >> 4 | codes << 4
    tensors["up.weight_scale"] = tiles.reshape(128, -1).view(ml_dtypes.float8_e4m3fn)
    comfy = np.frombuffer(b'{"format": "nvfp4"}', np.uint8)
    Path("comfy").mkdir()
    tensorhold.save(tensors | {"up.comfy_quant": comfy}, "comfy/model.safetensors")
    tensorhold.repack("comfy", "modelopt", "modelopt-nvfp4")
    with tensorhold.open("modelopt", framework="np") as checkpoint:
        assert checkpoint["up.weight"].tobytes() == codes.tobytes()
        assert checkpoint["up.weight_scale"].tobytes() == scales.tobytes()
        assert "up.comfy_quant" not in checkpoint
    assert weights("modelopt") == weights(rows) == weights("comfy")


@pytest.mark.parametrize(
    ("scheme", "layout", "message"),
    [
        ("int8", "awq", "integers of 8 bits"),
        ("int5", "gptq", "integers of 5 bits"),
        ("nvfp4", "gptq", "cannot hold NVFP4"),
        ("int4", "modelopt-nvfp4", "cannot hold integers"),
        ("fp8-block", "gptq", "codes of `fp8`"),
        ("mxfp4", "modelopt-nvfp4", "no NVFP4"),
    ],
)
def test_what_a_layout_cannot_hold_is_refused(
    scheme: str, layout: str, message: str, tmp_path: Path
) -> None:
    group = {"group_size": 64} if scheme.startswith("int") else {}
    tensorhold.quantize(floats(tmp_path / "source"), "there", scheme, **group)
    with pytest.raises(tensorhold.SafetensorError, match=message):
        tensorhold.repack("there", "out", layout)
    assert not Path("out").exists()


def test_nothing_to_repack_is_an_error(tmp_path: Path) -> None:
    source = floats(tmp_path / "source")
    with pytest.raises(ValueError, match="no weight of the checkpoint is quantized"):
        tensorhold.repack(source, "out", "gptq")
    with pytest.raises(ValueError, match="there are gptq, awq"):
        tensorhold.repack(source, "out", "marlin")
    tensorhold.quantize(source, "there", "int4", group_size=64)
    with pytest.raises(ValueError, match="folder of the checkpoint"):
        tensorhold.repack("there", "there", "gptq")


def test_large_weights_are_the_same_by_windows(tmp_path: Path) -> None:
    large = np.random.default_rng(5).normal(0, 0.02, (2080, 2304)).astype(np.float16)
    Path("source").mkdir()
    safetensors.numpy.save_file({"a.weight": large}, "source/model.safetensors")
    tensorhold.quantize("source", "packed", "int4-asym", group_size=0)
    tensorhold.repack("packed", "gptq", "gptq", threads=1)
    tensorhold.repack("gptq", "awq", "awq", threads=3)
    tensorhold.repack("awq", "back", "pack-quantized", max_shard_size=1_000_000)
    assert weights("back") == weights("packed")
