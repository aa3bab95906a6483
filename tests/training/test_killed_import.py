"""`training labels import --force`, killed before any of its file operations, loses no label."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from checkpoints import write_classes
from tests.interrupted_process import FILE_EVENTS
from tests.training.label_files import OUTLINE, coco, write_json
from tests.training.sets import CLASSES, tiny_images
from training.__main__ import main
from training.labels.replace import NAMES

KILLED = 9
EVENTS = FILE_EVENTS | {"ctypes.call_function"}


@pytest.fixture
def painted(tmp_path: Path) -> Path:
    """A set with masks that somebody has painted, and another tool's labels beside."""
    folder = tmp_path / "set"
    tiny_images(folder)
    write_classes(folder / "classes.toml", CLASSES)
    (folder / "masks").mkdir()
    for stem in "abc":
        Image.fromarray(np.full((16, 16), 2, np.uint8)).save(folder / "masks" / f"{stem}.png")
    write_json(tmp_path / "coco.json", coco({"category_id": 3, "segmentation": [OUTLINE]}))
    return folder


def labels_of(folder: Path) -> dict[str, Any]:
    """Content of masks/, classes.toml and keypoints.json, those that are there."""
    found: dict[str, Any] = {}
    for name in NAMES:
        path = folder / name
        if path.is_dir():
            found[name] = {file.name: file.read_bytes() for file in path.iterdir()}
        elif path.exists():
            found[name] = path.read_bytes()
    return found


def run(folder: Path, kill_at: int) -> bool:
    """Imports in a process of its own, which ends as by SIGKILL before its file operation number
    `kill_at`; whether it was killed."""
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event: str, arguments: object) -> None:
            nonlocal count
            if event in EVENTS:
                count += 1
                if count == kill_at:
                    os._exit(KILLED)

        sys.addaudithook(hook)
        source = folder.parent / "coco.json"
        line = ["labels", "import", source, "--from", "coco", "--images", folder, "--out", folder,
                "--allow-empty-classes", "--force"]  # fmt: skip
        os._exit(CliRunner().invoke(main, list(map(str, line))).exit_code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED)
    return code == KILLED


@pytest.mark.long
def test_a_killed_import_leaves_every_label_old_or_new(painted: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(painted, painted.parent / name))

    whole = copy("whole")
    assert not run(whole, 0)
    old, new = labels_of(painted), labels_of(whole)
    assert old.keys() == new.keys() == {"masks", "classes.toml"} and old != new
    moment, mixed = 1, 0
    while run(folder := copy(f"{moment}"), moment):
        now = labels_of(folder)
        hidden = [labels_of(path) for path in folder.glob(".labels-*")]
        for name in old:
            assert now.get(name) in (old[name], new[name]), (moment, name)
            kept = [now, *hidden]
            if now != new:  # until all is done, nothing that a person painted is gone
                assert any(found.get(name) == old[name] for found in kept), (moment, name)
        mixed += now != old
        assert not run(folder, 0) and labels_of(folder) == new, moment
        moment += 1
    assert moment > 10 and mixed > 0, "some moments were after the first replacement"


def test_labels_of_a_kind_that_the_tool_lacks_go(painted: Path) -> None:
    write_json(painted / "keypoints.json", coco())
    assert not run(painted, 0)
    assert not (painted / "keypoints.json").exists()
    assert not list(painted.glob(".labels-*"))
