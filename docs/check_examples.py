"""Runs the examples of the pages.

    python docs/check_examples.py [--all] [page ...]

Without pages: README.md and everything in docs/. The blocks marked `python` of a page run in order,
in one process of the page's own, in an empty folder. Where a `print(...)` stands with a comment on
its last line, the comment must be what it prints. The blocks marked `rust` of a page are together
the body of one `main`, built against the crate `tensorhold`. Of the blocks marked `console`, which
come after a page's Python, what follows a line that begins with `$` is what its command prints.

A page whose framework is not installed is not run, and the summary says so; with `--all` that is a
failure.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import tokenize
import traceback
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FRAMEWORKS = {"torch", "numpy", "ml_dtypes", "jax", "flax", "tensorflow", "mlx", "paddle"}
# The exit code of a page whose framework is missing.
NOT_RUN = 77


def main(arguments: list[str]) -> int:
    """Runs the pages and prints a summary; 0 if no example failed."""
    if arguments[:1] == ["--run"]:
        return _run_page(Path(arguments[1]))
    wants_all = "--all" in arguments
    names = [argument for argument in arguments if argument != "--all"]
    pages = [Path(name).resolve() for name in names] or _all_pages()
    results = [_check(page) for page in pages]
    failed, not_run = results.count("failed"), results.count("not run")
    print(f"{results.count('passed')} pages passed, {failed} failed, {not_run} not run")
    return 1 if failed or (wants_all and not_run) else 0


def _all_pages() -> list[Path]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in pages if any(_blocks(page, "python")) or any(_blocks(page, "rust"))]


def _check(page: Path) -> str:
    result = "passed"
    with tempfile.TemporaryDirectory() as folder:
        if any(_blocks(page, "python")):
            command = [sys.executable, __file__, "--run", str(page)]
            code = subprocess.run(command, cwd=folder, check=False).returncode
            result = {0: "passed", NOT_RUN: "not run"}.get(code, "failed")
        if result == "passed" and not all([*_console_passes(page, folder)]):
            result = "failed"
        if any(_blocks(page, "rust")) and not _rust_passes(page, folder):
            result = "failed"
    print(f"{page.relative_to(ROOT)}: {result}", flush=True)
    return result


def _blocks(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """The first line and the text of each block of a page."""
    text = page.read_text("utf-8")
    for block in re.finditer(rf"^```{language}\n(.*?)^```$", text, flags=re.S | re.M):
        yield text.count("\n", 0, block.start(1)) + 1, block[1]


def _run_page(page: Path) -> int:
    names: dict[str, object] = {"__name__": "__main__"}
    for line, source in _blocks(page, "python"):
        # Blank lines before it, so that a traceback shows the page's own line.
        text = "\n" * (line - 1) + source
        comments = _comments(text)
        for statement in ast.parse(text, str(page)).body:
            try:
                _run_statement(statement, names, str(page), comments.get(statement.end_lineno or 0))
            except ModuleNotFoundError as error:
                if str(error.name).partition(".")[0] in FRAMEWORKS:
                    print(f"{page.name}:{statement.lineno}: {error}", file=sys.stderr)
                    return NOT_RUN
                raise
            except Exception:
                print(f"{page}:{statement.lineno}: the example fails", file=sys.stderr)
                traceback.print_exc()
                return 1
    return 0


def _comments(text: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {
        token.start[0]: token.string.removeprefix("#").strip()
        for token in tokens
        if token.type == tokenize.COMMENT
    }


def _run_statement(
    statement: ast.stmt, names: dict[str, object], page: str, comment: str | None
) -> None:
    code = compile(ast.Module([statement], []), page, "exec")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    if comment is not None and _is_print(statement):
        shown = " ".join(printed.getvalue().split())
        assert shown == comment, f"prints `{shown}`, and the page says `{comment}`"


def _is_print(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Call)
        and isinstance(statement.value.func, ast.Name)
        and statement.value.func.id == "print"
    )


def _console_passes(page: Path, folder: str) -> Iterator[bool]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    for line, block in _blocks(page, "console"):
        for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, flags=re.M):
            ended = subprocess.run(
                ["bash", "-c", command],
                cwd=folder,
                env=os.environ | {"PATH": path, "NO_COLOR": "1"},
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if ended.stdout.rstrip() != expected.rstrip():
                print(f"{page}:{line}: `{command}` prints\n{ended.stdout}", file=sys.stderr)
                yield False


def _rust_passes(page: Path, folder: str) -> bool:
    body = "\n".join(source for _, source in _blocks(page, "rust"))
    program = Path(folder, "page.rs")
    program.write_text(f"fn main() -> tensorhold::Result<()> {{\n{body}\nOk(())\n}}\n", "utf-8")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
    library = f"tensorhold={target / 'libtensorhold.rlib'}"
    manifest = str(ROOT / "Cargo.toml")
    build = ["cargo", "build", "--quiet", "--package", "tensorhold", "--manifest-path", manifest]
    compile_page = ["rustc", "--edition", "2024", "-D", "warnings", "page.rs", "--extern", library]
    compile_page += ["-L", f"dependency={target / 'deps'}"]
    return all(
        subprocess.run(command, cwd=folder, check=False, stdout=subprocess.DEVNULL).returncode == 0
        for command in (build, compile_page, ["./page"])
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
