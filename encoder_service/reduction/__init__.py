"""Stage 1 of VScan (arXiv 2505.22654) and its controls, as pure tensor functions over batches of tiles."""
