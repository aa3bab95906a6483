"""Images to label or to train on: sampled from a generator, read from folders, or streamed."""
