"""`training labels` as a user types it: import, check, convert."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tests.training.label_files import OUTLINE, SQUARE, coco, write_json
from tests.training.sets import tiny_images
from training.__main__ import main
from training.images.image_set import image_set_from_folder
from training.labels.labelled_set import labelled_set


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["labels", *map(str, arguments)])


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, Path]:
    """An image set, and a COCO file of two of its three images."""
    tiny_images(tmp_path / "set")
    content: dict[str, Any] = coco(
        {"category_id": 3, "segmentation": [OUTLINE]},
        {"category_id": 9, "segmentation": [[12.0, 12, 16, 12, 16, 16]], "image_id": 8},
        {"category_id": 9, "keypoints": [4, 5, 2]},
    )
    content["categories"][1]["keypoints"] = ["tip"]
    content["images"].append({"id": 8, "file_name": "b.png", "width": 16, "height": 16})
    write_json(tmp_path / "coco.json", content)
    return tmp_path / "set", tmp_path / "coco.json"


def test_imported_labels_are_counted_and_train(exported: tuple[Path, Path]) -> None:
    folder, path = exported
    arguments = ("import", path, "--from", "coco", "--images", folder, "--out", folder)
    result = command(*arguments)
    assert result.exit_code == 0, result.output
    assert "2 of 3 images have labels: 2 with masks, 1 with keypoints" in result.output
    labels = labelled_set(image_set_from_folder(folder))
    assert labels.stems == ("a", "b") and labels.masks is not None
    np.testing.assert_array_equal(labels.masks[0], SQUARE)
    again = command(*arguments)
    assert again.exit_code == 1 and "masks exists; give --force" in str(again.exception)
    assert command(*arguments, "--force").exit_code == 0


def test_an_import_that_nobody_would_train_on_writes_nothing(exported: tuple[Path, Path]) -> None:
    folder, path = exported
    (folder.parent / "classes.toml").write_text(
        "".join(f'[[classes]]\nname = "{n}"\ncolor = "#00000{i}"\n'
                for i, n in enumerate(("background", "high", "corner", "tail")))
    )  # fmt: skip
    arguments = ("import", path, "--from", "coco", "--images", folder, "--out", folder)
    result = command(*arguments, "--classes", folder.parent / "classes.toml")
    assert result.exit_code == 1 and "no pixel of tail in 2 images" in str(result.exception)
    assert not (folder / "masks").exists() and not (folder / "classes.toml").exists()


def test_a_checked_set_is_drawn_with_every_image_titled(exported: tuple[Path, Path]) -> None:
    folder, path = exported
    command("import", path, "--from", "coco", "--images", folder, "--out", folder)
    result = command("check", folder)
    assert result.exit_code == 0 and "check_1.png" in result.output, result.output
    sheet = np.array(Image.open(folder / "check" / "check_1.png"))
    assert sheet.shape[1] > 2 * 192
    (folder / "masks" / "b.png").unlink()
    failed = command("check", folder)
    assert failed.exit_code == 1 and "no pixel of corner" in str(failed.exception)
    assert "sheets: " in failed.output
    assert command("check", folder, "--allow-empty-classes").exit_code == 0


@pytest.mark.parametrize("to", ["cvat", "labelstudio", "yolo", "labelme", "roboflow", "masks"])
def test_converted_labels_come_back(exported: tuple[Path, Path], to: str) -> None:
    folder, path = exported
    out, back = folder.parent / to, folder.parent / "back"
    start = ("convert", path, "--from", "coco", "--images", folder)
    result = command(*start, "--to", to, "--out", out)
    assert result.exit_code == 0, result.output
    assert command(*start, "--to", to, "--out", out).exit_code == 1  # the folder is not empty
    assert command("import", out, "--from", to, "--images", folder, "--out", back).exit_code == 0
    np.testing.assert_array_equal(np.array(Image.open(back / "masks" / "a.png")) > 0, SQUARE)
    assert (back / "keypoints.json").exists()
