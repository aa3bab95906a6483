"""Label files made by people -> arrays at the crop's size, by image stem; one module per format."""
