"""A stream as a PyTorch dataset of whole batches, sharded by rank and worker, resumable.

from labelmint.torch import LabelStream

stream = LabelStream("localhost:50051", batch_size=16, seed=7, keep_fraction=0.9)
for batch in DataLoader(stream, batch_size=None, pin_memory=True):
    loss = step(batch.images, batch.masks)
torch.save(stream.state_dict(), "stream.pt")
"""

from labelmint.torch.dataset import IGNORE_INDEX, LabelBatch, LabelLoader, LabelStream

__all__ = ["IGNORE_INDEX", "LabelBatch", "LabelLoader", "LabelStream"]
