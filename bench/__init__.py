"""Benchmarks: each a module run with `python -m bench.NAME --json FILE`. Speed is reported as ratios within one run."""
