"""Measurements of quality, cost and the services, each run as a module: `python -m benchmarks.quality.methods DATA`."""
