"""Label files that people make, each format -> arrays at the crop's size, by image stem."""
