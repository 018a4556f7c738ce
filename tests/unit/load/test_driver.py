"""Loops against targets that answer as the test says; nothing here waits for time."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from scripts.pages.load import kept_run
from studies.load.album import Album
from studies.load.comparison import Case, compare
from studies.load.driver import drive
from studies.load.figures import Targets
from studies.load.plots import plot
from studies.load.report import SCHEMA, read_report, report
from studies.load.sides import Side
from studies.load.tables import lines, warnings, write_csv
from studies.load.targets.base import Seen
from studies.load.workload import Ask, Workload
from vscan.errors import InvalidArgument, Unavailable


class Answering:
    """Answers once `together` requests are with it, and fails those whose number is in `failing`."""

    def __init__(self, together: int = 1, failing: set[int] | None = None) -> None:
        self.asked: list[Ask] = []
        self.most = 0
        self._failing = failing or set()
        self._barrier = asyncio.Barrier(together)
        self._here = 0

    async def ask(self, ask: Ask, seen: Seen) -> None:
        self.asked.append(ask)
        self._here += 1
        self.most = max(self.most, self._here)
        await self._barrier.wait()
        self._here -= 1
        if ask.number in self._failing:
            raise Unavailable("gone")
        for _ in range(3):
            seen.content()
            await asyncio.sleep(0)
        seen.usage(prompt_tokens=9, completion_tokens=3)
        seen.visual(before=4, after=2, average=1.5, places=["memory"])

    async def close(self) -> None:
        pass


async def test_an_open_loop_sends_what_is_due_though_nothing_was_answered_yet() -> None:
    target = Answering(together=6)  # in a closed loop of fewer clients it would never answer
    records = await drive(target, Workload(requests=6, rate=10_000.0).asks())
    assert [record.ask.number for record in records] == list(range(6))
    assert all(record.ok and record.late_ms is not None and record.late_ms >= 0 for record in records)
    assert target.most == 6


async def test_a_closed_loop_has_as_many_under_way_as_clients_and_ends_every_request_once() -> None:
    target = Answering(together=3, failing={4})
    records = await drive(target, Workload(requests=9).asks(), clients=3)
    assert [record.ask.number for record in records] == list(range(9))
    assert target.most == 3
    assert [record.code for record in records] == ["UNAVAILABLE" if number == 4 else "OK" for number in range(9)]
    assert records[4].message == "Unavailable: gone"
    assert all(record.end_s is not None for record in records)


async def test_a_mistake_of_the_generator_is_not_a_failure_of_the_server() -> None:
    class Broken(Answering):
        async def ask(self, ask: Ask, seen: Seen) -> None:
            raise KeyError("a bug")

    with pytest.raises(ExceptionGroup):
        await drive(Broken(), Workload(requests=2).asks(), clients=1)


async def test_every_side_of_a_round_gets_the_same_requests_and_warm_ups_do_not_count(tmp_path: Path) -> None:
    one, two, peer = Answering(), Answering(failing={1}), Answering()
    sides = [Side("peer", "a peer", peer, peer=True), Side("one", "no reduction", one), Side("two", "+ cache", two)]
    case = Case("load", "one of 2 images", Workload(requests=4, images=2), Album(range(2), 16))
    said: list[str] = []
    (compared,) = await compare({"load": sides}, [case], rounds=6, clients=2, say=said.append)
    assert one.asked == two.asked == peer.asked
    assert len(one.asked) == 4 * 7
    assert one.asked[:4] != one.asked[4:8]
    assert len({tuple(each.order) for each in compared.rounds}) > 1
    assert said[:2] == ["one of 2 images: warm-up 1 of 1", "one of 2 images: round 1 of 6"]

    made = json.loads(
        json.dumps(report([compared], sides, targets=Targets(), options={"clients": 2, "model": "m", "rounds": 6}, raw=True))
    )
    assert made["schema"] == SCHEMA
    (told,) = made["cases"]
    by_name = {each["name"]: each for each in told["configurations"]}
    assert by_name["one"]["answered"] == 24
    assert by_name["two"]["failures"] == {"UNAVAILABLE": 6}
    assert by_name["one"]["hit_rates"] == {"memory": 1.0}
    assert by_name["one"]["tokens"]["visual_average_mean"] == 1.5
    assert [len(records) for records in by_name["one"]["records"]] == [4] * 6
    assert {"made", "environment", "targets", "options"} <= made.keys()
    short = "answers had fewer tokens than were asked for, which is less work"
    assert [warning.removeprefix("one of 2 images, ") for warning in warnings(made)] == [
        f"a peer: 24 {short}",
        f"no reduction: 24 {short}",
        "+ cache: 6 UNAVAILABLE of 24 requests; Unavailable: gone",
        f"+ cache: 18 {short}",
    ]
    assert any("no reduction → + cache" in line for line in lines(made))

    (tmp_path / "load.json").write_text(json.dumps(made))
    assert read_report(tmp_path / "load.json") == made
    (tmp_path / "load.json").write_text(json.dumps({**made, "schema": "vscan.load/0"}))
    with pytest.raises(InvalidArgument, match=r"load\.json: schema 'vscan\.load/0', limit vscan\.load/1"):
        read_report(tmp_path / "load.json")

    page = kept_run(made)
    assert "### One of 2 images" in page
    assert "| no reduction → + cache |" in page
    assert page.count("100%") == 3  # images from memory or Redis

    plot(made, tmp_path / "load.png")
    write_csv(made, tmp_path / "load.csv")
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")
    head, *rows = (tmp_path / "load.csv").read_text().splitlines()
    assert head.startswith("case,configuration,requests,answered,seconds,goodput_per_s")
    assert [row.split(",")[1] for row in rows] == ["peer", "one", "two"]


async def test_a_comparison_that_is_stopped_keeps_its_whole_rounds() -> None:
    target = Answering()
    case = Case("load", "one of 2 images", Workload(requests=2, images=2), Album(range(2), 16))
    side = Side("one", "no reduction", target)

    def stop(line: str) -> None:
        if line.endswith("round 2 of 9"):
            running.cancel()

    running = asyncio.create_task(compare({"load": [side]}, [case], rounds=9, clients=1, say=stop))
    (compared,) = await running
    assert (len(compared.rounds), compared.broken_off) == (2, True)
    assert report([compared], [side], targets=Targets(), options={})["broken_off"]


async def test_a_comparison_that_is_stopped_before_a_round_counts_has_nothing_to_tell() -> None:
    case = Case("load", "one of 2 images", Workload(requests=2, images=2), Album(range(2), 16))
    sides = {"load": [Side("one", "no reduction", Answering())]}

    def stop(line: str) -> None:
        running.cancel()

    running = asyncio.create_task(compare(sides, [case], rounds=9, clients=1, say=stop))
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_services_that_are_gone_do_not_take_the_other_sides_rounds_with_them() -> None:
    case = Case("load", "one of 2 images", Workload(requests=2, images=2), Album(range(2), 16))
    gone = Side("gone", "gone", Answering(failing={0, 1}), metrics=["http://127.0.0.1:1/metrics"], pids={"decoder": 2**22 + 1})
    sides = {"load": [gone, Side("one", "no reduction", Answering())]}
    (compared,) = await compare(sides, [case], rounds=2, warm_ups=0, clients=1)
    assert [(len(run.records), run.counters, list(run.busy_s)) for run in compared.runs("gone")] == [(2, {}, ["load"])] * 2
    assert all(record.ok for run in compared.runs("one") for record in run.records)


async def test_a_side_that_answers_nothing_of_the_warm_up_ends_the_comparison() -> None:
    case = Case("load", "one image", Workload(requests=2, images=1), Album(range(1), 16))
    sides = {"load": [Side("one", "no reduction", Answering()), Side("two", "+ cache", Answering(failing={0, 1}))]}
    with pytest.raises(Unavailable, match="one image, two: none of 2 requests to warm up was answered: Unavailable: gone"):
        await compare(sides, [case], rounds=9, clients=1)
