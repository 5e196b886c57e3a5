"""Makes the conformance files and `corpus.toml`; see README.md.

Run it as `python testdata/make_corpus.py`. The reference, safetensors 0.8.0, has to be installed,
since its verdicts are found by running it. Pinned messages in an existing `corpus.toml` are kept.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from corpus import foreign, indexes, malformed, reference, toml_text, valid
from corpus.case import Case, Recipe
from corpus.expected import table_of
from corpus.indexes import IndexCase

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus.toml"
MADE = ("valid", "malformed", "foreign", "index")

Entry = dict[str, object]

HEAD = """\
# Made by make_corpus.py, but for the pinned messages (`message`, `compatible_message`,
# `strict_message`), which come from the Rust implementation. README.md says what each key means.
"""


def main() -> None:
    """Writes everything and says how much it was."""
    reference.require_version()
    cases = [*valid.cases(), *malformed.cases(), *foreign.cases()]
    folders = indexes.cases()
    _require_unique([case.file for case in cases], [case.folder for case in folders])
    _require_anchors({case.rule for case in cases} | {case.rule for case in folders})
    pinned = _pinned_messages()
    entries = [_case_entry(case, pinned) for case in cases]
    index_entries = [_index_entry(case, pinned) for case in folders]
    _write_files(dict(_files(cases, folders)))
    parts = [toml_text.array_entry("case", entry) for entry in entries]
    parts += [toml_text.array_entry("index", entry) for entry in index_entries]
    CORPUS.write_text(HEAD + "\n" + "\n".join(parts), encoding="utf-8")
    _print_summary(entries, index_entries)


def _require_unique(*lists: list[str]) -> None:
    for names in lists:
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise SystemExit(f"error: made twice: {', '.join(twice)}")


def _require_anchors(rules: set[str]) -> None:
    """Stops the program unless the rules are those of the table in README.md, each with a case."""
    table = (FOLDER / "README.md").read_text(encoding="utf-8").partition("## Rules")[2]
    anchors = set(re.findall(r"^\| `([a-z0-9-]+)` \|", table, flags=re.MULTILINE))
    if anchors != rules:
        raise SystemExit(f"error: on one side only: {', '.join(sorted(anchors ^ rules))}")


def _pinned_messages() -> dict[tuple[str, str], str]:
    """The messages of the existing corpus by case and key."""
    if not CORPUS.exists():
        return {}
    corpus = tomllib.loads(CORPUS.read_text(encoding="utf-8"))
    entries = [(entry["file"], entry) for entry in corpus.get("case", [])]
    entries += [(entry["folder"], entry) for entry in corpus.get("index", [])]
    keys = ("message", "compatible_message", "strict_message")
    return {(name, key): entry[key] for name, entry in entries for key in keys if key in entry}


def _case_entry(case: Case, pinned: dict[tuple[str, str], str]) -> Entry:
    content = case.content()
    message = reference.message_on(content)
    header = reference.kind_of(message)
    compatible = "ForeignFormat" if case.names else case.compatible or header
    strict = case.strict or compatible
    _require_place(case, message, compatible, strict)
    recipe = case.data if isinstance(case.data, Recipe) else None
    entry: Entry = {
        "file": case.file,
        "generate": recipe and recipe.name,
        "n": recipe and recipe.n,
        "about": case.about,
        "rule": case.rule,
        "reference": "accept" if message is None else "reject",
        "reference_message": message,
        "compatible": compatible,
        "strict": strict,
        "verify": case.verify,
        "names": case.names,
        "header": header if case.names else None,
    }
    for rules, verdict in (("compatible", compatible), ("strict", strict)):
        key = f"{rules}_message"
        entry[key] = None if verdict == "accept" else pinned.get((case.file, key), "")
    return entry | (_expected(content, stored=recipe is None) if compatible == "accept" else {})


def _require_place(case: Case, message: str | None, compatible: str, strict: str) -> None:
    """Stops the program if a case fits another folder or differs from the reference unasked."""
    folder = case.file.partition("/")[0]
    fits = {
        "valid": compatible == strict == "accept",
        "malformed": strict != "accept",
        "foreign": compatible != "accept",
    }
    if not fits[folder]:
        raise SystemExit(f"error: {case.file}: {compatible} and {strict} fit another folder")
    if case.compatible and (message is not None or case.compatible != "DuplicateTensor"):
        raise SystemExit(f"error: {case.file}: only duplicate names differ from the reference")
    if case.names and folder != "foreign":
        raise SystemExit(f"error: {case.file}: only foreign files are named")


def _expected(content: bytes, stored: bool) -> Entry:
    """What a reader must find in an accepted file."""
    table = table_of(content)
    found = {
        tensor.name: (tensor.dtype, tensor.shape, table.data[slice(*tensor.offsets)])
        for tensor in table.tensors
    }
    if found != reference.tensors_of(content):
        raise SystemExit("error: Python's table and the reference's differ")
    if not stored:
        return {"n_tensors": len(table.tensors)}
    rows = [
        {"name": row.name, "dtype": row.dtype, "shape": row.shape, "offsets": list(row.offsets)}
        for row in table.tensors
    ]
    storable = all(toml_text.fits([*row.shape, *row.offsets]) for row in table.tensors)
    return {
        "n_tensors": len(rows),
        "tensors": rows if storable else None,
        "metadata": table.metadata,
    }


def _index_entry(case: IndexCase, pinned: dict[tuple[str, str], str]) -> Entry:
    folder = f"index/{case.folder}"
    entry: Entry = {
        "folder": folder,
        "about": case.about,
        "rule": case.rule,
        "verdict": case.verdict,
        "verify": case.verify,
    }
    if case.verdict != "accept":
        return entry | {"message": pinned.get((folder, "message"), "")}
    return entry | {"shards": sorted(case.shards), "weight_map": case.weight_map()}


def _files(cases: list[Case], folders: list[IndexCase]) -> Iterable[tuple[Path, bytes]]:
    for case in cases:
        if isinstance(case.data, bytes):
            yield FOLDER / case.file, case.data
    for folder in folders:
        for name, data in folder.files().items():
            yield FOLDER / "index" / folder.folder / name, data


def _write_files(files: dict[Path, bytes]) -> None:
    """Writes the files, and removes those of earlier runs that are not made any more."""
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for made in MADE:
        for path in (FOLDER / made).rglob("*"):
            if path.is_file() and path not in files:
                path.unlink()


def _print_summary(entries: list[Entry], index_entries: list[Entry]) -> None:
    folders = Counter(str(entry["file"]).partition("/")[0] for entry in entries)
    folders["index"] = len(index_entries)
    print(*(f"{folder}: {count}" for folder, count in folders.items()), sep=", ")
    pairs = Counter((entry["reference"], entry["compatible"], entry["strict"]) for entry in entries)
    for (verdict, compatible, strict), count in sorted(pairs.items(), key=str):
        print(f"{count:4}  reference {verdict}, compatible {compatible}, strict {strict}")


if __name__ == "__main__":
    main()
