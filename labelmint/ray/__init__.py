"""Ray: `LabelSource` reads a stream as a data set, `Labeller` makes samples without a server.

Enter: a server's target, or a bundle on every node. Leave: blocks of Ray Data with the columns of
`labelmint.Batch.columns`.
"""

from labelmint.ray.labeller import Labeller
from labelmint.ray.source import LabelSource

__all__ = ["LabelSource", "Labeller"]
