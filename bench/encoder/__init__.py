"""The encoder on random CLIP ViT-L/14-336 weights: `python -m bench.encoder --json FILE [--plot FILE]`.

Beside it, on the same weights and images and in turn with it, `transformers`' own `LlavaModel.get_image_features`: vision tower
and projector with fused attention, nothing reduced. Pixels are prepared once; through gRPC, images are files and everything
counts. Every ratio is the median of the ratios of its rounds.

- `reduced_vs_plain_bN`: a device pass over N images with the default reduction (96 of 576 tokens kept, the others merged),
  until the tokens are on the CPU, over `transformers`' features of the same images.
- `reduction_share`: what reducing adds to a device pass, over the pass of the vision transformer: the two score rows (within
  that pass; measured on the queries and keys that the two layers really made), scans and merging. The projector is no part of
  it: without reduction all tokens go through it just so. The largest of the batch sizes.
- `grpc_overhead_ms`: one client, one new image after the other, over loopback to an encoder process: the client's latency less
  decoding and resizing the image, vision transformer and reduction as the reply tells them; median. What is left is hashing,
  the queue (`batch_wait_ms` as by default), the caches, serialisation, transport. Beside it stands what a bare gRPC call with
  messages of these sizes takes on the machine.
"""
