"""Labelled training data from a generator, streamed.

from labelmint import Client

with Client("localhost:50051") as client:
    for batch in client.stream(batch_size=16, seed=7, keep_fraction=0.9, count=1000):
        train(batch.images, batch.masks)
"""

import os

# As grpc's manual says it is; without, it writes lines of its own for each failed TLS handshake.
# It looks at this once, while it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from labelmint.batch import Batch
from labelmint.channel import Tls
from labelmint.client import Client
from labelmint.errors import LabelmintError, Refused, Unreachable
from labelmint.model import Model
from labelmint.retries import Patience

__all__ = [
    "Batch", "Client", "LabelmintError", "Model", "Patience", "Refused", "Tls", "Unreachable",
]  # fmt: skip
__version__ = "0.1.0"
