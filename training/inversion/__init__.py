"""Photographs -> latents: `training encoder` and `training invert`."""
