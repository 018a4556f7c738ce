"""Measures a profile with the services as processes, each on one core; `python -m bench.capacity measure`."""
