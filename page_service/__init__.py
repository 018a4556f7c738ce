"""A page on which to ask about images and videos, and to see what of them the model was shown: `vscan page`. Needs no torch."""
