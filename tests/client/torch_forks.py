"""Reads a stream in a DataLoader of two workers, twice, in a process that used a client before.

    python -m tests.client.torch_forks TARGET BEFORE START [persistent]

BEFORE is what the process did: nothing, closed, open or streaming (a client), or iterated (a stream
without workers). START is the start method of the workers. Prints the sorted indices of each epoch,
or the error of a worker.
"""

import sys
import warnings

from torch.utils.data import DataLoader

from labelmint import Client
from labelmint.errors import ClientClosed
from labelmint.torch import LabelStream


def main(target: str, before: str, start: str, persistent: str = "") -> None:
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
        persistent_workers=bool(persistent),
    )  # fmt: skip
    try:
        for _ in range(2):
            print(sorted(index for batch in loader for index in batch.indices.tolist()))
    except ClientClosed as error:
        print(error)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "This DataLoader will create")
    main(*sys.argv[1:])
