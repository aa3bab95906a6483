"""The import rules of the project, read from every file's syntax tree.

A typing-only import and an import inside a function count like any other.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent

ANYTHING = frozenset({"*"})
# Package -> the packages it may import. Data passes down this table; nothing goes sideways.
ALLOWED_PACKAGES = {
    "nets": frozenset[str](),
    # One file writer, one kind of strict record, one range of cameras: docs/decisions/0021.
    "checkpoints": frozenset({"nets", "bundle"}),
    # A proposal is learned from a bundle's own samples: docs/decisions/0032.
    "training": frozenset({"nets", "checkpoints", "bundle", "engines", "labelmint"}),
    "bundle": frozenset[str](),
    # engines.sampling draws latents for calibration and service alike: docs/decisions/0001.
    "engines": frozenset({"bundle", "labelmint"}),
    "export": frozenset({"nets", "checkpoints", "bundle", "engines", "labelmint"}),
    "service": frozenset({"bundle", "engines", "labelmint"}),
    # It runs `training` and `export` as commands, and reads their files: docs/decisions/0027.
    "studio": frozenset({"nets", "checkpoints", "training", "bundle", "export", "labelmint"}),
    "labelmint": frozenset[str](),
    # The wheel of the engine: docs/decisions/0026.
    "labelmint_engine": frozenset({"bundle", "engines"}),
    "protos": frozenset[str](),
    "helm": frozenset[str](),
    "examples": ANYTHING,
    "benchmarks": ANYTHING,
    "tests": ANYTHING,
}
# Library -> the packages that may import it, and the one folder beside them.
ALLOWED_LIBRARIES = {
    "torch": ({"nets", "checkpoints", "training", "export", "studio"}, "labelmint/torch"),
    "starlette": ({"studio"}, None),
    "uvicorn": ({"studio"}, None),
    "onnxruntime": ({"engines", "export"}, None),
    "tensorrt": ({"engines", "export"}, None),
    "tensorrt_rtx_bindings": ({"engines", "export"}, None),
    "cuda": ({"engines", "export"}, None),
    "pickle": ({"checkpoints"}, None),
    "ray": (set[str](), "labelmint/ray"),
}
IMPORT_CALLS = {"__import__", "import_module", "importlib.import_module"}
COMPUTED = "a computed name"
CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "date.today"}
NETS_LIBRARIES = sys.stdlib_module_names | {"torch"}


@dataclass(frozen=True)
class Import:
    """One imported name, absolute and dotted, and where it stands."""

    path: Path  # relative to the checkout
    line: int
    name: str

    @property
    def package(self) -> str:
        """The package that imports."""
        return self.path.parts[0]

    @property
    def target(self) -> str:
        """The package or library that is imported."""
        return self.name.split(".")[0]


def violations_of_tree(root: Path) -> list[str]:
    """One line per broken rule, naming the file, the import and the rule."""
    found = [
        f"{package}/: not a package of {Path(__file__).name}" for package in _unknown_packages(root)
    ]
    for package in ALLOWED_PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            for item in _imports_of_file(path, root):
                rule = _broken_rule(item)
                if rule:
                    found.append(f"{item.path}:{item.line}: imports {item.name}; {rule}")
    return found


def _broken_rule(item: Import) -> str | None:
    packages = ALLOWED_PACKAGES[item.package]
    if item.target == "tests" and item.package != "tests":
        return "nothing imports tests"
    if packages == ANYTHING or item.target == item.package:
        leads_to_torch = item.name.split(".")[:2] == ["labelmint", "torch"]
        within = item.path.parts[:2] == ("labelmint", "torch")
        if item.package == "labelmint" and leads_to_torch and not within:
            return "only the user imports labelmint.torch"
        return None
    if item.target in ALLOWED_PACKAGES:
        if item.target == "labelmint_engine" and item.path.parts[:2] == ("labelmint", "ray"):
            return None  # a distribution of its own, which only Ray's workers need
        if item.target not in packages:
            return f"{item.package} may import {', '.join(sorted(packages)) or 'no other package'}"
        if item.name.split(".")[:2] == ["labelmint", "torch"] and item.package != "training":
            return f"{item.package} may not lead to torch"
        return None
    if item.target == COMPUTED:
        return "write the name out, so that this test can read it"
    if item.package == "nets" and item.target not in NETS_LIBRARIES:
        return "nets is torch mathematics alone"
    allowed, folder = ALLOWED_LIBRARIES.get(item.target, ({item.package}, None))
    if item.package not in allowed and item.path.parent.as_posix() != folder:
        owners = sorted(allowed) + ([folder] if folder else [])
        return f"{item.target} belongs to {', '.join(owners)}"
    return None


def _imports_of_file(path: Path, root: Path) -> Iterator[Import]:
    relative = path.relative_to(root)
    for line, name, dots in _content(path.read_text("utf-8")).imports:
        yield Import(relative, line, _absolute_name(relative, name, dots))


@dataclass(frozen=True)
class Content:
    """What the rules are about in a file."""

    imports: tuple[tuple[int, str, int], ...]  # line, name, number of dots before the name
    tells_the_time: bool


@cache  # of a text: three tests read the files of the checkout
def _content(source: str) -> Content:
    imports, tells_the_time = list[tuple[int, str, int]](), False
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imports += [(node.lineno, alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from labelmint import torch` reaches a module as surely as `import labelmint.torch`.
            before = f"{node.module}." if node.module else ""
            imports += [(node.lineno, f"{before}{alias.name}", node.level) for alias in node.names]
            tells_the_time |= node.module == "time"
        elif isinstance(node, ast.Call) and _dotted(node.func) in IMPORT_CALLS and node.args:
            name = node.args[0].value if isinstance(node.args[0], ast.Constant) else COMPUTED
            imports.append((node.lineno, str(name), 0))
        elif isinstance(node, ast.Attribute):
            tells_the_time |= _dotted(node) in CLOCKS
    return Content(tuple(imports), tells_the_time)


def _dotted(node: ast.expr) -> str:
    """A name with the names before its dots; "" for an expression of another kind."""
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def _absolute_name(relative: Path, name: str, dots: int) -> str:
    if dots == 0:
        return name
    package = relative.parent.parts
    return ".".join((*package[: len(package) - dots + 1], name))


def _unknown_packages(root: Path) -> list[str]:
    return sorted(
        folder.name
        for folder in root.iterdir()
        if folder.is_dir()
        and not folder.name.startswith(".")
        and folder.name not in {*ALLOWED_PACKAGES, "build", "dist", "demo"}
        and any(folder.rglob("*.py"))
    )


def test_every_package_imports_only_what_it_may() -> None:
    violations = violations_of_tree(CHECKOUT)
    assert not violations, "\n".join(violations)


@pytest.mark.parametrize(
    ("file", "source", "rule"),
    [
        ("nets/ops.py", "import numpy", "torch mathematics alone"),
        ("nets/ops.py", "import checkpoints", "no other package"),
        (
            "checkpoints/card.py",
            "from training.errors import LabelError",
            "may import bundle, nets",
        ),
        ("training/fit.py", "import export.errors", "may import bundle, checkpoints, engines"),
        ("training/fit.py", "import onnxruntime as ort", "belongs to engines, export"),
        ("training/fit.py", "import pickle", "belongs to checkpoints"),
        ("bundle/manifest.py", "import engines", "no other package"),
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
        ("studio/app.py", "import service", "may import bundle, checkpoints, export"),
        ("studio/app.py", "import onnxruntime", "belongs to engines, export"),
        ("training/fit.py", "import studio", "may import bundle, checkpoints, engines"),
        ("service/config.py", "import starlette", "belongs to studio"),
        ("labelmint/client.py", "import bundle", "no other package"),
        ("labelmint/client.py", "import torch", "torch belongs to"),
        ("labelmint/client.py", "from . import torch", "only the user"),
        ("labelmint/client.py", "import ray", "ray belongs to labelmint/ray"),
        ("labelmint/client.py", "import labelmint_engine", "no other package"),
        (
            "labelmint/client.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
            "torch belongs to",
        ),
        ("benchmarks/stream.py", "import tests.conftest", "nothing imports tests"),
        ("protos/generate.py", "import labelmint.v1", "no other package"),
        ("helpers/text.py", "", "not a package"),
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
        (
            "export/checks/parity.py",
            "import torch, onnxruntime, nets, checkpoints, bundle, engines",
        ),
        ("service/rpc/stream.py", "from ..config import Config\nfrom labelmint.v1 import x_pb2"),
        ("labelmint/torch/dataset.py", "import torch\nfrom labelmint import client"),
        ("labelmint/ray/labeller.py", "import ray\nfrom labelmint_engine import EngineOptions"),
        ("examples/demo/run.py", "import service, export, torch, onnxruntime, pickle"),
        ("tests/test_x.py", "from tests import tiny\nimport onnxruntime"),
    ],
)
def test_a_kept_rule_is_silent(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert violations_of_tree(tmp_path) == []


def circles_of_tree(root: Path) -> list[list[str]]:
    """Files that import each other, directly or by way of others, in packages that are shipped.

    An import inside a function counts, so any module can be the first to be imported.
    """
    modules = {
        _module_name(path.relative_to(root)): path
        for package, allowed in ALLOWED_PACKAGES.items()
        if allowed != ANYTHING
        for path in (root / package).rglob("*.py")
    }
    asks = {name for name, path in modules.items() if "def __getattr__" in path.read_text("utf-8")}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        graph[name] = {
            found
            for item in _imports_of_file(path, root)
            # `from labelmint import codec` asks the package first, which then imports others.
            for found in (_nearest_module(item.name, modules), item.name.rpartition(".")[0])
            if found != name and (found in asks or found == _nearest_module(item.name, modules))
        } - {""}
    return [sorted(circle) for circle in _strongly_connected(graph) if len(circle) > 1]


def _module_name(relative: Path) -> str:
    parts = relative.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _nearest_module(name: str, modules: Mapping[str, Path]) -> str:
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def _strongly_connected(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Tarjan's algorithm: sets of nodes each of which can reach all others of its set."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in order:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], order[other])
        if lowest[node] == order[node]:
            at = stack.index(node)
            found.append(set(stack[at:]))
            del stack[at:]

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


# Spans have times of the day. All else waits by time.monotonic, whatever is done to the clock.
TELLS_THE_TIME = {"service/tracing.py"}


def test_nothing_waits_by_a_clock_that_may_jump() -> None:
    found = {
        path.relative_to(CHECKOUT).as_posix()
        for package in ALLOWED_PACKAGES.keys() - {"tests", "examples", "benchmarks"}
        for path in (CHECKOUT / package).rglob("*.py")
        if _content(path.read_text("utf-8")).tells_the_time
    }
    assert found == TELLS_THE_TIME


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles_of_tree(CHECKOUT) == []


def test_a_module_asked_of_a_package_that_imports_lazily_closes_a_circle(tmp_path: Path) -> None:
    package = tmp_path / "labelmint"
    package.mkdir()
    (package / "__init__.py").write_text("def __getattr__(name):\n    from labelmint import client")
    (package / "client.py").write_text("from labelmint.options import check")
    (package / "options.py").write_text("from labelmint.codec import tensor_from_array")
    (package / "codec.py").write_text("")
    assert circles_of_tree(tmp_path) == []
    (package / "options.py").write_text("from labelmint import codec")
    assert circles_of_tree(tmp_path) == [["labelmint", "labelmint.client", "labelmint.options"]]


def test_a_circle_is_found_also_through_a_function_and_a_package(tmp_path: Path) -> None:
    for file, source in {
        "labelmint/__init__.py": "def f():\n    from labelmint.client import Client",
        "labelmint/client.py": "from labelmint.options import check",
        "labelmint/options.py": "from labelmint import codec",
        "labelmint/codec.py": "import numpy",
        "labelmint/batch.py": "from labelmint import codec, VERSION",
    }.items():
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    assert circles_of_tree(tmp_path) == []
    (tmp_path / "labelmint/codec.py").write_text("from labelmint import VERSION")
    assert circles_of_tree(tmp_path) == [
        ["labelmint", "labelmint.client", "labelmint.codec", "labelmint.options"]
    ]
