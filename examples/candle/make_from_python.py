"""Writes from_python.safetensors with the published package, safetensors 0.8.0, and torch."""

from pathlib import Path

import torch
from safetensors.torch import save_file

TENSORS = {
    "embedding.weight": torch.arange(12, dtype=torch.float32).reshape(4, 3) / 4,
    "layer.0.bias": torch.tensor([-1.5, 0.0, 2.5], dtype=torch.bfloat16),
    "layer.0.scale": torch.tensor(0.125, dtype=torch.float64),
    "positions": torch.tensor([[1, -2], [3, -4]], dtype=torch.int64),
    "mask": torch.tensor([0, 255, 7], dtype=torch.uint8),
    "unused": torch.zeros((0, 3), dtype=torch.float16),
}

save_file(TENSORS, Path(__file__).with_name("from_python.safetensors"), metadata={"format": "pt"})
