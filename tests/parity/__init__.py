"""Holds the served path against outputs of the authors' released code: `python -m tests.parity --help`."""
