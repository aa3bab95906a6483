"""Load tests of a server: the library behind `labelmint bench`.

`requests` measures latency at a fixed request rate (open loop), `streams` measures throughput at
full speed (closed loop). Both call through `calls`, compute with `timing` and print with `text`.
"""
