"""A command whose packages are missing says in one line which extra has them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib

CHECKOUT = Path(__file__).resolve().parent.parent
# Hides a package from a new interpreter, as if it were not installed.
SITECUSTOMIZE = """
import os, sys
class Hides:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == os.environ["HIDDEN"]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hides())
"""
DOWNLOAD = "download --target localhost:1 --out x --count 1 --format"
ENTRIES = [
    ("-m training", "click", "train"),
    ("-m training --help", "torch", "train"),
    ("-m training shapes --help", "grpc", "train"),
    ("-m export", "click", "export"),
    ("-m export --help", "torch", "export"),
    ("-m studio --help", "uvicorn", "train,export,studio"),
    ("-m service run --help", "click", "serve"),
    ("-m service run --help", "msgspec", "serve"),
    ("-m bundle verify x", "click", "serve"),
    ("-m bundle verify x", "msgspec", "serve"),
    ("-m benchmarks.stream --help", "click", "serve,train,export,cli,dev"),
    ("-m benchmarks.stream --help", "msgspec", "serve,train,export,cli,dev"),
    ("-m examples.demo", "torch", "serve,train,export,cli"),
    ("-m labelmint doctor", "click", "cli"),
    ("-m labelmint --help", "PIL", "cli"),
    ("-m labelmint --help", "grpc", "cli"),
    (f"-m labelmint {DOWNLOAD} coco", "pycocotools", "datasets"),
    (f"-m labelmint {DOWNLOAD} hf", "pyarrow", "hf"),
    ("-c import labelmint.torch", "torch", "torch"),
    ("-c import labelmint.hub", "datasets", "hf"),
]


@pytest.mark.parametrize(("command", "hidden", "extra"), ENTRIES)
def test_a_command_without_a_package_names_the_extra(
    tmp_path: Path, command: str, hidden: str, extra: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    flag, _, rest = command.partition(" ")
    ran = subprocess.run(
        [sys.executable, flag, *([rest] if flag == "-c" else rest.split())],
        capture_output=True, text=True, cwd=CHECKOUT,
        env={**os.environ, "HIDDEN": hidden, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert ran.returncode == 1, ran.stdout
    line = ran.stderr.splitlines()[-1]
    if flag == "-m":
        assert ran.stderr.count("\n") == 1, ran.stderr
    assert hidden in line
    assert f"'.[{extra}]' in the checkout" in line


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is of Python 3.11")
def test_every_extra_that_a_message_names_exists() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    for _, _, extra in ENTRIES:
        assert set(extra.split(",")) <= set(project["optional-dependencies"])
    for path in (CHECKOUT / "labelmint").rglob("*.py"):
        assert not re.search(r"labelmint\[\w", path.read_text()), f"{path}: it is on no index"


def test_another_error_keeps_its_traceback() -> None:
    code = "import labelmint.extras as e; e.name_missing_extra('cli'); import training.nothing"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT)
    assert "Traceback" in ran.stderr
