"""Weights -> bundle: the served graphs, their parity with the paper's formulas, calibration."""
