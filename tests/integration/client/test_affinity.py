"""Several real servers: an image stays with one of them, and goes on to the next while that one is away or busy."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from tests.support.certificates import Authority
from tests.support.client_cli import vscan
from tests.support.client_decoder import ScriptedDeployment, serving
from tests.support.until import until
from vscan.errors import Cancelled, InvalidArgument, ResourceExhausted, Unavailable, VScanError
from vscan.rpc.address import Address
from vscan_client import Affinity, Answer, AsyncClient, Client, Image, Place, Retry, TextDelta, Timeout, Tls
from vscan_client import _resolving as resolving
from vscan_client._affinity import HEADER, affinity_key

IMAGES = [f"image {number}".encode() * 10_000 for number in range(12)]
CAT = IMAGES[0]
# Nobody who was away is asked again by itself within a test, unless the test shortens it.
LONG = Affinity(rest_ms=600_000, max_rest_ms=600_000)
ONCE = Retry(attempts=1)


class Fleet:
    """Scripted deployments, each on a port of its own; each can be stopped and started again there."""

    def __init__(self, size: int) -> None:
        self.deployments = [ScriptedDeployment() for _ in range(size)]
        self._running = [ExitStack() for _ in range(size)]
        self.addresses = [
            stack.enter_context(serving(deployment)) for deployment, stack in zip(self.deployments, self._running, strict=True)
        ]

    def stop(self, address: str) -> None:
        self._running[self.addresses.index(address)].close()

    def start(self, address: str) -> None:
        stack, deployment = self._running[self.addresses.index(address)], self.at(address)
        stack.enter_context(serving(deployment, port=int(address.rpartition(":")[2])))

    def at(self, address: str) -> ScriptedDeployment:
        return self.deployments[self.addresses.index(address)]

    @property
    def requests(self) -> list[int]:
        return [len(deployment.requests) for deployment in self.deployments]

    def close(self) -> None:
        for stack in self._running:
            stack.close()


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = Fleet(3)
    yield fleet
    fleet.close()


def ask(client: Client, image: bytes = CAT) -> Answer:
    return client.ask(image, "what?")


def busy(delay_ms: int) -> VScanError:
    return ResourceExhausted("full", retry_delay_ms=delay_ms)


def test_an_image_stays_with_one_server_whoever_asks_and_however_they_are_named(fleet: Fleet) -> None:
    with Client(server=fleet.addresses) as client:
        homes = [ask(client, image).client.server for image in IMAGES]
        assert [ask(client, image).client.server for image in IMAGES] == homes
    with Client(server=fleet.addresses[::-1]) as other:
        assert [ask(other, image).client.server for image in IMAGES] == homes
    assert len(set(homes)) > 1
    assert set(homes) <= set(fleet.addresses)


async def test_the_async_client_agrees(fleet: Fleet) -> None:
    with Client(server=fleet.addresses) as client:
        homes = [ask(client, image).client.server for image in IMAGES]
    async with AsyncClient(server=fleet.addresses) as there:
        assert [(await there.ask(image, "?")).client.server for image in IMAGES] == homes


def test_the_first_image_decides_and_text_alone_goes_anywhere(fleet: Fleet) -> None:
    with Client(server=fleet.addresses) as client:
        assert client.ask([CAT, IMAGES[1]], "which?").client.server == ask(client).client.server
        assert client.raw("hello").client.server in fleet.addresses
    seen = [metadata.get(HEADER) for deployment in fleet.deployments for metadata in deployment.metadata]
    key = affinity_key([Image.from_bytes(CAT)])
    assert sorted(seen, key=str) == sorted([key, key, None], key=str)


def test_a_client_of_one_server_sends_the_key_too(fleet: Fleet) -> None:
    address = fleet.addresses[0]
    with Client(server=address, encoder=address) as client:
        assert ask(client).client.server == address
        client.encode(CAT)
    assert [metadata[HEADER] for metadata in fleet.at(address).metadata] == [affinity_key([Image.from_bytes(CAT)])] * 2


def test_a_server_that_is_gone_is_passed_over_and_its_images_come_back_once_it_is_there_again(fleet: Fleet) -> None:
    with Client(server=fleet.addresses, retry=ONCE, affinity=Affinity(rest_ms=1, max_rest_ms=50)) as client:
        homes = {image: ask(client, image).client.server for image in IMAGES}
        gone = homes[CAT]
        fleet.stop(gone)
        meanwhile = {image: ask(client, image).client.server for image in IMAGES}
        assert {image for image in IMAGES if meanwhile[image] != homes[image]} == {
            image for image in IMAGES if homes[image] == gone
        }
        fleet.start(gone)
        deadline = time.monotonic() + 30
        while ask(client).client.server != gone:
            assert time.monotonic() < deadline
        assert {image: ask(client, image).client.server for image in IMAGES} == homes


def test_one_failure_is_enough_for_all_calls(fleet: Fleet) -> None:
    with Client(server=fleet.addresses, retry=ONCE, affinity=LONG) as client:
        fleet.stop(ask(client).client.server)
        # The one that is gone, the next by a digest that it lacks, the bytes.
        assert [ask(client).client.attempts for _ in range(3)] == [3, 1, 1]


def test_a_busy_server_hands_on_at_once(fleet: Fleet) -> None:
    with Client(server=fleet.addresses, retry=ONCE) as client:
        home = ask(client).client.server
        fleet.at(home).fail_with = [busy(600_000)]
        handed_on = ask(client).client
        assert (handed_on.attempts, handed_on.server == home) == (3, False)  # the next lacked the image
        assert ask(client).client.attempts == 1  # it is left alone as long as it asked, at most max_rest_ms
    assert len(fleet.at(home).requests) == 2


def test_where_all_are_busy_the_call_waits_as_told(fleet: Fleet) -> None:
    for deployment in fleet.deployments:
        deployment.fail_with = [busy(50)]
    with Client(server=fleet.addresses, retry=Retry(attempts=2)) as client:
        answer = ask(client)
    assert answer.client.attempts == 4
    assert answer.client.total_ms >= 50
    assert sorted(fleet.requests) == [1, 1, 2]


def test_nothing_is_asked_of_another_server_once_text_was_delivered(fleet: Fleet) -> None:
    with Client(server=fleet.addresses, affinity=LONG) as client:
        home = ask(client).client.server
        before = fleet.requests
        fleet.at(home).hold_after_first_text.clear()
        with client.stream(CAT, "what?") as stream:
            assert next(event for event in stream if isinstance(event, TextDelta)).text == "1"
            with ThreadPoolExecutor(1) as pool:
                stopped = pool.submit(fleet.stop, home)
                with pytest.raises((Unavailable, Cancelled)):
                    list(stream)
                stopped.result()
    assert sum(fleet.requests) == sum(before) + 1


def test_an_answer_that_breaks_off_is_the_last_that_its_server_is_asked_for_a_while(fleet: Fleet) -> None:
    with Client(server=fleet.addresses, affinity=LONG) as client:
        home = ask(client).client.server
        fleet.at(home).fail_after_first_text = Unavailable("stopping")
        with pytest.raises(Unavailable, match="stopping"):
            ask(client)
        assert ask(client).client.server != home


def test_a_server_that_lacks_the_image_is_sent_its_bytes(fleet: Fleet) -> None:
    with Client(server=fleet.addresses, retry=ONCE, affinity=LONG) as client:
        home = ask(client).client.server
        fleet.stop(home)
        answer = ask(client)
        other = fleet.at(answer.client.server)
        # By its digest to the one that is gone, by its digest to the next, and then whole to that one.
        assert answer.client.attempts == 3
        assert [size > 50_000 for size in other.sizes] == [False, True]
        assert ask(client).client.attempts == 1


def test_an_error_of_the_request_is_asked_of_nobody_else(fleet: Fleet) -> None:
    with Client(server=fleet.addresses) as client:
        home = ask(client).client.server
        fleet.at(home).fail_with = [InvalidArgument("x", "bad")]
        with pytest.raises(InvalidArgument):
            ask(client)
    assert sum(fleet.requests) == 2


def test_calls_at_once_spread_over_the_servers_within_the_bound(fleet: Fleet) -> None:
    for deployment in fleet.deployments:
        deployment.hold_before.clear()
    with (
        Client(server=fleet.addresses, affinity=Affinity(min_in_flight=1, load_factor=1.0)) as client,
        ThreadPoolExecutor(9) as pool,
    ):
        asked = [pool.submit(ask, client) for _ in range(9)]
        for deployment in fleet.deployments:
            for _ in range(3):
                assert deployment.entered.acquire(timeout=30)
            deployment.hold_before.set()
        answers = [each.result() for each in asked]
    assert len(answers) == 9
    assert fleet.requests == [3, 3, 3]


def test_the_encoder_may_be_several_too(fleet: Fleet) -> None:
    with Client(encoder=fleet.addresses, retry=ONCE, affinity=LONG) as client:
        for image in IMAGES:
            client.encode(image)
        encoded = [len(deployment.encodes) for deployment in fleet.deployments]
        assert sum(encoded) == len(IMAGES)
        assert sum(count > 0 for count in encoded) > 1
        # Each is looked for where it was encoded: these servers share no cache.
        assert [client.lookup(image) for image in IMAGES] == [(Place.MEMORY,)] * len(IMAGES)
        fleet.stop(fleet.addresses[0])
        assert client.describe_encoder().model == "scripted"
        client.encode(CAT)


@pytest.mark.parametrize("option", ["--server", "VSCAN_SERVER"])
def test_the_command_line_takes_several_with_commas(
    fleet: Fleet, tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cat.png").write_bytes(CAT)
    with Client(server=fleet.addresses) as client:
        home = ask(client).client.server
    fleet.stop(home)
    servers = ", ".join(fleet.addresses)
    monkeypatch.setenv("VSCAN_SERVER", servers)
    arguments = [option, servers] if option == "--server" else []
    ran = vscan("ask", tmp_path / "cat.png", "what?", *arguments)
    assert (ran.code, ran.out) == (0, "1 image(s): what?\n")


# ── A name with several addresses.

NAME = "decoders.test"


class Names:
    """What a name server says, and how often it was asked."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = list(hosts)
        self.fail = False
        self.asked = 0

    async def look_up(self, name: Address) -> list[str]:
        assert name.host == NAME
        self.asked += 1
        if self.fail:
            raise Unavailable(f"{NAME}: no address was found")
        return list(self.hosts)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names("127.0.0.1", "127.0.0.2")
    monkeypatch.setattr(resolving, "look_up", names.look_up)
    return names


@contextmanager
def pods() -> Iterator[tuple[str, dict[str, ScriptedDeployment]]]:
    """Two deployments at one port of two addresses, and the target that names both."""
    one, two = ScriptedDeployment(), ScriptedDeployment()
    with serving(one) as address:
        port = int(address.rpartition(":")[2])
        with serving(two, host="127.0.0.2", port=port) as other:
            yield f"dns:///{NAME}:{port}", {address: one, other: two}


def test_a_name_stands_for_all_its_addresses(names: Names) -> None:
    with pods() as (target, both), Client(server=target, insecure=True) as client:
        homes = [ask(client, image).client.server for image in IMAGES]
        assert set(homes) == both.keys()
        names.hosts.reverse()
        with Client(server=target, insecure=True) as other:
            assert [ask(other, image).client.server for image in IMAGES] == homes
    assert names.asked == 2  # once for each client


def test_a_name_is_plaintext_beyond_this_machine_and_never_asked_for(names: Names) -> None:
    with Client(server=f"dns:///{NAME}:7070") as client, pytest.raises(InvalidArgument, match="beyond this machine"):
        ask(client)
    assert names.asked == 0


async def test_addresses_come_and_go_while_calls_run(names: Names) -> None:
    refreshing = Affinity(rest_ms=600_000, max_rest_ms=600_000, refresh_s=0.001)
    with pods() as (target, both):
        first, second = both
        names.hosts = ["127.0.0.1"]
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(AsyncClient(server=target, insecure=True, affinity=refreshing))
            stack.callback(both[first].hold_after_first_text.set)
            both[first].hold_after_first_text.clear()
            running = await stack.enter_async_context(client.stream(CAT, "what?"))
            await anext(running)
            names.hosts = ["127.0.0.2"]

            async def is_asked() -> bool:
                return (await client.ask(CAT, "what?")).client.server == second

            both[first].hold_after_first_text.set()
            await until(is_asked, what="the new address")
            # The call that ran at the address that left comes to its end there.
            assert len([event async for event in running]) == 4
            assert running.answer.client.server == first
            assert client._decoders._connections.keys() == {second}  # and its connection with it
            names.fail = True
            asked = names.asked

            async def has_asked_the_name_server() -> bool:
                assert await is_asked()  # what was known is kept
                return names.asked > asked + 1

            await until(has_asked_the_name_server, what="another look-up")


async def test_a_failure_has_the_name_looked_up_again(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vscan_client._replicas._LEAST_REFRESH_S", 0.0)
    with pods() as (target, both):
        _, second = both
        names.hosts = ["127.0.0.3"]  # where nobody is
        patient = Retry(attempts=100, backoff_ms=5, max_backoff_ms=50, budget=100)
        async with AsyncClient(server=target, insecure=True, retry=patient) as client:

            async def look_up(name: Address) -> list[str]:
                return await names.look_up(name) if names.asked == 0 else ["127.0.0.2"]

            monkeypatch.setattr(resolving, "look_up", look_up)
            assert (await client.ask(CAT, "what?")).client.server == second


def test_a_name_that_is_not_there_yet_is_asked_for_again(names: Names) -> None:
    with pods() as (target, both):
        names.fail = True
        with Client(server=target, insecure=True, retry=ONCE) as client:
            with pytest.raises(Unavailable, match="no address was found"):
                ask(client)
            names.fail = False
            assert ask(client).client.server in both


async def test_a_name_server_that_says_nothing_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def look_up(name: Address) -> list[str]:
        asked.set()
        return await asyncio.Future()

    monkeypatch.setattr(resolving, "look_up", look_up)
    target = f"dns:///{NAME}:7070"
    async with AsyncClient(server=target, insecure=True, retry=ONCE, timeout=Timeout(connect=0.01)) as client:
        with pytest.raises(Unavailable, match=r"decoders\.test: no address was found within 0\.01 s"):
            await client.ask(CAT, "what?")
    asked.clear()
    client = AsyncClient(server=target, insecure=True)
    waiting = asyncio.create_task(client.ask(CAT, "what?"))
    await asked.wait()
    await client.aclose()
    with pytest.raises(Cancelled):
        await waiting


def test_a_certificate_bears_the_name_not_the_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    own = authority.issue(NAME)
    credentials = grpc.ssl_server_credentials([(own.key_file.read_bytes(), own.cert_file.read_bytes())])

    async def look_up(name: Address) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setattr(resolving, "look_up", look_up)
    with serving(ScriptedDeployment(), credentials=credentials) as address:
        port = address.rpartition(":")[2]
        tls = Tls(ca_file=authority.ca_file)
        with Client(server=f"dns:///{NAME}:{port}", tls=tls) as client:
            assert ask(client).client.server == address
        with (
            Client(server=f"dns:///other.test:{port}", tls=tls, retry=ONCE) as client,
            pytest.raises(Unavailable),
        ):
            ask(client)
