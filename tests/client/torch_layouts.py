"""Reads a stream under one layout of ranks and workers after another, changing in the middle.

    python -m tests.client.torch_layouts TARGET '{"layouts": [[2, 1], [3, 0]], "options": {...}}'

A process of its own, whose workers come from a fork server: it reads without workers, too, and who
has used grpc must not fork. Prints one JSON line: all indices that were trained on, in every
rank's order.
"""

import itertools
import json
import multiprocessing
import sys
from typing import Any

from torch.utils.data import DataLoader

from labelmint.torch import LabelStream

BATCHES = 3  # of a rank, before the layout changes


def main(target: str, job: dict[str, Any]) -> None:
    state: dict[str, Any] | None = None
    seen: list[int] = []
    for number, (world_size, workers) in enumerate(job["layouts"]):
        states = []
        last = number == len(job["layouts"]) - 1
        for rank in range(world_size):
            stream = LabelStream(
                target, batch_size=4, rank=rank, world_size=world_size, **job["options"]
            )
            if state is not None:
                stream.load_state_dict(state)
            loader = DataLoader(
                stream, batch_size=None, num_workers=workers,
                multiprocessing_context="forkserver" if workers else None,
            )  # fmt: skip
            for batch in itertools.islice(loader, None if last else BATCHES + rank):
                seen += batch.indices.tolist()
                stream.consumed(batch)
            states.append(stream.state_dict())
        state = json.loads(json.dumps(LabelStream.merge_states(states)))
    print(json.dumps(seen))


if __name__ == "__main__":
    multiprocessing.set_forkserver_preload(["labelmint.torch"])
    main(sys.argv[1], json.loads(sys.argv[2]))
