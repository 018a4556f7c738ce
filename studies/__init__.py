"""Empirical studies of a checkpoint: what its layers look at, so that settings can be chosen for it.

Importing this package, its catalogue and its inputs needs neither torch nor matplotlib.
"""
