"""Production's manifests as processes: TLS, identities, Redis' users, traces, metrics. The autoscalers' queries, evaluated."""

from __future__ import annotations

import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
import httpx2
import pytest
import redis
import yaml
from redis.exceptions import NoPermissionError

from tests.support.encoder import png
from tests.support.gateway import question
from tests.support.identities import IdentitiesFile
from tests.support.manifests.adapter import adapted_metrics
from tests.support.manifests.cluster import PodRedis, PodService
from tests.support.manifests.mounted import Mounts
from tests.support.manifests.objects import named
from tests.support.manifests.rendering import Objects, rendered
from tests.support.otlp_collector import OtlpCollector
from vscan.errors import Unauthenticated, Unavailable
from vscan_client import Client, Retry, Tls

pytestmark = pytest.mark.system

DEBIAN_REDIS = "/usr/bin/redis-server"
ONCE = Retry(attempts=1)


@dataclass(frozen=True)
class Production:
    """The processes and what they were told."""

    objects: Objects
    mounts: Mounts
    people: IdentitiesFile
    redis: PodRedis
    encoder: PodService
    decoder: PodService
    gateway: PodService
    collector: OtlpCollector

    def client(self, token: str, encoder: str | None = None) -> Client:
        tls = Tls(ca_file=self.mounts.authority.ca_file)
        return Client(server=self.decoder.address, encoder=encoder, tls=tls, token=token, retry=ONCE)

    def asks_over_http(self, token: str, picture: bytes) -> httpx2.Response:
        """As OpenAI's clients ask."""
        context = ssl.create_default_context(cafile=str(self.mounts.authority.ca_file))
        body = {"model": "embedded", "messages": question("what color is the circle", picture)}
        headers = {"authorization": f"Bearer {token}"} if token else {}
        url = f"https://{self.gateway.address}/v1/chat/completions"
        return httpx2.post(url, json=body, headers=headers, verify=context, timeout=60)


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    folder = tmp_path_factory.mktemp("production")
    people = IdentitiesFile(folder / "people")
    people.add("shop-web", "shop")
    people.add("lab-web", "lab")
    objects = rendered("overlays/production")
    mounts = Mounts(folder, identities=people.path.read_text())
    places = mounts.places(objects, "otel-collector")
    certificate, key = ((places["/run/secrets/vscan-tls"] / name).read_bytes() for name in ("tls.crt", "tls.key"))
    collector = OtlpCollector(credentials=grpc.ssl_server_credentials([(key, certificate)]))
    with collector, PodRedis(objects, mounts, DEBIAN_REDIS) as server:
        # What a machine without GPU, cluster DNS and checkpoint wants otherwise; all else is the manifests'.
        anywhere = {"OTLP_ENDPOINT": collector.endpoint, "DRAIN_DELAY_SECONDS": 0}
        here = anywhere | {
            "DEVICE": "cpu",
            "MODEL": None,
            "TORCH_THREADS": 1,
            "REDIS_URL": f"rediss://vscan@127.0.0.1:{server.port}/0",
        }
        encoder = PodService("encoder", objects, mounts, folder, here, read_only=True)
        of_decoder = here | {"ENCODER_ADDRESS": f"dns:///127.0.0.1:{encoder.port}"}
        decoder = PodService("decoder", objects, mounts, folder, of_decoder, read_only=True)
        of_gateway = anywhere | {"DECODER_ADDRESS": f"dns:///127.0.0.1:{decoder.port}"}
        gateway = PodService("gateway", objects, mounts, folder, of_gateway, read_only=True)
        services = (encoder, decoder, gateway)
        try:
            for service in services:
                service.launch()
            for service in services:
                service.wait_ready()
            yield Production(objects, mounts, people, server, *services, collector)
        finally:
            with ThreadPoolExecutor() as each:
                list(each.map(PodService.stop, reversed(services)))


def test_a_question_is_answered_and_its_image_kept_in_redis(production: Production) -> None:
    with production.client(production.people.tokens["shop-web"]) as client:
        answer = client.ask(png(3), "what color is the circle")
    assert answer.text
    assert answer.images[0].place.name == "ENCODED"
    password = production.mounts.made_secrets["vscan-redis"]["password"]
    ca_file = str(production.mounts.authority.ca_file)
    at = {"host": "127.0.0.1", "port": production.redis.port, "ssl": True, "ssl_ca_certs": ca_file}
    with redis.Redis(**at, username="vscan", password=password) as services, pytest.raises(NoPermissionError):
        services.keys("*")
    with redis.Redis(**at) as anybody:
        assert anybody.ping()
        with pytest.raises(NoPermissionError):
            anybody.get("vscan:x")
    figures = scrape(production, "encoder")
    assert "vscan_cache_writes_total{" in figures
    assert 'vscan_cache_tier="redis"' in figures


def test_its_spans_reach_the_collector_over_tls_and_name_their_pod(production: Production) -> None:
    with production.client(production.people.tokens["shop-web"]) as client:
        client.ask(png(4), "what color is the circle")
    assert production.asks_over_http(production.people.tokens["shop-web"], png(4)).status_code == 200
    wanted = {"generate", "vit", "POST /v1/chat/completions"}
    spans = production.collector.wait_until(lambda spans: wanted <= {span.name for span in spans})
    pods = {(span.service, span.resource.get("k8s.pod.name"), span.resource.get("k8s.namespace.name")) for span in spans}
    assert {(pod, namespace) for _, pod, namespace in pods} == {("encoder-0", "vscan")}  # the test's stand-in for both
    assert {service for service, _, _ in pods} == {"vscan-encoder", "vscan-decoder", "vscan-gateway"}
    assert production.collector.metric_names == set()


def test_they_cannot_write_into_their_root(production: Production) -> None:
    """And have answered all the same."""
    for service in (production.encoder, production.decoder, production.gateway):
        mounts = [line.split() for line in Path(f"/proc/{service.pid}/mounts").read_text().splitlines()]
        (options,) = [options for _, place, _, options, *_ in mounts if place == "/"][-1:]
        assert options.split(",")[0] == "ro"


def test_nobody_else_is_let_in(production: Production) -> None:
    with production.client("not-a-token-that-anybody-has") as client, pytest.raises(Unauthenticated):
        client.ask(png(3), "what color is the circle")
    # A client with a token that is good at the decoder has no certificate for the encoder.
    token = production.people.tokens["shop-web"]
    with production.client(token, production.encoder.address) as client, pytest.raises(Unavailable):
        client.encode(png(3))


def test_openais_clients_are_answered_by_their_tokens_alone(production: Production) -> None:
    told = production.asks_over_http(production.people.tokens["lab-web"], png(3))
    assert told.status_code == 200, told.text
    assert told.json()["choices"][0]["message"]["content"]
    for token in ("", "not-a-token-that-anybody-has"):
        refused = production.asks_over_http(token, png(3))
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    with pytest.raises(httpx2.TransportError):
        httpx2.get(f"http://{production.gateway.address}/healthz")


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_kubelets_probes_find_the_services_well(production: Production, probe: str) -> None:
    for service in (production.encoder, production.decoder, production.gateway):
        assert service.passes(probe), service.kind


def test_prometheus_scrapes_as_its_monitors_say(production: Production) -> None:
    assert "http_server_request_duration_seconds_bucket" in scrape(production, "gateway")
    assert "vscan_encoder_queue_wait_milliseconds_bucket" in scrape(production, "encoder")
    assert "vscan_decoder_waiting" in scrape(production, "decoder")
    with pytest.raises(OSError):
        scrape(production, "encoder", show_certificate=False)


def scrape(production: Production, name: str, *, show_certificate: bool = True) -> str:
    """As Prometheus would with the ServiceMonitor's TLS; the name is checked too."""
    (endpoint,) = named(production.objects, "ServiceMonitor", name)["spec"]["endpoints"]
    context = ssl.create_default_context(cafile=str(production.mounts.authority.ca_file))
    context.check_hostname = False  # it is called 127.0.0.1 here, and by the monitor's serverName there
    if "cert" in endpoint["tlsConfig"] and show_certificate:
        issued = production.mounts.authority.issue_client(uris=["spiffe://vscan/prometheus"])
        context.load_cert_chain(issued.cert_file, issued.key_file)
    service: PodService = getattr(production, name)
    url = f"{endpoint['scheme']}://127.0.0.1:{service.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=30, context=context) as page:
        return str(page.read().decode())


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_the_probes_of_redis_find_it_well(production: Production, probe: str) -> None:
    assert run_probe(production.redis, probe).stdout == "PONG\n"


def test_its_liveness_fails_once_the_certificate_has_expired(tmp_path: Path) -> None:
    """Which restarts it, and so gives it the renewed one."""
    objects = rendered("overlays/production")
    mounts = Mounts(tmp_path)
    with PodRedis(objects, mounts, DEBIAN_REDIS) as server:
        assert run_probe(server, "livenessProbe").returncode == 0
    with PodRedis(objects, mounts, DEBIAN_REDIS) as server:
        issued = mounts.authority.issue_server("redis", valid_from=-timedelta(days=2), valid_for=timedelta(days=1))
        for file, content in mounts.certificate_files(issued).items():
            path = server.places["/run/secrets/vscan-tls"] / file
            path.chmod(0o640)
            path.write_bytes(content)
        assert run_probe(server, "livenessProbe").returncode == 0  # it has the one that it read at its start
        server.restart()
        expired = run_probe(server, "livenessProbe")
        assert expired.returncode != 0
        assert "certificate verify failed" in expired.stderr


def run_probe(server: PodRedis, kind: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(server.probe(kind), capture_output=True, text=True, timeout=30)


# ── The autoscalers' queries, and prometheus-adapter's, with series made up for five minutes.
def _evaluated(query: str, series: dict[str, str], expected: float | None, folder: Path, labels: str = "{}") -> None:
    """Raises CalledProcessError where promtool finds another value at five minutes."""
    samples = [] if expected is None else [{"labels": labels, "value": expected}]
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": query, "eval_time": "5m", "exp_samples": samples}],
    }
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [], "evaluation_interval": "15s", "tests": [test]}))
    subprocess.run(["promtool", "test", "rules", str(path)], check=True, capture_output=True, text=True)


def _up(job: str, *values: str) -> dict[str, str]:
    return {f'up{{namespace="vscan",job="{job}",pod="{job}-{n}"}}': value for n, value in enumerate(values)}


def _waits(per_second_at: dict[str, int]) -> dict[str, str]:
    """Counters of the encoder's buckets, all at one pod; how much each grows in 15 seconds."""
    name = 'vscan_encoder_queue_wait_milliseconds_bucket{namespace="vscan",job="encoder",pod="encoder-0",le="%s"}'
    return {name % le: f"0+{growth}x20" for le, growth in per_second_at.items()}


def _ready(*values: int) -> dict[str, str]:
    return {
        f'vscan_ready{{namespace="vscan",job="encoder",pod="encoder-{n}"}}': f"{value}x20" for n, value in enumerate(values)
    }


BUSY = {"100": 0, "200": 50, "500": 100, "+Inf": 100}  # half of them within 200 ms, half within 500: the 90th percentile is 440
ONE = "1x20"


@pytest.mark.parametrize(
    ("name", "series", "expected"),
    [
        ("encoder", _up("encoder", ONE, ONE) | _ready(1, 1) | _waits(BUSY), 880.0),  # two: 880 over 200 each asks for 5
        ("encoder", _up("encoder", ONE, "0x20") | _ready(1) | _waits(BUSY), 440.0),  # one of them away
        ("encoder", _up("encoder", ONE, ONE, ONE) | _ready(1, 1, 0) | _waits(BUSY), 880.0),  # the third loads its model
        ("encoder", _up("encoder", ONE, ONE) | _ready(1, 1) | _waits(dict.fromkeys(BUSY, 0)), 0.0),  # nobody asks
        ("encoder", _up("encoder", ONE, ONE) | _ready(1, 1), 0.0),  # nobody has ever asked
        ("encoder", _up("encoder", ONE) | _ready(0), 0.0),  # the first loads its model
        ("encoder", _waits(BUSY), None),  # Prometheus has lost them: nothing changes
        ("encoder", {}, None),
        ("decoder", _up("decoder", ONE) | {'vscan_decoder_waiting{namespace="vscan",pod="a"}': "7x20"}, 7.0),
        ("decoder", {f'vscan_decoder_waiting{{namespace="{space}",pod="a"}}': "7x20" for space in ("vscan", "lab")}, 7.0),
        ("decoder", _up("decoder", ONE, ONE), 0.0),
        ("decoder", {}, None),
    ],
)
def test_an_autoscalers_query(name: str, series: dict[str, str], expected: float | None, tmp_path: Path) -> None:
    scaler = named(rendered("overlays/production"), "ScaledObject", name)
    _evaluated(scaler["spec"]["triggers"][0]["metadata"]["query"], series, expected, tmp_path)
    with pytest.raises(subprocess.CalledProcessError):
        _evaluated(scaler["spec"]["triggers"][0]["metadata"]["query"], series, 12345.0, tmp_path)


# Of two encoders one has passes in a fifth of the time, one in three fifths; a decoder has 6 of its 8 places taken, another 2.
PASSES = {
    f'vscan_encoder_pass_milliseconds_sum{{namespace="vscan",pod="encoder-{n}"}}': f"0+{growth}x20"
    for n, growth in enumerate((3000, 9000))
}
PLACES = {
    f'vscan_decoder_{what}{{namespace="vscan",pod="decoder-{n}"}}': f"{value}x20"
    for n, taken in enumerate((6, 2))
    for what, value in (("running", taken), ("capacity", 8))
}


@pytest.mark.parametrize(
    ("name", "series", "expected"),
    [
        ("encoder", PASSES, 80.0),  # 20 and 60 %: one is enough
        ("encoder", _up("encoder", ONE), 0.0),
        ("encoder", {}, None),
        ("decoder", PLACES, 100.0),
        ("decoder", _up("decoder", ONE), 0.0),
        ("decoder", {}, None),
    ],
)
def test_what_keeps_replicas_that_have_work(name: str, series: dict[str, str], expected: float | None, tmp_path: Path) -> None:
    scaler = named(rendered("overlays/production"), "ScaledObject", name)
    _evaluated(scaler["spec"]["triggers"][1]["metadata"]["query"], series, expected, tmp_path)


@pytest.mark.parametrize(
    ("metric", "series", "expected"),
    [
        ("vscan_encoder_queue_wait_p90_milliseconds", _waits(BUSY), 440.0),
        ("vscan_encoder_queue_wait_p90_milliseconds", _waits(dict.fromkeys(BUSY, 0)), 0.0),
        ("vscan_encoder_queue_wait_p90_milliseconds", _up("encoder", ONE), None),
        ("vscan_encoder_busy_percent", dict([next(iter(PASSES.items()))]), 20.0),
        (
            "vscan_decoder_taken_percent",
            {name.replace("decoder-0", "encoder-0"): PLACES[name] for name in list(PLACES)[:2]},
            75.0,
        ),
        ("vscan_decoder_waiting", {'vscan_decoder_waiting{namespace="vscan",job="decoder",pod="encoder-0"}': "7x20"}, 7.0),
    ],
)
def test_what_the_adapter_makes_for_a_pod(metric: str, series: dict[str, str], expected: float | None, tmp_path: Path) -> None:
    _, query = adapted_metrics()[metric]
    _evaluated(query, series, expected, tmp_path, labels='{pod="encoder-0"}')
