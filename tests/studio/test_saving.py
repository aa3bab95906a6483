"""Strokes reach the disk whole, in the files that `training` reads and writes, from one tab."""

import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.files import replace_file
from studio.pick import finish_change
from studio.project import Project
from tests.studio.conftest import OTHER_TAB, TAB, Served, classes, serving
from training.__main__ import main as training_command
from training.errors import LabelError
from training.images.image_set import image_set_from_folder
from training.labels.labelled_set import labelled_set
from training.labels.write import write_labels

IGNORED = 255
CHECKOUT = Path(__file__).resolve().parents[2]


def painted(served: Served, value: int = 1, count: int = 40) -> bytes:
    """A mask whose first pixels are painted."""
    mask = np.full(served.pixels, IGNORED, np.uint8)
    mask[:count] = value
    return mask.tobytes()


def test_a_stroke_is_the_file_that_training_writes(served: Served, tmp_path: Path) -> None:
    pixels, tag = served.mask("001")
    assert set(pixels) == {IGNORED} and tag == '"none"'
    assert served.save("001", painted(served), tag).status == 204
    points = {"names": ["left", "right"], "skeleton": [[0, 1]]}
    assert served.change("keypoints", points).status == 204
    row = {"points": [[3.5, 4.25, 1], [0, 0, 0]]}
    assert served.send("PUT", "/api/images/001/points", row).status == 204
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


def test_what_another_program_wrote_meanwhile_is_not_lost(served: Served) -> None:
    """Such as `training labels import --force` into an open project."""
    point = {"names": ["left"], "skeleton": []}
    assert served.change("keypoints", point).status == 204
    for name, path, body in (
        ("classes.toml", "/api/classes",
         classes("ground", "figure", "sky") | {"before": classes("ground", "figure")["classes"]}),
        ("keypoints.json", "/api/keypoints",
         {"names": ["left", "right"], "skeleton": [], "before": point}),
        ("keypoints.json", "/api/images/000/points", {"points": [[1, 1, 1]]}),
    ):  # fmt: skip
        ours = (served.folder / name).read_bytes()
        replace_file(served.folder / name, ours.replace(b"left", b"lefT").replace(b"gr", b"Gr"))
        theirs = (served.folder / name).read_bytes()
        refused = served.send("PUT", path, body)
        assert refused.status == 412 and "start the studio again" in refused.text
        assert (served.folder / name).read_bytes() == theirs
        served.studio.project.replace_images(served.studio.project.images)  # as a start does
    assert served.studio.project.keypoint_names == ("lefT",)


def test_masks_that_another_program_adds_or_removes_count_at_once(served: Served) -> None:
    """They were "to do" until the next start: the image could be taken out, and its class removed,
    with the mask on the disk."""

    def known() -> tuple[list[str], list[str], list[str]]:
        """Labeled images, those that are proposed, and classes without a pixel."""
        found = json.loads(served.request("GET", "/api/project").body)
        labeled = [entry["stem"] for entry in found["images"] if entry["labelled"]]
        return labeled, sorted(found["learn"]["next"]), found["learn"]["missing"]

    assert known() == ([], ["000", "001", "002", "003"], ["ground", "figure"])
    folder = served.folder / "masks"
    folder.mkdir()
    height, width = served.studio.project.size
    Image.fromarray(np.ones((height, width), np.uint8)).save(folder / "001.png")
    assert served.request("DELETE", "/api/images/001").status == 409
    assert served.change("classes", classes("ground")).status == 409
    assert known() == (["001"], ["000", "002", "003"], ["ground"])
    archive = zipfile.ZipFile(io.BytesIO(served.request("GET", "/api/labels/masks").body))
    assert "masks/001.png" in archive.namelist()
    (folder / "002.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((height, width), np.uint8)).save(folder / "001.png")
    assert known() == (["001", "002"], ["000", "003"], ["figure"])
    refused = served.request("GET", "/api/images/002/mask")
    assert refused.status == 409 and "masks/002.png" in refused.text
    for path in folder.iterdir():
        path.unlink()
    assert served.request("GET", "/api/labels/masks").status == 409
    assert known() == ([], ["000", "001", "002", "003"], ["ground", "figure"])


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


def test_the_later_of_two_tabs_looks_on_until_it_takes_the_image(served: Served) -> None:
    first, second = served.open_stream(TAB), served.open_stream(OTHER_TAB)
    hold = "/api/images/000/hold"
    assert served.send("POST", hold, {"tab": TAB}).status == 204
    refused = served.send("POST", hold, {"tab": OTHER_TAB})
    assert refused.status == 409 and "another tab" in refused.text
    saved = served.save("000", painted(served), '"none"', x_studio_tab=OTHER_TAB)
    assert saved.status == 409
    assert served.send("POST", "/api/images/001/hold", {"tab": OTHER_TAB}).status == 204
    assert served.send("POST", hold, {"tab": OTHER_TAB, "take": True}).status == 204
    assert served.save("000", painted(served), '"none"').status == 409, "the first has lost it"
    assert served.save("000", painted(served), '"none"', x_studio_tab=OTHER_TAB).status == 204
    assert next_event(first, b"saved")["tab"] == OTHER_TAB
    served.streams.pop().close()  # the second tab is closed: its image is free again
    second.close()
    while next_event(first, b"holds") != {}:
        pass
    assert served.send("POST", hold, {"tab": TAB}).status == 204


def test_a_stream_of_more_tabs_takes_the_place_of_the_last_and_frees_what_a_tab_of_none_holds(
    served: Served,
) -> None:
    def holds() -> object:
        return json.loads(served.request("GET", "/api/project").body)["holds"]

    alone = served.open_stream(TAB)
    assert served.send("POST", "/api/images/000/hold", {"tab": TAB}).status == 204
    both = served.open_stream(TAB, OTHER_TAB)
    assert served.send("POST", "/api/images/001/hold", {"tab": OTHER_TAB}).status == 204
    assert alone.read().endswith(b"\n\n"), "the first stream has ended"
    assert holds() == {"000": TAB, "001": OTHER_TAB}
    last = served.open_stream(OTHER_TAB)
    assert holds() == {"000": TAB, "001": OTHER_TAB}, "until its other stream is closed"
    both.close()
    served.streams[1].close()
    while next_event(last, b"holds") != {"001": OTHER_TAB}:
        pass
    assert served.request("GET", "/api/events").status == 400, "of no tab"


def test_an_image_is_not_held_by_a_tab_that_was_closed_before_it_read_an_event(
    served: Served,
) -> None:
    """Nor is it shown as held: nobody could get it back otherwise."""
    hold = "/api/images/000/hold"
    looking = served.open_stream(OTHER_TAB)
    assert served.send("POST", hold, {"tab": TAB}).status == 204
    assert json.loads(served.request("GET", "/api/project").body)["holds"] == {}
    assert served.send("POST", hold, {"tab": OTHER_TAB}).status == 204
    assert json.loads(served.request("GET", "/api/project").body)["holds"] == {"000": OTHER_TAB}
    # Had it only been slow: it learns that the image is lost, and that its next one is not.
    assert next_event(served.open_stream(TAB), b"holds") == {"000": OTHER_TAB}
    assert served.send("POST", "/api/images/001/hold", {"tab": "33333333-tab"}).status == 204
    served.open_stream("33333333-tab")
    while "001" not in next_event(looking, b"holds"):
        pass


def next_event(stream: io.BufferedIOBase, kind: bytes) -> dict[str, str]:
    while stream.readline() != b"event: %s\n" % kind:
        pass
    found: dict[str, str] = json.loads(stream.readline().removeprefix(b"data: "))
    return found


def test_classes_that_are_painted_stay(served: Served) -> None:
    served.save("000", painted(served), '"none"')
    gone = served.change("classes", classes("ground"))
    assert gone.status == 409 and "figure is painted in 000" in gone.text
    for bad in ([], ["a", "a"], ["a", " "], ["a", "b\n"], [str(i) for i in range(65)]):
        assert served.change("classes", classes(*bad)).status == 400, bad
    assert served.change("classes", classes("earth", "figure", "sky")).status == 204
    assert served.change("classes", classes("earth", "figure")).status == 204


@pytest.mark.parametrize("kind", ["classes", "keypoints"])
def test_a_list_of_names_that_was_made_from_an_older_one_is_refused(
    served: Served, kind: str
) -> None:
    """As by two tabs that edit it at once: the later won, and the ids of the earlier tab's strokes
    meant other classes."""

    def body(*names: str) -> dict[str, object]:
        return classes(*names) if kind == "classes" else {"names": names, "skeleton": []}

    path, opened = f"/api/{kind}", body("ground", "figure")
    assert served.change(kind, opened).status == 204
    before = {"before": opened["classes"] if kind == "classes" else opened}
    first, second = body("ground", "figure", "sky"), body("ground", "figure", "hat")
    for _ in range(2):  # its answer may be lost, and it is sent again
        assert served.send("PUT", path, first | before).status == 204
    refused = served.send("PUT", path, second | before)
    assert refused.status == 409 and "ground, figure, sky" in refused.text
    assert served.send("PUT", path, second).status == 400, "made from what?"
    known = json.loads(served.request("GET", "/api/project").body)[kind]
    names = known["names"] if kind == "keypoints" else [card["name"] for card in known]
    assert names == ["ground", "figure", "sky"]
    assert served.send("PUT", path, second | {"before": known}).status == 204


def test_every_format_of_the_command_line_can_be_downloaded(served: Served) -> None:
    assert served.request("GET", "/api/labels/coco").status == 409
    served.save("000", painted(served), '"none"')
    formats = json.loads(served.request("GET", "/api/project").body)["formats"]
    for name in formats:
        answer = served.request("GET", f"/api/labels/{name}")
        assert answer.status == 200, answer.text
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            assert archive.testzip() is None and archive.namelist()


def test_images_are_added_and_taken_out_in_one_step(
    served: Served, tiny_weights: tuple[Path, Path]
) -> None:
    """The set stays one that the commands read; a change that was cut short is finished."""
    for order in ("typical", "farthest"):
        found = json.loads(served.request("GET", f"/api/candidates?order={order}").body)
        assert len(set(found)) == 24
    drawn = served.request("GET", f"/candidates/{found[0]}")
    assert served.send("POST", "/api/images", {"indices": found[:1]}).status == 204
    assert served.request("GET", "/images/004").body == drawn.body
    served.save("001", painted(served), '"none"')
    assert served.request("DELETE", "/api/images/001").status == 409, "it has a label"
    assert served.request("DELETE", "/api/images/000").status == 204
    images = image_set_from_folder(served.folder)
    images.check_files()
    assert images.stems == ["001", "002", "003", "004"]
    assert served.studio.project.images.stems == images.stems
    for bad in ([], [-1], [1 << 40], ["a"], list(range(99))):
        assert served.send("POST", "/api/images", {"indices": bad}).status in (400, 404), bad
    # The process is killed between the two files: the next one finishes what was complete.
    work = served.folder / "studio"
    for name, next_name in (("index.json", "next-index.json"), ("latents.npy", "next-latents.npy")):
        shutil.copy(served.folder / name, work / next_name)
    replace_file(served.folder / "index.json", b"{}")
    os.unlink(served.folder / "latents.npy")
    finish_change(served.folder)
    assert image_set_from_folder(served.folder).stems == images.stems


def test_no_name_of_an_image_comes_again(served: Served) -> None:
    """A tab that still had strokes for the image which was taken out saved them on the next one."""
    assert served.send("POST", "/api/images/003/hold", {"tab": OTHER_TAB}).status == 204
    assert served.request("DELETE", "/api/images/003").status == 204
    found = json.loads(served.request("GET", "/api/candidates").body)
    for index in found[:2]:
        assert served.send("POST", "/api/images", {"indices": [index]}).status == 204
        stale = served.save("003", painted(served), '"none"', x_studio_tab=OTHER_TAB)
        assert stale.status == 404
        last = served.studio.project.images.stems[-1]
        assert served.request("DELETE", f"/api/images/{last}").status == 204
        served.studio.project.replace_images(image_set_from_folder(served.folder))  # as a start
    assert last == "005" and not served.studio.project.label_files.masks


def test_a_selection_holds_the_click_grows_with_its_level_and_keeps_other_classes(
    served: Served,
) -> None:
    height, width = served.studio.project.size
    body = {"points": [[5, 6]], "class_id": 1}
    answer = served.send("POST", "/api/images/002/select", body)
    levels = np.frombuffer(answer.body, np.uint8).reshape(height, width)
    proposed = int(answer.headers["x-studio-level"])
    assert levels[6, 5] == 0 and levels[6, 5] <= proposed
    sizes = [int((levels <= level).sum()) for level in range(40)]
    assert sizes == sorted(sizes) and sizes[-1] > sizes[0]
    mask = np.full((height, width), IGNORED, np.uint8)
    mask[:, width // 2 :] = 0
    served.save("002", mask.tobytes(), '"none"')
    again = served.send("POST", "/api/images/002/select", body)
    held = np.frombuffer(again.body, np.uint8).reshape(height, width)
    assert (held[:, width // 2 :] == IGNORED).all(), "what is painted otherwise is left alone"
    served.save("001", bytes(height * width), '"none"')
    part = served.send("POST", "/api/images/001/select", body)
    levels = np.frombuffer(part.body, np.uint8)
    assert 0 < (levels <= int(part.headers["x-studio-level"])).sum() <= height * width / 2
    assert (levels < IGNORED).sum() > height * width / 2, "a click takes a part of what is painted"
    for points in ([], [[-1, 0]], [[0, height]], [[0.5, 1]], [[1, 2]] * 5000):
        bad = {"points": points, "class_id": 1}
        assert served.send("POST", "/api/images/002/select", bad).status == 400


def test_a_selection_over_a_proposal_keeps_the_classes_that_the_tab_shows(
    tiny_weights: tuple[Path, Path], project: Path
) -> None:
    work = project / "studio"
    (work / "proposals").mkdir(parents=True)
    mask = np.zeros((32, 32), np.uint8)
    mask[:, 16:] = 1
    Image.fromarray(mask).save(work / "proposals/001.mask.png")
    learned = {"rounds": 1, "classes": 2, "proposals": {"001": {"uncertainty": 0.1}}}
    (work / "proposals.json").write_text(json.dumps(learned))
    with serving(tiny_weights[0], project) as served:
        for proposed in (True, False):
            body = {"points": [[25, 6]], "class_id": 1, "proposed": proposed}
            answer = served.send("POST", "/api/images/001/select", body)
            levels = np.frombuffer(answer.body, np.uint8).reshape(32, 32)
            assert (levels[:, :16] == IGNORED).all() == proposed
        body = {"points": [[25, 6]], "class_id": 1, "proposed": True}
        assert served.send("POST", "/api/images/002/select", body).status == 200, "it has none"


def test_keypoints_that_are_named_and_not_placed_yet_keep_the_project_whole(
    served: Served,
) -> None:
    """It opens again, with the names, and its masks train; also after the last was taken away."""
    served.save("000", painted(served), '"none"')
    named = {"names": ["left", "right"], "skeleton": [[0, 1]]}
    assert served.change("keypoints", named).status == 204
    for points in (None, [[3.5, 4.25, 1], [0, 0, 0]], None):
        if points is not None:
            placed = served.send("PUT", "/api/images/001/points", {"points": points})
            assert placed.status == 204
        again = Project(served.folder)
        assert again.keypoint_names == ("left", "right") and again.skeleton == ((0, 1),)
        assert (again.points("001") is None) == (points is None)
        labels = labelled_set(image_set_from_folder(served.folder))
        assert labels.masks is not None and (labels.keypoints is None) == (points is None)
        training_command(["labels", "check", str(served.folder), "--allow-empty-classes",
                          "--allow-ignored"], standalone_mode=False)  # fmt: skip
        served.send("PUT", "/api/images/001/points", {"points": None})
    assert served.change("keypoints", {"names": [], "skeleton": []}).status == 204
    assert Project(served.folder).keypoint_names == ()


def test_an_image_that_another_program_has_taken_away_is_named(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    """It was "Internal Server Error", with a traceback in the terminal; its labels stay."""
    (served.folder / "images" / "000.png").unlink()
    for path in ("/images/000", "/thumbnails/000"):
        answer = served.request("GET", path)
        assert answer.status == 404 and "images/000.png is no longer there" in answer.text
    mask, tag = served.mask("000")
    assert served.save("000", bytes(len(mask)), tag).status == 204
    assert capfd.readouterr().err == ""


def test_a_stroke_is_refused_whose_class_ids_another_program_has_given_other_names(
    served: Served,
) -> None:
    """As `training labels import` may do in mid-session: it was saved, as other classes."""
    half = bytes([0]) * (served.pixels // 2) + bytes([1]) * (served.pixels // 2)
    answer = served.save("000", half, '"none"')
    path = served.folder / "classes.toml"
    before = path.read_text()
    path.write_text(before.replace("0x102030", "0x112233").replace("#102030", "#112233"))
    flipped = half[::-1]
    answer = served.save("000", flipped, answer.headers["etag"])
    assert answer.status == 204, "another color is no other class"
    swapped = before.replace("ground", "x").replace("figure", "ground").replace("x", "figure")
    path.write_text(swapped)
    refused = served.save("000", half, answer.headers["etag"])
    assert refused.status == 409
    assert "classes.toml" in refused.text and "start the studio again" in refused.text
    assert served.mask("000")[0] == flipped and path.read_text() == swapped
