"""Data sets on disk, written from a stream: the library behind `labelmint download`.

In the order of the data: `request` (what to write), `scores` and `selection` (which samples, for
filters that rank), `pipeline` (the download), `samples` (encoding), one writer per format (`tars`,
`coco`, `png`), and `card` (the data card). `folder` stores the progress, so that an interrupted
download resumes and writes the same bytes as an uninterrupted one. `reader` reads data sets with
several views per object. Needs the extra `cli`; COCO also needs `datasets`.
"""
