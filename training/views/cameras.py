"""Cameras that people annotate, or programs measure, for drawn view codes: CSV or JSON, one of
each row."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from checkpoints import CameraCard, range_problem, write_text
from training.errors import TrainingError

MAX_FILE_BYTES = 16 << 20
MAX_ROW = 1 << 16  # exclusive: all rows up to the last one are drawn


class CameraRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A line of the file; what is absent, or empty in CSV, is not known."""

    row: int  # which draw of the seed, from 0
    draw: str | None = None  # what it was drawn from, see `views.identity_of_draws`
    azimuth_deg: float | None = None
    elevation_deg: float | None = None
    distance: float | None = None
    focal: float | None = None

    @property
    def camera(self) -> CameraCard:
        return CameraCard(
            azimuth_deg=self.azimuth_deg,
            elevation_deg=self.elevation_deg,
            distance=self.distance,
            focal=self.focal,
        )


COLUMNS = CameraRow.__struct_fields__


def cameras_from_file(path: Path, draw: str) -> list[CameraRow]:
    """The rows whose azimuth is known, in ascending order of row.

    `draw` is what they must have been drawn from. Raises TrainingError, naming the line.
    """
    places = _json_places(path) if path.suffix.lower() == ".json" else _csv_places(path)
    found: dict[int, CameraRow] = {}
    for where, fields in places:
        try:
            camera = msgspec.convert(fields, CameraRow, strict=path.suffix.lower() == ".json")
        except msgspec.ValidationError as error:
            reason = " ".join(str(error).split())  # a field's own name may have line breaks
            raise TrainingError(f"{where}: {reason}") from error
        problem = _problem(camera, found, draw)
        if problem:
            raise TrainingError(f"{where}: {problem}")
        found[camera.row] = camera
    return [found[row] for row in sorted(found) if found[row].azimuth_deg is not None]


def write_cameras(path: Path, rows: Sequence[CameraRow]) -> None:
    """Writes CSV or, by the suffix, JSON. Raises TrainingError rather than lose annotations."""
    if path.exists():
        raise TrainingError(f"{path} exists, and may hold somebody's work; give another name")
    fields = [msgspec.to_builtins(row) for row in rows]
    if path.suffix.lower() == ".json":
        write_text(path, "[\n" + ",\n".join(map(json.dumps, fields)) + "\n]\n")
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(fields)
    write_text(path, text.getvalue())


def _problem(camera: CameraRow, found: dict[int, CameraRow], draw: str) -> str | None:
    if not 0 <= camera.row < MAX_ROW:
        return f"row is {camera.row}; it must be in [0, {MAX_ROW - 1}]"
    if camera.row in found:
        return f"row {camera.row} is there twice; leave one line of it"
    if camera.draw not in (None, draw):
        return (
            f"row {camera.row} is of draw {camera.draw}, this is {draw}; give the generator, "
            "--seed, --psi, --cutoff and --view-layers that it was written with"
        )
    return range_problem(camera.camera)


def _csv_places(path: Path) -> list[tuple[str, dict[str, object]]]:
    try:
        reader = csv.DictReader(io.StringIO(_text(path)), strict=True)
        header = list(reader.fieldnames or ())
        _check_header(path, header)
        places: list[tuple[str, dict[str, object]]] = []
        for fields in reader:
            where = f"{path} line {reader.line_num}"
            if None in fields or None in fields.values():
                raise TrainingError(f"{where} has not {len(header)} values, as the header has")
            named = {name: value.strip() for name, value in fields.items() if value.strip()}
            places.append((where, dict(named)))
    except csv.Error as error:
        raise TrainingError(f"{path} is no CSV: {error}") from error
    return places


def _check_header(path: Path, header: list[str]) -> None:
    if "row" not in header or "azimuth_deg" not in header:
        raise TrainingError(f"{path} begins with {header[:8]}; it needs row and azimuth_deg")
    for name in header:
        if name not in COLUMNS or header.count(name) > 1:
            raise TrainingError(
                f"{path} has column {name!r}; it may have each of {', '.join(COLUMNS)} once"
            )


def _json_places(path: Path) -> list[tuple[str, dict[str, object]]]:
    try:
        listed = msgspec.json.decode(_text(path), type=list[dict[str, object]])
    except (msgspec.DecodeError, RecursionError) as error:
        raise TrainingError(f"{path} is no JSON list of cameras: {error}") from error
    return [(f"{path} entry {i}", fields) for i, fields in enumerate(listed)]


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise TrainingError(f"{path} has over {MAX_FILE_BYTES} bytes; it is no list of cameras")
        return data.decode("utf-8-sig")  # spreadsheets begin with a mark
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from error
