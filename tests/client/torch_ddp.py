"""One rank of a real DDP run over gloo, on a stream that shards itself.

    python -m tests.client.torch_ranks torch_ddp RANKS TARGET STEPS STATE MEETING

Trains so many steps from the state in the file, if there is one, and writes what all ranks did
to it. Rank 0 prints one JSON line: all ranks' indices, and whether their weights are the same;
the others print null. Ranks meet in a new file: a port that is free now may be somebody else's
a moment later.
"""

import gc
import itertools
import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from labelmint.torch import LabelStream


def main(target: str, steps: str, state: str, meeting: str) -> None:
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(
        "gloo", init_method=Path(meeting).absolute().as_uri(), rank=rank, world_size=world_size
    )
    path = Path(state)
    stream = LabelStream(target, batch_size=4, seed=7, keep_fraction=0.8)
    if path.exists():
        stream.load_state_dict(json.loads(path.read_text()))
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Conv2d(3, 3, 1))
    optimiser = torch.optim.SGD(model.parameters(), 0.01)
    indices: list[int] = []
    loader = DataLoader(stream, batch_size=None, num_workers=1)
    for batch in itertools.islice(loader, int(steps)):
        loss = nn.functional.cross_entropy(model(batch.images / 255), batch.masks)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        indices += batch.indices.tolist()
        stream.consumed(batch)
    done: list[Any] = [None] * dist.get_world_size()
    weights = [p.tolist() for p in model.parameters()]
    dist.all_gather_object(done, (indices, stream.state_dict(), weights))
    said = None
    if rank == 0:
        path.write_text(json.dumps(LabelStream.merge_states([state for _, state, _ in done])))
        said = [[i for i, _, _ in done], all(w == done[0][2] for _, _, w in done)]
    del loader, model, optimiser  # which hold the group
    gc.collect()
    dist.destroy_process_group()
    print(json.dumps(said))
