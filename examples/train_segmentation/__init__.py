"""A small U-Net trained five ways, one of them online from a stream, and the table of results."""
