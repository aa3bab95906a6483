"""Small random networks with noise, clamps and random batch-norm statistics."""

import torch
from torch import Tensor, nn

from nets import stylegan3
from nets.alias_free import alias_free_design
from nets.generator import Generator as AnyGenerator
from nets.interpreter import HeadConfig, HeadKind, Interpreter
from nets.stylegan2 import Generator, GeneratorConfig

OUTPUTS: dict[HeadKind, int] = {"segmentation": 7, "keypoints": 3, "depth": 1}


def random_generator(resolution: int, seed: int = 0, start: tuple[int, int] = (4, 4)) -> Generator:
    """Channels differ at every extent, so that a mix-up of levels fails."""
    torch.manual_seed(seed)
    channels = (24, 20, 16, 12, 8)[: resolution.bit_length() - 2]
    config = GeneratorConfig(
        resolution, channels, z_dim=16, w_dim=16, mapping_layers=2, conv_clamp=256, start=start
    )
    generator = Generator(config).eval()
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.1)
        elif name.endswith("bias"):
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    # Images of random networks exceed [-1, 1]; scale most pixels into it.
    for block in generator.synthesis.blocks():
        block.torgb.weight.data.mul_(0.1)
    return generator


def random_stylegan3(resolution: int, *, rotation: bool = False) -> stylegan3.Generator:
    """Five layers with margins of 2; channels differ in every layer, so that a mix-up fails."""
    torch.manual_seed(0)
    design = alias_free_design(resolution, layers=5, margin=2, rotation=rotation)
    config = GeneratorConfig(
        resolution,
        (12, 10, 9, 8, 6),
        z_dim=16,
        w_dim=16,
        mapping_layers=2,
        conv_clamp=256,
        family="stylegan3",
        alias_free=design,
    )
    generator = stylegan3.Generator(config).eval()
    generator.requires_grad_(False)
    for name, parameter in generator.named_parameters():
        if name.endswith("bias") and "affine" not in name:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    generator.synthesis.input.affine.weight.normal_(0, 0.3)
    generator.synthesis(random_ws(generator, 4), magnitude_decay=0.0)
    generator.synthesis.torgb.weight.mul_(2)  # most pixels within [-1, 1]
    return generator


def random_interpreter(
    features: int,
    members: int = 3,
    kinds: tuple[HeadKind, ...] = tuple(OUTPUTS),
    hidden: tuple[int, int] = (12, 10),
) -> Interpreter:
    interpreter = Interpreter(
        tuple(HeadConfig(kind, features, hidden, OUTPUTS[kind], members) for kind in kinds)
    )
    for module in interpreter.modules():
        if isinstance(module, nn.BatchNorm1d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.normal_(1, 0.3)
            module.bias.data.normal_(0, 0.3)
    for kind in kinds:
        head = interpreter.head(kind)
        for parameter in (head.linear1.bias, head.bias2, head.bias3):
            parameter.data.normal_(0, 0.3)
        head.linear1.weight.data.normal_(0, 1.5 * features**-0.5)
        head.weight2.data.normal_(0, 0.5)
        head.weight3.data.normal_(0, 0.5)
    return interpreter.eval()


def random_ws(generator: AnyGenerator, samples: int, seed: int = 1) -> Tensor:
    """Independent rows of w+ [samples, num_ws, w_dim], so that a wrong row fails."""
    draws = torch.Generator().manual_seed(seed)
    config = generator.config
    return torch.randn(samples, config.num_ws, config.w_dim, generator=draws)
