"""A real model: MiniLM, 91 MB, as sentence-transformers loads it."""

from __future__ import annotations

import sys

from tensorhold_bench import digest, files
from tensorhold_bench.row import OURS, Work, module, row


@row("MiniLM: `load_file`, torch, no page touched")
def load_minilm(package: str) -> Work:
    library, path = module(package, "torch"), files.minilm() / "model.safetensors"
    library.load_file(files.warm_up())
    tensors = yield lambda: library.load_file(path)
    return digest.of_torch(tensors)


@row("MiniLM: from the folder to the first embedding, sentence-transformers")
def embed_minilm(package: str) -> Work:
    if package == OURS:
        import tensorhold.dropin

        tensorhold.dropin.install()
    import safetensors.torch
    import sentence_transformers
    import transformers.models.bert.modeling_bert
    import transformers.models.bert.tokenization_bert  # noqa: F401 (awake before the clock starts)

    if safetensors.torch is not sys.modules[f"{package}.torch"]:
        raise RuntimeError(f"the weights would not be loaded by {package}")
    safetensors.torch.load_file(files.warm_up())
    folder = str(files.minilm())

    def embed() -> bytes:
        model = sentence_transformers.SentenceTransformer(folder, device="cpu")
        return bytes(model.encode("Model weights are the most shared binaries on earth.").data)

    embedding = yield embed
    return digest.of_bytes(embedding)
