"""Weights -> bundle: ONNX graphs, their parity with the papers' formulas, calibration."""
