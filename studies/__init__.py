"""Studies of models and of deployments: what a user runs to choose settings and to see what they cost."""
