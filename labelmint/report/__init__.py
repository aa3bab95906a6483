"""What a stream is like, as statistics and as one HTML page."""
