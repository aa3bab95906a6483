"""Generators from pickled networks of StyleGAN3's code, configurations T and R.

Sizes come from the tensors. Rates, margins, bands, paddings and the clamp come from the attributes
that each layer was stored with, and filters are tensors, so a network that was built with other
hyperparameters than the published ones is read too.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from checkpoints.card import GeneratorCard
from checkpoints.errors import WeightsError
from checkpoints.foreign import PickledNetwork
from checkpoints.foreign_tensors import extent_of, run_length
from checkpoints.generator import generator_from_tensors
from checkpoints.stored_state import StoredState, check_linear, check_mapping, only_clamp
from nets.alias_free import axis_padding
from nets.config import AliasFree, Band, GeneratorConfig, LayerFilters
from nets.generator import Generator

INPUT = "synthesis.input"
LAYER = re.compile(r"synthesis\.L(\d{1,3})_\d+_\d+\Z")  # number, extent, channels
FREQUENCIES = "synthesis.input.freqs"  # a tensor that only this family has
MAX_LAYERS = 128


def is_alias_free(network: PickledNetwork) -> bool:
    """Whether a pickled network is a StyleGAN3."""
    return FREQUENCIES in network.tensors


def generator_from_alias_free(
    network: PickledNetwork, source: str
) -> tuple[Generator, GeneratorCard]:
    """The generator, and a card without truncation, the default of the public code.

    Raises WeightsError, beginning with `source`.
    """
    state, tensors = StoredState(network, source), network.tensors
    *layers, to_rgb = _layer_names(tensors, source)
    try:
        design = _design(state, layers)
        config = _config(state, layers, to_rgb, design)
    except ValueError as error:
        raise WeightsError(f"{source}: {error}") from error
    check_mapping(state, config.mapping_layers, config.c_dim)
    _check_input(state, design.bands[0], config.w_dim)
    for name, filters, bands in zip(layers, design.filters, design.pairs(), strict=True):
        _check_layer(state, name, filters, bands, config.w_dim)
    _check_to_rgb(state, to_rgb, config.w_dim)
    renamed = {old: f"synthesis.layers.{i}" for i, old in enumerate(layers)}
    renamed[to_rgb] = "synthesis.torgb"
    return generator_from_tensors(config, _with_names(tensors, renamed), source)


def _layer_names(tensors: Mapping[str, Tensor], source: str) -> list[str]:
    """The modules of the layers in order, ToRGB last."""
    modules = {name.rsplit(".", 1)[0] for name in tensors if name.endswith(".weight")}
    numbered = {int(m[1]): name for name in modules if (m := LAYER.match(name))}
    if len(numbered) < 2 or sorted(numbered) != list(range(len(numbered))):
        raise WeightsError(
            f"{source} is a StyleGAN3 generator with the layers {sorted(numbered)}; they must be "
            "numbered from 0 on, and at least two"
        )
    return [numbered[i] for i in range(len(numbered))]


def _design(state: StoredState, layers: list[str]) -> AliasFree:
    """Bands and filters as stored. Raises ValueError for what nets do not implement."""
    bands = [_band(state, layers[0], "in")]
    filters: list[LayerFilters] = []
    for name in layers:
        if _band(state, name, "in") != bands[-1]:
            raise ValueError(f"{name} does not read what the layer before it gives")
        bands.append(_band(state, name, "out"))
        filters.append(
            LayerFilters(
                kernel=state.integer(name, "conv_kernel"),
                inner_rate=state.integer(name, "tmp_sampling_rate"),
                up_taps=state.integer(name, "up_taps"),
                down_taps=state.integer(name, "down_taps"),
                radial=state.flag(name, "down_radial"),
            )
        )
    scale = state.number("synthesis", "output_scale")
    return AliasFree(tuple(bands), tuple(filters), scale)


def _band(state: StoredState, layer: str, side: str) -> Band:
    return Band(
        extent=_side(state, layer, f"{side}_size"),
        rate=state.integer(layer, f"{side}_sampling_rate"),
        cutoff=state.number(layer, f"{side}_cutoff"),
        half_width=state.number(layer, f"{side}_half_width"),
    )


def _side(state: StoredState, module: str, name: str) -> int:
    """Rows and columns of a square map, stored as an array of both."""
    size = state.value(module, name)
    match size:
        case (int(width), int(height)) if width == height:
            return width
    raise ValueError(f"{module} has {name} {size!r}; only square maps are supported")


def _config(
    state: StoredState, layers: list[str], to_rgb: str, design: AliasFree
) -> GeneratorConfig:
    tensors, source = state.network.tensors, state.source
    embedded, c_dim = 0, 0
    if "mapping.embed.weight" in tensors:  # [w_dim, c_dim]
        embedded, c_dim = (extent_of(tensors, "mapping.embed.weight", k, source) for k in (0, 1))
    return GeneratorConfig(
        resolution=design.bands[-1].extent,
        channels=tuple(extent_of(tensors, f"{name}.weight", 0, source) for name in layers),
        z_dim=extent_of(tensors, "mapping.fc0.weight", 1, source) - embedded,
        w_dim=extent_of(tensors, "mapping.w_avg", 0, source),
        c_dim=c_dim,
        mapping_layers=run_length(tensors, "mapping.fc{}.weight".format),
        img_channels=extent_of(tensors, f"{to_rgb}.weight", 0, source),
        conv_clamp=only_clamp({name: state.clamp(name) for name in [*layers, to_rgb]}, source),
        family="stylegan3",
        alias_free=design,
    )


def _check_input(state: StoredState, band: Band, w_dim: int) -> None:
    state.check(INPUT, "size", (band.extent, band.extent))
    state.check(INPUT, "sampling_rate", float(band.rate))
    state.check(INPUT, "bandwidth", float(band.cutoff))
    check_linear(state, f"{INPUT}.affine", w_dim)
    transform = state.network.tensors.get(f"{INPUT}.transform")
    if transform is None or transform.shape != (3, 3) or transform[2].tolist() != [0, 0, 1]:
        raise WeightsError(
            f"{state.source}: {INPUT}.transform must be [3, 3] with the last row 0, 0, 1"
        )


def _check_layer(
    state: StoredState, name: str, filters: LayerFilters, bands: tuple[Band, Band], w_dim: int
) -> None:
    up, down = (filters.inner_rate // band.rate for band in bands)
    first, last = axis_padding(bands[0].extent, bands[1].extent, filters, up, down)
    expected = {"is_torgb": False, "up_factor": up, "down_factor": down}
    for field, value in {**expected, "padding": (first, last, first, last)}.items():
        state.check(name, field, value)
    check_linear(state, f"{name}.affine", w_dim)


def _check_to_rgb(state: StoredState, name: str, w_dim: int) -> None:
    plain = {"conv_kernel": 1, "up_factor": 1, "down_factor": 1, "up_taps": 1, "down_taps": 1}
    for field, value in {"is_torgb": True, **plain, "padding": (0, 0, 0, 0)}.items():
        state.check(name, field, value)
    check_linear(state, f"{name}.affine", w_dim)


def _with_names(tensors: Mapping[str, Tensor], renamed: Mapping[str, str]) -> dict[str, Tensor]:
    """Tensors with some of their modules renamed."""
    changed = {}
    for name, tensor in tensors.items():
        module = next((old for old in renamed if name.startswith(f"{old}.")), None)
        changed[name if module is None else renamed[module] + name[len(module) :]] = tensor
    return changed
