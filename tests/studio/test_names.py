"""Lists of names, and what ids mean: no label is saved, shown or learned as another class than the
one that a person has painted."""

import io
import json
import zipfile
from functools import partial

import numpy as np
import pytest
from PIL import Image

from bundle.files import replace_file
from checkpoints import ClassCard
from studio.project import Project
from tests.full_disk import files_of_at_most
from tests.studio.conftest import CARDS, Served, classes, painted
from training.__main__ import main as training_command
from training.images.image_set import image_set_from_folder
from training.labels.labelled_set import labelled_set


def keys(served: Served) -> str:
    """The header of a mask that is made by the classes of now."""
    return " ".join(card["keys"][-1] for card in served.listed())


def replace_figure(served: Served, name: str = "sky") -> int:
    """As a dialog in which the class figure is removed, and another added."""
    content = classes("ground", name)
    content["classes"][1]["key"] = None
    return served.change("classes", content).status


def test_a_class_that_takes_the_place_of_a_removed_one_is_no_rename(served: Served) -> None:
    """Its pixels became those of the other class, without a word."""
    tag = served.save("000", painted(served), '"none"').headers["etag"]
    content = classes("ground", "sky")
    content["classes"][1]["key"] = None
    refused = served.change("classes", content)
    assert refused.status == 409 and "figure is painted in 000" in refused.text
    assert served.change("classes", classes("ground", "person")).status == 204, "a rename is none"
    assert served.save("000", painted(served, 0), tag).status == 204
    for _ in range(2):  # its answer may be lost
        assert replace_figure(served) == 204
    assert [card["name"] for card in served.listed()] == ["ground", "sky"]


def test_a_stroke_counts_while_its_classes_mean_what_they_meant_when_it_was_painted(
    served: Served,
) -> None:
    """Strokes that waited in another tab were saved as the class that has taken the id."""
    first = keys(served)
    assert served.change("classes", classes("ground", "person", "hat")).status == 204
    assert served.save("000", painted(served), '"none"', x_studio_classes=first).status == 204
    tag = served.mask("000")[1]
    again = Project(served.folder)
    again.save_mask("000", painted(served, 0), tag.strip('"'), first.split())
    tag = served.mask("000")[1]
    assert replace_figure(served) == 204
    refused = served.save("000", painted(served), tag, x_studio_classes=first)
    assert refused.status == 409 and "now they are: ground, sky" in refused.text
    assert served.mask("000") == (painted(served, 0), tag)
    allowed = served.save("000", painted(served, 0, 50), tag, x_studio_classes=first)
    assert allowed.status == 204, "it has no pixel of that class"
    tag = allowed.headers["etag"]
    unnamed = served.save("000", painted(served), tag, x_studio_classes="")
    assert unnamed.status == 400 and "X-Studio-Classes" in unnamed.text
    answer = served.request("GET", "/api/images/000/mask")
    assert answer.headers["x-studio-classes"] == keys(served)
    assert served.save("000", painted(served), tag).status == 204


def test_keypoints_count_while_their_names_mean_what_they_meant_when_they_were_placed(
    served: Served,
) -> None:
    """Places without a point in any image may mean others by now; those with one were renamed."""
    row, path = [[1, 1, 1], [2, 2, 1]], "/api/images/001/points"
    first = {"points": row, "names": ["left", "right"]}

    def rename(*names: str) -> None:
        assert served.change("keypoints", {"names": names, "skeleton": []}).status == 204

    rename("left", "right")
    rename("nose", "chin", "brow")
    refused = served.send("PUT", path, first)
    assert refused.status == 409 and "now they are: nose, chin, brow" in refused.text
    part = {"points": [[1, 1, 1]], "names": ["nose"]}
    assert served.send("PUT", path, part).status == 204
    known = served.studio.project.points("001")
    assert known is not None and known[:, 2].tolist() == [1, 0, 0]
    rename("tip", "chin", "brow")
    assert served.send("PUT", path, part).status == 204, "it is the same point"
    assert served.send("PUT", path, {**part, "names": []}).status == 400


def test_a_proposal_of_a_class_that_was_replaced_is_not_shown_as_the_other(
    proposed: Served,
) -> None:
    path = "/api/images/001/proposal"
    assert proposed.change("classes", classes("ground", "person")).status == 204
    assert proposed.request("GET", path).status == 200, "it was renamed"
    assert replace_figure(proposed) == 204
    assert proposed.request("GET", path).status == 404
    assert json.loads(proposed.request("GET", "/api/project").body)["learn"]["uncertainty"] == {}


def test_a_sample_of_the_review_is_not_corrected_by_other_classes(walled: Served) -> None:
    (first, *_) = json.loads(walled.request("GET", "/api/review").body)["samples"]
    address = f"/api/review/{first['stem']}/mask"
    answer = walled.request("GET", address)
    content = classes(*(card["name"] for card in walled.listed()))
    content["classes"][3] = {"name": "sky", "color": 1, "key": None}
    assert walled.change("classes", content).status == 204
    refused = walled.request("PUT", address, bytes(walled.pixels), if_match=answer.headers["etag"])
    assert refused.status == 409 and "learn again" in refused.text
    assert walled.request("GET", address).body == answer.body


def test_names_that_another_program_has_written_count_at_once(served: Served) -> None:
    """As `training labels import --force` does: the studio had to be started again, and saved no
    mask until then."""
    assert served.change("keypoints", {"names": ["left"], "skeleton": []}).status == 204
    tag = served.save("000", painted(served, 0), '"none"').headers["etag"]
    made_by, opened = keys(served), served.listed()
    changes = ((b"left", b"lefT"), (b"figure", b"sky"), (b"#102030", b"#112233"))
    for name in ("classes.toml", "keypoints.json"):
        text = (served.folder / name).read_bytes()
        for old, new in changes:
            text = text.replace(old, new)
        replace_file(served.folder / name, text)
    before = [{"name": card["name"], "color": card["color"]} for card in opened]
    late = served.send("PUT", "/api/classes", {"classes": before, "before": before})
    assert late.status == 409 and "now they are: ground, sky" in late.text
    refused = served.save("000", painted(served), tag, x_studio_classes=made_by)
    assert refused.status == 409 and "now they are: ground, sky" in refused.text
    assert served.save("000", painted(served, 0, 9), tag, x_studio_classes=made_by).status == 204
    point = {"points": [[1, 1, 1]], "names": ["left"]}
    refused = served.send("PUT", "/api/images/000/points", point)
    assert refused.status == 409 and "now they are: lefT" in refused.text
    assert served.listed()[0]["color"] == 0x112233
    assert served.listed("keypoints")["names"] == ["lefT"]
    assert served.place("000", [[1, 1, 1]]).status == 204
    assert served.change("classes", classes("ground", "sky", "hat")).status == 204


def test_a_mask_is_read_by_the_classes_that_it_was_written_by(served: Served) -> None:
    """The first look after another program has changed both gave new ids old meanings, and was
    refused for a class that had been added."""
    tag = served.save("000", painted(served, 0), '"none"').headers["etag"]
    first = keys(served)
    replace_file(
        served.folder / "classes.toml",
        b'ignore_id = 255\nclasses = [{ name = "figure", color = "#204060" }, '
        b'{ name = "ground", color = "#102030" }, { name = "sky", color = "#000001" }]\n',
    )
    mask = np.frombuffer(painted(served, 1), np.uint8).reshape(served.studio.project.size).copy()
    mask[-1] = 2
    Image.fromarray(mask).save(served.folder / "masks/000.png")
    answer = served.request("GET", "/api/images/000/mask")
    assert answer.status == 200 and answer.body == mask.tobytes(), answer.text
    assert answer.headers["x-studio-classes"] == keys(served) != first
    assert answer.headers["etag"] != tag


def test_names_that_another_program_has_exchanged_are_no_renames(served: Served) -> None:
    """Though both classes have had both names, and the text that says so is one line."""
    tag = served.save("000", painted(served), '"none"').headers["etag"]
    first, path = keys(served), served.folder / "classes.toml"
    for names in (("figure", "ground"), ("ground", "figure")):
        assert served.change("classes", classes(*names)).status == 204
    allowed = served.save("000", painted(served, 1, 50), tag, x_studio_classes=first)
    assert allowed.status == 204, "each is the class that it was"
    figure, ground = (f'name = "{name}"'.encode() for name in ("figure", "ground"))
    text = path.read_bytes().replace(figure, b"@").replace(ground, figure).replace(b"@", ground)
    replace_file(path, text)
    tag = allowed.headers["etag"]
    refused = served.save("000", painted(served), tag, x_studio_classes=first)
    assert refused.status == 409 and "now they are: figure, ground" in refused.text
    replace_file(path, text.replace(figure, b'name = "a\\nb"'))
    refused = served.save("000", painted(served, 0), tag, x_studio_classes=first)
    assert refused.status == 409 and refused.text.endswith(r"now they are: a\nb, ground")


def test_what_is_painted_is_known_after_another_program_has_changed_the_classes(
    served: Served,
) -> None:
    """The next stroke made all other images count as empty, and learning did not begin."""
    both = np.repeat(np.array([0, 1], np.uint8), served.pixels // 2).tobytes()
    assert served.save("000", both, '"none"').status == 204
    path, made_by = served.folder / "classes.toml", keys(served)
    replace_file(path, path.read_bytes().replace(b"#102030", b"#112233"))
    stroke = painted(served, 0)
    assert served.save("001", stroke, '"none"', x_studio_classes=made_by).status == 204
    assert served.studio.learner.missing_classes() == []
    replace_file(path, path.read_bytes().replace(b"#112233", b"#102030"))
    (served.folder / "masks/000.png").unlink()
    assert served.listed()[0]["color"] == 0x102030
    assert served.studio.learner.missing_classes() == ["figure"]


def test_a_list_that_could_not_be_written_changes_nothing(served: Served) -> None:
    """The project could not be read again until the next start."""
    assert served.change("keypoints", {"names": ["left"], "skeleton": []}).status == 204
    assert served.place("000", [[1, 1, 1]]).status == 204
    before, made_by = served.request("GET", "/api/project").body, keys(served)
    project = served.studio.project
    size = (served.folder / "studio/names.json").stat().st_size
    for change in (
        partial(project.set_classes, [*CARDS, ClassCard(name="sky", color=1)]),
        partial(project.set_keypoints, ["left", "right"], []),
    ):
        with files_of_at_most(size + 30), pytest.raises(OSError, match=r"classes.toml|keypoints"):
            change()
        assert served.request("GET", "/api/project").body == before
        assert Project(served.folder).class_keys == project.class_keys
    saved = served.save("000", painted(served), '"none"', x_studio_classes=made_by)
    assert saved.status == 204
    assert served.place("000", [[2, 2, 1]]).status == 204


def test_a_list_that_another_program_has_broken_is_named_until_it_is_mended(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    tag = served.save("000", painted(served), '"none"').headers["etag"]
    made_by, path = keys(served), served.folder / "classes.toml"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        for answer in (
            served.request("GET", "/api/project"),
            served.save("000", painted(served, 0), tag, x_studio_classes=made_by),
        ):
            assert answer.status == 409 and "classes.toml" in answer.text, answer.text
            assert "\n" not in answer.text
    served.studio.learner.start_if_changed()
    path.write_bytes(whole)
    assert served.save("000", painted(served, 0), tag).status == 204
    assert capfd.readouterr().err == ""


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
    known = served.listed(kind)
    names = known["names"] if kind == "keypoints" else [card["name"] for card in known]
    assert names == ["ground", "figure", "sky"]
    assert served.change(kind, second).status == 204


def test_keypoints_that_are_named_and_not_placed_yet_keep_the_project_whole(
    served: Served,
) -> None:
    """It opens again, with the names, and its masks train; also after the last was taken away."""
    served.save("000", painted(served), '"none"')
    named = {"names": ["left", "right"], "skeleton": [[0, 1]]}
    assert served.change("keypoints", named).status == 204
    for points in (None, [[3.5, 4.25, 1], [0, 0, 0]], None):
        if points is not None:
            assert served.place("001", points).status == 204
        again = Project(served.folder)
        assert again.keypoint_names == ("left", "right") and again.skeleton == ((0, 1),)
        assert (again.points("001") is None) == (points is None)
        labels = labelled_set(image_set_from_folder(served.folder))
        assert labels.masks is not None and (labels.keypoints is None) == (points is None)
        training_command(["labels", "check", str(served.folder), "--allow-empty-classes",
                          "--allow-ignored"], standalone_mode=False)  # fmt: skip
        served.place("001", None)
    assert served.change("keypoints", {"names": [], "skeleton": []}).status == 204
    assert Project(served.folder).keypoint_names == ()
