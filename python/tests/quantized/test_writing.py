"""What a person finds who writes a checkpoint with its weights quantized."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import tensorhold

ROWS, COLUMNS = 96, 256
LAYER = "model.layers.0.mlp.up_proj"
NAMES = [
    "fp8-tensor",
    "fp8-channel",
    "fp8-block",
    "fp8-finegrained",
    "int8-channel",
    "int4",
    "int4-asym",
    "int3",
    "int8-asym",
    "mxfp4",
    "mxfp8",
    "nvfp4",
    "gptq-int4",
    "gptq-int4-asym",
    "gptq-int3",
    "gptq-int8",
]


def weights(dtype: type = np.float32) -> np.ndarray:
    weights = np.random.default_rng(3).normal(0, 0.05, (ROWS, COLUMNS)).astype(np.float32)
    weights[5] = 0
    weights[6, 17] = 2.5
    return weights.astype(dtype)


def model(folder: Path, dtype: type = np.float32, **others: np.ndarray) -> Path:
    folder.mkdir()
    tensors = {
        f"{LAYER}.weight": weights(dtype),
        f"{LAYER}.bias": np.arange(ROWS, dtype=dtype),
        "model.embed_tokens.weight": weights(dtype),
        "model.norm.weight": np.ones(ROWS, dtype),
        "model.layers.0.mlp.gate.weight": weights(dtype)[:8],
        "lm_head.weight": weights(dtype),
    }
    tensors |= {f"{name}.weight": array for name, array in others.items()}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text('{\n  "hidden_size": 256,\n  "rms_norm_eps": 1e-06\n}\n')
    (folder / "tokenizer.json").write_text("{}")
    return folder


def read(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    tensors = {}
    with tensorhold.open(folder, framework="np") as checkpoint:
        for name in checkpoint:
            tensors[name.removeprefix(f"{LAYER}.")] = checkpoint[name]
    return tensors, json.loads((folder / "config.json").read_text())


def codes(words: np.ndarray, bits: int) -> np.ndarray:
    """Codes of each row from the least significant bit on."""
    stream = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
    stream = stream[:, : stream.shape[1] // bits * bits].reshape(len(words), -1, bits)
    return (stream * (1 << np.arange(bits))).sum(-1)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_weights_are_near_and_all_else_is_as_it_was(name: str, dtype: type, tmp_path: Path) -> None:
    source = model(tmp_path / "source", dtype)
    done = tensorhold.quantize(
        source,
        "out",
        name,
        group_size=64 if "4" in name and "fp" not in name else None,
        verify=True,
    )
    kept = {tensor.name: tensor.kept for tensor in done.tensors}
    assert [name for name, why in kept.items() if why is None] == [f"{LAYER}.weight"]
    (tensor,) = (tensor for tensor in done.tensors if tensor.kept is None)
    assert tensor.relative_error < {"3": 0.3, "4": 0.16}.get(name.removesuffix("-asym")[-1], 0.05)
    assert tensor.size_after < tensor.size_before
    there = tensorhold.open(source, framework="np")
    written = tensorhold.open("out", framework="np")
    for one in kept.keys() - {f"{LAYER}.weight"}:
        assert written[one].tobytes() == there[one].tobytes()
        assert written.info(one).dtype == there.info(one).dtype
    assert written.metadata == {"format": "pt"}
    assert sorted(os.listdir("out")) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert done.copied == ["out/tokenizer.json"]


def test_blocks_of_fp8_are_codes_times_scales(tmp_path: Path) -> None:
    source = model(tmp_path / "source")
    tensorhold.quantize(source, "out", "fp8-block", block=(64, 96))
    tensors, config = read(Path("out"))
    assert tensors["weight_scale"].shape == (2, 3)
    scales = tensors["weight_scale"].repeat(64, 0)[:ROWS].repeat(96, 1)[:, :COLUMNS]
    for row, column in [(0, 0), (64, 192)]:
        block = weights()[row : row + 64, column : column + 96]
        assert scales[row, column] == np.float32(np.abs(block).max()) / np.float32(448)
    expected = np.clip(weights() / scales, -448, 448).astype(ml_dtypes.float8_e4m3fn)
    assert tensors["weight"].tobytes() == expected.tobytes()
    group = config["quantization_config"]["config_groups"]["group_0"]
    assert group["weights"]["block_structure"] == [64, 96]


@pytest.mark.parametrize("layout", ["pack", "gptq"])
def test_integers_lie_as_their_format_says(layout: str, tmp_path: Path) -> None:
    source = model(tmp_path / "source")
    prefix = "gptq-" if layout == "gptq" else ""
    tensorhold.quantize(source, "out", f"{prefix}int4-asym", group_size=32, scale_dtype="F32")
    tensors, config = read(Path("out"))
    if layout == "pack":
        found = codes(tensors["weight_packed"], 4)
        zeros = codes(tensors["weight_zero_point"].T, 4).T
        scales = tensors["weight_scale"]
        assert tensors["weight_shape"].tolist() == [ROWS, COLUMNS]
    else:
        found = codes(tensors["qweight"].T, 4)
        zeros = codes(tensors["qzeros"], 4).T
        scales = tensors["scales"].T
        assert tensors["g_idx"].tolist() == [column // 32 for column in range(COLUMNS)]
        assert config["quantization_config"]["checkpoint_format"] == "gptq_v2"
    assert found.shape == (ROWS, COLUMNS) and zeros.shape == scales.shape == (ROWS, COLUMNS // 32)
    ours = (found - zeros.repeat(32, 1)) * scales.repeat(32, 1)
    assert np.abs(ours - weights()).max() <= 0.51 * scales.max()
    assert (np.abs(ours - weights()) <= 0.51 * scales.repeat(32, 1)).all()


def test_the_configuration_is_the_sources_with_what_engines_read(tmp_path: Path) -> None:
    source = model(tmp_path / "source")
    tensorhold.quantize(source, "out", "int4", group_size=64)
    text = Path("out/config.json").read_text()
    assert text.startswith(
        '{\n  "hidden_size": 256,\n  "rms_norm_eps": 1e-06,\n  "quantization_config": {'
    )
    quantization = json.loads(text)["quantization_config"]
    assert quantization["quant_method"] == "compressed-tensors"
    assert quantization["format"] == "pack-quantized"
    assert quantization["ignore"] == ["lm_head", "model.layers.0.mlp.gate"]
    weights = quantization["config_groups"]["group_0"]["weights"]
    assert (weights["num_bits"], weights["strategy"], weights["group_size"]) == (4, "group", 64)


def test_patterns_say_what_is_quantized(tmp_path: Path) -> None:
    source = model(tmp_path / "source", other=weights())
    done = tensorhold.quantize(source, "out", "fp8-channel", ignore=["**.up_proj"])
    assert [tensor.name for tensor in done.tensors if tensor.kept is None] == ["other.weight"]
    done = tensorhold.quantize(
        source, "again", "fp8-channel", include=["lm_head", "other"], dry_run=True
    )
    named = [tensor.name for tensor in done.tensors if tensor.kept is None]
    assert named == ["lm_head.weight", "other.weight"]
    assert done.paths == [] and not Path("again").exists()
    with pytest.raises(ValueError, match="no tensor is called so"):
        tensorhold.quantize(source, "again", "fp8-channel", ignore=["*.down_proj"])


@pytest.mark.parametrize(
    ("name", "group_size", "columns", "message"),
    [
        ("int4", 128, 192, "192 inputs are no whole groups of 128"),
        ("mxfp4", None, 48, "48 inputs are no whole groups of 32"),
        ("nvfp4", None, 24, "24 inputs are no whole groups of 16"),
        ("gptq-int3", 0, 48, "do not fill the words of GPTQ"),
        ("int5-asym", 64, 63, "63 inputs are no whole groups of 64"),
    ],
)
def test_inputs_that_are_no_whole_groups_are_refused(
    name: str, group_size: int | None, columns: int, message: str, tmp_path: Path
) -> None:
    source = model(tmp_path / "source", odd=np.ones((32, columns), np.float32))
    with pytest.raises(ValueError, match=message) as raised:
        tensorhold.quantize(source, "out", name, group_size=group_size, ignore=["lm_head"])
    assert "odd.weight" in str(raised.value) and "ignore" in str(raised.value)
    assert not Path("out").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["fp8-tensor", "fp8-block", "int4-asym", "nvfp4", "gptq-int8"])
def test_weights_without_a_value_are_refused_by_their_place(
    name: str, bad: float, tmp_path: Path
) -> None:
    array = weights()
    array[7, 40] = bad
    source = model(tmp_path / "source", odd=array)
    with pytest.raises(tensorhold.SafetensorError, match=r"row 7, column 40 is .*odd\.weight"):
        tensorhold.quantize(source, "out", name)
    assert not list(Path("out").iterdir())


def test_what_is_quantized_already_is_refused(tmp_path: Path) -> None:
    source = model(tmp_path / "source")
    tensorhold.quantize(source, "out", "fp8-channel")
    with pytest.raises(ValueError, match="quantized already"):
        tensorhold.quantize("out", "again", "int4")
    with pytest.raises(ValueError, match="folder of the checkpoint"):
        tensorhold.quantize(source, source, "int4")


def test_weights_that_are_quantized_without_a_configuration_are_seen(tmp_path: Path) -> None:
    source = model(tmp_path / "source")
    tensorhold.quantize(source, "out", "gptq-int4", group_size=64)
    Path("out/config.json").rename("out/config.json.old")
    old = {"bits": 4, "group_size": 64, "desc_act": False, "checkpoint_format": "gptq_v2"}
    Path("out/quantize_config.json").write_text(json.dumps(old))
    with pytest.raises(ValueError, match=rf"quantized already, in gptq.*{LAYER}"):
        tensorhold.quantize("out", "again", "int4", include=["lm_head"])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("int9", {}),
        ("fp8", {}),
        ("gptq-int5", {}),
        ("nvfp4", {"group_size": 32}),
        ("int4", {"block": (64, 64)}),
        ("fp8-block", {"block": (0, 64)}),
        ("int4", {"scale_dtype": "F64"}),
    ],
)
def test_schemes_that_there_are_not_are_refused(
    name: str, options: dict[str, object], tmp_path: Path
) -> None:
    source = model(tmp_path / "source")
    with pytest.raises(ValueError):
        tensorhold.quantize(source, "out", name, **options)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    source = model(tmp_path / "source")
    tensorhold.quantize(source, "out", "fp8-channel")
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError):
            tensorhold.quantize(source, "out", "int8-channel")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before


def test_shards_of_a_source_become_shards(tmp_path: Path) -> None:
    source = model(tmp_path / "source", **{f"layer{n}.down": weights() for n in range(5)})
    done = tensorhold.quantize(
        source, "out", "int4", group_size=64, max_shard_size=60_000, verify=True, threads=2
    )
    assert "out/model.safetensors.index.json" in done.paths
    one = tensorhold.quantize(source, "whole", "int4", group_size=64, threads=1)
    assert one.paths[0] == "whole/model.safetensors"
    with (
        tensorhold.open("out", framework="np") as shards,
        tensorhold.open("whole", framework="np") as whole,
    ):
        assert sorted(shards) == sorted(whole)
        assert all(shards[name].tobytes() == whole[name].tobytes() for name in whole)


def test_progress_counts_to_the_end_and_can_stop(tmp_path: Path) -> None:
    source = model(tmp_path / "source")
    told: list[tuple[int, int]] = []
    tensorhold.quantize(
        source, "out", "mxfp8", verify=True, progress=lambda done, total: told.append((done, total))
    )
    assert told[-1][0] == told[-1][1] and told == sorted(told)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tensorhold.quantize(source, "stopped", "mxfp8", progress=stop)
    assert not list(Path("stopped").iterdir())


def test_large_weights_are_the_same_by_windows(tmp_path: Path) -> None:
    """Windows are of a part of a weight: here each scheme has several."""
    large = np.random.default_rng(5).normal(0, 0.02, (2080, 2048)).astype(np.float32)
    (tmp_path / "source").mkdir()
    for dtype, schemes in [
        (np.float32, ["fp8-block", "nvfp4", "int3-asym", "gptq-int4"]),
        (np.float16, ["gptq-int8", "fp8-tensor"]),
    ]:
        for name in schemes:
            safetensors.numpy.save_file(
                {"a.weight": large.astype(dtype)}, tmp_path / "source/model.safetensors"
            )
            size = {"group_size": 0} if name == "gptq-int8" else {}
            for threads in (1, 3):
                done = tensorhold.quantize(
                    tmp_path / "source",
                    f"{name}-{threads}",
                    name,
                    threads=threads,
                    verify=True,
                    **size,
                )
                assert done.tensors[0].relative_error < (0.35 if "3" in name else 0.13)
            assert (
                Path(f"{name}-1/model.safetensors").read_bytes()
                == Path(f"{name}-3/model.safetensors").read_bytes()
            )
