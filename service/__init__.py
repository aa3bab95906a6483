"""Serves bundles: engines in, filtered and resumable streams of labeled samples out.

The way of a request: rpc (proto -> Query) -> sampler (which indices) -> scheduler (which streams'
rows next) -> compute and batch (w+ -> filtered rows, on the engine's thread) -> delivery (filtered
rows -> messages) -> encoding (messages -> bytes) -> rpc. Policy holds no tensors, the engine no
policy.
"""

import os

# Its lines are neither ours nor JSON, such as those for each caller that speaks no TLS to a port
# that does. It looks at this once, while it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
