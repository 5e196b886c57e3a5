"""Asks the reference again for its verdict on every file; see README.md.

Run it as `python testdata/check_reference.py`, with safetensors 0.8.0 installed. The exit code is 1
if a verdict or a table of `corpus.toml` is not the reference's, or if a file is not listed.
"""

import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from corpus import reference
from corpus.case import Recipe, make

FOLDER = Path(__file__).parent


def main() -> int:
    """Checks everything, prints what differs, and returns the exit code."""
    reference.require_version()
    corpus = tomllib.loads((FOLDER / "corpus.toml").read_text(encoding="utf-8"))
    failures = [f"{file}: not listed" for file in _unlisted(corpus)]
    with tempfile.TemporaryDirectory() as scratch:
        for case in corpus["case"]:
            difference = _difference(case, Path(scratch))
            if difference:
                failures.append(f"{case['file']}: {difference}")
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"{len(corpus['case']) - len(failures)} passed, {len(failures)} failed")
    return 1 if failures else 0


def _unlisted(corpus: dict[str, Any]) -> list[str]:
    listed = {case["file"] for case in corpus["case"]}
    folders = (FOLDER / name for name in ("valid", "malformed", "foreign"))
    stored = (path for folder in folders for path in folder.iterdir())
    return sorted({path.relative_to(FOLDER).as_posix() for path in stored} - listed)


def _difference(case: dict[str, Any], scratch: Path) -> str | None:
    """What the reference says that the corpus does not, if anything."""
    path = FOLDER / case["file"]
    if "generate" in case:
        path = scratch / "made.safetensors"
        path.write_bytes(make(Recipe(case["generate"], case["n"])))
    content = path.read_bytes()
    message = reference.message_on(content)
    opening = reference.message_on_opening(path)
    if (message is None) != (case["reference"] == "accept"):
        return f"the reference says {message or 'accept'}, the corpus {case['reference']}"
    if (opening is None) != (message is None):
        return f"the reference says {message or 'accept'} in memory, {opening or 'accept'} on disk"
    kind = case.get("header", case["compatible"])
    is_exception = message is None and kind == "DuplicateTensor"
    if kind != reference.kind_of(message) and not is_exception:
        return f"the compatible verdict is {kind}, the reference says {message or 'accept'}"
    return _table_difference(case, content) if "tensors" in case else None


def _table_difference(case: dict[str, Any], content: bytes) -> str | None:
    found = reference.tensors_of(content)
    rows = case["tensors"]
    listed = {row["name"]: (row["dtype"], row["shape"]) for row in rows}
    if listed != {name: (dtype, shape) for name, (dtype, shape, _) in found.items()}:
        return "the reference finds other tensors"
    sizes = {row["name"]: row["offsets"][1] - row["offsets"][0] for row in rows}
    if sizes != {name: len(data) for name, (_, _, data) in found.items()}:
        return "the reference finds tensors of other sizes"
    return None if len(rows) == case["n_tensors"] else "`n_tensors` does not count the tensors"


if __name__ == "__main__":
    sys.exit(main())
