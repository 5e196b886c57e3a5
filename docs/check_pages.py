"""Checks the pages: their links and anchors lead somewhere, and the specification fits the corpus.

    python docs/check_pages.py

Every relative link of every Markdown file of the repository must lead to a file, and its `#anchor`
to a heading there. Every rule that `testdata/corpus.toml` names must be a heading of
`docs/reference/format.md`, and the patterns on the rule's `Corpus:` line must name all its files
and none that is not there. A test that a page names as `file::test` must be there.
"""

from __future__ import annotations

import fnmatch
import os
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORMAT = ROOT / "docs/reference/format.md"
CORPUS = ROOT / "testdata/corpus.toml"
OUTSIDE = {"target"}


def main() -> int:
    """Prints what is wrong, one line each; 0 if nothing is."""
    faults = [*_link_faults(), *_test_faults(), *_corpus_faults()]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def _link_faults() -> Iterator[str]:
    for page in _pages():
        for link in re.findall(r"\]\(([^)\s]+)\)", _without_code(page.read_text("utf-8"))):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            where = page.relative_to(ROOT)
            if not target.exists():
                yield f"{where}: link `{link}` leads to no file"
            elif anchor and anchor not in _anchors(target):
                yield f"{where}: link `{link}` leads to no heading"


def _test_faults() -> Iterator[str]:
    for page in _pages():
        for path, test in re.findall(r"`([\w.-]+/[\w./-]+)::(\w+)`", page.read_text("utf-8")):
            file = ROOT / path
            source = file.read_text("utf-8") if file.is_file() else ""
            if not re.search(rf"(?:def|fn) {test}\b", source):
                yield f"{page.relative_to(ROOT)}: there is no test `{path}::{test}`"


def _pages() -> list[Path]:
    pages = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in OUTSIDE and name[0] not in "."]
        pages += [Path(folder, file) for file in files if file.endswith(".md")]
    return sorted(pages)


def _without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "``", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))


def _anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.S | re.M)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _corpus_faults() -> Iterator[str]:
    files = _files_by_rule()
    patterns = _patterns_by_rule()
    everything = {file for group in files.values() for file in group}
    for rule, group in sorted(files.items()):
        if rule not in patterns:
            yield f"format.md: no rule `{rule}`, which {len(group)} files of the corpus are about"
            continue
        for file in sorted(group):
            if not any(fnmatch.fnmatchcase(file, pattern) for pattern in patterns[rule]):
                yield f"format.md: rule `{rule}` does not name `{file}`"
    for rule, named in sorted(patterns.items()):
        for pattern in named:
            if not fnmatch.filter(everything, pattern):
                yield f"format.md: rule `{rule}` names `{pattern}`, which is in no corpus"


def _files_by_rule() -> dict[str, set[str]]:
    corpus = tomllib.loads(CORPUS.read_text("utf-8"))
    files: dict[str, set[str]] = defaultdict(set)
    for case in corpus["case"]:
        files[case["rule"]].add(case["file"].removesuffix(".safetensors"))
    for index in corpus["index"]:
        files[index["rule"]].add(index["folder"])
    return files


def _patterns_by_rule() -> dict[str, list[str]]:
    sections = re.split(r"^### ", FORMAT.read_text("utf-8"), flags=re.M)[1:]
    patterns = {}
    for section in sections:
        corpus = re.search(r"^Corpus: (.+?)(?:\n\n|\Z)", section, flags=re.S | re.M)
        if corpus:
            patterns[section.partition("\n")[0]] = re.findall(r"`([^`]+)`", corpus[1])
    return patterns


if __name__ == "__main__":
    sys.exit(main())
