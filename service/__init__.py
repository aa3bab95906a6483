"""Serves bundles: engines in, a filtered and resumable stream of labelled samples out.

A request walks down: rpc (proto -> Query) -> sampler (which indices) -> scheduler (whose rows
next) -> compute (rows -> arrays, on the engine's thread) -> delivery (arrays -> chunks) ->
encoding (chunks -> message bytes) -> rpc. Policy holds no tensors, the engine no policy.
"""

import os

# Its lines are neither ours nor JSON, such as those for each caller that speaks no TLS to a port
# that does. It looks at this once, while it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
