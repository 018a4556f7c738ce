"""Hostile input, made by code, and a runner that sends it to live services: `python -m tests.hostile --json FILE`."""
