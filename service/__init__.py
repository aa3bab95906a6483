"""Serves bundles: engines in, a filtered and resumable stream of labelled samples out.

A request walks down: rpc (proto -> Query) -> sampler (which indices) -> scheduler (whose rows
next) -> compute (rows -> arrays, on the engine's thread) -> delivery (arrays -> chunks) ->
encoding (chunks -> message bytes) -> rpc. Policy holds no tensors, the engine no policy.
"""
