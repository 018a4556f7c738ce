"""The vision encoder service: images in, few visual tokens out, remembered."""
