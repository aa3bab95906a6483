"""StyleGAN3 generator (Karras et al., NeurIPS 2021), configurations T and R.

Read bottom-up: filters, input, layer, network, generator. The filters are buffers: by the design of
nets.alias_free, unless a file has others.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.alias_free import axis_padding, lowpass, radial_lowpass
from nets.config import Band, GeneratorConfig, LayerFilters, Synthesis, check_inputs
from nets.mapping import FullyConnectedLayer, MappingNetwork
from nets.ops import demodulation, normalize_second_moment, scaled_leaky_relu


def upsampled(x: Tensor, taps: Tensor | None, factor: int, padding: tuple[int, int]) -> Tensor:
    """Inserts factor - 1 zeros after each sample of x [N, C, H, W], pads both axes, and filters.

    taps: [T] for both axes, times `factor`, which keeps the mean; None: no filter, factor 1.
    """
    first, last = padding
    if taps is None:
        return F.pad(x, (first, last, first, last))
    channels, count = x.shape[1], len(taps)
    kernel = (taps * factor).to(x.dtype)[None, None].expand(channels, 1, count)
    # A transposed convolution gives all samples that zeros on either side would give.
    crop = (first - count + 1, last - count + factor)
    x = F.conv_transpose2d(x, kernel[..., None], stride=(factor, 1), groups=channels)
    x = F.pad(x, (0, 0, *crop))
    x = F.conv_transpose2d(x, kernel[:, :, None], stride=(1, factor), groups=channels)
    return F.pad(x, (*crop, 0, 0))


def downsampled(x: Tensor, taps: Tensor | None, factor: int) -> Tensor:
    """Filters x [N, C, H, W] and keeps every factor-th sample; taps [T], or [T, T] as a kernel."""
    if taps is None:
        return x
    channels = x.shape[1]
    kernel = taps.to(x.dtype).flip(tuple(range(taps.ndim)))[None, None]
    kernel = kernel.expand(channels, *kernel.shape[1:])
    if taps.ndim == 2:
        return F.conv2d(x, kernel, stride=factor, groups=channels)
    x = F.conv2d(x, kernel[..., None], stride=(factor, 1), groups=channels)
    return F.conv2d(x, kernel[:, :, None], stride=(1, factor), groups=channels)


class SynthesisInput(nn.Module):
    """w [N, w_dim] -> Fourier features [N, C, extent, extent], rotated and translated by w.

    `transform` is a matrix [3, 3] in homogeneous coordinates that is applied to all images.
    """

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, channels: int, band: Band, w_dim: int) -> None:
        super().__init__()
        self.band = band
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = FullyConnectedLayer(w_dim, 4)
        self.affine.weight.data.zero_()
        self.affine.bias.data[0] = 1.0
        self.register_buffer("transform", torch.eye(3))
        # Directions are uniform; radii are those of a uniform disc of the band's width.
        angle, share = torch.rand(channels) * (2 * math.pi), torch.rand(channels)
        directions = torch.stack([angle.cos(), angle.sin()], dim=1)
        self.register_buffer("freqs", directions * (share.sqrt() * band.cutoff)[:, None])
        self.register_buffer("phases", torch.rand(channels) - 0.5)

    def forward(self, w: Tensor) -> Tensor:
        freqs, phases = self.waves(w)
        places = sample_places(self.band).to(w.device)  # [extent]
        x = freqs[:, :, 0, None, None] * places + freqs[:, :, 1, None, None] * places[:, None]
        x = torch.sin((x + phases[:, :, None, None]) * (2 * math.pi))
        x = x * self.amplitudes(freqs)[:, :, None, None]
        return F.conv2d(x, (self.weight / math.sqrt(self.weight.shape[0]))[:, :, None, None])

    def waves(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Frequencies [N, C, 2] in cycles per canvas, x first, and phases [N, C] in cycles."""
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cosine, sine, x, y = t.unbind(dim=1)
        rotation = torch.stack([cosine, -sine, sine, cosine], dim=1).reshape(-1, 2, 2)
        # The canvas is moved by `transform`, then by -(x, y), then turned.
        freqs = self.freqs @ rotation
        shift = self.transform[:2, 2] - torch.stack([x, y], dim=1)  # [N, 2]
        phases = self.phases + (freqs @ shift[:, :, None])[:, :, 0]
        return freqs @ self.transform[:2, :2], phases

    def amplitudes(self, freqs: Tensor) -> Tensor:
        """Damping [N, C] of waves that `transform` took beyond the band."""
        room = self.band.rate / 2 - self.band.cutoff
        damped: Tensor = 1 - (freqs.norm(dim=2) - self.band.cutoff) / room
        return damped.clamp(0, 1)


def sample_places(band: Band) -> Tensor:
    """Centers of a band's samples along an axis, in canvases about the canvas' center."""
    return (torch.arange(band.extent) + 0.5 - band.extent / 2) / band.rate


class SynthesisLayer(nn.Module):
    """Modulated convolution, bias, and leaky ReLU at a higher sampling rate between two filters.

    x [N, I, extent, extent] of the input's band -> [N, O, extent, extent] of the output's.
    `magnitude_ema` is the mean square of inputs during training, by which they are normalized.
    """

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bands: tuple[Band, Band],  # of input and output
        filters: LayerFilters,
        config: GeneratorConfig,
    ) -> None:
        super().__init__()
        before, after = bands
        self.extent, self.conv_clamp = after.extent, config.conv_clamp
        self.up, self.down = filters.inner_rate // before.rate, filters.inner_rate // after.rate
        self.padding = axis_padding(before.extent, after.extent, filters, self.up, self.down)
        self.affine = FullyConnectedLayer(config.w_dim, in_channels, bias_init=1.0)
        kernel = filters.kernel
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("magnitude_ema", torch.ones([]))
        rate = filters.inner_rate
        up = lowpass(filters.up_taps, before, rate) if filters.up_taps > 1 else None
        down = None
        if filters.down_taps > 1:
            down = (radial_lowpass if filters.radial else lowpass)(filters.down_taps, after, rate)
        self.register_buffer("up_filter", up)
        self.register_buffer("down_filter", down)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        # Weights and styles of mean square 1; their convolution is normalized per output.
        weight = self.weight * self.weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
        styles = normalize_second_moment(self.affine(w), eps=0)
        x = x * (styles * self.magnitude_ema.rsqrt())[:, :, None, None]
        x = F.conv2d(x, weight, padding=weight.shape[-1] - 1)  # larger than x by the kernel less 1
        x = x * demodulation(weight, styles)[:, :, None, None] + self.bias[:, None, None]
        x = upsampled(x, self.up_filter, self.up, self.padding)
        x = scaled_leaky_relu(x)
        if self.conv_clamp is not None:
            x = x.clamp(-self.conv_clamp, self.conv_clamp)
        return downsampled(x, self.down_filter, self.down)


class ToRGBLayer(nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation and filters."""

    magnitude_ema: Tensor

    def __init__(self, in_channels: int, config: GeneratorConfig) -> None:
        super().__init__()
        self.conv_clamp = config.conv_clamp
        self.affine = FullyConnectedLayer(config.w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(config.img_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(config.img_channels))
        self.register_buffer("magnitude_ema", torch.ones([]))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w) * (self.weight_gain * self.magnitude_ema.rsqrt())
        x = F.conv2d(x * styles[:, :, None, None], self.weight) + self.bias[:, None, None]
        return x if self.conv_clamp is None else x.clamp(-self.conv_clamp, self.conv_clamp)


class SynthesisNetwork(nn.Module):
    """ws [N, num_ws, w_dim] -> image and taps; input, each layer and ToRGB read one row of w+."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        assert config.alias_free is not None
        self.config, self.design = config, config.alias_free
        channels = (config.channels[0], *config.channels)
        self.input = SynthesisInput(channels[0], self.design.bands[0], config.w_dim)
        self.layers = nn.ModuleList(
            SynthesisLayer(channels[i], channels[i + 1], bands, filters, config)
            for i, (bands, filters) in enumerate(
                zip(self.design.pairs(), self.design.filters, strict=True)
            )
        )
        self.torgb = ToRGBLayer(channels[-1], config)

    def forward(
        self,
        ws: Tensor,
        noise: list[Tensor] | None = None,
        magnitude_decay: float | None = None,
    ) -> Synthesis:
        """noise: none or an empty list, as this family has no noise.

        magnitude_decay: in training, the moving averages of magnitudes follow this batch with this
        factor of decay, such as 0.999.
        """
        check_inputs(self.config, ws, noise)
        first, *rows, last = ws.unbind(dim=1)
        x = self.input(first)
        taps: list[Tensor] = []
        for layer, row, band in zip(self.layers, rows, self.design.bands[1:], strict=True):
            assert isinstance(layer, SynthesisLayer)
            _track_magnitude(layer.magnitude_ema, x, magnitude_decay)
            x = layer(x, row)
            taps.append(canvas(x, band))
        _track_magnitude(self.torgb.magnitude_ema, x, magnitude_decay)
        return Synthesis(self.torgb(x, last) * self.design.output_scale, taps)


def canvas(x: Tensor, band: Band) -> Tensor:
    """x [N, C, extent, extent] without its margins: [N, C, rate, rate]."""
    kept = slice(band.margin, band.margin + band.rate)
    return x[:, :, kept, kept]


def _track_magnitude(average: Tensor, x: Tensor, decay: float | None) -> None:
    if decay is not None:
        average.copy_(x.detach().float().square().mean().lerp(average, decay))


class Generator(nn.Module):
    """Mapping and synthesis; `forward` is the path from z to image at a given truncation."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.mapping = MappingNetwork(config)
        self.synthesis = SynthesisNetwork(config)

    def forward(self, z: Tensor, c: Tensor | None = None, truncation_psi: float = 1.0) -> Tensor:
        """z [N, z_dim] -> image float32 [N, 3, R, R]."""
        w = self.mapping.truncated(self.mapping(z, c), truncation_psi)
        image: Tensor = self.synthesis(w[:, None].expand(-1, self.config.num_ws, -1)).image
        return image
