"""A second demo world with exact truth, harder than the demo's heads: see docs/bench_world.md."""
