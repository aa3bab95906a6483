"""A request's SampleQuery, checked and resolved against one model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.edits import Shift
from engines.sampling import LatentOptions, LatentSpace
from engines.selection import Selection
from labelmint.v1 import label_service_pb2 as pb
from service.sampler import Plan
from service.screen import ScreenedPlan

# Upper bounds on the bytes of a message besides the data of its tensors.
MESSAGE_OVERHEAD_BYTES = 840  # tensor headers, bundle_id, learned_id, next_index, lengths
SAMPLE_OVERHEAD_BYTES = 16  # per sample: its index, and its offset in a JPEG tensor


@dataclass(frozen=True)
class LatentRows:
    """Latents that the caller sent."""

    space: LatentSpace
    rows: NDArray[np.float32]  # [n, z_dim], [n, w_dim] or [n, num_ws, w_dim] by space


@dataclass(frozen=True)
class WantedOutput:
    """One output of each delivered sample, and how it is packed."""

    name: str  # as engines call it
    output: pb.Output
    codec: pb.Codec
    raw_bytes: int  # bytes of one sample in memory
    max_packed_bytes: int  # most bytes of one sample in a message


@dataclass(frozen=True)
class Query:
    """A checked SampleQuery: every value is in range, every default filled in."""

    options: LatentOptions
    latents: LatentRows | None  # None: latents are drawn
    plan: Plan
    screen: ScreenedPlan | None  # the plan too, if a proposal chooses; None: all is generated
    max_uncertainty: np.float32  # samples above are rejected; inf keeps every sample
    selection: Selection | None  # samples of other content are rejected; None: of none
    shift: Shift | None  # what edits add to each w+; None: there are none
    applied: int  # bits of the request's options, as responses have them
    unmet_limit: int  # samples without one that meets it, after which the stream ends; 0: no limit
    count: int  # most samples to deliver; 0: no limit
    weight: int  # share of the engine relative to other streams, at least 1
    outputs: tuple[WantedOutput, ...]  # in ascending Output order
    jpeg_quality: int
    max_message_bytes: int
    max_message_samples: int
    bundle_id: str
    learned_id: str  # of the proposal and the directions; empty without any

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample in memory."""
        return sum(output.raw_bytes for output in self.outputs)

    @property
    def sample_message_bytes(self) -> int:
        """Most bytes that one sample adds to a message."""
        packed = sum(output.max_packed_bytes for output in self.outputs)
        return packed + SAMPLE_OVERHEAD_BYTES

    @property
    def samples_per_message(self) -> int:
        """Number of samples in a full message, at least 1.

        This many fit by the upper bounds above; a single sample may still be too large, which
        encoding finds out.
        """
        available = self.max_message_bytes - MESSAGE_OVERHEAD_BYTES
        return max(1, min(self.max_message_samples, available // self.sample_message_bytes))
