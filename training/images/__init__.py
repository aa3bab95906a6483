"""Images to label or to learn from: sampled from a generator, read from folders, or streamed."""
