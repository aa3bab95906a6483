"""Labelled training data from a generator, streamed.

from labelmint import Client

with Client("localhost:50051") as client:
    for batch in client.stream(batch_size=16, seed=7, keep_fraction=0.9, count=1000):
        train(batch.images, batch.masks)
"""

from labelmint.batch import Batch
from labelmint.client import Client
from labelmint.connection import Tls
from labelmint.errors import LabelmintError, Refused, Unreachable
from labelmint.model import Model
from labelmint.retries import Patience

__all__ = [
    "Batch", "Client", "LabelmintError", "Model", "Patience", "Refused", "Tls", "Unreachable",
]  # fmt: skip
__version__ = "0.1.0"
