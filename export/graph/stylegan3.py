"""StyleGAN3 synthesis for export: eager weights in, a module of ONNX and TensorRT operators out.

Computes the same function as `nets.stylegan3.SynthesisNetwork` with constant weights in every
convolution: styles scale the activations, the gain of the nonlinearity is multiplied into the
convolution before it, and filters are strided convolutions of each channel on its own. The places
of the input's samples are constants, so images have the transform that the weights have.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.graph.stylegan2 import Affine, ServedToRGB
from nets.config import Band
from nets.stylegan3 import (
    SynthesisInput,
    SynthesisLayer,
    SynthesisNetwork,
    canvas,
    sample_places,
)


class ServedInput(nn.Module):
    """w [N, w_dim] -> Fourier features [N, C, extent, extent]; the waves are float32."""

    freqs: Tensor
    phases: Tensor
    moved: Tensor
    across: Tensor
    down: Tensor
    weight: Tensor

    def __init__(self, layer: SynthesisInput, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.cutoff = dtype, layer.band.cutoff
        self.room = layer.band.rate / 2 - layer.band.cutoff
        self.affine = Affine(layer.affine)
        self.turned: list[list[float]] = layer.transform[:2, :2].tolist()
        weight = layer.weight.detach() / math.sqrt(layer.weight.shape[0])
        places = sample_places(layer.band) * (2 * math.pi)
        for name, value in {
            "freqs": layer.freqs.t().contiguous(),  # [2, C]
            "phases": layer.phases * (2 * math.pi),
            "moved": layer.transform[:2, 2],
            "across": places[None, None, None, :],
            "down": places[None, None, :, None],
            "weight": weight[:, :, None, None].to(dtype),
        }.items():
            self.register_buffer(name, value.detach())

    def forward(self, w: Tensor) -> Tensor:
        t = self.affine(w)  # float32 [N, 4]
        turn, move = t[:, 0:2], t[:, 2:4]
        length = torch.sqrt((turn * turn).sum(dim=1, keepdim=True))
        turn, move = turn / length, move / length
        cosine, sine = turn[:, 0:1], turn[:, 1:2]
        x = self.freqs[0] * cosine + self.freqs[1] * sine  # [N, C]
        y = self.freqs[1] * cosine - self.freqs[0] * sine
        shift = (self.moved - move) * (2 * math.pi)
        phases = self.phases + x * shift[:, 0:1] + y * shift[:, 1:2]
        (a, b), (c, d) = self.turned
        x, y = x * a + y * c, x * b + y * d
        amplitude = (1 - (torch.sqrt(x * x + y * y) - self.cutoff) / self.room).clamp(0, 1)
        waves = x[:, :, None, None] * self.across + y[:, :, None, None] * self.down
        waves = torch.sin(waves + phases[:, :, None, None]) * amplitude[:, :, None, None]
        return F.conv2d(waves.to(self.dtype), self.weight)


class ServedUpsampling(nn.Module):
    """Zeros between samples, padding or cropping, and a filter along both axes."""

    taps: Tensor | None

    def __init__(self, layer: SynthesisLayer, channels: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.factor, self.channels = layer.up, channels
        first, last = layer.padding
        taps = layer.up_filter
        count = 1 if taps is None else len(taps)
        # What a transposed convolution gives beyond the samples that are wanted.
        self.crop = (count - 1 - first, count - layer.up - last)
        if min(self.crop) < 0:
            raise ValueError(
                f"a layer of {layer.extent} px adds {first} and {last} samples to its input; at "
                f"most {count - 1} and {count - layer.up} can be exported"
            )
        kernel = None
        if taps is not None:
            kernel = (taps * layer.up).to(dtype)[None, None].repeat(channels, 1, 1)
        self.register_buffer("taps", kernel)

    def forward(self, x: Tensor) -> Tensor:
        if self.taps is not None:
            p, stride = min(self.crop), self.factor
            x = F.conv_transpose2d(
                x, self.taps[..., None], stride=(stride, 1), padding=(p, 0), groups=self.channels
            )
            x = F.conv_transpose2d(
                x, self.taps[:, :, None], stride=(1, stride), padding=(0, p), groups=self.channels
            )
            first, last = (side - p for side in self.crop)
        else:
            first, last = self.crop
        if (first, last) == (0, 0):
            return x
        kept = slice(first, -last if last else None)
        return x[:, :, kept, kept]


class ServedDownsampling(nn.Module):
    """A filter and every factor-th sample; one pass for a radial filter, else one for each axis."""

    taps: Tensor | None

    def __init__(self, layer: SynthesisLayer, channels: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.factor, self.channels = layer.down, channels
        taps = layer.down_filter
        kernel = None
        if taps is not None:
            flipped = taps.flip(tuple(range(taps.ndim))).to(dtype)
            kernel = flipped[None, None].repeat(channels, 1, *(1 for _ in taps.shape))
        self.register_buffer("taps", kernel)

    def forward(self, x: Tensor) -> Tensor:
        if self.taps is None:
            return x
        if self.taps.ndim == 4:
            return F.conv2d(x, self.taps, stride=self.factor, groups=self.channels)
        x = F.conv2d(x, self.taps[..., None], stride=(self.factor, 1), groups=self.channels)
        return F.conv2d(x, self.taps[:, :, None], stride=(1, self.factor), groups=self.channels)


class ServedLayer(nn.Module):
    """x [N, I, e, e] -> [N, O, e', e']: convolution, demodulation, bias, filtered nonlinearity.

    In float16, weights and styles are divided by their largest values, so that no partial sum
    overflows; the demodulation, in float32, multiplies by those values again.
    """

    weight: Tensor
    squared: Tensor
    rescale: Tensor
    bias: Tensor

    def __init__(self, layer: SynthesisLayer, dtype: torch.dtype) -> None:
        super().__init__()
        weight = layer.weight.detach()
        weight = weight * weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
        gain, channels = math.sqrt(2), weight.shape[0]
        self.in_half, self.limit = dtype == torch.float16, layer.conv_clamp
        self.padding = weight.shape[-1] - 1
        self.affine = Affine(layer.affine)
        self.register_buffer("squared", weight.square().sum(dim=(2, 3)).t().contiguous())  # [I, O]
        rescale = torch.full((channels,), gain) * layer.magnitude_ema.rsqrt()
        if self.in_half:
            largest = weight.abs().amax(dim=(1, 2, 3)) * math.sqrt(weight[0].numel())
            weight = weight / largest[:, None, None, None]
            rescale = rescale * largest
        self.register_buffer("rescale", rescale)
        self.register_buffer("weight", weight.to(dtype))
        self.register_buffer("bias", (layer.bias.detach() * gain).to(dtype)[None, :, None, None])
        self.up = ServedUpsampling(layer, channels, dtype)
        self.down = ServedDownsampling(layer, channels, dtype)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w)  # float32 [N, I]
        styles = styles * torch.rsqrt((styles * styles).mean(dim=1, keepdim=True))
        scale = torch.rsqrt(torch.matmul(styles * styles, self.squared) + 1e-8) * self.rescale
        if self.in_half:
            largest = styles.abs().amax(dim=1, keepdim=True)
            styles = styles / largest
            scale = scale * largest
        y = F.conv2d(x * styles.to(x.dtype)[:, :, None, None], self.weight, padding=self.padding)
        y = y * scale.to(y.dtype)[:, :, None, None] + self.bias
        y = F.leaky_relu(self.up(y), 0.2)
        if self.limit is not None:
            y = y.clamp(-self.limit, self.limit)
        z: Tensor = self.down(y)
        return z


class ServedStyleGAN3(nn.Module):
    """ws float32 [N, num_ws, w_dim] -> image float32 [N, 3, R, R] and all taps, ascending."""

    def __init__(self, network: SynthesisNetwork, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_ws, self.w_dim = network.config.num_ws, network.config.w_dim
        self.bands: tuple[Band, ...] = network.design.bands
        self.input = ServedInput(network.input, dtype)
        self.layers = nn.ModuleList(
            ServedLayer(layer, dtype)
            for layer in network.layers
            if isinstance(layer, SynthesisLayer)
        )
        magnitude = float(network.torgb.magnitude_ema.rsqrt())
        self.torgb = ServedToRGB(network.torgb, dtype, magnitude)
        self.output_scale = network.design.output_scale

    def forward(self, ws: Tensor) -> tuple[Tensor, list[Tensor]]:
        first, *rows, last = ws.unbind(dim=1)
        x: Tensor = self.input(first)
        taps: list[Tensor] = []
        for layer, row, band in zip(self.layers, rows, self.bands[1:], strict=True):
            x = layer(x, row)
            taps.append(canvas(x, band))
        return self.torgb(x, last) * self.output_scale, taps
