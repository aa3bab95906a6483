"""Statistics of a stream, and their report as one HTML page."""
