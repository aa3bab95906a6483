"""Load on a server, and how it was answered: what `labelmint bench` runs.

timing -> calls -> requests, streams: the arithmetic, a connection whose calls can be ended, and
the two ways to load a server.
"""
