"""Weights files -> a bundle: graphs, manifest, parity, in a staged folder."""

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
from export.manifest_from_cards import generator_from_card, heads_from_card, labels_from_card
from export.weights import Weights, facts_from_refiner, views_from_weights
from labelmint.latents import Purpose, latents

TOOLS = ("torch", "onnx", "onnxruntime", "numpy")
RUNTIME = f"onnxruntime-cpu {version('onnxruntime')}"
PRECISIONS: tuple[Precision, ...] = ("float32", "float16")
# Strips of the CPU's graph fit its cache. On a GPU each strip of each member is a few launches, and
# TensorRT plans every one: at 512 px 128 strips are 13,600 nodes, 8 strips 1,360.
STRIP_PIXELS: dict[Precision, int] = {"float32": 1 << 11, "float16": 1 << 15}
DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "float16": torch.float16}
PARITY_SEED = 2**63  # far from what users draw


def write_graphs(folder: Path, weights: Weights, half: bool) -> None:
    """Exports the mapping and the labeller; `half`: the labeller in float16 as well. The view
    bank, if any, goes beside them.

    Raises ExportError when the weights cannot be served.
    """
    if weights.views is not None:
        write_view_codes(folder, weights.views.codes)
    with quiet_exporter():
        mapping_onnx(weights.generator.mapping, folder / MAPPING)
        for precision in tqdm(PRECISIONS if half else PRECISIONS[:1], desc="export", unit="graph"):
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
                raise ExportError(f"these weights cannot be served: {error}") from error
            with half_by_float32():
                labeller_onnx(labeller, folder / LABELLER[precision])


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """torch's exporter warns of its own deprecations and of libraries that nobody needs here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def manifest_from_folder(folder: Path, weights: Weights) -> Manifest:
    """The manifest of exported graphs, without parity and calibration."""
    files = file_entries(folder)
    generator = generator_from_card(weights.generator_card, weights.generator.mapping.w_avg)
    card = weights.interpreter_card
    labels = None if card is None else labels_from_card(card)
    heads = None if card is None else heads_from_card(card)
    refiner = None if weights.refiner is None else facts_from_refiner(weights.refiner)
    views = None if weights.views is None else views_from_weights(weights.views)
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
        tools={"python": platform.python_version()} | {name: version(name) for name in TOOLS},
    )


def write_checked_manifest(
    folder: Path, weights: Weights, samples: int, options: EngineOptions
) -> None:
    """Writes the manifest, runs the folder as the bundle it will be, and records how far its
    graphs are from the reference. Raises ParityError when that is over the tolerance."""
    manifest = manifest_from_folder(folder, weights)
    write_manifest(folder, manifest)
    parity = measured_parity(open_bundle(folder), weights, samples, options)
    write_manifest(folder, msgspec.structs.replace(manifest, parity=parity))


def measured_parity(
    bundle: Bundle, weights: Weights, samples: int, options: EngineOptions
) -> list[Parity]:
    """Runs mapping and labellers on drawn samples. Raises ParityError, EngineError."""
    generator = bundle.manifest.generator
    mapping = open_mapping(bundle, options)
    z = latents(PARITY_SEED, Purpose.OBJECT, np.arange(samples), generator.z_dim)
    classes = np.eye(generator.num_classes, dtype=np.float32)
    c = classes[np.arange(samples) % generator.num_classes] if generator.num_classes else None
    with torch.no_grad():
        given = (torch.from_numpy(z), None if c is None else torch.from_numpy(c))
        reference_w = weights.generator.mapping(*given).numpy()
    parities = [parity_of_mapping(MAPPING, RUNTIME, reference_w, mapping.run(z, c))]

    drawn = default_options(generator, PARITY_SEED)
    ws = ws_from_indices(mapping, generator, drawn, np.arange(samples, dtype=np.uint64))
    reference = reference_outputs(
        weights.generator, weights.interpreter, weights.spec, ws, refine=weights.refiner_stage()
    )
    for precision in PRECISIONS:
        if LABELLER[precision] not in bundle.manifest.files:
            continue
        engine = open_engine(bundle, replace(options, precision=precision))
        served = unfiltered_arrays(engine, ws)
        engine.close()
        parities.append(
            parity_of_labeller(
                LABELLER[precision], RUNTIME, reference, served, TOLERANCES[precision]
            )
        )
        refuse_excess(parities[-1], TOLERANCES[precision])
    return parities
