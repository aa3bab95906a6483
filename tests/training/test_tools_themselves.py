"""The annotation tools' own code, both ways: it writes the fixtures, and reads what we convert.

Each tool is installed into an environment of its own: Qt, 36 packages of Label Studio, Pillow 12.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.training.tool_labels import scene
from training.labels.command import labels

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+"
TOOLS = Path(__file__).parent / "tool_labels"


class Tool(NamedTuple):
    """How a tool is installed, what its script writes, and the formats that it reads."""

    script: str
    packages: tuple[str, ...]
    writes: tuple[str, ...]  # folders of fixtures
    reads: tuple[str, ...]  # arguments of read_with_tools.py
    beside_torch: tuple[str, ...] = ()  # packages installed without what they depend on


INSTALLED = {
    "datumaro": Tool("write_datumaro.py", ("datumaro==1.13.12",), ("datumaro",), ("datumaro",)),
    "label_studio": Tool(
        "write_label_studio.py", ("label-studio-sdk==2.1.2",), ("label_studio",), ("label_studio",)
    ),
    "labelme": Tool(
        "write_labelme.py",
        ("labelme==6.3.1", "opencv-python-headless"),
        ("labelme", "ultralytics"),
        ("labelme", "ultralytics"),
        ("ultralytics==8.4.190", "torchvision==0.28.*"),
    ),
}  # fmt: skip


def python_with(tool: Tool, folder: Path) -> str:
    """Python of a new environment that has the tool's packages, and torch from this one."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", *tool.packages], check=True)
    if tool.beside_torch:
        install = [python, "-m", "pip", "install", "-q", "--no-deps", *tool.beside_torch]
        subprocess.run(install, check=True)
        (places,) = folder.glob("lib/python*/site-packages")
        (places / "torch_of_the_tests.pth").write_text(sysconfig.get_path("purelib"))
    return python


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The labels of scene.py in every format that a tool reads, as its import expects them."""
    folder = tmp_path_factory.mktemp("converted")
    annotations = folder / "own" / "annotations"
    for name in ("own/annotations", "images", "masks"):
        (folder / name).mkdir(parents=True)
    for fixture in ("coco_masks", "coco_points"):
        for path in (TOOLS / "datumaro" / fixture / "annotations").iterdir():
            shutil.copy(path, annotations)
    for stem in ("000", "001"):
        scene.picture(folder / "images" / f"{stem}.png")
        Image.fromarray(scene.ids(stem)).save(folder / "masks" / f"{stem}.png")
    for form in ("cvat", "coco", "labelstudio", "labelme", "yolo"):
        arguments = ["convert", str(folder / "own"), "--from", "coco", "--to", form]
        places = ["--images", str(folder / "images"), "--out", str(folder / form)]
        labels.main([*arguments, *places], standalone_mode=False)
    for form in ("cvat", "coco"):
        shutil.copytree(folder / "images", folder / form / "images", dirs_exist_ok=True)
    shutil.copytree(folder / "images", folder / "labelme", dirs_exist_ok=True)
    return folder


def contents(folder: Path) -> dict[str, object]:
    """Every file of a folder by its path: pixels of pictures, text without times of all others."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        if path.suffix in (".png", ".jpg"):
            found[str(path.relative_to(folder))] = np.asarray(Image.open(path)).tolist()
        elif path.is_file():
            found[str(path.relative_to(folder))] = re.sub(TIME, "", path.read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTALLED)
def test_a_tool_writes_the_fixtures_and_reads_what_is_converted(
    name: str, converted: Path, tmp_path: Path
) -> None:
    tool = INSTALLED[name]
    python = python_with(tool, tmp_path / "venv")
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    for script in TOOLS.glob("*.py"):
        shutil.copy(script, scripts)
    subprocess.run([python, str(scripts / tool.script)], check=True)
    for fixtures in tool.writes:
        assert contents(scripts / fixtures) == contents(TOOLS / fixtures)
    for reader in tool.reads:
        command = [python, str(scripts / "read_with_tools.py"), reader, str(converted)]
        said = subprocess.run(
            [*command, "background", *scene.CLASSES], capture_output=True, text=True, check=True
        ).stdout
        assert "equal pixel for pixel" in said and "not equal" not in said, said
