"""What only the encoder does around the cache: one encoding for all who ask at once."""
