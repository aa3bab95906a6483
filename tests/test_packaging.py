"""What a user's `pip install labelmint` gets, and what `make setup` pins."""

import os
import re
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).resolve().parent.parent
BASE = {"grpcio", "grpcio-status", "numpy", "protobuf", "zstandard"}
USER_EXTRAS = {"torch", "cli", "datasets", "hf", "jpeg", "ray"}
APPLICATION_EXTRAS = {
    "tracing", "serve", "train", "studio", "fused", "lpips", "export", "gpu", "rtx", "dev",
}  # fmt: skip
GPU_ALONE = {"cuda-python", "onnxruntime-gpu", "tensorrt"}
# What torch asks for in the build that the package index has; a build without CUDA asks for none.
TORCH_OF_THE_INDEX = {"torch": "==2.13.0", "triton": "==3.7.1", "cuda-bindings": ">=13.0.3,<14"}
CUDA_OF_TORCH = ("cuda-toolkit", "nvidia-")  # pinned by torch itself
# Modules of every extra: a base installation has none of them.
OPTIONAL_MODULES = (
    "click", "jinja2", "onnx", "onnxruntime", "PIL", "msgspec", "pycocotools",
    "prometheus_client", "ray", "simplejpeg", "torch", "tqdm", "webdataset",
)  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, CHECKOUT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def test_the_wheel_holds_labelmint_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        scripts = archive.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"labelmint"}
    folder = CHECKOUT / "labelmint"
    sources = {path.relative_to(CHECKOUT).as_posix() for path in folder.rglob("*.py")}
    assert sources <= set(names)
    assert {"labelmint/py.typed", "labelmint/v1/label_service_pb2.pyi"} <= set(names)
    assert {"labelmint/templates/report.html", "labelmint/templates/report.css"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "labelmint = labelmint.__main__:main" in scripts
    assert "labelmint/cli/__init__.py" in names


def test_the_wheel_imports_without_checkout_and_extras(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    _run(
        sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-index",
        "--no-deps", "--target", site, wheel,
    )  # fmt: skip
    probe = f"""
import importlib.util, sys
sys.modules.update(dict.fromkeys({OPTIONAL_MODULES!r}))
import labelmint, labelmint.latents, labelmint.v1.label_service_pb2_grpc
from labelmint import *
assert labelmint.__file__.startswith({str(site)!r}), labelmint.__file__
for room in ("bundle", "engines", "export", "nets", "service", "studio", "training"):
    assert importlib.util.find_spec(room) is None, room
print(labelmint.__version__)
"""
    version = _run(sys.executable, "-W", "error", "-c", probe, cwd=tmp_path, PYTHONPATH=str(site))
    assert f"-{version.strip()}-" in wheel.name


def test_an_editable_install_keeps_the_applications_in_the_checkout(tmp_path: Path) -> None:
    probe = (
        "import importlib.util as u, labelmint; print(u.find_spec('service'), u.find_spec('nets'))"
    )
    assert _run(sys.executable, "-c", probe, cwd=tmp_path).split() == ["None", "None"]


def test_the_metadata_names_the_promised_extras(metadata: Message) -> None:
    assert set(metadata.get_all("Provides-Extra", [])) == USER_EXTRAS | APPLICATION_EXTRAS
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    base = {r.name for r in _requirements(metadata) if r.marker is None}
    assert base == BASE
    assert all(r.specifier for r in _requirements(metadata) if r.marker is None)


def test_only_the_gpu_extra_leads_to_gpu_packages(metadata: Message) -> None:
    requirements = _requirements(metadata)
    assert "labelmint" not in {r.name for r in requirements}  # no extra includes another
    for requirement in requirements:
        if requirement.name in GPU_ALONE:
            assert str(requirement.marker) == 'extra == "gpu"'
    gpu = {r.name for r in requirements if str(r.marker) == 'extra == "gpu"'}
    serve = {r.name for r in requirements if str(r.marker) == 'extra == "serve"'}
    assert gpu == serve - {"onnxruntime"} | GPU_ALONE
    assert "gpu" not in _extras_of_setup()


def test_constraints_pin_everything_that_setup_installs(metadata: Message) -> None:
    pins = _pins()
    installed = _closure(_requirements(metadata), _extras_of_setup())
    assert {name: pins.get(name) for name in installed} == installed
    assert not pins.keys() - installed.keys(), "pinned, but nothing asks for it"


def test_the_pins_are_those_of_torch_from_the_package_index_too() -> None:
    pins = _pins()
    for name, wanted in TORCH_OF_THE_INDEX.items():
        assert SpecifierSet(wanted).contains(pins[name]), f"{name} {pins[name]}"


def test_the_pins_are_those_of_the_images_cuda_python_too() -> None:
    match = re.search(r"(?m)^ARG CUDA_PYTHON_VERSION=(\S+)$", _text("Dockerfile"))
    assert match
    assert SpecifierSet(f"~={match[1]}").contains(_pins()["cuda-bindings"])  # as it asks for


def _pins() -> dict[str, str]:
    found = re.findall(r"(?m)^([\w.-]+)==(\S+)$", _text("constraints.txt"))
    return {canonicalize_name(name): version for name, version in found}


def _closure(roots: list[Requirement], extras: set[str]) -> dict[str, str]:
    """Name -> installed version (without a local label) of all that the requirements lead to."""
    seen: dict[str, str] = {}
    visited: set[tuple[str, str]] = set()
    todo = [(root, extra) for root in roots for extra in ("", *extras)]
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name.startswith(CUDA_OF_TORCH):
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            pytest.fail(f"{name} is not installed; make setup installs it")
        seen[name] = found.version.split("+")[0]
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in visited:
                visited.add((name, wanted))
                todo += [(Requirement(text), wanted) for text in found.requires or []]
    return seen


def _extras_of_setup() -> set[str]:
    match = re.search(r"(?m)^EXTRAS := (\S+)$", _text("Makefile"))
    assert match
    return set(match[1].split(","))


def _requirements(metadata: Message) -> list[Requirement]:
    return [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]


def _text(name: str) -> str:
    return (CHECKOUT / name).read_text("utf-8")


def _run(*command: str | Path, cwd: Path = CHECKOUT, **environment: str) -> str:
    run = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert run.returncode == 0, f"{run.args}\n{run.stdout}{run.stderr}"
    return run.stdout


@pytest.mark.parametrize("version", ["3.9.18", None])
def test_setup_with_another_python_is_one_line_and_leaves_nothing(
    tmp_path: Path, version: str | None
) -> None:
    python = tmp_path / "python"
    if version is not None:
        python.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec echo Python {version}\nexit 1')
        python.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    done = subprocess.run(
        ["make", "setup", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True
    )
    first, *rest = done.stderr.splitlines()
    found = "missing" if version is None else f"Python {version}"
    assert done.returncode != 0
    assert first.startswith(f"{python} is {found}, but Python 3.11 is needed; install it")
    assert all(re.match(r"make(\[\d+\])?: \*\*\*", line) for line in rest)
    assert not (tmp_path / ".venv").exists()
