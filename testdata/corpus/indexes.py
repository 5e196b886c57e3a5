"""Sharded checkpoints: folders with an index and its shards, whole and broken."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from corpus.case import laid_out

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class IndexCase:
    """A folder and what is claimed about it."""

    folder: str
    about: str
    rule: str
    index: bytes
    verdict: str = "InvalidIndex"
    verify: str | None = None
    shards: dict[str, bytes] = field(default_factory=dict)

    def files(self) -> dict[str, bytes]:
        """The files of the folder by name."""
        return {INDEX: self.index, **self.shards}

    def weight_map(self) -> dict[str, str]:
        """Where each tensor lies, of an accepted index; of repeated keys the last counts."""
        weight_map = json.loads(self.index)["weight_map"]
        assert isinstance(weight_map, dict)
        return weight_map


def cases() -> list[IndexCase]:
    """All of them."""
    return [*_accepted(), *_texts(), *_names(), *_shards()]


def _index(weight_map: dict[str, object], **metadata: object) -> bytes:
    text = json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2, sort_keys=True)
    return text.encode() + b"\n"


def _shard(*names: str) -> bytes:
    return laid_out(*((name, "F32", [1]) for name in names))


WHOLE = {"a": FIRST, "b": FIRST, "c": SECOND}
SHARDS = {FIRST: _shard("a", "b"), SECOND: _shard("c")}


def _accepted() -> Iterator[IndexCase]:
    whole = dict[str, object](WHOLE)
    index = _index(whole, total_size=12)

    def case(folder: str, about: str, text: bytes, rule: str = "index-json", verify: str | None = None) -> IndexCase:
        return IndexCase(folder, about, rule, text, "accept", verify, SHARDS)

    yield case("two_shards", "two shards and their index, as they are usually written", index)
    yield case("no_metadata", "an index without metadata", json.dumps({"weight_map": WHOLE}).encode())
    yield case("more_metadata", "metadata of other keys and kinds", _index(whole, total_size=12, total_parameters=3, note=None))
    yield case("more_keys", "keys beside metadata and the map", json.dumps({"weight_map": WHOLE, "x": [1]}).encode())
    about = "the total size in the metadata is not that of the tensors"
    yield case("total_size_wrong", about, _index(whole, total_size=13), "index-metadata", "InvalidIndex")
    one = {"model.safetensors": _shard("a")}
    yield IndexCase("one_shard", "an index with one shard", "index-json", _index({"a": "model.safetensors"}, total_size=4), "accept", None, one)


def _texts() -> Iterator[IndexCase]:
    body = json.dumps(WHOLE)
    for folder, text, about in (
        ("empty_file", "", "an index of no bytes"),
        ("not_json", "weights", "an index that is no JSON"),
        ("cut", f'{{"weight_map":{body}', "an index that is cut"),
        ("array", f"[{body}]", "an index that is an array"),
        ("no_map", '{"metadata":{}}', "an index without a map"),
        ("flat", body, "a map without the object around it"),
        ("map_list", '{"weight_map":[]}', "a map that is a list"),
        ("map_null", '{"weight_map":null}', "a map that is null"),
        ("map_twice", f'{{"weight_map":{body},"weight_map":{body}}}', "two maps"),
        ("duplicate_key", f'{{"weight_map":{{"a":"{SECOND}",{body[1:]}}}', "a tensor stands twice, in two shards"),
        ("duplicate_escaped", f'{{"weight_map":{{"\\u0061":"{FIRST}",{body[1:]}}}', "a tensor stands twice, once as an escape"),
        ("text_after", f'{{"weight_map":{body}}}x', "a letter after the closing brace"),
        ("invalid_utf8", f'{{"weight_map":{body}}}', "a byte that never occurs in UTF-8"),
    ):
        data = text.encode()
        if folder == "invalid_utf8":
            data = data.replace(b'"a"', b'"\xff"')
        yield IndexCase(folder, about, "index-json", data, shards=SHARDS)
    for folder, value in (("shard_number", 1), ("shard_null", None), ("shard_list", [FIRST])):
        index = _index({**WHOLE, "a": value}, total_size=12)
        yield IndexCase(folder, "the name of a shard is no string", "index-json", index, shards=SHARDS)


def _names() -> Iterator[IndexCase]:
    for folder, name, about in (
        ("parent", f"../two_shards/{FIRST}", "a shard in another folder, reached through `..`"),
        ("parent_backslash", f"..\\two_shards\\{FIRST}", "a shard reached through `..` with backslashes"),
        ("parent_alone", "..", "a shard that is the folder above"),
        ("dot", ".", "a shard that is the folder itself"),
        ("absolute", "/etc/passwd", "a shard by an absolute path"),
        ("below", f"shards/{FIRST}", "a shard in a folder below"),
        ("dot_slash", f"./{FIRST}", "a shard by a path, although of the same folder"),
        ("backslash", f"shards\\{FIRST}", "a shard's name with a backslash"),
        ("drive", "C:\\model.safetensors", "a shard by an absolute path of Windows"),
        ("name_with_nul", f"{FIRST}\0", "a shard's name with a NUL"),
        ("empty_name", "", "a shard without a name"),
    ):
        index = _index({**WHOLE, "a": name}, total_size=12)
        yield IndexCase(folder, about, "index-names", index, shards=SHARDS)


def _shards() -> Iterator[IndexCase]:
    whole = _index(dict[str, object](WHOLE), total_size=12)
    first, second = SHARDS[FIRST], SHARDS[SECOND]
    for folder, shards, about in (
        ("shard_missing", {FIRST: first}, "a shard is not there"),
        ("tensor_missing", {FIRST: _shard("a"), SECOND: second}, "a listed tensor is in no shard"),
        ("tensor_elsewhere", {FIRST: _shard("a"), SECOND: _shard("b", "c")}, "a tensor lies in another shard than the listed one"),
        ("shards_swapped", {FIRST: second, SECOND: first}, "the shards have each other's names"),
        ("tensor_extra", {FIRST: first, SECOND: _shard("c", "d")}, "a shard holds a tensor that the index does not list"),
    ):
        yield IndexCase(folder, about, "index-shards", whole, shards=shards)
    twice = {FIRST: first, SECOND: _shard("b", "c")}
    yield IndexCase("tensor_in_two", "a tensor lies in two shards", "index-shards", whole, "DuplicateTensor", None, twice)
    about = "a shard is cut, as by a broken download"
    yield IndexCase("shard_cut", about, "index-shards", whole, "NotCovered", None, {FIRST: first, SECOND: second[:-1]})
