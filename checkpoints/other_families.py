"""Networks that are recognized, to name them, and not read: their layers are not those of nets."""

import re
from collections.abc import Iterable, Iterator, Mapping

from checkpoints.errors import CheckpointError

MAX_DEPTH = 3  # of mappings in a file that are searched for names
# The first family with a tensor or module of such a name is it.
FAMILIES: dict[str, re.Pattern[str]] = {
    "StyleGAN-XL, whose stem has a pretrained class embedding": re.compile(
        r"(^|\.)mapping\.embed_proj\b|^embed_proj\b"
    ),
    "EG3D, which renders a volume": re.compile(r"^(backbone\.synthesis|superresolution\.block)"),
    "SWAGAN, which makes wavelets, not pixels": re.compile(r"(^|\.)to_rgbs\.\d+\.(iwt|dwt)\."),
    "StyleGAN1 in rosinality's style-based-gan-pytorch": re.compile(
        r"(^|\.)progression\.0\.conv1\."
    ),
    "FastGAN": re.compile(r"(^|\.)(feat_8\.\d|se_64\.main)\b"),
    "BigGAN": re.compile(r"(^|\.)(gen_z\.|blocks\.0\.0\.bn1\.(gain|bias)\b)"),
    "ProGAN": re.compile(
        r"(^|\.)(scaleLayers\.0\.|rgb_converters\.0\.)|(^|/)4x4/Dense/weight$|^Grow/"
    ),
    "a diffusion model": re.compile(r"(^|\.)(diffusion_model\.|time_embed\.0\.|time_embedding\.)"),
    "a discriminator; give the file with the generator": re.compile(
        r"(^|\.)(b\d+\.fromrgb|b4\.out|final_conv|final_linear|final_block)\b|(^|/)FromRGB_lod0/"
    ),
    "an encoder without its decoder; give the file with both, or the generator": re.compile(
        r"(^|\.)(input_layer\.0\.weight|styles\.0\.convs)\b"
    ),
    "a member of a label ensemble; give it with --interpreter": re.compile(
        r"(^|\.)layers\.6\.weight$"
    ),
}


def family_of(names: Iterable[str]) -> str | None:
    """The family of a network with these tensors or modules; None if it is not known."""
    known = list(names)
    return next((f for f, mark in FAMILIES.items() if any(map(mark.search, known))), None)


def names_in(content: object, depth: int = 0) -> Iterator[str]:
    """Names in a torch file: keys of its mappings, none of whose tensors is read."""
    if not isinstance(content, Mapping) or depth == MAX_DEPTH:
        return
    names = [name for name in content if isinstance(name, str)]
    yield from names
    for name in names:
        if "." not in name:  # a tensor's name has its module's before it
            try:
                yield from names_in(content[name], depth + 1)
            except CheckpointError:
                continue
