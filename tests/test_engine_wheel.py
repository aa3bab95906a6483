"""The wheel labelmint-engine makes samples where there is no checkout."""

import os
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from labelmint_engine.hatch_build import under_one_roof
from tests.service.test_process import bundle_at

CHECKOUT = Path(__file__).resolve().parent.parent


def ran(*command: str | Path, cwd: Path = CHECKOUT, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.args}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.long
def test_the_wheel_makes_samples_without_the_checkout(tmp_path: Path) -> None:
    for folder in (CHECKOUT, CHECKOUT / "labelmint_engine"):
        ran(
            sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, folder
        )
    wheels = sorted(tmp_path.glob("*.whl"))
    assert [path.name.split("-")[0] for path in wheels] == ["labelmint", "labelmint_engine"]
    with zipfile.ZipFile(wheels[1]) as archive:
        names = archive.namelist()
        said = archive.read(next(n for n in names if n.endswith(".dist-info/METADATA"))).decode()
    tops = Counter(name.split("/")[0].partition("-")[0] for name in names)
    assert set(tops) == {"labelmint_engine"}, tops
    assert not [name for name in names if "hatch_build" in name or "pyproject" in name]
    assert "Requires-Dist: labelmint==0.1.0\n" in said
    site = tmp_path / "site"
    ran(
        sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-index",
        "--no-deps", "--target", site, *wheels,
    )  # fmt: skip
    probe = f"""
import importlib.util, pkgutil, importlib
import labelmint_engine
assert labelmint_engine.__file__.startswith({str(site)!r})
for room in ("bundle", "engines", "service", "nets"):
    assert importlib.util.find_spec(room) is None, room
for module in pkgutil.walk_packages(labelmint_engine.__path__, "labelmint_engine."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
engine = labelmint_engine.EngineOptions(runtime="fake")
samples = labelmint_engine.BundleSamples({str(bundle_at(tmp_path / "b"))!r}, {{}}, engine,
                                         verify=False)
print(samples.of_indices([1, 5])["mask"].shape)
"""
    shown = ran(sys.executable, "-W", "error", "-c", probe, cwd=tmp_path, PYTHONPATH=str(site))
    assert shown == "(2, 16, 16)\n"


def test_only_imports_of_the_checkouts_packages_move_under_the_roof() -> None:
    source = (
        "import bundles\nfrom bundle.open import Bundle\ntext = 'from bundle.open import x'\n"
        "def f():\n    from engines import (\n        open,\n    )\nfrom enginesx import y\n"
    )
    assert under_one_roof(source, "x.py") == source.replace(
        "\nfrom bundle.", "\nfrom labelmint_engine.bundle."
    ).replace("from engines import", "from labelmint_engine.engines import")
    with pytest.raises(SyntaxError, match=r"x\.py:1: write `from package\.module import name`"):
        under_one_roof("import bundle.open", "x.py")
