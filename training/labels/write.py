"""Label arrays -> a label folder; used by programs that know labels."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from checkpoints import replaced_file, write_classes, write_text
from training.labels.label_folder import CLASSES, KEYPOINTS, MASKS, Pictures, text_of_keypoints
from training.labels.labelled_set import LabelledSet
from training.labels.scaling import LabelSizes


def write_labels(folder: Path, labels: LabelledSet) -> None:
    """Writes masks/, classes.toml, keypoints.json and depth/ for the kinds of labels present.

    Every file is replaced whole: a killed process leaves old ones and new ones, none in part.
    Raises OSError.
    """
    if labels.masks is not None and labels.classes is not None:
        (folder / MASKS).mkdir(parents=True, exist_ok=True)
        for stem, mask in zip(labels.stems, labels.masks, strict=True):
            with replaced_file(folder / MASKS / f"{stem}.png") as partial:
                Image.fromarray(mask).save(partial, "png")
        write_classes(folder / CLASSES, labels.classes)
    if labels.keypoints is not None:
        size = LabelSizes(labels.crop.height, labels.crop.width, None)
        files = {stem: f"{stem}.png" for stem in labels.stems}
        pictures = Pictures(folder, files, dict.fromkeys(labels.stems, size))
        points = {
            stem: row
            for stem, row in zip(labels.stems, labels.keypoints, strict=True)
            if not np.isnan(row).any()
        }
        text = text_of_keypoints(pictures, points, labels.keypoint_names, labels.skeleton)
        write_text(folder / KEYPOINTS, text)
    if labels.depth is not None:
        (folder / "depth").mkdir(parents=True, exist_ok=True)
        write_text(folder / "depth" / "depth.toml", f"unit = {json.dumps(labels.depth_unit)}\n")
        for stem, depth in zip(labels.stems, labels.depth, strict=True):
            with (
                replaced_file(folder / "depth" / f"{stem}.npy") as partial,
                partial.open("wb") as stream,
            ):
                np.save(stream, depth)
