"""Torch mathematics of generators, label ensemble, encoder, refiner and meshes; no I/O."""
