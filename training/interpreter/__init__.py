"""Labeled images -> weights of the label ensemble: `python -m training interpreter`."""
