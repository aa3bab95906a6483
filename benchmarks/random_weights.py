"""Weights of any size with random values, in files: what a figure of speed or memory needs."""

from pathlib import Path

import torch

from benchmarks.sizes import Size
from checkpoints import (
    ClassCard,
    GeneratorCard,
    InterpreterCard,
    SegmentationCard,
    card_from_config,
    head_cards,
    sha256_of_file,
    write_generator,
    write_interpreter,
)
from nets import stylegan1, stylegan2
from nets.config import GeneratorConfig
from nets.interpreter import HeadConfig, Interpreter


def write_weights(folder: Path, size: Size) -> tuple[Path, Path]:
    """The files of a generator and of its interpreter."""
    torch.manual_seed(0)
    channels = tuple(c for _, c in size.levels)
    config = GeneratorConfig(size.resolution, channels, family=size.family)
    network = stylegan1.Generator if size.family == "stylegan1" else stylegan2.Generator
    generator = folder / "generator.safetensors"
    write_generator(
        generator,
        network(config).eval(),
        GeneratorCard(
            format=1,
            kind="generator",
            family=size.family,
            config=card_from_config(config),
            view_layers=0,
            truncation_psi=0.7,
            truncation_cutoff=config.num_ws,
            licences=["CC0-1.0"],
            provenance="random",
        ),
    )
    head = HeadConfig("segmentation", config.features, size.hidden, size.classes, size.members)
    ensemble = Interpreter((head,)).eval()
    for weight, fan in (
        (ensemble.head("segmentation").linear1.weight, config.features),
        (ensemble.head("segmentation").weight2, size.hidden[0]),
        (ensemble.head("segmentation").weight3, size.hidden[1]),
    ):
        weight.data.normal_(0, fan**-0.5)
    interpreter = folder / "interpreter.safetensors"
    write_interpreter(
        interpreter,
        ensemble,
        InterpreterCard(
            format=1,
            kind="interpreter",
            generator_sha256=sha256_of_file(generator),
            tap_recipe=config.tap_recipe,
            features=config.features,
            grid=size.grid,
            crop_top=size.crop_top,
            height=size.rows,
            width=size.grid,
            resize="bilinear",
            score_source="segmentation",
            licences=["CC0-1.0"],
            provenance="random",
            heads=head_cards(ensemble),
            segmentation=SegmentationCard(
                classes=[ClassCard(name=f"class {i}", color=i) for i in range(size.classes)]
            ),
        ),
    )
    return generator, interpreter
