"""A refiner for the demo's camera, and what training on refined samples is worth there."""
