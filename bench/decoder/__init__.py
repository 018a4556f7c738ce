"""The decoder's engine on random weights at real proportions: `python -m bench.decoder --json FILE`.

LLaVA-NeXT's: 30 rows of system text, 2,880 visual tokens, 30 of a question; reduced to 480 before the decoder and to 160 at its
middle layer. Every check is a ratio of medians of one run in which the two sides alternate, but for the bytes, which are
counted, and the overhead, which is what a step takes beside the model's modules, attention and sampling.
"""
