"""Annotated cameras: read as people and programs write them, refused in one line by name."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.errors import TrainingError
from training.inverse_graphics.keypoint_files import pose_from_file
from training.views.cameras import CameraRow, cameras_from_file, write_cameras

DRAW = "0123456789ab"


def file_of(folder: Path, text: str | bytes, name: str = "c.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("name", ["c.csv", "c.json"])
def test_annotations_come_back_as_they_were_written(tmp_path: Path, name: str) -> None:
    rows = [
        CameraRow(row=3, draw=DRAW, azimuth_deg=-12.5, elevation_deg=0.1, distance=2.0, focal=1.5),
        CameraRow(row=0, draw=DRAW, azimuth_deg=40.0),
        CameraRow(row=1, draw=DRAW),  # nobody knows
    ]
    write_cameras(tmp_path / name, rows)
    assert cameras_from_file(tmp_path / name, DRAW) == [rows[1], rows[0]]


def test_spreadsheets_marks_spaces_and_missing_columns_do_no_harm(tmp_path: Path) -> None:
    text = "\ufeffazimuth_deg,row\r\n -30 , 4\r\n,5\r\n12,2\r\n"
    found = cameras_from_file(file_of(tmp_path, text), DRAW)
    assert found == [CameraRow(row=2, azimuth_deg=12.0), CameraRow(row=4, azimuth_deg=-30.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("row,azimuth_deg\n1,left\n", "c.csv line 2: .*azimuth_deg"),
        ("row,azimuth_deg\n1.5,3\n", "line 2: .*row"),
        ("row,azimuth_deg\n-1,3\n", "row is -1"),
        ("row,azimuth_deg\n65536,3\n", "row is 65536"),
        ("row,azimuth_deg\n1,nan\n", "azimuth_deg is nan"),
        ("row,azimuth_deg\n1,1e999\n", "line 2: Number out of range"),
        ("row,azimuth_deg\n1,361\n", "azimuth_deg is 361"),
        ("row,azimuth_deg,elevation_deg\n1,3,-91\n", "elevation_deg is -91"),
        ("row,azimuth_deg\n1,3\n1,4\n", "line 3: row 1 is there twice"),
        ("row,azimuth_deg\n1\n", "line 2 must have 2 values"),
        ("row,azimuth_deg\n1,2,3\n", "line 2 must have 2 values"),
        ("row,azimuth\n1,2\n", "needs row and azimuth_deg"),
        ("row,azimuth_deg,zoom\n1,2,3\n", "column 'zoom'"),
        ("row,azimuth_deg,row\n1,2,3\n", "column 'row'"),
        ('row,azimuth_deg\n1,"2\n', "no CSV"),
        ("", "needs row and azimuth_deg"),
        ("row,azimuth_deg,draw\n1,2,ffffffffffff\n", f"draw ffffffffffff, this is {DRAW}"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        cameras_from_file(file_of(tmp_path, text), DRAW)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "no JSON list"),
        ("[1]", "no JSON list"),
        ("[" * 5000, "no JSON list"),
        ('[{"row": 1, "azimuth_deg": "3"}]', "entry 0: .*azimuth_deg"),
        ('[{"row": 1, "zoom\\n": 3}]', "zoom"),
        ('[{"azimuth_deg": 3}]', "row"),
    ],
)
def test_json_that_is_no_list_of_cameras_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        cameras_from_file(file_of(tmp_path, text, "c.json"), DRAW)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"gone\.csv cannot be read"):
        cameras_from_file(tmp_path / "gone.csv", DRAW)


def test_a_file_that_never_ends_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cameras.csv")
    with pytest.raises(TrainingError, match=r"cameras\.csv cannot be read"):
        cameras_from_file(tmp_path / "cameras.csv", DRAW)
    with pytest.raises(TrainingError, match=r"cameras\.csv cannot be read"):
        pose_from_file(tmp_path / "cameras.csv", ("chin",))


def test_somebodys_annotations_are_not_overwritten(tmp_path: Path) -> None:
    path = file_of(tmp_path, "row,azimuth_deg\n1,2\n")
    with pytest.raises(TrainingError, match="somebody's work"):
        write_cameras(path, [CameraRow(row=0)])
    assert path.read_text().endswith("1,2\n")


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=80) | st.text(max_size=80).map(str.encode), json_file=st.booleans())
def test_any_bytes_are_cameras_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, json_file: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    header = b"" if json_file else b"row,azimuth_deg\n"
    path = file_of(folder, header + data, "any.json" if json_file else "any.csv")
    try:
        found = cameras_from_file(path, DRAW)
    except TrainingError as error:
        assert "\n" not in str(error)
        return
    assert all(row.azimuth_deg is not None for row in found)


def test_json_written_by_programs_may_have_null(tmp_path: Path) -> None:
    text = json.dumps([{"row": 1, "azimuth_deg": 3, "elevation_deg": None}])
    found = cameras_from_file(file_of(tmp_path, text, "c.json"), DRAW)
    assert found == [CameraRow(row=1, azimuth_deg=3.0)]
