"""The generator's state dict in a torch file, and its layout.

In: content as torch.save wrote it, of a training run, an inversion network or a generator.
Out: the tensors of the generator by the names of one of the layouts, and the mean of w.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from checkpoints.errors import CheckpointError
from checkpoints.foreign_tensors import tensors_of

Layout = Literal["rosinality", "stylegan1", "stylegan2-ada", "stylegan3"]

# Keys of a state dict in a file, those of the moving average first.
AVERAGES = ("g_ema", "G_ema", "params_ema", "generator_ema", "ema", "gen_shadow", "g_running")
OTHERS = ("state_dict", "model_state_dict", "g", "G", "generator", "netG", "params", "model")
# Prefixes of its names within a state dict: decoder. in e4e, pSp and ReStyle.
PREFIXES = ("", "generator_ema.", "g_ema.", "G_ema.", "decoder.", "generator.", "G.", "g.")
MEANS = ("latent_avg", "truncation.avg_latent", "avg_latent", "w_avg")  # of w, beside the layers
# A tensor that each layout begins with, by the names of the spellings that are known.
FIRST: dict[str, Layout] = {
    "input.input": "rosinality",
    "constant_input.input": "rosinality",
    "g_synthesis.blocks.4x4.const": "stylegan1",
    "g_synthesis.init_block.const": "stylegan1",
    "synthesis.b4.const": "stylegan2-ada",
    "synthesis.input.freqs": "stylegan3",
}
MMGENERATION = (  # its names for rosinality's layers
    (re.compile(r"^style_mapping\.(\d+)\.linear\.weight_orig$"), r"style.\1.weight"),
    (re.compile(r"^style_mapping\.(\d+)\.bias$"), r"style.\1.bias"),
    (re.compile(r"^constant_input\.input$"), "input.input"),
    (re.compile(r"\.style_modulation\.linear\.weight_orig$"), ".modulation.weight"),
    (re.compile(r"\.style_modulation\.bias$"), ".modulation.bias"),
    (re.compile(r"\.conv\.weight_orig$"), ".conv.weight"),
    (re.compile(r"\.noise_injector\.weight$"), ".noise.weight"),
    (re.compile(r"^injected_noise_(\d+)$"), r"noises.noise_\1"),
)
# Names of StyleGAN.pytorch.
IMAGE_LAYER = re.compile(r"g_synthesis\.to_rgb\.(\d{1,3})\.(\w+)\Z")
NUMBERED_BLOCK = re.compile(r"g_synthesis\.blocks\.(\d{1,3})\.(.+)\Z")


@dataclass(frozen=True)
class GeneratorPart:
    """The state dict of a generator."""

    layout: Layout
    tensors: dict[str, Tensor]  # by the names of the layout
    mean: Tensor | None  # of w
    notes: dict[str, str]  # for the provenance of the card: which part of the file this is


def part_from_content(content: object, source: str) -> GeneratorPart | None:
    """The generator in a file, its moving average if there is one; None without a known layout.

    Raises CheckpointError, beginning with `source`, if the generator is not read.
    """
    if not isinstance(content, Mapping):
        return None
    unread: CheckpointError | None = None
    for keys in (("",), AVERAGES, OTHERS):
        for key in keys:
            try:
                part = content if not key else content.get(key)
            except CheckpointError as error:  # not data; another key may have the generator
                unread = unread or error
                continue
            if isinstance(part, Mapping):
                for prefix in _prefixes(part):
                    layout = layout_of({n[len(prefix) :] for n in _names(part, prefix)})
                    if layout:
                        return _part(content, part, (key, prefix), layout, source)
    if unread is not None:
        raise unread
    return None


def layout_of(names: Collection[str]) -> Layout | None:
    """The layout of tensors with these names."""
    return next((layout for name, layout in FIRST.items() if name in names), None)


def _prefixes(part: Mapping[object, object]) -> Iterator[str]:
    """PREFIXES, each also as DataParallel and trainers write it."""
    for prefix in PREFIXES:
        for outer in ("", "module.", "net."):
            yield outer + prefix
            yield f"{outer}{prefix}module."


def _names(part: Mapping[object, object], prefix: str) -> list[str]:
    return [name for name in part if isinstance(name, str) and name.startswith(prefix)]


def _part(
    content: Mapping[object, object],
    part: Mapping[object, object],
    place: tuple[str, str],  # key of the part in the content, prefix in the part
    layout: Layout,
    source: str,
) -> GeneratorPart:
    key, prefix = place
    stored = {name[len(prefix) :]: part[name] for name in _names(part, prefix)}
    means = [stored.pop(name, None) for name in MEANS]
    means += [content.get(name) for name in MEANS if part is not content]
    tensors = tensors_of(stored, f"{source}: {key}" if key else source)
    mean = next((mean for mean in means if isinstance(mean, Tensor)), None)
    notes = {}
    if key or prefix:
        notes["part"] = " ".join(filter(None, [key, f"{prefix}*" if prefix else ""]))
        if {key, prefix.split(".")[0]} & {"g", "G", "generator", "netG"}:
            notes["part"] += ", as trained: the file has no moving average"
    if "constant_input.input" in tensors:
        tensors = {_renamed(name): tensor for name, tensor in tensors.items()}
        notes["colors"] = "as stored; generators that mmgeneration trained itself give BGR, not RGB"
    if "g_synthesis.init_block.const" in tensors:
        tensors = _with_block_names(tensors)
    return GeneratorPart(layout, tensors, mean, notes)


def _renamed(name: str) -> str:
    for pattern, name_for in MMGENERATION:
        name = pattern.sub(name_for, name)
    return name


def _with_block_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of StyleGAN.pytorch as those of lernapparat's port, which DatasetGAN has.

    Blocks are numbered there, and there is an image layer for each, of which the last is used.
    """
    last = max((int(m[1]) for n in tensors if (m := IMAGE_LAYER.match(n))), default=0)
    renamed = {}
    for name, tensor in tensors.items():
        name = name.replace("g_mapping.map.", "g_mapping.", 1)
        name = name.replace("g_synthesis.init_block.", "g_synthesis.blocks.4x4.", 1)
        if image := IMAGE_LAYER.match(name):
            if int(image[1]) != last:
                continue
            name = f"g_synthesis.torgb.{image[2]}"
        elif block := NUMBERED_BLOCK.match(name):
            extent = 8 << min(int(block[1]), 16)
            name = f"g_synthesis.blocks.{extent}x{extent}.{block[2]}"
        renamed[name] = tensor
    return renamed
