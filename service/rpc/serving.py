"""State that both services of this server share: its models, its limits, whether it is serving."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from labelmint.v1 import label_service_pb2 as pb
from service.admission import Admission
from service.config import Config
from service.delivery import Stream
from service.errors import BadRequest, NotServing, RangeExhausted, UnknownModel
from service.models import ServedModel
from service.query import Query
from service.repository import Repository
from service.rpc.calls import Call
from service.tracing import Tracing

COPIED_BYTES = 8 << 20  # most bytes to copy on the event loop at once: about a millisecond
Stop = Callable[[Exception], None]
Encoded = TypeVar("Encoded")


class Serving:
    """Finds models for calls and opens their streams, between `serve` and `drain`."""

    def __init__(
        self,
        repository: Repository,
        config: Config,
        encoders: Executor,
        tracing: Tracing,
    ) -> None:
        self.repository, self.limits = repository, config.limits
        self.max_stream_age_s = config.max_stream_age_s
        self._encoders, self._tracing = encoders, tracing
        self._admission = Admission(config.limits)
        self._refusal: NotServing | None = NotServing("the server is loading; try again soon")
        self._stops: set[Stop] = set()

    def serve(self) -> None:
        """Answers calls from now on."""
        self._refusal = None

    def drain(self) -> None:
        """Refuses calls from now on and ends open streams before their next message."""
        self._refusal = NotServing(
            "the server is draining; resume from next_index at another replica"
        )
        for stop in self._stops:
            stop(self._refusal)

    def check(self) -> None:
        """Raises NotServing before `serve` and after `drain`."""
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)  # without the frames of earlier raises

    def model(self, call: Call, name: str) -> ServedModel:
        """The model of that name, or the only one if the name is empty.

        Raises BadRequest, UnknownModel, NotServing.
        """
        self.check()
        models = self.repository.models
        known = ", ".join(models) or "none"
        if not name and not models:
            raise NotServing("no model is loaded; try again later or at another replica")
        if not name and len(models) != 1:
            raise BadRequest(f"model is empty; name one of this server's {len(models)}: {known}")
        model = models.get(name) if name else next(iter(models.values()))
        if model is None:
            raise UnknownModel(f"model is {name!r}; this server has {known}")
        call.model = model.name
        return model

    @asynccontextmanager
    async def stream(
        self, call: Call, query: Query, model: ServedModel, answer_samples: int = 0
    ) -> AsyncIterator[Stream]:
        """Opens a stream of samples until the block ends.

        `answer_samples` are kept in memory until the whole answer is sent. Raises NotServing, and
        what Admission.admit raises.
        """
        admitted = self._admission.admit(
            call.client, query, model.batch_size, answer_samples, call.request_bytes
        )
        with (
            admitted as window,
            model.stream(query, window, call.deadline, call.client, call.span) as stream,
        ):
            yield stream

    @contextmanager
    def stopping(self, stop: Stop) -> Iterator[None]:
        """Lets `drain` end the call by `stop` while the block runs. Unary calls do not use this,
        so they may finish."""
        self.check()  # draining may have begun since the call was admitted
        self._stops.add(stop)
        try:
            yield
        finally:
            self._stops.remove(stop)

    async def encoded(self, stream: Stream, samples: int, make: Callable[[], Encoded]) -> Encoded:
        """Calls `make`, which encodes a message with this number of samples (0 in a heartbeat).

        It runs on another thread, except for small copies, which take less time than the switch.
        """
        if not samples:
            return make()
        with self._tracing.encoding(stream.span, samples):
            if _only_copied(stream.query) and samples * stream.query.sample_bytes <= COPIED_BYTES:
                return make()
            return await asyncio.get_running_loop().run_in_executor(self._encoders, make)


def _only_copied(query: Query) -> bool:
    return all(output.codec == pb.CODEC_RAW for output in query.outputs)


def check_not_exhausted(stream: Stream) -> None:
    """Raises RangeExhausted if a finished stream delivered fewer samples than requested because
    its indices ran out."""
    if stream.query.plan.end_reason and not stream.count_reached:
        raise RangeExhausted(stream.query.plan.end_reason)
