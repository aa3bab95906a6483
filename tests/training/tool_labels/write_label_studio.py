"""Fixtures by Label Studio's own code: JSON, JSON-MIN, COCO and PNG of brush strokes.

python -m venv s && s/bin/pip install label-studio-sdk==2.1.2
s/bin/python tests/training/tool_labels/write_label_studio.py
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import scene
from label_studio_sdk.converter import Converter
from label_studio_sdk.converter.brush import mask2rle

HERE = Path(__file__).parent / "label_studio"
BRUSH = """<View><Image name="image" value="$image"/>
<BrushLabels name="tag" toName="image"><Label value="ear"/><Label value="eye"/></BrushLabels>
</View>"""
SHAPES = """<View><Image name="image" value="$image"/>
<PolygonLabels name="label" toName="image"><Label value="ear"/><Label value="eye"/></PolygonLabels>
</View>"""


def brush_tasks() -> list[dict]:
    tasks = []
    for number, stem in enumerate(("000", "001"), 3):
        results = []
        for name, region in scene.masks(stem).items():
            rle = mask2rle(region.astype(np.uint8) * 255)
            value = {"format": "rle", "rle": rle, "brushlabels": [name]}
            results.append(
                {
                    "id": f"{stem}{name}",
                    "from_name": "tag",
                    "to_name": "image",
                    "type": "brushlabels",
                    "original_width": scene.WIDTH,
                    "original_height": scene.HEIGHT,
                    "image_rotation": 0,
                    "value": value,
                }
            )
        tasks.append(task(number, stem, results))
    return tasks


def task(number: int, stem: str, results: list[dict]) -> dict:
    annotation = {
        "id": number,
        "completed_by": 1,
        "result": results,
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-11-01T10:00:00Z",
        "updated_at": "2026-11-01T10:00:00Z",
        "lead_time": 3.5,
    }
    image = f"/data/upload/1/23082be9-{stem}.png"
    name = f"23082be9-{stem}.png"
    return {
        "id": number,
        "data": {"image": image},
        "file_upload": name,
        "annotations": [annotation],
    }


def polygon_tasks() -> list[dict]:
    points = [[100 * x / scene.WIDTH, 100 * y / scene.HEIGHT] for x, y in scene.POLYGON]
    shared = {"to_name": "image", "original_width": scene.WIDTH, "original_height": scene.HEIGHT}
    polygon = {"points": points, "closed": True, "polygonlabels": ["ear"]}
    result = {"id": "p", "from_name": "label", "type": "polygonlabels", "value": polygon, **shared}
    return [task(3, "000", [result])]


def main() -> None:
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    for name, config, tasks in (
        ("brush", BRUSH, brush_tasks()),
        ("shapes", SHAPES, polygon_tasks()),
    ):
        export = HERE / f"{name}.json"
        export.write_text(json.dumps(tasks))
        converter = Converter(config, ".", download_resources=False)
        with tempfile.TemporaryDirectory() as made:
            converter.convert_to_json_min(str(export), made, is_dir=False)
            shutil.copy(Path(made) / "result.json", HERE / f"{name}_min.json")
            if name == "brush":
                png = HERE / "png"
                png.mkdir()
                items = converter.iter_from_json_file(str(export))
                from label_studio_sdk.converter.brush import convert_task_dir

                convert_task_dir(items, str(png), "png")
                shutil.copy(HERE / "brush_min.json", png / "tasks.json")
            else:
                converter.convert_to_coco(str(export), made, is_dir=False)
                shutil.copy(Path(made) / "result.json", HERE / "coco.json")
    print(sorted(str(p.relative_to(HERE)) for p in HERE.rglob("*")))


if __name__ == "__main__":
    main()
