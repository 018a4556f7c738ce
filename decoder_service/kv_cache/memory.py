"""How much memory the cache takes, where nobody said."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from decoder_service.kv_cache.segments import PageLayout
from vscan.errors import StartupError

_GPU_SHARE = 0.8  # of what is free once the model is loaded; the rest is for the steps' own tensors
_CPU_SHARE = 0.25
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def count_pages(asked_bytes: int | None, layout: PageLayout, *, least: int, enough: int, device: torch.device) -> int:
    """Pages of the cache.

    Args:
        asked_bytes: its memory; None for a share of the device's.
        least: fewer cannot serve anything.
        enough: more are of no use on a CPU, whose memory others want too.

    Raises:
        StartupError: there is too little for `least`.
    """
    given = _default_bytes(device) if asked_bytes is None else asked_bytes
    pages = given // layout.page_bytes
    if asked_bytes is None and device.type != "cuda":
        pages = min(pages, enough)
    if pages < least:
        needed = least * layout.page_bytes
        raise StartupError(f"kv_cache_bytes: {given}, but blocks of {layout.block_rows} rows need at least {needed} here")
    return pages


def _default_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _GPU_SHARE)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CGROUP_LIMIT.read_text().strip() if _CGROUP_LIMIT.exists() else "max"
    return int(min(machine, int(limit) if limit.isdigit() else machine) * _CPU_SHARE)
