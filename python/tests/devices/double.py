"""The double of a runtime, as a test steers it and reads what it has seen."""

from __future__ import annotations

import ctypes
import json
from typing import Any


class Double:
    """The library that `TENSORHOLD_RUNTIME` names, which is the one that the engine uses."""

    def __init__(self, path: str) -> None:
        self.library = ctypes.CDLL(path)
        self.library.tensorhold_double_report.restype = ctypes.c_size_t

    @property
    def is_one(self) -> bool:
        """Whether it is the double, and no runtime of a vendor."""
        return hasattr(self.library, "tensorhold_double_version")

    def configure(self, text: str) -> None:
        """Changes settings; the others stay."""
        assert self.library.tensorhold_double_configure(text.encode()) == 0, text

    def reset(self) -> None:
        """Sets back the settings and all that was counted."""
        self.library.tensorhold_double_reset()

    def report(self) -> dict[str, Any]:
        """What it has seen since the last reset."""
        size = 1 << 16
        while True:
            buffer = ctypes.create_string_buffer(size)
            wanted = self.library.tensorhold_double_report(buffer, ctypes.c_size_t(size))
            if wanted < size:
                return dict(json.loads(buffer.value))
            size = 2 * wanted
