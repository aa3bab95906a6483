"""Torch mathematics of the generators and the label ensemble; no I/O."""
