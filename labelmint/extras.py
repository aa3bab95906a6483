"""What to install when a package is missing: the extras of pyproject.toml, in one line.

Imports the standard library alone, so that it can be the first import of every command.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import TracebackType

_CHECKOUT = Path(__file__).resolve().parent.parent
# Packages that no extra has: the page of the script that needs one names its environment.
_OTHERS = ("pytriton", "streaming")
_APART = {"lpips": "train,lpips", "simplejpeg": "jpeg", "triton": "export,fused"}  # own extras


def install_from_extra(extra: str) -> str:
    """The pip command that installs an extra; labelmint is on no index.

    Args:
        extra: name in pyproject.toml, or several, separated by commas.
    """
    return f"pip install '.[{extra}]' in the checkout of labelmint"


def name_missing_extra(extra: str) -> None:
    """A package that an import does not find ends this process with a line, not a traceback.

    The first statement of an application, before its imports.

    Args:
        extra: what the application needs, see `install_from_extra`.
    """
    sys.excepthook = partial(_end, extra)


def _end(
    extra: str, kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    package = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    ours = package in sys.stdlib_module_names or (_CHECKOUT / package).is_dir()
    if not isinstance(error, ModuleNotFoundError) or ours or package in _OTHERS:
        sys.__excepthook__(kind, error, traceback)
        return
    command = f"pip install -c constraints.txt '.[{_APART.get(package, extra)}]'"
    print(
        f"error: {package} is not installed for {sys.executable}: run this by .venv/bin/python, "
        f"which `make setup` makes, or {command} in the checkout",
        file=sys.stderr,
    )
