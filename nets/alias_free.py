"""Design of StyleGAN3's layers (Karras et al., NeurIPS 2021, section 3 and appendix C).

Feature maps are samples of continuous signals on a canvas, which is the image, and a margin around
it. From layer to layer cutoffs grow to half the resolution, and the rate of the samples in powers
of two. Each nonlinearity is computed at a higher rate, between two low-pass filters.
"""

import math

import torch
from torch import Tensor

from nets.config import AliasFree, Band, LayerFilters


def alias_free_design(
    resolution: int,
    *,
    layers: int = 14,  # without ToRGB
    critical: int = 2,  # last layers, with the cutoff at half the sampling rate
    first_cutoff: float = 2.0,  # cycles per canvas
    first_stopband: float = 2**2.1,
    last_stopband: float = 2**0.3,  # over the last cutoff
    margin: int = 10,  # samples
    filter_size: int = 6,  # taps of a filter for each sample of the lower rate
    inner: int = 2,  # rate at the nonlinearity over the higher rate around it
    rotation: bool = False,  # configuration R: 1x1 convolutions, radial filters; else T
) -> AliasFree:
    """Bands and filters of all layers; the defaults are the published configurations."""
    last = resolution / 2
    bands: list[Band] = []
    for i in range(layers + 1):
        share = min(i / (layers - critical), 1.0)
        cutoff = first_cutoff * (last / first_cutoff) ** share
        stopband = first_stopband * (last * last_stopband / first_stopband) ** share
        rate = 2 ** math.ceil(math.log2(min(2 * stopband, resolution)))
        extent = resolution if i >= layers - 1 else rate + 2 * margin
        bands.append(Band(extent, rate, cutoff, max(stopband, rate / 2) - cutoff))
    filters = []
    for i in range(layers):
        before, after = bands[max(i - 1, 0)], bands[i]
        inner_rate = inner * max(before.rate, after.rate)
        up, down = inner_rate // before.rate, inner_rate // after.rate
        filters.append(
            LayerFilters(
                kernel=1 if rotation else 3,
                inner_rate=inner_rate,
                up_taps=filter_size * up if up > 1 else 1,
                down_taps=filter_size * down if down > 1 else 1,
                radial=rotation and i < layers - critical,
            )
        )
    # The input has the band of the first layer. ToRGB has the last one's.
    return AliasFree((bands[0], *bands[:layers]), tuple(filters))


def channels_of_design(design: AliasFree, base: int = 32768, most: int = 512) -> tuple[int, ...]:
    """Channels of each layer as published: base / 2 / cutoff, at most `most`."""
    return tuple(round(min(base / 2 / band.cutoff, most)) for band in design.bands[1:])


def axis_padding(
    before: int, after: int, filters: LayerFilters, up: int, down: int
) -> tuple[int, int]:
    """Samples to add at both ends of an axis after `up`, so that `after` of them remain.

    `before` and `after` are the extents of a layer's input and output. Negative: samples to remove.
    Sample centers stay symmetric about the center of the canvas (appendix C.3).
    """
    total = (after - 1) * down + 1 - (before + filters.kernel - 1) * up
    total += filters.up_taps + filters.down_taps - 2
    first = (total + up) // 2
    return first, total - first


def lowpass(taps: int, band: Band, rate: int) -> Tensor:
    """Windowed sinc of the band at this sampling rate, float32 [taps] with sum 1."""
    time = _times(taps) / rate  # in canvases
    ideal = torch.sinc(2 * band.cutoff * time) * (2 * band.cutoff / rate)
    filtered = ideal * kaiser_window(taps, band.half_width, rate)
    return (filtered / filtered.sum()).float()


def radial_lowpass(taps: int, band: Band, rate: int) -> Tensor:
    """Windowed jinc, the radially symmetric low-pass, float32 [taps, taps] with sum 1."""
    time = _times(taps) / rate
    radius = torch.hypot(time[:, None], time[None]).clamp(min=1e-9)
    ideal = torch.special.bessel_j1(2 * math.pi * band.cutoff * radius) / (math.pi * radius)
    window = kaiser_window(taps, band.half_width, rate)
    filtered: Tensor = ideal * window[:, None] * window
    return (filtered / filtered.sum()).float()


def kaiser_window(taps: int, half_width: float, rate: int) -> Tensor:
    """Kaiser's window for a transition band of 2 * half_width, float64 [taps].

    His formulas give the attenuation in dB that `taps` reach, and the window's shape for it.
    """
    attenuation = 2.285 * (taps - 1) * math.pi * (2 * half_width) / (rate / 2) + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    place = 2 * _times(taps) / max(taps - 1, 1)
    shape = torch.i0(beta * (1 - place.square()).clamp(min=0).sqrt())
    window: Tensor = shape / torch.i0(torch.tensor(beta, dtype=torch.float64))
    return window


def _times(taps: int) -> Tensor:
    """Places of the taps in samples, about their center."""
    return torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
