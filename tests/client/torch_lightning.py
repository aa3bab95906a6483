"""Trains with Lightning, and goes on from its checkpoint in a new Trainer.

    python -m tests.client.torch_lightning TARGET RANKS FOLDER

Prints one JSON line: the indices that each rank trained on before and after, as [[rank, index]].
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from labelmint.torch import LabelStream


class Colours(LightningModule):
    def __init__(self, stream: LabelStream) -> None:
        super().__init__()
        self.stream, self.layer = stream, nn.Conv2d(3, 3, 1)
        self.seen: list[int] = []

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        self.stream.consumed(batch)  # here, because checkpoints come before on_train_batch_end
        self.seen += batch.indices.tolist()
        loss = nn.functional.cross_entropy(self.layer(batch.images / 255), batch.masks)
        self.log("loss", loss, batch_size=len(batch.images))
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        states = [self.stream.state_dict()]
        if dist.is_initialized():
            states = [{}] * dist.get_world_size()
            dist.all_gather_object(states, self.stream.state_dict())
        checkpoint["stream"] = LabelStream.merge_states(states)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.stream.load_state_dict(checkpoint["stream"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def main(target: str, ranks: int, folder: Path) -> None:
    def trained(steps: int, checkpoint: Path | None) -> list[int]:
        stream = LabelStream(target, batch_size=4, seed=7, keep_fraction=0.8)
        model = Colours(stream)
        Trainer(
            accelerator="cpu", devices=ranks, max_steps=steps, logger=False, max_epochs=-1,
            callbacks=[ModelCheckpoint(folder, "at_{step}", every_n_train_steps=5, save_top_k=-1)],
            enable_progress_bar=False, enable_model_summary=False,
        ).fit(model, DataLoader(stream, batch_size=None), ckpt_path=checkpoint)  # fmt: skip
        return model.seen

    before = trained(5, None)
    after = trained(10, folder / "at_step=5.ckpt")
    done: list[Any] = [[before, after]]
    if dist.is_initialized():
        done = [None] * ranks
        dist.all_gather_object(done, [before, after])
        if dist.get_rank() != 0:
            return
    print(json.dumps(done))


if __name__ == "__main__":
    # Of Lightning itself: few workers, and its checkpoints hold more than tensors.
    warnings.simplefilter("ignore")
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
