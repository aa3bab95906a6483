"""Label Studio: tasks.json to import, with a brush stroke of each class and keypoints in percent.

config.xml beside it is the labeling interface that its names belong to.
"""

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from labelmint.datasets.run_lengths import brush_from_mask
from training.labels.label_folder import LabelFolder

LOCAL = "/data/local-files/?d="  # where Label Studio looks for files of its own disk


def write_label_studio(folder: Path, labels: LabelFolder) -> None:
    """Writes tasks.json and config.xml. Keypoints that are not visible are left out.

    Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tasks = []
    for number, stem in enumerate(labels.stems, 1):
        results = _results(labels, stem)
        tasks.append(
            {
                "id": number,
                "data": {"image": LOCAL + labels.pictures.files[stem]},
                "annotations": [{"id": number, "completed_by": 1, "result": results}],
            }
        )
    (folder / "tasks.json").write_text(json.dumps(tasks), "utf-8")
    (folder / "config.xml").write_text(_config(labels), "utf-8")


def _results(labels: LabelFolder, stem: str) -> list[dict[str, Any]]:
    sizes = labels.pictures.sizes[stem]
    shared = {
        "to_name": "image",
        "image_rotation": 0,
        "original_width": sizes.width,
        "original_height": sizes.height,
    }
    results: list[dict[str, Any]] = []
    for name, region in labels.regions(stem):
        value = {"format": "rle", "rle": brush_from_mask(region), "brushlabels": [name]}
        results.append({"from_name": "tag", "type": "brushlabels", "value": value})
    points = labels.points.get(stem, np.zeros((0, 3)))
    for name, (x, y, visible) in zip(labels.keypoint_names, points.tolist(), strict=False):
        if visible > 0:
            place = {"x": 100 * x / sizes.width, "y": 100 * y / sizes.height, "width": 0.5}
            value = {**place, "keypointlabels": [name]}
            results.append({"from_name": "points", "type": "keypointlabels", "value": value})
    return [{"id": f"{stem}-{i}", **shared, **result} for i, result in enumerate(results)]


def _config(labels: LabelFolder) -> str:
    lines = ["<View>", '  <Image name="image" value="$image"/>']
    if labels.masks:
        lines.append('  <BrushLabels name="tag" toName="image">')
        for name, color in [*labels.labels(), ("__ignore__", 0x808080)]:
            lines.append(f'    <Label value={quoteattr(name)} background="#{color:06x}"/>')
        lines.append("  </BrushLabels>")
    if labels.keypoint_names:
        lines.append('  <KeyPointLabels name="points" toName="image">')
        lines += [f"    <Label value={quoteattr(name)}/>" for name in labels.keypoint_names]
        lines.append("  </KeyPointLabels>")
    return "\n".join([*lines, "</View>", ""])
