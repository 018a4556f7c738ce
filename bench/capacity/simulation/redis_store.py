"""Redis: entries that expire, are evicted when memory is full, and leases of encoders."""

from __future__ import annotations

from random import Random

from bench.capacity.simulation.core import Core, Process

_SAMPLED = 5  # keys that Redis looks at for one to evict (`maxmemory-samples`)


class RedisStore:
    """One server for each core; keys are spread over them, and memory is counted for all together.

    It evicts as `allkeys-lfu` does, as Redis approximates it: of a few keys the least used goes.

    Args:
        capacity: entries that fit; None for no bound.
        get_ms, put_ms: its processor time for an operation.
    """

    def __init__(
        self, *cores: Core, ttl_s: float, lease_s: float, capacity: int | None, get_ms: float, put_ms: float, draw: Random
    ) -> None:
        self.reads = self.writes = self.evicted = 0
        self.cores, self._get_ms, self._put_ms = cores, get_ms, put_ms
        self._ttl_s, self._lease_s, self._capacity, self._draw = ttl_s, lease_s, capacity, draw
        self._expires: dict[int, float] = {}
        self._uses: dict[int, int] = {}
        self._keys: list[int] = []  # those of `_expires`, for drawing
        self._places: dict[int, int] = {}
        self._leases: dict[int, tuple[object, float]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, image: int, now_s: float) -> bool:
        """Whether its tokens are there, without any time passing."""
        expires = self._expires.get(image)
        if expires is None:
            return False
        if expires <= now_s:
            self._forget(image)
            return False
        self._uses[image] += 1
        return True

    def get(self, image: int) -> Process:
        """The same for a reader who asks for it, and for whom Redis works."""
        self.reads += 1
        yield self._server(image).work(self._get_ms)
        return self.find(image, self.cores[0].now_s)

    def join(self, image: int, encoder: object) -> bool:
        """Whether this encoder may make the entry: nobody else's lease lasts."""
        holder, until_s = self._leases.get(image, (encoder, 0.0))
        if holder is not encoder and until_s > self.cores[0].now_s:
            return False
        self._leases[image] = (encoder, self.cores[0].now_s + self._lease_s)
        return True

    def release(self, image: int, encoder: object) -> None:
        """It does not make it any more."""
        if self._leases.get(image, (None, 0.0))[0] is encoder:
            del self._leases[image]

    def put(self, image: int, encoder: object) -> Process:
        """Writes the entry and ends the lease."""
        self.writes += 1
        yield self._server(image).work(self._put_ms)
        self.write(image, self.cores[0].now_s)
        self.release(image, encoder)

    def write(self, image: int, now_s: float) -> None:
        """The same without any time passing."""
        if image not in self._expires:
            self._make_room()
            self._places[image] = len(self._keys)
            self._keys.append(image)
            self._uses[image] = 1
        self._expires[image] = now_s + self._ttl_s

    def _server(self, image: int) -> Core:
        return self.cores[image % len(self.cores)]

    def _make_room(self) -> None:
        while self._capacity is not None and len(self._keys) >= self._capacity:
            some = [self._draw.choice(self._keys) for _ in range(_SAMPLED)]
            self._forget(min(some, key=lambda image: (self._uses[image], image)))
            self.evicted += 1

    def _forget(self, image: int) -> None:
        place, last = self._places.pop(image), self._keys.pop()
        if last != image:
            self._keys[place], self._places[last] = last, place
        del self._expires[image], self._uses[image]
