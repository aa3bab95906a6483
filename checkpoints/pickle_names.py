"""Global names in a checkpoint's pickle: classes and functions.

A name is text, e.g. "collections.OrderedDict". It is never looked up and nothing is imported. The
names of data and networks are known; what any other name makes is inert: it is refused where the
generator needs it, and has no effect elsewhere.
"""

import re
from dataclasses import dataclass

from checkpoints.read_budget import FileRefused, shown

PERSISTENT_OBJECT = "torch_utils.persistence._reconstruct_persistent_obj"
TENSORFLOW_NETWORK = "dnnlib.tflib.network.Network"
TORCH_MODULE = re.compile(r"torch\.nn\.modules\.[a-z]+\.[A-Z]\w*")
TORCH_DATA = re.compile(
    r"torch\.((Float|Half|BFloat16|Double|Char|Byte|Short|Int|Long|Bool)Storage"
    r"|storage\.(UntypedStorage|_load_from_bytes)"
    r"|_utils\.(_rebuild_tensor|_rebuild_tensor_v2|_rebuild_parameter)"
    r"|Size|device|b?float(16|32|64)|u?int(8|16|32|64)|bool)"
)
OTHERS = {
    PERSISTENT_OBJECT,
    TENSORFLOW_NETWORK,
    "_codecs.encode",
    "argparse.Namespace",
    "builtins.frozenset",
    "builtins.set",
    "collections.OrderedDict",
    "dnnlib.util.EasyDict",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.numeric._frombuffer",
    "numpy.dtype",
    "numpy.ndarray",
}
RENAMED = {  # module names of Python 2 and numpy 1
    "__builtin__": "builtins",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
}
MAX_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class GlobalName:
    """A name of a class or function in the pickle."""

    dotted: str  # with its module


def name_from_parts(module: str, name: str) -> GlobalName:
    """The name of these two parts of a pickle. Raises FileRefused for a long one."""
    dotted = f"{RENAMED.get(module, module)}.{name}"
    if len(dotted) <= MAX_CHARACTERS:
        return GlobalName(dotted)
    raise FileRefused(
        f"its pickle has the name {shown(f'{module}.{name}')}, over {MAX_CHARACTERS} characters"
    )


def is_known(dotted: str) -> bool:
    """Whether a name is one of data or networks, whose calls have a meaning here."""
    return dotted in OTHERS or any(kind.fullmatch(dotted) for kind in (TORCH_DATA, TORCH_MODULE))
