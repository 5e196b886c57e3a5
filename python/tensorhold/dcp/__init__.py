"""Storage for PyTorch's distributed checkpoints in safetensors files.

The files are those of the `HuggingFaceStorageWriter` of `torch.distributed.checkpoint`, and each
reads what the other wrote. Here tensors are read into the memory that they are for and written by
several threads, a save replaces the one before it when it is complete, and a checkpoint with a hole
is refused.

Example:
    >>> import torch, torch.distributed.checkpoint as dcp
    >>> from tensorhold.dcp import StorageReader, StorageWriter
    >>> state = {"weight": torch.arange(4.0), "step": 3}
    >>> _ = dcp.save(state, storage_writer=StorageWriter("saved"), no_dist=True)
    >>> found = {"weight": torch.zeros(4), "step": 0}
    >>> dcp.load(found, storage_reader=StorageReader("saved"), no_dist=True)
    >>> found
    {'weight': tensor([0., 1., 2., 3.]), 'step': 3}
"""

from tensorhold.dcp._reader import StorageReader
from tensorhold.dcp._writer import StorageWriter

__all__ = ["StorageReader", "StorageWriter"]
