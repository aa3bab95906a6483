"""Real images -> latents: `training encoder` and `training invert`."""
