"""An interpreter against held-out labels: `training evaluate`."""
