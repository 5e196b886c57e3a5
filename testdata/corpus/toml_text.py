"""Expectations as TOML, one key a line, so that a change is a readable diff."""

import json
from collections.abc import Mapping, Sequence

MAX_INTEGER = 2**63 - 1


def array_entry(name: str, entry: Mapping[str, object]) -> str:
    """One table of the array `name`; a key without a value is left out."""
    lines = [f"{key} = {_value(value)}" for key, value in entry.items() if value is not None]
    return "\n".join([f"[[{name}]]", *lines]) + "\n"


def fits(values: Sequence[int]) -> bool:
    """Whether TOML's integers can hold them all."""
    return all(value <= MAX_INTEGER for value in values)


def _value(value: object) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        return _table(value)
    if isinstance(value, Sequence):
        items = [_value(item) for item in value]
        if any(isinstance(item, Mapping) for item in value):
            return "[\n" + "".join(f"    {item},\n" for item in items) + "]"
        return "[" + ", ".join(items) + "]"
    raise TypeError(f"no TOML for {value!r}")


def _table(value: Mapping[str, object]) -> str:
    items = [f"{_key(key)} = {_value(item)}" for key, item in value.items()]
    return "{ " + ", ".join(items) + " }" if items else "{}"


def _key(key: str) -> str:
    return key if key.isascii() and key.isidentifier() else _string(key)


def _string(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in quoted)
