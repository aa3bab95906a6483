"""Sets of views -> a network from image to mesh, and the files it makes."""
