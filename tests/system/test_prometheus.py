"""Rules, alerts and dashboard as Prometheus reads them: its own checks, and a real one over live services."""

from __future__ import annotations

import asyncio
import contextlib
import math
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
import yaml

from scripts.observability.promql import names_in
from scripts.observability.sources import (
    PROMETHEUS,
    RULE_FILES,
    Expression,
    alerts,
    all_expressions,
    choices,
    level_labels,
    panels,
    recorded,
)
from tests.support.asking import ask, chat, decoder_stub, refusal
from tests.support.encoder import png
from tests.support.gateway import question
from tests.support.prometheus_server import PrometheusServer, QueryFailed
from tests.support.redis_server import RedisServer, free_port
from tests.support.service_process import ServiceProcess
from tests.support.stack import ProcessStack, process_stack
from tests.support.until import until
from vscan.cache.redis import KEY_PREFIX

pytestmark = pytest.mark.system

# Series that these services have no reason to make; what names one of them may find nothing.
ABSENT = {
    "vscan_refusals_total": "nobody is refused: there are neither identities nor limits",
    "vscan_decoder_given_up_seconds_count": "nobody leaves before an answer begins",
    "vscan_tls_certificate_expiry_seconds": "there is no TLS",
    "vscan_encoder_shared_total": "no two ask for a new image at once",
}
# How many calls end well in one turn of traffic, at least.
EACH_TURN = {"/vscan.v1.Decoder/Generate": 7, "/vscan.v1.VisionEncoder/Encode": 4, "200": 2, "413": 1}
# What the dashboard's variables and Grafana itself put in.
VARIABLES = {"$__rate_interval": "5m", "$namespace": ".*", "$job": ".*", "$instance": ".*"}


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_promtool_accepts_configuration_and_rules() -> None:
    checked = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    linted = promtool("check", "rules", "--lint=all", "--lint-fatal", *(PROMETHEUS / name for name in RULE_FILES))
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_alerts_fire_when_they_should_and_not_otherwise() -> None:
    tested = promtool("test", "rules", *sorted((PROMETHEUS / "tests").glob("*.yml")))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_changed_threshold_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    of_one_group = PROMETHEUS / "tests" / "gateway.yml"
    for path in [*(PROMETHEUS / name for name in RULE_FILES), of_one_group]:
        changed = path.read_text().replace("http_requests:rate5m) > 0.05", "http_requests:rate5m) > 0.5")
        (tmp_path / path.relative_to(PROMETHEUS)).write_text(changed)
    tested = promtool("test", "rules", tmp_path / "tests" / of_one_group.name)
    assert tested.returncode != 0
    assert "VScanGatewayFails" in tested.stdout + tested.stderr


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """Prometheus over services that have answered, refused, pruned, cached, rejected, and left Redis alone."""
    folder = tmp_path_factory.mktemp("prometheus")
    ports = {f"vscan-{name}": free_port() for name in ("encoder", "decoder", "gateway")}
    encoder = {"metrics_bind": f"127.0.0.1:{ports['vscan-encoder']}"}
    # Without memory of its own the decoder goes to Redis for every image.
    decoder = {"metrics_bind": f"127.0.0.1:{ports['vscan-decoder']}", "cache_memory_bytes": 0, "redis_breaker_faults": 1}
    with (
        RedisServer() as cache,
        process_stack(folder, redis=cache, encoder=encoder, decoder=decoder) as stack,
        _gateway(folder, stack.decoder_address, ports["vscan-gateway"]) as gateway,
        PrometheusServer(folder, _config(ports), PROMETHEUS) as server,
    ):
        asyncio.run(_make_traffic(stack, cache, server, gateway))
        yield server


@contextlib.contextmanager
def _gateway(folder: Path, decoder: str, metrics_port: int) -> Iterator[ServiceProcess]:
    settings = {"decoder_address": decoder, "metrics_bind": f"127.0.0.1:{metrics_port}", "max_body_bytes": 65_536}
    process = ServiceProcess("gateway", folder, settings)
    try:
        process.start()
        yield process
    finally:
        process.stop()


def _config(ports: Mapping[str, int]) -> dict[str, Any]:
    """That of `prometheus.yml`, for services that are somewhere else."""
    config: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}] if job["job_name"] in ports else []
    return config


async def _make_traffic(stack: ProcessStack, cache: RedisServer, server: PrometheusServer, gateway: ServiceProcess) -> None:
    """The same twice: a series that begins at 1 has grown for Prometheus only when it grows again."""
    for turn in range(2):
        before = await asyncio.to_thread(_ended, server)
        await _ask_all(stack, cache, [png(2 * turn), png(2 * turn + 1)])
        await _ask_over_http(gateway)

        async def is_scraped(before: Mapping[str, float] = before) -> bool:
            ended = await asyncio.to_thread(_ended, server)
            return all(ended.get(what, 0) >= before.get(what, 0) + least for what, least in EACH_TURN.items())

        await until(is_scraped)


async def _ask_all(stack: ProcessStack, cache: RedisServer, pictures: Sequence[bytes]) -> None:
    async with decoder_stub(stack.decoder_address) as stub:
        for picture in (*pictures, *pictures):
            await ask(stub, chat(picture, "What is here?"))
        await refusal(stub, chat(b"no image at all", "What is here?"))
        with redis.Redis.from_url(cache.url) as client:
            for name in client.scan_iter(f"{KEY_PREFIX}*"):
                client.set(name, b"not an entry")
        await ask(stub, chat(pictures[0], "What is here?"))  # rejected, and found at the encoder
        cache.pause()
        await ask(stub, chat(pictures[0], "What is here?"))  # Redis does not answer, and is left alone
        cache.resume()


async def _ask_over_http(gateway: ServiceProcess) -> None:
    async with httpx2.AsyncClient(base_url=f"http://{gateway.address}/v1", timeout=60) as client:
        body = {"model": (await client.get("/models")).json()["data"][0]["id"], "messages": question("What is here?")}
        assert (await client.post("/chat/completions", json=body)).status_code == 200
        assert (await client.post("/chat/completions", json={"user": "x" * 70_000})).status_code == 413


def _ended(server: PrometheusServer) -> dict[str, float]:
    """Questions and encodings that ended well, and statuses of HTTP, as far as Prometheus knows."""
    calls = server.query('sum by (rpc_method) (vscan_requests_total{rpc_method=~".+/(Generate|Encode)",vscan_status="OK"})')
    http = server.query("sum by (http_response_status_code) (http_server_request_duration_seconds_count)")
    return {"".join(series["metric"].values()): float(series["value"][1]) for series in (*calls, *http)}


def _recorded_names() -> list[Expression]:
    return [Expression(f"rule {name}", name) for name in recorded()]


def unanswered(server: PrometheusServer, expressions: Sequence[Expression]) -> list[str]:
    """What Prometheus does not understand, and what it finds no number for though it should."""
    return [f"{one.place}: {problem}" for one in expressions if (problem := _problem(server, one.text))]


async def left_unanswered(server: PrometheusServer, expressions: Sequence[Expression]) -> list[str]:
    """The same once it has had time: Prometheus scrapes and evaluates once a second."""
    left: list[str] = []

    async def all_are_answered() -> bool:
        left[:] = await asyncio.to_thread(unanswered, server, expressions)
        return not left

    with contextlib.suppress(AssertionError):
        await until(all_are_answered)
    return left


def _problem(server: PrometheusServer, text: str) -> str:
    for variable, value in VARIABLES.items():
        text = text.replace(variable, value)
    try:
        found = server.query(text)
    except QueryFailed as error:
        return str(error)
    numbers = [series for series in found if not math.isnan(float(series["value"][1]))]
    return "" if numbers or _may_be_absent(text) else f"nothing but {found}"


def _may_be_absent(text: str) -> bool:
    names = names_in(text).metrics
    behind = [name for one in names if one in recorded() for name in names_in(recorded()[one]).metrics]
    # A rule that reads another one has what that has, but for those which make a number of nothing.
    return bool({*names, *behind} & set(ABSENT)) and not {*names} & {"namespace:vscan_answers_failed:rate5m"}


async def test_every_recorded_name_has_a_value_with_the_labels_that_it_says(prometheus: PrometheusServer) -> None:
    assert await left_unanswered(prometheus, _recorded_names()) == []
    for name in recorded():
        for series in prometheus.query(name):
            assert set(series["metric"]) - {"__name__"} <= level_labels(name), name


async def test_every_panel_has_something_to_show(prometheus: PrometheusServer) -> None:
    assert await left_unanswered(prometheus, [*panels(), *choices()]) == []


def test_every_metric_that_an_alert_reads_is_there(prometheus: PrometheusServer) -> None:
    metrics = {name for alert in alerts() for name in names_in(alert["expr"]).metrics}
    assert unanswered(prometheus, [Expression(name, name) for name in sorted(metrics)]) == []


def test_no_rule_fails_and_nothing_fires(prometheus: PrometheusServer) -> None:
    rules = prometheus.rules()
    assert len(rules) == len(recorded()) + len(alerts())
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    pages = {alert["alert"] for alert in alerts() if alert["labels"]["severity"] == "page"}
    assert [rule["name"] for rule in rules if rule.get("state") == "firing" and rule["name"] in pages] == []


@pytest.mark.parametrize(
    "wrong",
    [
        lambda text: text.replace("vscan_requests_total", "vscan_request_total"),
        lambda text: text.replace("vscan.v1.Decoder/Generate", "vscan.v1.Decoder/Answer"),
        lambda text: text + ")",
    ],
    ids=["metric", "label", "syntax"],
)
def test_a_wrong_query_is_noticed(prometheus: PrometheusServer, wrong: Callable[[str], str]) -> None:
    (right,) = [one for one in all_expressions() if one.place == "panel 'Questions by status', A"]
    assert unanswered(prometheus, [right]) == []
    assert len(unanswered(prometheus, [Expression(right.place, wrong(right.text))])) == 1
