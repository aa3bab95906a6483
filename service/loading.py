"""Bundles named in the configuration -> served models."""

from bundle.errors import BundleError
from bundle.open import open_bundle
from engines.errors import EngineError
from engines.open import EngineOptions, open_engine, open_mapping
from service.config import Config
from service.errors import StartError
from service.metrics import Metrics
from service.models import ServedModel


def open_models(config: Config, metrics: Metrics) -> list[ServedModel]:
    """Loads every bundle and its engine. Raises StartError, in one line."""
    options = EngineOptions(
        runtime=config.runtime, batch_sizes=config.batch_sizes, threads=config.threads
    )
    models: list[ServedModel] = []
    for named in config.bundles:
        try:
            bundle = open_bundle(named.path)
            engine = open_engine(bundle, options)
            mapping = open_mapping(bundle, options)
        except (BundleError, EngineError) as error:
            for model in models:
                model.close()
            raise StartError(f"bundle {named.name}: {error}") from error
        models.append(
            ServedModel(
                named.name,
                bundle,
                (engine,),
                mapping,
                metrics.of_model(named.name),
                config.batch_delay_s,
            )
        )
    return models
