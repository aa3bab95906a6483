"""Labelled images -> weights of the label ensemble: `training interpreter`."""
