"""Serves bundles over gRPC: runs engines and sends filtered, resumable streams of labeled samples.

The way of a request:

rpc         SampleQuery message -> checked Query
sampler     Query -> the sample indices to examine
scheduler   indices of all open streams -> the rows of the next engine batch
compute     rows -> arrays, on the engine's thread
delivery    arrays -> kept samples in index order
encoding    kept samples -> message bytes, which rpc sends

The scheduler decides without touching tensors; engines compute without deciding anything.
"""

import os

# gRPC writes log lines in its own format, for example for every caller without TLS on a TLS port.
# It reads this variable once, when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
