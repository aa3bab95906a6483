"""Ray: `LabelSource` reads streams as a Ray data set, `Labeller` makes samples without a server.

Enter: a server's target, or a bundle on every node. Leave: blocks of Ray Data, whose columns are
those of `labelmint.Batch.columns`.
"""

from labelmint.ray.source import LabelSource

__all__ = ["LabelSource"]
