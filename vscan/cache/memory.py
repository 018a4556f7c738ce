"""The memory tier: a least-recently-used cache bounded by bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from threading import Lock

import torch

from vscan.visual_tokens import VisualTokens

# What an entry costs beyond its tensors: key, objects, dictionary slot. An estimate, so that many tiny entries are bounded too.
ENTRY_OVERHEAD_BYTES = 1024


class MemoryCache:
    """Visual tokens by content key. Thread-safe: the event loop and worker threads may share one.

    Values are shared, not copied: nobody may write into their tensors.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._lock = Lock()
        self._entries: OrderedDict[bytes, VisualTokens] = OrderedDict()  # least recently used first
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        """Without refreshing the entry."""
        return key in self._entries

    @property
    def used_bytes(self) -> int:
        """Bytes held, entries' overhead included; never over `max_bytes`."""
        return self._bytes

    def get(self, key: bytes) -> VisualTokens | None:
        """The value, which becomes the most recently used."""
        with self._lock:
            value = self._entries.get(key)
            if value is not None:
                self._entries.move_to_end(key)
            return value

    def put(self, key: bytes, value: VisualTokens) -> bool:
        """Stores the value, evicting the least recently used. False, and not stored, if it is larger than the bound."""
        size = _size(value)
        if size > self.max_bytes:
            self.discard(key)  # what it would have replaced is not the newest any more
            return False
        value = _owning(value)
        with self._lock:
            self._remove(key)
            self._entries[key] = value
            self._bytes += size
            while self._bytes > self.max_bytes:
                self._remove(next(iter(self._entries)))
        return True

    def discard(self, key: bytes) -> None:
        """Forgets the key, if it is there."""
        with self._lock:
            self._remove(key)

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def _remove(self, key: bytes) -> None:
        value = self._entries.pop(key, None)
        if value is not None:
            self._bytes -= _size(value)


def _size(value: VisualTokens) -> int:
    return value.nbytes + ENTRY_OVERHEAD_BYTES


def _owning(value: VisualTokens) -> VisualTokens:
    """The value with tensors that own no more memory than they show: a slice of a batch would keep the whole batch alive."""
    return replace(
        value,
        tokens=_own(value.tokens),
        kept_indices=_own(value.kept_indices),
        picked_by=_own(value.picked_by),
        merged_into=None if value.merged_into is None else _own(value.merged_into),
    )


def _own(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size() else tensor
