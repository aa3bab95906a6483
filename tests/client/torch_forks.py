"""Reads a stream in a DataLoader of two workers, twice, in processes that used a client before.

    python -m tests.client.torch_forks TARGET '[[BEFORE, START, PERSISTENT], ...]'

Each entry has a process of its own. BEFORE is what that did: nothing, closed, open or streaming (a
client), or iterated (a stream without workers). START is the start method of the workers, and
PERSISTENT whether they outlive an epoch. Prints one JSON line: of each process the exit code, what
it printed, which are the sorted indices of each epoch or the error of a worker, and its complaints.
"""

import json
import multiprocessing
import sys
import warnings
from functools import partial

from torch.utils.data import DataLoader

from labelmint import Client
from labelmint.errors import ClientClosed
from labelmint.torch import LabelStream
from tests.client.forked import forked


def read(target: str, before: str, start: str, persistent: bool) -> None:
    stream = LabelStream(target, batch_size=2, end_index=12)
    if before == "iterated":
        list(stream)
    elif before != "nothing":
        client = Client(target)
        client.models()
        if before == "closed":
            client.close()
        if before == "streaming":
            batches = client.stream(2)
            next(batches)
    loader = DataLoader(
        stream, batch_size=None, num_workers=2, multiprocessing_context=start,
        persistent_workers=persistent,
    )  # fmt: skip
    try:
        for _ in range(2):
            print(sorted(index for batch in loader for index in batch.indices.tolist()))
    except ClientClosed as error:
        print(error)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "This DataLoader will create")
    multiprocessing.set_forkserver_preload(["labelmint.torch"])
    cases = json.loads(sys.argv[2])
    print(json.dumps(forked(partial(read, sys.argv[1], *case) for case in cases)))
