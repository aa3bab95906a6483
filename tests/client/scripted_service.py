"""The seam's fake: section 4 of the design as plain Python, so that clients can be judged.

`responses` is what a server may answer to a query, as a generator that ends with `Ended` for
anything but OK; `ScriptedService` says it over gRPC. Samples are arrays derived from (seed,
index), so whoever holds a batch can tell whether it is the right one.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from labelmint import codec
from labelmint.errors import ERROR_DOMAIN, STREAM_AGED
from labelmint.v1 import label_service_pb2 as pb
from labelmint.v1 import label_service_pb2_grpc as pb_grpc

CLOSED_PORT = "localhost:1"  # where nothing listens
BUNDLE_ID = "sha256:scripted"
HEIGHT, WIDTH, POINTS = 6, 8, 3
MODEL = pb.Model(
    name="scripted",
    bundle_id=BUNDLE_ID,
    family="stylegan2",
    outputs=[spec.output for spec in codec.OUTPUTS.values()],
    image_height=HEIGHT,
    image_width=WIDTH,
    label_height=HEIGHT,
    label_width=WIDTH,
    z_dim=8,
    w_dim=8,
    num_ws=4,
    truncation_psi=1.0,
    truncation_cutoff=4,
    classes=[
        pb.LabelClass(id=number, name=name, color=color)
        for number, (name, color) in enumerate(
            (("background", 0x202030), ("skin", 0xE0B040), ("eye", 0x3080E0))
        )
    ],
    keypoints=[pb.Keypoint(name=name) for name in ("left", "nose", "right")],
    skeleton=[pb.SkeletonEdge(from_keypoint=0, to_keypoint=1)],
    score_source="segmentation",
    max_batch_size=16,
    engine="scripted",
    calibrated=True,
)
DEFAULT_OUTPUTS = ("image", "mask", "keypoints", "depth", "uncertainty")


class Ended(Exception):
    """The status of a stream that did not end with OK."""

    def __init__(self, code: grpc.StatusCode, message: str, details: bytes = b"") -> None:
        """`details` is a serialised google.rpc.Status."""
        super().__init__(message)
        self.code, self.message, self.details = code, message, details


@dataclass(frozen=True)
class Script:
    """How the server chooses to chop its streams up, and where it drops them."""

    message_samples: tuple[int, ...] = (3, 1, 4)  # cycled
    idle_after: int = 7  # examined without a kept one, until an empty message
    messages_until_drop: int | None = None  # then `drop`
    drop: Ended | None = None  # None: UNAVAILABLE
    bundle_id: str = BUNDLE_ID
    faults: dict[int, pb.StreamSamplesResponse] = field(default_factory=dict)  # by message


def aged(message: str) -> Ended:
    """The end of a stream that has been there for as long as it may."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=STREAM_AGED, domain=ERROR_DOMAIN))
    code = grpc.StatusCode.UNAVAILABLE
    status = status_pb2.Status(code=code.value[0], message=message, details=[detail])
    return Ended(code, message, status.SerializeToString())


def score(seed: int, index: int) -> float:
    """The uncertainty of a sample, spread over [0, 1)."""
    return (seed * 7919 + index * 104729 + 12345) % 1009 / 1009


def sample(seed: int, index: int) -> dict[str, npt.NDArray[Any]]:
    """What sample index of stream seed looks like: [1, ...] per output."""
    mark = (seed * 31 + index * 17) % 251
    image = np.full((1, HEIGHT, WIDTH, 3), mark, np.uint8)
    image[0, ..., 1] = index % 256
    grid = np.arange(HEIGHT * WIDTH, dtype=np.float32).reshape(1, HEIGHT, WIDTH)
    return {
        "image": image,
        "mask": ((grid + index) % 3).astype(np.uint8),
        "keypoints": np.full((1, POINTS, 3), index % 5 + 0.5, np.float32),
        "depth": (1 + grid / 64 + index % 7).astype(np.float16),
        "uncertainty": np.full(1, score(seed, index), np.float32),
        "uncertainty_map": (grid / 48 * score(seed, index)).astype(np.float16),
        "w": np.full((1, 4, 8), index, np.float32),
        "weight": np.full(1, 1 + index % 3, np.float32),
    }


def responses(query: pb.SampleQuery, script: Script) -> Iterator[pb.StreamSamplesResponse]:
    """The messages for a query; raises Ended for every end but OK."""
    if query.bundle_id not in ("", script.bundle_id):
        raise Ended(grpc.StatusCode.FAILED_PRECONDITION, f"the bundle is {script.bundle_id}")
    sizes = itertools.cycle(script.message_samples)
    kept: list[int] = []
    delivered = examined = discarded = since = 0
    next_index, size = query.start_index, next(sizes)
    sent = itertools.count()

    def message() -> pb.StreamSamplesResponse:
        number = next(sent)
        if number == script.messages_until_drop:
            raise script.drop or Ended(grpc.StatusCode.UNAVAILABLE, "draining")
        if number in script.faults:
            return script.faults[number]
        return pb.StreamSamplesResponse(
            batch=_sample_batch(query, kept),
            next_index=next_index,
            discarded=discarded,
            bundle_id=script.bundle_id,
        )

    for index in _members(query):
        if query.max_examined and examined == query.max_examined:
            yield message()
            raise Ended(grpc.StatusCode.OUT_OF_RANGE, f"examined {examined} samples")
        examined, since, next_index = examined + 1, since + 1, index + 1
        if keeps(query, index):
            kept.append(index)
            delivered += 1
        else:
            discarded += 1
        full = len(kept) == size or delivered == query.count > 0
        if full or (since >= script.idle_after and not kept):
            yield message()
            if delivered == query.count > 0:
                return
            kept, discarded, since, size = [], 0, 0, next(sizes)
    if since:
        yield message()


def keeps(query: pb.SampleQuery, index: int) -> bool:
    """The filter; a share of samples is a limit on scores that are spread evenly."""
    limit = {
        pb.FILTER_MODE_KEEP_FRACTION: query.filter.keep_fraction,
        pb.FILTER_MODE_MAX_UNCERTAINTY: query.filter.max_uncertainty,
    }.get(query.filter.mode, 2.0)
    views = max(1, query.sampling.views_per_object)
    whole_set = range(index - index % views, index - index % views + views)
    judged = whole_set if query.filter.filter_sets else [index]
    return all(score(query.sampling.seed, each) <= limit for each in judged)


def _members(query: pb.SampleQuery) -> Iterator[int]:
    if query.indices:
        yield from query.indices
        return
    end = query.end_index or 2**64 - 1
    if query.HasField("latents"):
        end = query.latents.rows.shape[0]
    views, shards = max(1, query.sampling.views_per_object), max(1, query.num_shards)
    for index in itertools.count(query.start_index):
        if index >= end:
            return
        if index // views % shards == query.shard_index:
            yield index


def _sample_batch(query: pb.SampleQuery, indices: list[int]) -> pb.SampleBatch:
    batch = pb.SampleBatch(indices=indices)
    names = [codec.name_from_output(output) for output in query.outputs] or DEFAULT_OUTPUTS
    for name in names if indices else ():
        rows = [sample(query.sampling.seed, index)[name] for index in indices]
        zstd = name == "mask" and pb.CODEC_ZSTD in (query.accept_codecs or [pb.CODEC_ZSTD])
        packing = pb.CODEC_ZSTD if zstd else pb.CODEC_RAW
        batch.tensors.append(
            codec.tensor_from_array(np.concatenate(rows), codec.output_from_name(name), packing)
        )
    return batch


# What a server that lies makes of its honest responses to a query; it may also raise Ended.
Lie = Callable[[pb.SampleQuery, Iterator[pb.StreamSamplesResponse]], Iterator[Any]]


class ScriptedService(pb_grpc.LabelServiceServicer):
    """A labelmint server whose engine is arithmetic; `script` may be changed between calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.running = 0  # streams; those of earlier tests may still be ending
        self.reset()

    def reset(self) -> None:
        """Forgets what it saw and what it was told."""
        self.script = Script()
        self.queries: list[pb.SampleQuery] = []
        self.metadata: dict[str, str | bytes] = {}
        self.refusal: Ended | None = None  # what every call ends with
        self.lie: Lie = lambda query, honest: honest
        self.model, self.models = MODEL, [MODEL]  # what GetModel and ListModels describe
        self.threshold: float | None = None  # of GetModel; None: the keep_fraction

    def StreamSamples(
        self, request: pb.StreamSamplesRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.StreamSamplesResponse]:
        self._admit(context)
        self.queries.append(request.query)
        with self._lock:
            self.running += 1
        if not context.add_callback(self._stopped):  # the caller is gone already
            self._stopped()
        script, self.script = self.script, replace(self.script, messages_until_drop=None)
        try:
            yield from self.lie(request.query, responses(request.query, script))
        except Ended as end:
            if end.details:
                context.set_trailing_metadata((("grpc-status-details-bin", end.details),))
            context.abort(end.code, end.message)

    def GenerateSamples(
        self, request: pb.GenerateSamplesRequest, context: grpc.ServicerContext
    ) -> pb.GenerateSamplesResponse:
        self._admit(context)
        self.queries.append(request.query)
        whole = replace(self.script, message_samples=(1 << 20,), idle_after=1 << 20)
        response = next(self.lie(request.query, responses(request.query, whole)))
        return pb.GenerateSamplesResponse(
            batch=response.batch,
            next_index=response.next_index,
            discarded=response.discarded,
            bundle_id=response.bundle_id,
        )

    def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        self._admit(context)
        return pb.ListModelsResponse(models=self.models)

    def GetModel(
        self, request: pb.GetModelRequest, context: grpc.ServicerContext
    ) -> pb.GetModelResponse:
        self._admit(context)
        if request.model not in ("", MODEL.name):
            context.abort(grpc.StatusCode.NOT_FOUND, f"model {request.model!r} is not served")
        threshold = request.keep_fraction if self.threshold is None else self.threshold
        return pb.GetModelResponse(
            model=self.model, max_uncertainty=threshold if request.keep_fraction else None
        )

    def _stopped(self) -> None:
        with self._lock:
            self.running -= 1

    def _admit(self, context: grpc.ServicerContext) -> None:
        self.metadata = dict(context.invocation_metadata())
        if self.refusal:
            context.abort(self.refusal.code, self.refusal.message)


@contextmanager
def serving(service: ScriptedService | None = None) -> Iterator[tuple[str, ScriptedService]]:
    """A server on a free port of this machine: its target, and the service to script."""
    service = service or ScriptedService()
    server = grpc.server(futures.ThreadPoolExecutor(8))
    pb_grpc.add_LabelServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", service
    finally:
        server.stop(None).wait()
