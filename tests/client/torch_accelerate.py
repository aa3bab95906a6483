"""One rank of a run under Accelerate, which goes on from the checkpoint of the run before.

    python -m tests.client.torch_ranks torch_accelerate RANKS TARGET STEPS FOLDER MEETING LOADER

Rank 0 prints one JSON line, the indices of each rank; the others print null. LOADER is the name of
a class.
"""

import gc
import itertools
import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import DataLoader

from labelmint.torch import LabelLoader, LabelStream


def main(target: str, steps: str, checkpoint: str, meeting: str, kind: str) -> None:
    folder, world_size = Path(checkpoint), int(os.environ["WORLD_SIZE"])
    if world_size > 1:  # ranks meet in a file: a free port may be somebody else's a moment later
        rank = os.environ["LOCAL_RANK"] = os.environ["RANK"]
        os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
        dist.init_process_group(
            "gloo", init_method=Path(meeting).absolute().as_uri(), world_size=world_size,
            rank=int(rank),
        )  # fmt: skip
    accelerator = Accelerator(cpu=True)
    stream = LabelStream(target, batch_size=4, seed=7, keep_fraction=0.8)
    state = folder / "stream.json"
    loader: Any = (
        LabelLoader(stream) if kind == "LabelLoader" else DataLoader(stream, batch_size=None)
    )
    model: Any = nn.Conv2d(3, 3, 1)
    optimizer: Any = torch.optim.SGD(model.parameters(), 0.01)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    if folder.exists():
        accelerator.load_state(str(folder))
        stream.load_state_dict(json.loads(state.read_text()))
    seen: list[int] = []
    for batch in itertools.islice(loader, int(steps)):
        batch = batch.to(accelerator.device)
        loss = nn.functional.cross_entropy(model(batch.images / 255), batch.masks)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        stream.consumed(batch)
        seen += batch.indices.tolist()
    states = gather_object([stream.state_dict()])
    accelerator.save_state(str(folder))
    done = gather_object([seen])
    if accelerator.is_main_process:
        state.write_text(json.dumps(LabelStream.merge_states(states)))
    accelerator.wait_for_everyone()
    del loader, model, optimizer
    gc.collect()
    main_process = accelerator.is_main_process
    if world_size > 1:
        dist.destroy_process_group()
    print(json.dumps(done if main_process else None))
