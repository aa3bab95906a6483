"""Label folders -> files that annotation tools read; one module per format."""
