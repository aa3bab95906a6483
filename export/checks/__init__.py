"""Measurements on a bundle: parity with the papers' formulas, and calibration of its score."""
