"""Fixtures by LabelMe's own code, and by Ultralytics' converter.

python -m venv m && m/bin/pip install labelme==6.3.1 opencv-python-headless
m/bin/pip install --no-deps ultralytics==8.4.190     # beside a torch that is there
m/bin/python tests/training/tool_labels/write_labelme.py
"""

import base64
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
import scene
from labelme._label_file import write_label_file
from labelme.utils import shapes_to_label
from PIL import Image

HERE = Path(__file__).parent


def png(part: np.ndarray) -> str:
    with io.BytesIO() as stream:
        Image.fromarray(part.astype(np.uint8)).save(stream, "PNG")
        return base64.b64encode(stream.getvalue()).decode()


def shape(label: str, kind: str, points: list, mask: np.ndarray | None = None) -> dict:
    return {
        "label": label,
        "points": points,
        "group_id": 1 if kind == "point" else None,
        "shape_type": kind,
        "flags": {"blurred": False},
        "description": "",
        "mask": None if mask is None else png(mask),
    }


def main() -> None:
    folder = HERE / "labelme"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for stem in ("000", "001"):
        shapes, drawn = [], []
        for name, region in scene.masks(stem).items():
            rows, columns = np.nonzero(region)
            top, left, bottom, right = rows.min(), columns.min(), rows.max(), columns.max()
            part = region[top : bottom + 1, left : right + 1]
            corners = [[float(left), float(top)], [float(right), float(bottom)]]
            if (stem, name) == ("000", "ear"):
                shapes.append(shape(name, "polygon", [list(corner) for corner in scene.POLYGON]))
                drawn.append(shapes[-1])
                continue
            shapes.append(shape(name, "mask", corners, part))
            drawn.append({**shapes[-1], "mask": part})
        values, _ = shapes_to_label((48, 64, 3), drawn, {"_background_": 0, "ear": 1, "eye": 2})
        np.testing.assert_array_equal((values > 0), scene.ids(stem) > 0) if stem == "001" else None
        Image.fromarray(values.astype(np.uint8)).save(folder / f"{stem}_as_labelme_draws.png")
        shapes += [shape(n, "point", [list(p)]) for n, p in scene.POINTS[stem].items()]
        with tempfile.TemporaryDirectory() as made:
            data = scene.picture(Path(made) / "x.png").read_bytes()
        write_label_file(
            str(folder / f"{stem}.json"),
            shapes=shapes,
            image_path=rf"..\images\{stem}.png",
            image_height=scene.HEIGHT,
            image_width=scene.WIDTH,
            image_data=data,
            flags={"checked": True},
        )
    from ultralytics.data.converter import convert_segment_masks_to_yolo_seg

    out = HERE / "ultralytics"
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as made:
        for stem in ("000", "001"):
            Image.fromarray(scene.ids(stem)).save(Path(made) / f"{stem}.png")
        convert_segment_masks_to_yolo_seg(made, str(out / "labels" / "train"), 2)
    (out / "data.yaml").write_text("path: .\ntrain: images/train\nnames:\n  0: ear\n  1: eye\n")
    print(sorted(str(p) for p in (*folder.iterdir(), *out.rglob("*.txt"))))


if __name__ == "__main__":
    main()
