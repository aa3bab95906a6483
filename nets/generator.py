"""`Generator`, of either family: it has `mapping(z, c)`, `synthesis(ws, noise)` and `config`."""

from nets import stylegan1, stylegan2
from nets.config import GeneratorConfig

Generator = stylegan2.Generator | stylegan1.Generator


def generator_from_config(config: GeneratorConfig) -> Generator:
    """A generator of the config's family with newly initialized weights."""
    if config.family == "stylegan1":
        return stylegan1.Generator(config)
    return stylegan2.Generator(config)
