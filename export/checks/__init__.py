"""What is measured of a bundle: parity with the papers' formulas, and calibration of its score."""
