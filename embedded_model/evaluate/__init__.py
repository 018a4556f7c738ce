"""The evaluation of the embedded model through the real services: VScan, and every control that could beat it."""
