"""The SDK's own balancer, which remembers orders: hashing a thousand endpoints for each request would take too long."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from vscan_client._affinity import rendezvous_order
from vscan_client._balancer import NOBODY, Balancer, _State

# Orders of a key over all endpoints that were ever known. One order has a place for each endpoint.
_MOST_ORDERS = 20_000


class Orders:
    """`rendezvous_order` of each key, worked out once; shared by all clients, which agree on it."""

    def __init__(self) -> None:
        self._orders: dict[str, list[str]] = {}
        self._endpoints: frozenset[str] = frozenset()

    def order(self, endpoints: Collection[str], key: str) -> list[str]:
        """Of these endpoints: leaving some out does not change the order of the others."""
        if not self._endpoints.issuperset(endpoints):
            self._endpoints, self._orders = self._endpoints.union(endpoints), {}
        whole = self._orders.get(key)
        if whole is None:
            if len(self._orders) >= _MOST_ORDERS:
                self._orders.clear()
            whole = self._orders[key] = rendezvous_order(self._endpoints, key)
        if len(endpoints) == len(whole):
            return whole
        wanted = set(endpoints)
        return [endpoint for endpoint in whole if endpoint in wanted]

    def home(self, endpoints: Collection[str], key: str) -> str:
        """The endpoint where requests with that key begin."""
        return self.order(endpoints, key)[0]


class RememberingBalancer(Balancer):
    """Chooses as `Balancer` does, with the same code but for where the order comes from, and for not looking at each of a
    thousand endpoints while none rests."""

    orders: Orders
    _all_well_from = 0.0

    def pick(self, key: str | None, tried: Collection[str], asked: Mapping[str, int] = NOBODY) -> str:
        """See `Balancer.pick`."""
        candidates = self._well(tried) or self._reachable()
        if key is None or not candidates:
            return super().pick(key, tried, asked)
        return self._within_bound(self.orders.order(candidates, key))

    def _rest_ms(self, state: _State, duration_ms: float) -> None:
        super()._rest_ms(state, duration_ms)
        self._all_well_from = max(self._all_well_from, state.rests_until)

    def _well(self, tried: Collection[str]) -> list[str]:
        if self._clock() < self._all_well_from:
            return super()._well(tried)
        return [endpoint for endpoint in self._states if endpoint not in tried] if tried else list(self._states)
