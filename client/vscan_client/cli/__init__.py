"""The command `vscan`."""
