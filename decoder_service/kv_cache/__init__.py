"""Keys and values of the running sequences, by segment."""
