"""What the dashboard shows, row by row."""

from __future__ import annotations

from scripts.observability.service_rows import caches, decoder, encoder, gateway, processes
from scripts.observability.user_rows import objectives, places, tokens, traffic

ROWS = {
    "Objectives": objectives,
    "Traffic": traffic,
    "Where images were found": places,
    "Visual tokens": tokens,
    "Encoder": encoder,
    "Decoder": decoder,
    "Gateway": gateway,
    "Redis and caches": caches,
    "Process": processes,
}
