"""A refiner for the demo's camera, and a U-Net trained with and without it."""
