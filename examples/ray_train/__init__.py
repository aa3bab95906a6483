"""A network trained by Ray Train on a stream of Ray Data."""
