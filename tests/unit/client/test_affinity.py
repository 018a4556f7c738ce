"""Rendezvous hashing: who is asked about what, whatever the order in which the endpoints are named."""

import subprocess
import sys
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from vscan_client import Image, Video
from vscan_client._affinity import affinity_key, rendezvous_order

CAT, DOG = Image.from_bytes(b"cat"), Image.from_bytes(b"dog")
KEYS = [f"{number:032x}" for number in range(2000)]
FIVE = [f"10.0.0.{number}:7070" for number in range(5)]
names = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=8, unique=True)


def homes(endpoints: list[str]) -> dict[str, str]:
    return {key: rendezvous_order(endpoints, key)[0] for key in KEYS}


def test_the_first_image_or_video_decides() -> None:
    clip = Video.from_bytes(b"clip", frames=8)
    assert affinity_key([CAT]) == affinity_key([CAT, DOG]) == affinity_key([CAT.bare, clip])
    assert affinity_key([clip]) == affinity_key([Video.from_bytes(b"clip", frames=2)])
    assert len({affinity_key([visual]) for visual in (CAT, DOG, clip)}) == 3
    assert affinity_key([]) is None


def test_the_key_neither_is_the_digest_nor_shows_a_part_of_it() -> None:
    key = affinity_key([CAT])
    assert key is not None
    assert len(key) == 32
    assert not any(key[start : start + 8] in CAT.digest for start in range(25))


def test_every_process_and_release_agrees() -> None:
    # Written down: a change of these moves every image of every deployment once, and makes clients of two releases disagree.
    assert affinity_key([CAT]) == "b950778933afab5a85179ad25baea654"
    assert rendezvous_order(FIVE, KEYS[0]) == [FIVE[number] for number in (2, 3, 4, 0, 1)]
    program = f"from vscan_client._affinity import *; print(rendezvous_order({FIVE}, {KEYS[0]!r}))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told == f"{rendezvous_order(FIVE, KEYS[0])}\n"


@given(names, st.sampled_from(KEYS), st.integers(0, 7))
def test_the_order_of_the_endpoints_does_not_matter(endpoints: list[str], key: str, turn: int) -> None:
    order = rendezvous_order(endpoints, key)
    assert order == rendezvous_order(endpoints[turn:] + endpoints[:turn], key) == rendezvous_order(endpoints[::-1], key)
    assert sorted(order) == sorted(endpoints)


@given(names, st.sampled_from(KEYS))
def test_an_endpoint_that_leaves_changes_nothing_among_the_others(endpoints: list[str], key: str) -> None:
    for gone in endpoints:
        left = [endpoint for endpoint in endpoints if endpoint != gone]
        assert rendezvous_order(left, key) == [each for each in rendezvous_order(endpoints, key) if each != gone]


def test_exactly_the_keys_of_an_endpoint_that_leaves_move_and_an_endpoint_that_joins_takes_only_its_own() -> None:
    five, four = homes(FIVE), homes(FIVE[:4])
    moved = {key for key in KEYS if five[key] != four[key]}
    assert moved == {key for key in KEYS if five[key] == FIVE[4]}


def test_the_endpoints_share_the_keys_evenly() -> None:
    shares = Counter(homes(FIVE).values())
    # 400 each, with a standard deviation of 18: five of them.
    assert all(310 < shares[endpoint] < 490 for endpoint in FIVE)
