"""A DataLoader of a `LabelStream`, which Accelerate leaves as it is."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from labelmint.torch.dataset import LabelStream


class LabelLoader(DataLoader[Any]):
    """DataLoader(stream, batch_size=None), and every rank reads its own part of the stream.

    Of other loaders of iterable datasets, `accelerate.Accelerator.prepare` makes one that reads on
    the first rank alone and distributes parts of its batches. Batches stay on the CPU: move them by
    `batch.to(device, non_blocking=True)`.
    """

    _is_accelerate_prepared = True  # Accelerate's mark of a loader that needs no change

    def __init__(self, stream: LabelStream, **options: Any) -> None:
        """Args:
        stream: the stream.
        options: arguments of torch.utils.data.DataLoader, such as num_workers and pin_memory.
        """
        super().__init__(stream, batch_size=None, **options)
