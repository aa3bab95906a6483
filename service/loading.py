"""A bundle's folder -> a ServedModel whose engines have completed one run of every batch size."""

import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack
from functools import partial
from threading import Event, Thread, Timer
from threading import enumerate as enumerate_threads
from typing import NoReturn

import numpy as np

from bundle.errors import BundleError
from bundle.open import Bundle, open_bundle
from engines.errors import EngineError, EngineRunError, NotFiniteError
from engines.open import EngineOptions, GpuDrivers, open_engines, open_mapping
from engines.protocol import Engine, Mapping
from engines.sampling import default_options, ws_from_indices
from service.config import Config, NamedBundle
from service.errors import StartError
from service.metrics import Metrics
from service.models import ServedModel

OpenModel = Callable[[NamedBundle], ServedModel]
# A load that takes longer no longer keeps others waiting. They take turns, for less memory at once.
TURN_S = 10.0
WARM_UP_S = 300.0  # limit of all warm-up runs of one engine; they take seconds
_LOAD_THREAD = "load "  # begin of the names of their threads
_log = logging.getLogger(__name__)


def open_models(config: Config, metrics: Metrics) -> list[ServedModel]:
    """Loads every configured bundle and its engines. Raises StartError."""
    models: list[ServedModel] = []
    for named in config.bundles:
        load = Load(partial(open_model, config=config, metrics=metrics), named)
        try:
            models.append(load.model(config.load_timeout_s))
        except (BundleError, EngineError, LoadTimeout) as error:
            for model in models:
                model.close()
            raise StartError(f"bundle {named.name}: {error}") from error
    return models


def exit_process(code: int) -> NoReturn:
    """Ends the process; without its usual clean-up beside a load under way, whose native code
    would abort it."""
    if any(thread.name.startswith(_LOAD_THREAD) for thread in enumerate_threads()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


class LoadTimeout(Exception):
    """A load did not end within its limit."""


class Load:
    """A load of one model on a thread of its own, because nothing can end it from outside.

    The process can end while the thread is busy.
    """

    def __init__(self, open_named: OpenModel, named: NamedBundle) -> None:
        self._open, self._named = open_named, named
        self.opened: Future[ServedModel] = Future()
        self.opened.set_running_or_notify_cancel()  # from now on it cannot be cancelled
        Thread(target=self._run, name=f"{_LOAD_THREAD}{named.name}", daemon=True).start()

    def model(self, limit_s: float) -> ServedModel:
        """Waits for the model. Raises what opening it raises, or LoadTimeout."""
        done, _ = wait([self.opened], min(TURN_S, limit_s))
        if not done and limit_s > TURN_S:
            self.warn()
            done, _ = wait([self.opened], limit_s - TURN_S)
        if not done:
            self.abandon()
            raise self.timeout(limit_s)
        return self.opened.result()

    def warn(self) -> None:
        """Logs that the load takes long."""
        _log.warning("model %s has been loading for over %g s", self._named.name, TURN_S)

    def abandon(self) -> None:
        """Closes the model if it is ever opened."""
        self.opened.add_done_callback(_close_opened)

    def timeout(self, limit_s: float) -> LoadTimeout:
        """The error to raise at the limit."""
        return LoadTimeout(
            f"{self._named.path} was not loaded within {limit_s:g} s; check its disk and its "
            "graphs, or raise --load-timeout"
        )

    def _run(self) -> None:
        try:
            self.opened.set_result(self._open(self._named))
        except BaseException as error:
            self.opened.set_exception(error)


def _close_opened(opened: "Future[ServedModel]") -> None:
    if opened.exception() is None:
        opened.result().close()


def open_model(
    named: NamedBundle, config: Config, metrics: Metrics, drivers: GpuDrivers | None = None
) -> ServedModel:
    """Loads one bundle and runs it once on every engine. Raises BundleError, EngineError."""
    options = EngineOptions(
        runtime=config.runtime,
        fallbacks=config.fallbacks,
        precision=config.precision,
        batch_sizes=config.batch_sizes,
        threads=config.threads,
        gpu=config.gpu,
    )
    bundle = open_bundle(named.path)
    with ExitStack() as on_failure:
        opened = open_engines(bundle, options, drivers)
        for engine in opened.engines:
            on_failure.callback(engine.close)
        mapping = open_mapping(bundle, options)
        for engine in opened.engines:
            warm_up(engine, mapping, bundle, min(WARM_UP_S, config.load_timeout_s))
        on_failure.pop_all()
    for fallback in opened.fallbacks:
        metrics.count_fallback(named.name, fallback.runtime, opened.engines[0].name)
    return ServedModel(
        named.name,
        bundle,
        opened.engines,
        mapping,
        metrics.of_model(named.name),
        config.batch_delay_s,
    )


def warm_up(engine: Engine, mapping: Mapping, bundle: Bundle, limit_s: float = WARM_UP_S) -> None:
    """Runs every batch size once, so that memory is allocated before the first call and a model
    with NaN or infinite outputs, or a run without end, is refused. Raises EngineError."""
    late = Event()

    def stop() -> None:
        late.set()
        for part in (engine, mapping):
            part.stop()

    timer = Timer(limit_s, stop)
    timer.daemon = True
    timer.start()
    try:
        _run_all_sizes(engine, mapping, bundle)
    except EngineError as error:
        if late.is_set():
            raise EngineRunError(f"warm-up: the runs did not end within {limit_s:g} s") from error
        raise
    finally:
        timer.cancel()
    if late.is_set():
        raise EngineRunError(f"warm-up: the runs ended after over {limit_s:g} s")


def _run_all_sizes(engine: Engine, mapping: Mapping, bundle: Bundle) -> None:
    generator = bundle.manifest.generator
    ws = ws_from_indices(
        mapping, generator, default_options(generator), range(engine.batch_sizes[-1])
    )
    for rows in engine.batch_sizes:
        keep_all = np.full(rows, np.inf, np.float32)
        result = engine.run(ws[:rows], keep_all, engine.outputs)
        for name, array in result.arrays.items():
            finite = np.isfinite(array).reshape(rows, -1).all(axis=1)
            if not finite.all():
                bad = tuple(np.flatnonzero(~finite).tolist())
                raise NotFiniteError(f"warm-up: {name} of samples {list(bad)} is not finite", bad)
