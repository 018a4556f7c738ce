"""A heartbeat from outside."""

from __future__ import annotations

import threading

from vscan.heartbeat import Heartbeat


def test_it_says_since_when() -> None:
    heart = Heartbeat("a worker", threads="w")
    assert heart.since is None
    heart.begin()
    first = heart.since
    assert first is not None
    heart.begin()
    assert heart.since is not None
    assert heart.since > first
    heart.rest()
    assert heart.since is None


def test_the_stacks_of_its_threads_and_of_no_others() -> None:
    go_on, entered = threading.Event(), threading.Barrier(3)

    def standing_still() -> None:
        secret = "xyzzy"
        entered.wait()
        go_on.wait()
        assert secret

    threads = [threading.Thread(target=standing_still, name=name) for name in ("worker_0", "other")]
    for thread in threads:
        thread.start()
    entered.wait()
    stacks = Heartbeat("a worker", threads="worker").stacks()
    go_on.set()
    for thread in threads:
        thread.join()
    assert stacks.startswith("thread worker_0:\n")
    assert "standing_still" in stacks
    assert "other" not in stacks
