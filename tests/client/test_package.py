"""The package: its public names, and what importing it leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import labelmint


def test_public_names_are_exactly_all() -> None:
    # In a process where nobody has imported one of them.
    shown, found = said(
        "import labelmint; print(*dir(labelmint)); print(*vars(labelmint.Client))"
    ).splitlines()
    assert sorted(shown.split()) == sorted([*labelmint.__all__, "__version__"])
    assert "stream" in found.split()
    assert len(labelmint.__all__) <= 8
    for name in labelmint.__all__:
        assert getattr(labelmint, name).__doc__
    assert labelmint.__version__.count(".") == 2


def test_modules_that_callers_name_need_no_import_of_their_own() -> None:
    """Each as the first: in a fork of a process that has imported nothing but the package."""
    code = """
import os
import labelmint
for name in labelmint._MODULES:
    if not (child := os.fork()):
        assert getattr(labelmint, name).__name__ == f"labelmint.{name}"
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
print(len(labelmint._MODULES))
"""
    assert said(code) == str(len(labelmint._MODULES))


@pytest.mark.long
def test_every_module_can_be_the_first_to_be_imported_and_leaves_the_environment_alone() -> None:
    """Alone, in a fork of a process that has imported the libraries and nothing of the package.

    test_imports.py finds circles in the files, and is quick.
    """
    folder = Path(labelmint.__file__).parent
    names = [
        ".".join(path.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(folder.rglob("*.py"))
    ]
    assert {"labelmint", "labelmint.options", "labelmint.torch.position"} <= set(names)
    code = f"""
import importlib, os, sys
import click, datasets, google.rpc, grpc_status, jinja2, numpy, PIL, pyarrow.parquet, pycocotools
import ray.data, torch.utils.data, tqdm
before = dict(os.environ)
for name in {[name for name in names if name != "labelmint.__main__"]}:
    assert not [each for each in sys.modules if each.startswith("labelmint")]
    if not (child := os.fork()):
        try:
            importlib.import_module(name)
            assert dict(os.environ) == before or name.startswith("labelmint.cli")  # has a log level
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        print(name)
"""
    assert said(code) == "", "these cannot be imported first"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'labelmint' has no attribute 'Cleint'"):
        _ = labelmint.Cleint  # type: ignore[attr-defined]


def test_importing_labelmint_imports_no_torch_and_none_of_the_extras() -> None:
    extras = ("torch", "click", "PIL", "simplejpeg", "tqdm")
    code = "import sys; from labelmint import *"
    assert said(f"{code}; print([name for name in {extras} if name in sys.modules])") == "[]"


def test_importing_labelmint_leaves_the_environment_alone() -> None:
    code = "import os; before = dict(os.environ); from labelmint import *"
    assert said(f"{code}; print(dict(os.environ) == before)") == "True"


def said(code: str) -> str:
    """What a process of its own prints, which may warn of nothing."""
    command = [sys.executable, "-W", "error", "-c", code]
    # The command may have set this variable here.
    environment = {name: text for name, text in os.environ.items() if name != "GRPC_VERBOSITY"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.strip()
