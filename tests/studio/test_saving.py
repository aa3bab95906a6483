"""Strokes reach the disk whole, in the files that `training` reads and writes, from one tab."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.project import Project
from tests.studio.conftest import Served, painted
from training.__main__ import main as training_command
from training.errors import LabelError
from training.images.image_set import image_set_from_folder
from training.labels.labelled_set import labelled_set
from training.labels.write import write_labels

IGNORED = 255
CHECKOUT = Path(__file__).resolve().parents[2]


def test_a_stroke_is_the_file_that_training_writes(served: Served, tmp_path: Path) -> None:
    pixels, tag = served.mask("001")
    assert set(pixels) == {IGNORED} and tag == '"none"'
    assert served.save("001", painted(served), tag).status == 204
    points = {"names": ["left", "right"], "skeleton": [[0, 1]]}
    assert served.change("keypoints", points).status == 204
    assert served.place("001", [[3.5, 4.25, 1], [0, 0, 0]]).status == 204
    labels = labelled_set(image_set_from_folder(served.folder))
    assert labels.stems == ("001",) and labels.keypoint_names == ("left", "right")
    assert labels.masks is not None and labels.masks.tobytes() == painted(served)
    write_labels(tmp_path / "written", labels)
    names = ("masks/001.png", "classes.toml")
    for name in names:
        written, ours = tmp_path / "written" / name, served.folder / name
        assert written.read_bytes() == ours.read_bytes(), name
    ours = json.loads((served.folder / "keypoints.json").read_text())["annotations"]
    written = json.loads((tmp_path / "written/keypoints.json").read_text())["annotations"]
    assert [a["keypoints"] for a in ours] == [a["keypoints"] for a in written]
    training_command(["labels", "check", str(served.folder), "--allow-empty-classes",
                      "--allow-ignored"], standalone_mode=False)  # fmt: skip


def test_labels_of_the_command_line_open_as_they_are(
    served: Served, project: Path, tmp_path: Path
) -> None:
    """Palette and color masks, as other tools write them, too."""
    height, width = served.studio.project.size
    ids = (np.arange(height * width) % 3).astype(np.uint8).reshape(height, width)
    imported = Path(shutil.copytree(project, tmp_path / "imported"))
    (imported / "classes.toml").write_text(
        'classes = [{ name = "a", color = "#000000" }, { name = "b", color = "#ff0000" },'
        '{ name = "c", color = "#00ff00" }]\n'
    )
    (imported / "masks").mkdir()
    palette = Image.fromarray(ids, "P")
    palette.putpalette([0, 0, 0, 9, 9, 9, 1, 1, 1])
    palette.save(imported / "masks/000.png")
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)[ids]
    Image.fromarray(colors).save(imported / "masks/001.png")
    opened = Project(imported)
    for stem in ("000", "001"):
        mask, tag = opened.mask(stem)
        assert (mask == ids).all()
        assert opened.save_mask(stem, mask.tobytes(), tag) == tag
    assert [card.name for card in opened.classes] == ["a", "b", "c"]
    changed = mask.copy()
    changed[0] = IGNORED
    opened.save_mask("000", changed.tobytes(), tag)
    labels = labelled_set(image_set_from_folder(imported))
    assert labels.masks is not None and (labels.masks[0] == changed).all()


def test_masks_of_another_tool_are_named_with_the_command_that_reads_them(project: Path) -> None:
    (project / "labelme").mkdir()
    with pytest.raises(LabelError, match=r"training labels import .*labelme --from labelme"):
        Project(project)


def test_a_request_that_is_repeated_is_no_fault_and_an_outdated_one_loses_nothing(
    served: Served,
) -> None:
    first, second = painted(served, 1), painted(served, 0)
    saved = served.save("000", first, '"none"')
    assert saved.status == 204
    assert served.save("000", first, '"none"').headers["etag"] == saved.headers["etag"]
    outdated = served.save("000", second, '"none"')
    assert outdated.status == 412 and "changed on disk" in outdated.text
    assert served.mask("000") == (first, saved.headers["etag"])
    # Another program writes the file: the tab's next stroke is refused, not lost under it.
    height, width = served.studio.project.size
    Image.fromarray(np.zeros((height, width), np.uint8)).save(served.folder / "masks/000.png")
    assert served.save("000", second, saved.headers["etag"]).status == 412
    _, tag = served.mask("000")
    assert served.save("000", second, tag).status == 204


def test_what_is_no_mask_changes_nothing(served: Served) -> None:
    tag = served.save("000", painted(served), '"none"').headers["etag"]
    for pixels in (b"", painted(served)[:-1], painted(served) + b"\0", painted(served, 2)):
        answer = served.save("000", pixels, tag)
        assert answer.status == 400 and "\n" not in answer.text
    assert served.save("000", painted(served, 0), "").status == 400
    assert served.mask("000") == (painted(served), tag)
    emptied = served.save("000", painted(served, IGNORED), tag)
    assert emptied.headers["etag"] == '"none"'
    assert not (served.folder / "masks/000.png").exists(), "an empty mask is no label"


def test_a_mask_is_replaced_whole(served: Served) -> None:
    """A reader that has the file open keeps the old bytes: it is never written in place."""
    served.save("000", painted(served), '"none"')
    path = served.folder / "masks/000.png"
    old, inode = path.read_bytes(), path.stat().st_ino
    with path.open("rb") as reader:
        served.save("000", painted(served, 0), served.mask("000")[1])
        assert reader.read() == old
    assert path.stat().st_ino != inode
    assert [p.name for p in path.parent.iterdir()] == ["000.png"]


def test_every_format_of_the_command_line_can_be_downloaded(served: Served) -> None:
    assert served.request("GET", "/api/labels/coco").status == 409
    served.save("000", painted(served), '"none"')
    formats = json.loads(served.request("GET", "/api/project").body)["formats"]
    for name in formats:
        answer = served.request("GET", f"/api/labels/{name}")
        assert answer.status == 200, answer.text
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            assert archive.testzip() is None and archive.namelist()
