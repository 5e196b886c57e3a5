"""Whole training states in safetensors files, in the place of `torch.save` and `torch.load`.

`save` takes any tree of dicts, lists, tuples, numbers, texts, arrays and tensors; `load` gives it
back as it was. Tensors are ordinary tensors of the file, the rest is text beside them, and nothing
in it is code: what a file says can only ever become values.

Example:
    >>> import torch
    >>> from tensorhold import serialization
    >>> weight = torch.ones(2, 2)
    >>> state = {"step": 3, "weight": weight, "row": weight[0], "best": float("inf")}
    >>> serialization.save(state, "state.safetensors")
    >>> found = serialization.load("state.safetensors")
    >>> found["weight"][0, 0] = 5  # what shared its memory does so again
    >>> found["row"], found["best"]
    (tensor([5., 1.]), inf)
"""

from tensorhold.serialization._files import load, save
from tensorhold.serialization._install import install, uninstall
from tensorhold.serialization._register import register
from tensorhold.serialization._words import Opaque

__all__ = ["Opaque", "install", "load", "register", "save", "uninstall"]
