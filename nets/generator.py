"""`Generator`, of any family: it has `mapping(z, c)`, `synthesis(ws, noise)` and `config`."""

from nets import stylegan1, stylegan2, stylegan3
from nets.config import GeneratorConfig

Generator = stylegan1.Generator | stylegan2.Generator | stylegan3.Generator


def generator_from_config(config: GeneratorConfig) -> Generator:
    """A generator of the config's family with newly initialized weights."""
    match config.family:
        case "stylegan1":
            return stylegan1.Generator(config)
        case "stylegan2":
            return stylegan2.Generator(config)
        case "stylegan3":
            return stylegan3.Generator(config)
