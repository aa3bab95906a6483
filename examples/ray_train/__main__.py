"""Trains a small segmentation network on several workers of Ray, and prints the loss of each pass.

    python -m examples.ray_train --target HOST:PORT [--samples 512] [--workers 2] [--passes 2]

Needs the extras `ray` and `torch`, and what `pip install 'ray[train]'` brings. Without a cluster to
join (RAY_ADDRESS), Ray is started on this machine.
"""

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before ray is imported: it calls home

import tempfile
from pathlib import Path
from typing import Any

import click
import ray
import ray.train
import ray.train.torch
import torch

from labelmint.ray import LabelSource

STORE_BYTES = 200 << 20  # of Ray's object store, if this starts it


@click.command()
@click.option("--target", required=True, help="HOST:PORT of the server; several after commas.")
@click.option("--samples", default=512, help="Raw indices of a pass.")
@click.option("--workers", default=2, help="Processes that train.")
@click.option("--passes", default=2, help="Times that all samples are trained on.")
def main(target: str, samples: int, workers: int, passes: int) -> None:
    joins = "RAY_ADDRESS" in os.environ
    # Workers have a CPU each, and the tasks that read need some too: Ray waits forever for those.
    ray.init(
        num_cpus=None if joins else workers + 2,
        object_store_memory=None if joins else STORE_BYTES,
        include_dashboard=None if joins else False,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        source = LabelSource(
            target, shards=4 * workers, seed=7, end_index=samples, outputs=["image", "mask"]
        )
        classes = max(label.id for label in source.model.classes) + 1
        with tempfile.TemporaryDirectory() as folder:
            trainer = ray.train.torch.TorchTrainer(
                train,
                train_loop_config={"classes": classes, "passes": passes},
                datasets={"train": ray.data.read_datasource(source, num_cpus=0.25)},
                scaling_config=ray.train.ScalingConfig(
                    num_workers=workers, use_gpu=torch.cuda.is_available()
                ),
                run_config=ray.train.RunConfig(storage_path=folder),
            )
            result = trainer.fit()
        assert result.metrics is not None, "the first worker reports with a checkpoint"
        samples, loss = result.metrics["samples"], result.metrics["loss"]
        print(f"first worker: {samples} samples in the last pass, mean loss {loss:.3f}")
    finally:
        ray.shutdown()


def train(config: dict[str, Any]) -> None:
    """Runs in each worker. Ray gives it a part of the rows; the gradients are averaged."""
    network = ray.train.torch.prepare_model(torch.nn.Conv2d(3, config["classes"], 3, padding=1))
    device = ray.train.torch.get_device()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    rows = ray.train.get_dataset_shard("train")
    for _ in range(config["passes"]):
        losses, samples = [], 0
        for batch in rows.iter_torch_batches(batch_size=16, device=device, drop_last=True):
            images = batch["image"].permute(0, 3, 1, 2) / 255  # [n, 3, H, W]
            loss = torch.nn.functional.cross_entropy(network(images), batch["mask"].long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            samples += len(images)
        report(network, {"samples": samples, "loss": sum(losses) / max(1, len(losses))})


def report(network: torch.nn.Module, metrics: dict[str, Any]) -> None:
    """Reports a pass; the first worker adds the weights, without which Ray keeps no metrics."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if ray.train.get_context().get_world_rank() == 0:
            torch.save(network.state_dict(), Path(folder, "network.pt"))
            checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(metrics, checkpoint=checkpoint)


if __name__ == "__main__":
    main()
