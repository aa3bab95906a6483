"""A random generator of 16 px whose colours lie within range."""

import torch

from nets.stylegan2 import Generator, GeneratorConfig


def tiny_generator(z_dim: int = 8) -> Generator:
    """w has 8 values, w+ 6 rows; the mean of w is measured."""
    torch.manual_seed(1)
    config = GeneratorConfig(16, (16, 16, 16), z_dim=z_dim, w_dim=8, mapping_layers=2)
    generator = Generator(config).eval().requires_grad_(False)
    for block in generator.synthesis.blocks():
        block.torgb.weight.mul_(0.15)  # else most colours are cut off
    generator.mapping.w_avg.copy_(generator.mapping(torch.randn(256, z_dim)).mean(dim=0))
    return generator
