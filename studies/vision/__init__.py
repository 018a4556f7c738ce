"""Studies of the vision transformer."""
