"""What the encoder and the decoder service share. Imports neither of them."""

__version__ = "0.1.0"
