"""MDS shards of a folder's samples, and the share of a loop that waits for them; see trainer_wait.

    PYTHON benchmarks/trainer_wait_mds.py FOLDER BATCH STEPS STEP_S

Imports none of our rooms but the loop, which stands beside it.
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

    class Samples(StreamingDataset):  # type: ignore[misc, unused-ignore]
        def __getitem__(self, index: Any) -> Any:
            sample = super().__getitem__(index)
            pixels = sample["image"].transpose(2, 0, 1).copy()
            return torch.from_numpy(pixels), torch.from_numpy(sample["mask"].astype(np.int64))

    loader: Any = DataLoader(Samples(local=str(shards), batch_size=batch), batch, num_workers=1)
    print(waiting_share(chain.from_iterable(repeat(loader)), steps, step_s))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
