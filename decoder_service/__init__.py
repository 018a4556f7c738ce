"""The language-model service: answers questions about images."""
