"""What a served model can do: `Model`, read from the wire."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from labelmint.codec import OUTPUTS, output_from_name, raw_bytes_per_sample
from labelmint.v1 import label_service_pb2 as pb


@dataclass(frozen=True)
class LabelClass:
    """A class of the segmentation head."""

    id: int  # in masks
    name: str
    color: tuple[int, int, int]  # RGB, 0 to 255


class Camera(NamedTuple):
    """The camera behind a code of a view bank; nan: not known."""

    azimuth_deg: float  # positive: towards the object's left
    elevation_deg: float  # positive: from above
    distance: float  # to the object, in its units
    focal: float  # focal length over image extent


@dataclass(frozen=True)
class Model:
    """What a bundle can do and where it came from; extents are (height, width) in pixels."""

    name: str
    bundle_id: str  # hash of the bundle's content
    family: str  # of the generator
    outputs: tuple[str, ...]  # what it can deliver
    image_size: tuple[int, int]
    label_size: tuple[int, int]  # of masks, depth and uncertainty maps; (0, 0): no heads
    z_dim: int
    w_dim: int
    num_ws: int  # rows of w+
    num_classes: int  # of a class-conditional generator; 0: unconditional
    view_layers: int  # first rows of w+ that carry the viewpoint; 0: views are refused
    truncation_psi: float  # default
    truncation_cutoff: int  # default, in rows
    classes: tuple[LabelClass, ...]  # by id; empty: no mask
    keypoints: tuple[str, ...]  # names in output order; empty: no keypoints
    skeleton: tuple[tuple[int, int], ...]  # bones, as positions in keypoints
    score_source: str  # the head that gives the uncertainty; empty: filtering is refused
    max_batch_size: int  # of the engine
    engine: str  # such as "onnxruntime-cpu"
    licences: tuple[str, ...]  # of the weights
    calibrated: bool  # for the default sampling options
    refined: bool = False  # by a network behind the generator, which leaves labels as they are
    view_bank: tuple[Camera, ...] = ()  # by code; empty: it has none
    max_uncertainty: float | None = None  # the threshold of keep_fraction, when asked for

    def palette(self) -> npt.NDArray[np.uint8]:
        """Colours by class id: uint8 [256, 3], black where there is no class."""
        palette = np.zeros((256, 3), np.uint8)
        for label in self.classes:
            palette[label.id] = label.color
        return palette

    def usual_outputs(self, of_bank: bool) -> list[str]:
        """What a stream that names no outputs has; `of_bank`: views come from the view bank."""
        unasked = ("uncertainty_map", "w", *(() if of_bank else ("view", "camera")))
        return [name for name in self.outputs if name not in unasked]

    def sample_bytes(self, outputs: Sequence[str]) -> int:
        """Bytes of one sample with these outputs, before packing; ValueError: unknown output."""
        extents: dict[str, tuple[int, ...]] = {
            "image": (*self.image_size, 3),
            "keypoints": (len(self.keypoints), 3),
            "uncertainty": (),
            "w": (self.num_ws, self.w_dim),
            "view": (),
            "camera": (len(Camera._fields),),
        }
        return sum(
            raw_bytes_per_sample(output_from_name(name), extents.get(name, self.label_size))
            for name in outputs
        )


def model_from_proto(message: pb.Model, max_uncertainty: float | None = None) -> Model:
    """The typed form of a Model message; outputs this release does not know are left out."""
    names = {spec.output: spec.name for spec in OUTPUTS.values()}
    return Model(
        name=message.name,
        bundle_id=message.bundle_id,
        family=message.family,
        outputs=tuple(names[output] for output in message.outputs if output in names),
        image_size=(message.image_height, message.image_width),
        label_size=(message.label_height, message.label_width),
        z_dim=message.z_dim,
        w_dim=message.w_dim,
        num_ws=message.num_ws,
        num_classes=message.num_classes,
        view_layers=message.view_layers,
        truncation_psi=message.truncation_psi,
        truncation_cutoff=message.truncation_cutoff,
        classes=tuple(
            LabelClass(label.id, label.name, rgb_from_hex(label.color))
            for label in message.classes
            if label.id < 256  # masks are uint8
        ),
        keypoints=tuple(keypoint.name for keypoint in message.keypoints),
        skeleton=tuple((edge.from_keypoint, edge.to_keypoint) for edge in message.skeleton),
        score_source=message.score_source,
        max_batch_size=message.max_batch_size,
        engine=message.engine,
        licences=tuple(message.licences),
        calibrated=message.calibrated,
        refined=message.refined,
        view_bank=tuple(_camera_from_proto(camera) for camera in message.view_bank),
        max_uncertainty=max_uncertainty,
    )


def _camera_from_proto(message: pb.Camera) -> Camera:
    known = (
        getattr(message, name) if message.HasField(name) else math.nan for name in Camera._fields
    )
    return Camera(*known)


def rgb_from_hex(color: int) -> tuple[int, int, int]:
    """(red, green, blue) of 0xRRGGBB."""
    return (color >> 16) & 255, (color >> 8) & 255, color & 255
