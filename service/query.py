"""What one request asks for, checked and resolved against one model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.sampling import LatentOptions, LatentSpace
from labelmint.v1 import label_service_pb2 as pb
from service.sampler import Plan

# What a message holds beside its samples' tensors: bounds, generous ones.
MESSAGE_OVERHEAD_BYTES = 768  # tensor headers, bundle_id, next_index, lengths
SAMPLE_OVERHEAD_BYTES = 16  # its index, and JPEG's offset


@dataclass(frozen=True)
class LatentRows:
    """Latents the caller brought."""

    space: LatentSpace
    rows: NDArray[np.float32]  # [n, ...] by space


@dataclass(frozen=True)
class WantedOutput:
    """One output of each delivered sample, and how it travels."""

    name: str  # as engines call it
    output: pb.Output
    codec: pb.Codec
    raw_bytes: int  # of one sample in memory
    max_packed_bytes: int  # of one sample in a message


@dataclass(frozen=True)
class Query:
    """A checked SampleQuery; nothing in it can be out of range any more."""

    options: LatentOptions
    latents: LatentRows | None
    plan: Plan
    max_uncertainty: np.float32  # inf keeps everything
    count: int  # 0: endless
    weight: int  # of its share of the engine, at least 1
    outputs: tuple[WantedOutput, ...]  # in ascending Output order
    jpeg_quality: int
    max_message_bytes: int
    max_message_samples: int
    bundle_id: str

    @property
    def sample_bytes(self) -> int:
        """What one sample of the answer takes in memory."""
        return sum(output.raw_bytes for output in self.outputs)

    @property
    def sample_message_bytes(self) -> int:
        """What one sample adds to a message at most."""
        packed = sum(output.max_packed_bytes for output in self.outputs)
        return packed + SAMPLE_OVERHEAD_BYTES

    @property
    def samples_per_message(self) -> int:
        """How many samples certainly fit a message; at least 1, encoding has the last word."""
        room = self.max_message_bytes - MESSAGE_OVERHEAD_BYTES
        return max(1, min(self.max_message_samples, room // self.sample_message_bytes))
