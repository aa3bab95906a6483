"""A served model -> its metadata, configuration and statistics in the Open Inference Protocol."""

from typing import Any

from prometheus_client import CollectorRegistry

from service.models import ServedModel
from service.rpc.inference_messages import (
    DATA_TYPES,
    ModelConfigResponse,
    ModelMetadataResponse,
    ModelStatisticsResponse,
)
from service.rpc.inference_tensors import TensorSpec, inputs_of_generator, outputs_of_model

BACKEND = "labelmint"


def metadata_from_model(model: ServedModel) -> Any:
    """ModelMetadataResponse; the version is the bundle_id."""
    manifest = model.bundle.manifest
    response = ModelMetadataResponse(
        name=model.name,
        versions=[manifest.bundle_id],
        platform=f"{BACKEND}_{model.engines[0].name}",
    )
    for listed, tensors in (
        (response.inputs, inputs_of_generator(manifest.generator)),
        (response.outputs, outputs_of_model(model)),
    ):
        for name, tensor in tensors.items():
            listed.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
    return response


def config_from_model(model: ServedModel) -> Any:
    """ModelConfigResponse; max_batch_size is 0, which means that shapes include the batch axis."""
    response = ModelConfigResponse()
    config = response.config
    config.name, config.backend = model.name, BACKEND
    config.platform = f"{BACKEND}_{model.engines[0].name}"
    for name, tensor in inputs_of_generator(model.bundle.manifest.generator).items():
        config.input.add(name=name, data_type=_data_type(tensor), dims=tensor.shape, optional=True)
    for name, tensor in outputs_of_model(model).items():
        config.output.add(name=name, data_type=_data_type(tensor), dims=tensor.shape)
    config.model_transaction_policy.decoupled = False
    return response


def statistics_from_metrics(models: list[ServedModel], registry: CollectorRegistry) -> Any:
    """ModelStatisticsResponse of these models, over both services and all versions of a name.

    A success is one message of samples, timed from when its first sample began to wait until it
    was sent.
    """
    totals: dict[tuple[str, str], float] = {}
    for family in registry.collect():
        for sample in family.samples:
            labels = sample.labels
            if "le" not in labels and labels.get("code") != "OK":
                key = (labels.get("model", ""), sample.name)
                totals[key] = totals.get(key, 0.0) + sample.value
    response = ModelStatisticsResponse()
    for model in models:
        _add_statistics(response, model, totals)
    return response


def _add_statistics(
    response: Any, model: ServedModel, totals: dict[tuple[str, str], float]
) -> None:
    def total(name: str) -> float:
        return totals.get((model.name, f"labelmint_{name}"), 0.0)

    statistics = response.model_stats.add(
        name=model.name,
        version=model.bundle.manifest.bundle_id,
        inference_count=int(total("computed_samples_total")),
        execution_count=int(total("engine_seconds_count")),
    )
    for field, histogram in (
        (statistics.inference_stats.success, "message_seconds"),
        (statistics.inference_stats.queue, "queue_seconds"),
        (statistics.inference_stats.compute_infer, "engine_seconds"),
    ):
        field.count = int(total(f"{histogram}_count"))
        field.ns = int(total(f"{histogram}_sum") * 1e9)
    # The totals leave out requests with code OK.
    statistics.inference_stats.fail.count = int(total("requests_total"))


def _data_type(tensor: TensorSpec) -> int:
    return int(DATA_TYPES[f"TYPE_{tensor.datatype}"].number)
