"""Files of annotated cameras, CSV or JSON: one entry per draw, filled in by people or programs."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from checkpoints import CameraCard, range_problem, write_text
from labelmint.datasets.stored_files import opened_regular_file
from training.errors import TrainingError

MAX_FILE_BYTES = 16 << 20
MAX_ROW = 1 << 16  # exclusive; all draws up to the highest row are computed


class CameraRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of the file; values that are absent, or empty in CSV, are unknown."""

    row: int  # index of the draw, from 0
    draw: str | None = None  # hash of the draws' settings: `identity_of_draws` in bank.py
    azimuth_deg: float | None = None  # 0: in front; positive: towards the object's left
    elevation_deg: float | None = None  # positive: from above
    distance: float | None = None  # from the object's center
    focal: float | None = None  # focal length over the image's extent

    @property
    def camera(self) -> CameraCard:
        """The camera alone, as a card of views has it."""
        return CameraCard(
            azimuth_deg=self.azimuth_deg,
            elevation_deg=self.elevation_deg,
            distance=self.distance,
            focal=self.focal,
        )


COLUMNS = CameraRow.__struct_fields__


def cameras_from_file(path: Path, draw: str) -> list[CameraRow]:
    """Entries with an azimuth, sorted by row; `draw` is the hash that they must have, if any.

    Raises TrainingError naming the file, the line and what is wrong.
    """
    is_json = path.suffix.lower() == ".json"
    found: dict[int, CameraRow] = {}
    for where, fields in _json_entries(path) if is_json else _csv_entries(path):
        try:
            camera = msgspec.convert(fields, CameraRow, strict=is_json)
        except msgspec.ValidationError as error:
            reason = " ".join(str(error).split())  # a field's own name may have line breaks
            raise TrainingError(f"{where}: {reason}") from error
        problem = _problem(camera, found, draw)
        if problem:
            raise TrainingError(f"{where}: {problem}")
        found[camera.row] = camera
    return [found[row] for row in sorted(found) if found[row].azimuth_deg is not None]


def write_cameras(path: Path, rows: Sequence[CameraRow]) -> None:
    """Writes CSV or, for the suffix .json, JSON. Raises TrainingError if the file exists: it may
    hold annotations."""
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
        return f"row {camera.row} is there twice; keep one of its lines"
    if camera.draw not in (None, draw):
        return (
            f"row {camera.row} is of draw {camera.draw}, this is {draw}; give the generator, "
            "--seed, --psi, --cutoff and --view-layers that the file was written with"
        )
    return range_problem(camera.camera)


def _csv_entries(path: Path) -> list[tuple[str, dict[str, object]]]:
    """For each line, its place in words and its values by column."""
    try:
        reader = csv.DictReader(io.StringIO(_text(path)), strict=True)
        header = list(reader.fieldnames or ())
        _check_header(path, header)
        entries: list[tuple[str, dict[str, object]]] = []
        for fields in reader:
            where = f"{path} line {reader.line_num}"
            if None in fields or None in fields.values():
                raise TrainingError(
                    f"{where} must have {len(header)} values, as many as the header"
                )
            named = {name: value.strip() for name, value in fields.items() if value.strip()}
            entries.append((where, dict(named)))
    except csv.Error as error:
        raise TrainingError(f"{path} is no CSV: {error}") from error
    return entries


def _check_header(path: Path, header: list[str]) -> None:
    if "row" not in header or "azimuth_deg" not in header:
        raise TrainingError(f"{path} has columns {header[:8]}; it needs row and azimuth_deg")
    for name in header:
        if name not in COLUMNS or header.count(name) > 1:
            raise TrainingError(
                f"{path} has column {name!r}, unknown or repeated; the columns are "
                f"{', '.join(COLUMNS)}, each at most once"
            )


def _json_entries(path: Path) -> list[tuple[str, dict[str, object]]]:
    """For each entry, its place in words and its values by name."""
    try:
        listed = msgspec.json.decode(_text(path), type=list[dict[str, object]])
    except (msgspec.DecodeError, RecursionError) as error:
        raise TrainingError(f"{path} is no JSON list of cameras: {error}") from error
    return [(f"{path} entry {i}", fields) for i, fields in enumerate(listed)]


def _text(path: Path) -> str:
    try:
        with opened_regular_file(path) as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise TrainingError(f"{path} has over {MAX_FILE_BYTES} bytes; it is no list of cameras")
        return data.decode("utf-8-sig")  # spreadsheets write a byte order mark
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from error
