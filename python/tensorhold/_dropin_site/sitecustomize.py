"""Begins a Python process that a program run by `tensorhold.dropin` has started.

The folder of this file stands first in `PYTHONPATH`. A `sitecustomize` that it hides runs as well.
"""

import importlib.machinery
import importlib.util
import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))
_others = [path for path in sys.path if os.path.abspath(path) != _here]

_hidden = importlib.machinery.PathFinder.find_spec("sitecustomize", _others)
if _hidden is not None and _hidden.loader is not None:
    _module = importlib.util.module_from_spec(_hidden)
    sys.modules["sitecustomize"] = _module
    _hidden.loader.exec_module(_module)

if os.environ.get("TENSORHOLD_DROPIN") == "1":
    try:
        import tensorhold.dropin
    except ImportError:
        # A Python of another environment, where tensorhold is not: it keeps what it has.
        pass
    else:
        tensorhold.dropin.install()
