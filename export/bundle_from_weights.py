"""Weights -> the files of a bundle in a staged folder: ONNX graphs and a manifest with parity."""

import logging
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
import torch
from tqdm import tqdm

from bundle.manifest import LABELLER, MAPPING, Manifest, Parity
from bundle.open import Bundle, open_bundle
from bundle.read import bundle_id_from_content
from bundle.views import write_view_codes
from bundle.write import file_entries, write_manifest
from engines.content import content_columns
from engines.open import EngineOptions, Precision, open_engine, open_mapping
from engines.plan_parity import unfiltered_arrays
from engines.sampling import default_options, ws_from_indices
from export.checks.parity import (
    TOLERANCES,
    parity_of_labeller,
    parity_of_mapping,
    refuse_excess,
)
from export.checks.reference import reference_outputs
from export.errors import ExportError
from export.graph.labeller import Labeller
from export.graph.to_onnx import half_by_float32, labeller_onnx, mapping_onnx
from export.manifest_from_cards import (
    generator_from_card,
    heads_from_card,
    labels_from_card,
    refiner_from_card,
    views_from_card,
)
from export.weights import SourceWeights
from labelmint.latents import Purpose, latents

TOOLS = ("torch", "onnx", "onnxruntime", "numpy")
RUNTIME = f"onnxruntime-cpu {version('onnxruntime')}"
DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "float16": torch.float16}
# Pixels that the label branch computes at a time. The float32 graph is for CPUs, whose cache holds
# a strip. The float16 graph is for GPUs, where each strip of each member is a few kernel launches
# and TensorRT optimises every one: at 512 px, 128 strips are 13,600 nodes and 8 strips are 1,360.
STRIP_PIXELS: dict[Precision, int] = {"float32": 1 << 11, "float16": 1 << 15}
PARITY_SEED = 2**63  # a seed that users are unlikely to use


def write_graphs(folder: Path, weights: SourceWeights, half: bool) -> None:
    """Writes the graphs of the mapping and the labeller, and the view codes if there is a bank.

    half: also write the labeller in float16. Raises ExportError if the weights do not fit together.
    """
    precisions: list[Precision] = list(DTYPES) if half else ["float32"]
    if weights.views is not None:
        write_view_codes(folder, weights.views.codes)
    with quiet_exporter():
        mapping_onnx(weights.generator.mapping, folder / MAPPING)
        for precision in tqdm(precisions, desc="export", unit="graph"):
            try:
                labeller = Labeller(
                    weights.generator,
                    weights.interpreter,
                    weights.spec,
                    precision,
                    refine=weights.refiner_stage(DTYPES[precision]),
                    strip_pixels=STRIP_PIXELS[precision],
                )
            except ValueError as error:
                raise ExportError(
                    f"no labeller can be built from these weights: {error}"
                ) from error
            with half_by_float32():
                labeller_onnx(labeller, folder / LABELLER[precision])


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silences torch's exporter, which warns of its own deprecations and of unneeded libraries."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def manifest_from_folder(folder: Path, weights: SourceWeights) -> Manifest:
    """The manifest of the files in `folder`, with empty parity and calibrations."""
    files = file_entries(folder)
    generator = generator_from_card(weights.generator_card, weights.generator.mapping.w_avg)
    card = weights.interpreter_card
    labels = None if card is None else labels_from_card(card)
    heads = None if card is None else heads_from_card(card)
    refiner = views = None
    if weights.refiner is not None:
        refiner = refiner_from_card(weights.refiner.card, weights.refiner.sha256)
    if weights.views is not None:
        views = views_from_card(weights.views.card)
    licences = [*weights.generator_card.licences, *(card.licences if card else ())]
    licences += weights.refiner.card.licences if weights.refiner else ()
    licences += weights.views.card.licences if weights.views else ()
    return Manifest(
        format=1,
        bundle_id=bundle_id_from_content(generator, labels, heads, files, refiner, views),
        generator=generator,
        labels=labels,
        heads=heads,
        refiner=refiner,
        views=views,
        licences=list(dict.fromkeys(licences)),
        files=files,
        parity=[],
        calibrations=[],
        weights=weights.hashes,
        tools={"python": platform.python_version()} | {name: version(name) for name in TOOLS},
    )


def write_checked_manifest(
    folder: Path, weights: SourceWeights, samples: int, options: EngineOptions
) -> None:
    """Writes the manifest, opens the folder as a bundle, measures parity, adds it to the manifest.

    samples: number of samples to compare. Raises ParityError over a tolerance.
    """
    manifest = manifest_from_folder(folder, weights)
    write_manifest(folder, manifest)
    parity = measured_parity(open_bundle(folder), weights, samples, options)
    write_manifest(folder, msgspec.structs.replace(manifest, parity=parity))


def measured_parity(
    bundle: Bundle, weights: SourceWeights, samples: int, options: EngineOptions
) -> list[Parity]:
    """Differences of the mapping and each labeller from eager torch, over indices of PARITY_SEED.

    Raises ParityError over a tolerance, EngineError.
    """
    generator = bundle.manifest.generator
    mapping = open_mapping(bundle, options)
    z = latents(PARITY_SEED, Purpose.OBJECT, np.arange(samples), generator.z_dim)
    classes = np.eye(generator.num_classes, dtype=np.float32)
    c = classes[np.arange(samples) % generator.num_classes] if generator.num_classes else None
    with torch.no_grad():
        inputs = (torch.from_numpy(z), None if c is None else torch.from_numpy(c))
        reference_w = weights.generator.mapping(*inputs).numpy()
    parities = [parity_of_mapping(MAPPING, RUNTIME, reference_w, mapping.run(z, c))]

    sampling = default_options(generator, PARITY_SEED)
    ws = ws_from_indices(mapping, generator, sampling, np.arange(samples, dtype=np.uint64))
    reference = reference_outputs(
        weights.generator, weights.interpreter, weights.spec, ws, refine=weights.refiner_stage()
    )
    for precision in DTYPES:
        if LABELLER[precision] not in bundle.manifest.files:
            continue
        engine = open_engine(bundle, replace(options, precision=precision))
        served = unfiltered_arrays(engine, ws)
        engine.close()
        parities.append(
            parity_of_labeller(
                LABELLER[precision],
                RUNTIME,
                reference,
                served,
                TOLERANCES[precision],
                content_columns(bundle.manifest),
            )
        )
        refuse_excess(parities[-1], TOLERANCES[precision])
    return parities
