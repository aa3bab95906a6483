"""CVAT for images 1.1: one XML file with a mask of each class, and points named as keypoints."""

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np

from labelmint.datasets.run_lengths import cvat_mask
from training.labels.label_folder import LabelFolder


def write_cvat(path: Path, labels: LabelFolder) -> None:
    """Writes one file. Keypoints that are not visible are left out, as CVAT's own. Raises
    OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as stream:
        stream.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n')
        stream.write(f"<version>1.1</version>\n{_text(_meta(labels))}\n")
        for number, stem in enumerate(labels.stems):
            stream.write(f"{_text(_image(labels, number, stem))}\n")
        stream.write("</annotations>\n")


def _meta(labels: LabelFolder) -> Element:
    listed = [(name, color, "mask") for name, color in labels.labels()]
    listed.append(("__ignore__", 0x808080, "mask"))
    listed += [(name, 0xFFFFFF, "points") for name in labels.keypoint_names]
    meta = Element("meta")
    place = SubElement(SubElement(meta, "task"), "labels")
    for name, color, kind in listed:
        label = SubElement(place, "label")
        SubElement(label, "name").text = name
        SubElement(label, "color").text = f"#{color:06x}"
        SubElement(label, "type").text = kind
    return meta


def _image(labels: LabelFolder, number: int, stem: str) -> Element:
    sizes = labels.pictures.sizes[stem]
    size = {"width": str(sizes.width), "height": str(sizes.height)}
    image = Element("image", {"id": str(number), "name": labels.pictures.files[stem], **size})
    shared = {"source": "manual", "occluded": "0", "z_order": "0"}
    for name, region in labels.regions(stem):
        SubElement(image, "mask", {"label": name, **shared, **cvat_mask(region)})
    points = labels.points.get(stem, np.zeros((0, 3)))
    for name, (x, y, visible) in zip(labels.keypoint_names, points, strict=False):
        if visible > 0:
            place = {"points": f"{x:.4f},{y:.4f}"}
            SubElement(image, "points", {"label": name, **shared, **place})
    return image


def _text(element: Element) -> str:
    return tostring(element, encoding="unicode")
