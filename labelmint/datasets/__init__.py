"""A finite data set on a disk, made from a stream: what `labelmint download` does.

Data walks down: a request (what to write), selection (which indices, for the filters that rank),
samples, one writer a format, a card. A folder remembers how far it is, so that the same request
goes on after any interruption, and the files are then those of an uninterrupted run, byte for
byte. `stored` and `entries` read sets of views back. Needs the extra `cli`, for COCO `datasets`
too.
"""
