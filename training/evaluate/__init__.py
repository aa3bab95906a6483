"""Scores of an interpreter on held-out labels: `python -m training evaluate`."""
