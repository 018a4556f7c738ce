"""Studies of models and of deployments: what a user runs to choose settings and to see what they cost.

Importing this package, its catalogue and its inputs needs neither torch nor matplotlib.
"""
