"""Client of labelmint: streams labeled training images from a server.

from labelmint import Client

with Client("localhost:50051") as client:
    for batch in client.stream(batch_size=16, seed=7, keep_fraction=0.9, count=1000):
        train(batch.images, batch.masks)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labelmint.batch import Batch
    from labelmint.client import Client
    from labelmint.errors import LabelmintError, Refused, Unreachable
    from labelmint.model import Model
    from labelmint.wire.channel import Tls
    from labelmint.wire.retries import Patience
else:
    # Names are imported at their first use, because `labelmint.cli` sets an environment variable
    # of grpc before grpc is imported. Importing the package must not do either.
    def __getattr__(name: str) -> object:
        if name not in (*__all__, *_MODULES):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from labelmint.batch import Batch
        from labelmint.client import Client  # imports all of _MODULES too
        from labelmint.errors import LabelmintError, Refused, Unreachable
        from labelmint.model import Model
        from labelmint.wire.channel import Tls
        from labelmint.wire.retries import Patience

        found = (Batch, Client, LabelmintError, Model, Patience, Refused, Tls, Unreachable)
        globals().update({each.__name__: each for each in found})
        return globals()[name]

    def __dir__() -> list[str]:
        return [*__all__, "__version__"]


__all__ = [
    "Batch", "Client", "LabelmintError", "Model", "Patience", "Refused", "Tls", "Unreachable",
]  # fmt: skip
# Submodules that are attributes of the package without an import, as labelmint.errors.
_MODULES = ("batch", "client", "codec", "errors", "latents", "model", "options")
__version__ = "0.1.0"
