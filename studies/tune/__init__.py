"""`vscan tune`: accuracy and cost over a grid of settings, on a user's own checkpoint and questions."""
