"""Label files that people make, each format -> arrays at the frame's size, by image stem."""
