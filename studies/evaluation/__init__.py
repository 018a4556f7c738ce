"""Benchmarks of the field, asked at a running service and scored by their own rules. Needs the base install only."""
