"""A bundle's folder -> a ServedModel whose engines have completed one run of every batch size."""

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np

from bundle.errors import BundleError
from bundle.open import Bundle, open_bundle
from engines.errors import EngineError, NotFiniteError
from engines.open import EngineOptions, GpuDrivers, open_engines, open_mapping
from engines.protocol import Engine, Mapping
from engines.sampling import default_options, ws_from_indices
from service.config import Config, NamedBundle
from service.errors import StartError
from service.metrics import Metrics
from service.models import ServedModel

OpenModel = Callable[[NamedBundle], ServedModel]


def open_models(config: Config, metrics: Metrics) -> list[ServedModel]:
    """Loads every configured bundle and its engines. Raises StartError."""
    models: list[ServedModel] = []
    for named in config.bundles:
        try:
            models.append(open_model(named, config, metrics))
        except (BundleError, EngineError) as error:
            for model in models:
                model.close()
            raise StartError(f"bundle {named.name}: {error}") from error
    return models


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
            warm_up(engine, mapping, bundle)
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


def warm_up(engine: Engine, mapping: Mapping, bundle: Bundle) -> None:
    """Runs every batch size once, so that memory is allocated before the first call and a model
    with NaN or infinite outputs is refused. Raises EngineError."""
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
