"""Reads with torchdata's StatefulDataLoader, stops, and goes on in a new one from its state.

    python -m tests.client.torch_stateful TARGET WORKERS

Prints one JSON line: the indices before, and after.
"""

import itertools
import json
import sys

from torchdata.stateful_dataloader import StatefulDataLoader

from labelmint.torch import LabelStream


def main(target: str, workers: int) -> None:
    def loader() -> StatefulDataLoader:
        stream = LabelStream(target, batch_size=4, seed=7, keep_fraction=0.8, end_index=200)
        return StatefulDataLoader(stream, batch_size=None, num_workers=workers)

    first, second = loader(), loader()
    before = [i for b in itertools.islice(first, 9) for i in b.indices.tolist()]
    second.load_state_dict(first.state_dict())
    after = [i for batch in second for i in batch.indices.tolist()]
    print(json.dumps([before, after]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
