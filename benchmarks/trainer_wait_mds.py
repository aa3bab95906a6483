"""Writes MDS shards of a folder's samples and measures a loop's wait for them; see trainer_wait.

    PYTHON benchmarks/trainer_wait_mds.py FOLDER BATCH STEPS STEP_S

Imports no package of the project, only trainer_loop from the same folder.
"""

import sys
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from trainer_loop import waiting_share


def main(folder: Path, batch: int, steps: int, step_s: float) -> None:
    import numpy as np
    import torch
    from streaming import MDSWriter, StreamingDataset
    from torch.utils.data import DataLoader

    shards = folder / "mds"
    if not shards.exists():
        with MDSWriter(out=str(shards), columns={"image": "ndarray", "mask": "ndarray"}) as writer:
            for path in sorted(folder.glob("*.npz")):
                with np.load(path) as sample:
                    writer.write({"image": sample["image"], "mask": sample["mask"]})

    def tensors_from_samples(samples: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        images = np.stack([sample["image"].transpose(2, 0, 1) for sample in samples])
        masks = np.stack([sample["mask"].astype(np.int64) for sample in samples])
        return torch.from_numpy(images), torch.from_numpy(masks)

    samples = StreamingDataset(local=str(shards), batch_size=batch)
    loader: Any = DataLoader(samples, batch, num_workers=1, collate_fn=tensors_from_samples)
    print(waiting_share(chain.from_iterable(repeat(loader)), steps, step_s))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
