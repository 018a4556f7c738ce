"""How much memory a process has taken at its highest, and how much it may."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_RESET_PEAK = "5"  # proc(5): /proc/PID/clear_refs sets the peak to what is resident now
_MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBound:
    """What one request, or several at once, may add to a service, from its limits.

    A decoder has of a request's message: gRPC's bytes, Python's, the parsed message, the file taken out of it, the encoder's
    request with it, its bytes and gRPC's: 7. An encoder the first 4, and of the pixels of each image that it decodes: the
    picture as the file has it (4 bytes a pixel) and turned or in RGB (4), the processor's copy (3, less once it is small): 12
    hold all. A gateway has of a body: the bytes as they came and put together, their text, the file's base64 as a text and as
    bytes, the file, the message with it and its bytes, gRPC's: 9. Some 64 MiB are the allocator's.
    """

    max_message_bytes: int
    max_image_pixels: int
    image_workers: int

    def of_services(self, at_once: int) -> dict[str, int]:
        """Each service's."""
        return {
            "encoder": self.encoder_bytes(at_once),
            "decoder": self.decoder_bytes(at_once),
            "gateway": self.gateway_bytes(at_once),
        }

    def decoder_bytes(self, at_once: int) -> int:
        """For so many requests at once."""
        return 7 * self.max_message_bytes * at_once + 64 * _MEBIBYTE

    def gateway_bytes(self, at_once: int) -> int:
        """The same."""
        return 9 * self.max_message_bytes * at_once + 64 * _MEBIBYTE

    def encoder_bytes(self, at_once: int) -> int:
        """The same."""
        pixels = 12 * self.max_image_pixels * min(at_once, self.image_workers)
        return 4 * self.max_message_bytes * at_once + pixels + 64 * _MEBIBYTE


class PeakMemory:
    """Resident memory of a process, and the highest since `begin`."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc") / str(pid)
        self._before = 0

    def begin(self) -> None:
        """From here on."""
        (self._folder / "clear_refs").write_text(_RESET_PEAK)
        self._before = self._read("VmHWM")

    def growth_bytes(self) -> int:
        """By how much the highest is above the beginning."""
        return max(0, self._read("VmHWM") - self._before)

    def _read(self, name: str) -> int:
        for line in (self._folder / "status").read_text().splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0]) * 1024
        raise ValueError(f"no {name}")
