"""Labelled training data from a generator, streamed.

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
    # Names are imported when they are asked for, because the command has something to tell grpc
    # before grpc is imported, which is no business of programs that import this package.
    def __getattr__(name: str) -> object:
        if name not in (*__all__, *_MODULES):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from labelmint.batch import Batch
        from labelmint.client import Client  # and with it all of _MODULES
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
# As labelmint.errors, without an import of its own.
_MODULES = ("batch", "client", "codec", "errors", "latents", "model", "options")
__version__ = "0.1.0"
