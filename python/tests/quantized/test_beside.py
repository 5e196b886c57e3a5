"""What a person finds beside weights that were quantized, repacked or made numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers

import tensorhold

SIZES = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A model with its tokenizer, as `transformers` saves them."""
    torch.manual_seed(3)
    folder = tmp_path / "llama"
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).save_pretrained(folder)
    words = {word: number for number, word in enumerate(["<unk>", "<s>", "to", "be", "or", "not"])}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=model,
        unk_token="<unk>",
        bos_token="<s>",
        chat_template="{% for message in messages %}{{ message['content'] }}{% endfor %}",
    )
    tokenizer.save_pretrained(folder)
    (folder / "modeling_own.py").write_text("raise SystemExit('never run')")
    torch.save({}, folder / "training_args.bin")
    return folder


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "tensorhold.cli", *map(str, arguments)]
    return subprocess.run(program, check=False, capture_output=True, text=True)


def test_transformers_opens_what_was_written(llama: Path) -> None:
    done = tensorhold.quantize(llama, "int8", "int8", group_size=64)
    names = {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}
    assert names < {Path(path).name for path in done.copied}
    repacked = tensorhold.repack("int8", "gptq", "gptq", verify=True)
    plain = tensorhold.dequantize("gptq", "plain", dtype=torch.float32, threads=2)
    for written in (done, repacked, plain):
        assert [Path(path).name for path in written.copied] == [
            Path(path).name for path in done.copied
        ]
        for path in written.copied:
            assert Path(path).read_bytes() == (llama / Path(path).name).read_bytes()
    for folder in ("int8", "gptq", "plain"):
        assert not {"modeling_own.py", "training_args.bin"} & set(os.listdir(folder))
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        assert tokenizer("to be or not")["input_ids"] == [2, 3, 4, 5]
        chat = [{"role": "user", "content": "to be"}]
        assert tokenizer.apply_chat_template(chat, tokenize=False) == "to be"
    before = transformers.AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    after = transformers.AutoModelForCausalLM.from_pretrained("plain", dtype=torch.float32)
    tokens = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        theirs, ours = before(tokens).logits, after(tokens).logits
    assert torch.allclose(theirs, ours, atol=0.05) and not torch.equal(theirs, ours)
    assert after.generation_config.to_dict() == before.generation_config.to_dict()


def test_the_command_says_what_is_copied_and_what_is_not(llama: Path) -> None:
    done = command("quantize", llama, "out", "--scheme", "fp8-block")
    assert done.returncode == 0, done.stderr
    assert "tokenizer.json, tokenizer_config.json" in done.stderr
    assert "note: code is not copied: modeling_own.py\n" in done.stderr
    assert "out/tokenizer.json" in done.stdout.splitlines()


def test_a_cache_of_links_is_copied_as_files(llama: Path, tmp_path: Path) -> None:
    """Files of the hub's cache are links to others by their digests."""
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for number, path in enumerate(llama.iterdir()):
        path.rename(tmp_path / f"blob{number}")
        (snapshot / path.name).symlink_to(f"../blob{number}")
    tensorhold.quantize(snapshot, "out", "fp8-channel")
    assert not Path("out/tokenizer.json").is_symlink()
    assert Path("out/tokenizer.json").read_bytes() == (snapshot / "tokenizer.json").read_bytes()


def test_wrong_arguments_and_targets_that_cannot_be_written_are_told(llama: Path) -> None:
    wrong = command("quantize", llama, "out", "--scheme", "fp8-block", "--forced")
    assert wrong.returncode == 2 and "--forced" in wrong.stderr
    Path("taken").write_text("")
    for target in ("taken/out", "/proc/nowhere/out"):
        done = command("quantize", llama, target, "--scheme", "fp8-block")
        assert done.returncode == 2, done.stdout
        assert done.stderr.startswith("error: "), done.stderr
    assert not Path("out").exists()
