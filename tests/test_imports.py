"""The import rules of the house, read from every file's syntax tree.

A typing-only import and an import inside a function count like any other.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent

ANYTHING = frozenset({"*"})
# Room -> the other rooms it may import. Data walks down this table once; nothing goes sideways.
ALLOWED_ROOMS = {
    "nets": frozenset[str](),
    "checkpoints": frozenset({"nets"}),
    "training": frozenset({"nets", "checkpoints", "labelmint"}),
    "bundle": frozenset[str](),
    # engines.sampling draws latents for calibration and service alike: docs/decisions/0001.
    "engines": frozenset({"bundle", "labelmint"}),
    "export": frozenset({"nets", "checkpoints", "bundle", "engines", "labelmint"}),
    "service": frozenset({"bundle", "engines", "labelmint"}),
    "labelmint": frozenset[str](),
    "protos": frozenset[str](),
    "examples": ANYTHING,
    "benchmarks": ANYTHING,
    "tests": ANYTHING,
}
# Library -> the rooms that may import it, and the one file beside them.
ALLOWED_LIBRARIES = {
    "torch": ({"nets", "checkpoints", "training", "export"}, "labelmint/torch.py"),
    "onnxruntime": ({"engines", "export"}, None),
    "tensorrt": ({"engines", "export"}, None),
    "cuda": ({"engines", "export"}, None),
    "pickle": ({"checkpoints"}, None),
}
IMPORT_CALLS = {"__import__", "import_module", "importlib.import_module"}
COMPUTED = "a computed name"
NETS_LIBRARIES = sys.stdlib_module_names | {"torch"}


@dataclass(frozen=True)
class Import:
    """One imported name, absolute and dotted, and where it stands."""

    path: Path  # relative to the checkout
    line: int
    name: str

    @property
    def room(self) -> str:
        """The room that imports."""
        return self.path.parts[0]

    @property
    def target(self) -> str:
        """The room or library that is imported."""
        return self.name.split(".")[0]


def violations_of_tree(root: Path) -> list[str]:
    """One line per broken rule, naming the file, the import and the rule."""
    found = [f"{room}/: not a room of {Path(__file__).name}" for room in _unknown_rooms(root)]
    for room in ALLOWED_ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            for item in _imports_of_file(path, root):
                rule = _broken_rule(item)
                if rule:
                    found.append(f"{item.path}:{item.line}: imports {item.name}; {rule}")
    return found


def _broken_rule(item: Import) -> str | None:
    rooms = ALLOWED_ROOMS[item.room]
    if item.target == "tests" and item.room != "tests":
        return "nothing imports tests"
    if rooms == ANYTHING or item.target == item.room:
        leads_to_torch = item.name.split(".")[:2] == ["labelmint", "torch"]
        if item.room == "labelmint" and leads_to_torch:
            return "only the user imports labelmint.torch"
        return None
    if item.target in ALLOWED_ROOMS:
        if item.target not in rooms:
            return f"{item.room} may import {', '.join(sorted(rooms)) or 'no other room'}"
        if item.name.split(".")[:2] == ["labelmint", "torch"] and item.room != "training":
            return f"{item.room} may not lead to torch"
        return None
    if item.target == COMPUTED:
        return "write the name out, so that this test can read it"
    if item.room == "nets" and item.target not in NETS_LIBRARIES:
        return "nets is torch mathematics alone"
    allowed, file = ALLOWED_LIBRARIES.get(item.target, ({item.room}, None))
    if item.room not in allowed and item.path.as_posix() != file:
        return f"{item.target} belongs to {', '.join(sorted(allowed))}"
    return None


def _imports_of_file(path: Path, root: Path) -> Iterator[Import]:
    relative = path.relative_to(root)
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(relative, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute_module(relative, node)
            # `from labelmint import torch` reaches a module as surely as `import labelmint.torch`.
            for alias in node.names:
                yield Import(relative, node.lineno, f"{module}.{alias.name}")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in IMPORT_CALLS and node.args:
            name = node.args[0].value if isinstance(node.args[0], ast.Constant) else COMPUTED
            yield Import(relative, node.lineno, str(name))


def _absolute_module(relative: Path, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    package = relative.parent.parts
    kept = package[: len(package) - node.level + 1]
    return ".".join((*kept, *([node.module] if node.module else [])))


def _unknown_rooms(root: Path) -> list[str]:
    return sorted(
        folder.name
        for folder in root.iterdir()
        if folder.is_dir()
        and not folder.name.startswith(".")
        and folder.name not in {*ALLOWED_ROOMS, "build", "dist", "demo"}
        and any(folder.rglob("*.py"))
    )


def test_every_room_imports_only_what_it_may() -> None:
    violations = violations_of_tree(CHECKOUT)
    assert not violations, "\n".join(violations)


@pytest.mark.parametrize(
    ("file", "source", "rule"),
    [
        ("nets/ops.py", "import numpy", "torch mathematics alone"),
        ("nets/ops.py", "import checkpoints", "no other room"),
        ("checkpoints/card.py", "from training.errors import LabelError", "may import nets"),
        ("training/fit.py", "import bundle.manifest", "may import checkpoints, labelmint, nets"),
        ("training/fit.py", "import onnxruntime as ort", "belongs to engines, export"),
        ("training/fit.py", "import pickle", "belongs to checkpoints"),
        ("bundle/manifest.py", "import engines", "no other room"),
        ("bundle/manifest.py", "from torch import nn", "torch belongs to"),
        ("engines/open.py", "from service import config", "may import bundle, labelmint"),
        ("engines/open.py", "import labelmint.torch", "may not lead to torch"),
        ("service/rpc/stream.py", "from labelmint import torch", "may not lead to torch"),
        ("service/rpc/stream.py", "from ...export import parity", "imports export"),
        ("service/config.py", "def f():\n    import torch.nn", "torch belongs to"),
        ("service/config.py", "import importlib\nimportlib.import_module('torch')", "torch"),
        ("service/config.py", "__import__(name)", "write the name out"),
        ("service/config.py", "from tests.engines import tiny", "nothing imports tests"),
        ("export/__main__.py", "import service", "may import"),
        ("labelmint/client.py", "import bundle", "no other room"),
        ("labelmint/client.py", "import torch", "torch belongs to"),
        ("labelmint/client.py", "from . import torch", "only the user"),
        (
            "labelmint/client.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
            "torch belongs to",
        ),
        ("benchmarks/stream.py", "import tests.conftest", "nothing imports tests"),
        ("protos/generate.py", "import labelmint.v1", "no other room"),
        ("helpers/text.py", "", "not a room"),
    ],
)
def test_a_broken_rule_is_found(tmp_path: Path, file: str, source: str, rule: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    violations = violations_of_tree(tmp_path)
    assert len(violations) == 1, violations
    assert file.split("/")[0] in violations[0]
    assert rule in violations[0]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("nets/ops.py", "import math\nimport torch.nn.functional as F\nfrom nets import features"),
        ("training/fit.py", "import torch, numpy, nets.ops, checkpoints, labelmint.latents"),
        ("engines/ort.py", "import onnxruntime\nfrom labelmint import latents\nimport bundle"),
        ("export/parity.py", "import torch, onnxruntime, nets, checkpoints, bundle, engines"),
        ("service/rpc/stream.py", "from ..config import Config\nfrom labelmint.v1 import x_pb2"),
        ("labelmint/torch.py", "import torch\nfrom labelmint import client"),
        ("examples/demo/run.py", "import service, export, torch, onnxruntime, pickle"),
        ("tests/test_x.py", "from tests import tiny\nimport onnxruntime"),
    ],
)
def test_a_kept_rule_is_silent(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert violations_of_tree(tmp_path) == []
