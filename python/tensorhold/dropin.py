"""Runs unchanged programs that use `safetensors` on tensorhold.

From a shell, with the program's own arguments after it:

    python -m tensorhold.dropin script.py ...
    python -m tensorhold.dropin -m module ...
    python -m tensorhold.dropin -c "code" ...

From code, before the program imports `safetensors`:

    import tensorhold.dropin
    tensorhold.dropin.install()

`safetensors` and every module in it is then the very module `tensorhold`, not a copy. If the real
package was imported before, it is taken out of `sys.modules`; what a program already holds of it
(`from safetensors import ...`) stays real. `tensorhold.__version__` then names the version of the
interface, with ours behind it, because programs compare it: `0.8.0+tensorhold.0.1.0`.

The shell form also reaches the Python processes that the program starts (`multiprocessing`,
`torchrun`) by two environment variables, `TENSORHOLD_DROPIN` and `PYTHONPATH`. `install` reaches
processes that are forked; where they are spawned, call it at the top of the main module, which they
run again.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import io
import os
import sys
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import tensorhold

__all__ = ["install", "main", "uninstall"]

# What is answered for: the version of `safetensors` whose interface this is.
INTERFACE_VERSION = "0.8.0"

_ALIAS = "safetensors"
_VERSION = f"{INTERFACE_VERSION}+tensorhold.{tensorhold.__version__.partition('+')[0]}"
_SITE = Path(__file__).with_name("_dropin_site")

USAGE = """\
usage: python -m tensorhold.dropin [-m module | -c code | script] [argument ...]
runs a Python program with `safetensors` answered by tensorhold
"""


class _Loader(importlib.abc.Loader):
    """Loads `safetensors.x` by giving the module `tensorhold.x` itself."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(_ours(spec.name))
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has given the module the alias's spec: its own goes back.
        module.__spec__ = self._spec


class _Finder(importlib.metadata.DistributionFinder):
    """Finds `safetensors` and the modules in it."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if not _is_alias(fullname):
            return None
        found = importlib.util.find_spec(_ours(fullname))
        if found is None:
            return None
        spec = importlib.machinery.ModuleSpec(
            fullname,
            _Loader(),
            origin=found.origin,
            is_package=found.submodule_search_locations is not None,
        )
        spec.has_location = found.has_location
        return spec

    def find_distributions(
        self, context: importlib.metadata.DistributionFinder.Context | None = None
    ) -> Iterable[importlib.metadata.Distribution]:
        name = None if context is None else context.name
        if (name is None or name.lower() == _ALIAS) and not _real_distribution(self):
            yield _Distribution()


class _Distribution(importlib.metadata.Distribution):
    """What `importlib.metadata` says of `safetensors` where it is not installed."""

    def read_text(self, filename: str) -> str | None:
        if filename == "METADATA":
            return f"Metadata-Version: 2.1\nName: {_ALIAS}\nVersion: {_VERSION}\n"
        return f"{_ALIAS}\n" if filename == "top_level.txt" else None

    def locate_file(self, path: str | os.PathLike[str]) -> Any:
        return Path(__file__).parent.parent / path


class _Installed:
    """What `install` has changed, to be undone by `uninstall`."""

    def __init__(self) -> None:
        self.finder = _Finder()
        self.modules = _take_modules()
        self.version = tensorhold.__version__


_installed: _Installed | None = None


def install() -> None:
    """Makes `import safetensors` give tensorhold in this process; a second call changes nothing.

    Example:
        >>> install()
        >>> import safetensors
        >>> safetensors is tensorhold
        True
        >>> uninstall()
    """
    global _installed
    if _installed is None:
        _installed = _Installed()
        sys.meta_path.insert(0, _installed.finder)
        tensorhold.__version__ = _VERSION


def uninstall() -> None:
    """Undoes `install`: `import safetensors` gives the real package again, if there is one.

    Example:
        >>> uninstall()
    """
    global _installed
    if _installed is not None:
        sys.meta_path.remove(_installed.finder)
        _take_modules()
        sys.modules.update(_installed.modules)
        tensorhold.__version__ = _installed.version
        _installed = None


def main(arguments: Sequence[str]) -> int:
    """Runs the program that `arguments` name, as `python` would; returns 2 where they name none.

    Args:
        arguments: `-m module`, `-c code` or a script, and the program's own arguments.
    """
    how = arguments[0] if arguments else ""
    if how in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if not how or (how in ("-m", "-c") and len(arguments) == 1):
        print(USAGE, end="", file=sys.stderr)
        return 2
    install()
    _reach_children()
    sys.argv = list(arguments)
    if how == "-m":
        _run_module(arguments[1])
    elif how == "-c":
        del sys.argv[1]
        _set_first_path("")
        _run(compile(arguments[1], "<string>", "exec"))
    else:
        _run_script(how)
    return 0


def _run_module(name: str) -> None:
    del sys.argv[0]
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    if spec is None or spec.origin is None:
        sys.exit(f"{sys.executable}: No module named {name}")
    sys.argv[0] = spec.origin
    _run_spec(spec)


def _run_script(script: str) -> None:
    if os.path.isdir(script) or zipfile.is_zipfile(script):
        path = os.path.abspath(script)
        _set_first_path(path)
        spec = importlib.machinery.PathFinder.find_spec("__main__", [path])
        if spec is None:
            sys.exit(f"{sys.executable}: can't find '__main__' module in {script!r}")
        _run_spec(spec)
        return
    path = os.path.abspath(script)
    _set_first_path(os.path.dirname(os.path.realpath(script)))
    try:
        with io.open_code(path) as file:
            code = compile(file.read(), path, "exec")
    except OSError as error:
        sys.exit(f"{sys.executable}: can't open file {path!r}: {error}")
    _run(code, __file__=path, __loader__=importlib.machinery.SourceFileLoader("__main__", path))


def _run_spec(spec: importlib.machinery.ModuleSpec) -> None:
    loader: Any = spec.loader
    _run(
        loader.get_code(spec.name),
        __file__=spec.origin,
        __loader__=loader,
        __package__=spec.parent,
        __spec__=spec,
    )


def _run(code: Any, **names: Any) -> None:
    """Runs `code` as the main module of this process."""
    module = ModuleType("__main__")
    module.__dict__.update(names, __builtins__=builtins)
    sys.modules["__main__"] = module
    exec(code, module.__dict__)


def _set_first_path(path: str) -> None:
    # Under `python -P` the first entry is no folder of the program's.
    if not getattr(sys.flags, "safe_path", False) and not sys.flags.isolated:
        sys.path[0] = path


def _reach_children() -> None:
    """Lets the Python processes that this one starts begin with `_dropin_site/sitecustomize.py`."""
    os.environ["TENSORHOLD_DROPIN"] = "1"
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(_SITE) not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(_SITE), *filter(None, paths)])


def _is_alias(name: str) -> bool:
    return name == _ALIAS or name.startswith(f"{_ALIAS}.")


def _ours(name: str) -> str:
    return f"tensorhold{name[len(_ALIAS) :]}"


def _take_modules() -> dict[str, ModuleType]:
    """Takes what is imported under the alias's name out of `sys.modules`."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if _is_alias(name)}


def _real_distribution(finder: object) -> bool:
    """Whether `safetensors` itself is installed."""
    context = importlib.metadata.DistributionFinder.Context(name=_ALIAS)
    for other in sys.meta_path:
        find = getattr(other, "find_distributions", None)
        if other is not finder and find is not None and any(find(context)):
            return True
    return False


if __name__ == "__main__":
    # This file runs twice, as `__main__` and under its own name; the state is the latter's.
    from tensorhold import dropin

    sys.exit(dropin.main(sys.argv[1:]))
