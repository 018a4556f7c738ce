"""`vscan up`."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from vscan.errors import InvalidArgument, StartupError
from vscan_client.cli import connection as shared
from vscan_client.cli.extras import needs_extra
from vscan_client.cli.secret_arguments import refuse_password_in
from vscan_client.cli.serve import Service, SettingsOption, assignment
from vscan_client.cli.settings_file import SettingsFile, read_settings

if TYPE_CHECKING:
    from vscan_client.cli.local_stack import Addresses, LocalStack

DEFAULT_PAGE = "127.0.0.1:7080"
DEFAULT_GATEWAY = "127.0.0.1:8000"


def up(
    model: Annotated[Path | None, typer.Option("--model", help="Checkpoint directory. Default: the embedded model.")] = None,
    decoder: Annotated[
        str, typer.Option("--decoder", help="Where the decoder listens; port 0 takes a free one.")
    ] = shared.DEFAULT_SERVER,
    encoder: Annotated[
        str, typer.Option("--encoder", help="Where the encoder listens; port 0 takes a free one.")
    ] = shared.DEFAULT_ENCODER,
    redis_url: Annotated[
        str | None, typer.Option("--redis-url", help="A Redis that runs already; empty for none. Default: one is started.")
    ] = None,
    redis_password_file: Annotated[
        Path | None, typer.Option("--redis-password-file", help="File with the password of that Redis.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N, for both.")] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="auto, float32, bfloat16 or float16, for both.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("-s", "--set", metavar="SERVICE.NAME=VALUE", help="Any setting: decoder.max_queue=8.")
    ] = None,
    settings_file: SettingsOption = None,
    logs: Annotated[Path | None, typer.Option("--logs", help="A folder for a log file each, instead of this terminal.")] = None,
    otlp_endpoint: shared.OtlpOption = None,
    page: Annotated[bool, typer.Option("--page", help="Serve a page for a browser too.")] = False,
    page_bind: Annotated[
        str, typer.Option("--page-bind", help="Where that page listens; port 0 takes a free one.")
    ] = DEFAULT_PAGE,
    gateway: Annotated[bool, typer.Option("--gateway", help="Serve an endpoint for OpenAI's clients too.")] = False,
    gateway_bind: Annotated[
        str, typer.Option("--gateway-bind", help="Where that endpoint listens; port 0 takes a free one.")
    ] = DEFAULT_GATEWAY,
    start_timeout: Annotated[
        float, typer.Option("--start-timeout", min=1, help="Seconds that a service may take to start.")
    ] = 600,
) -> None:
    """Start Redis, the encoder and the decoder on this machine, and end them together."""
    if page:
        with needs_extra("page", "vscan up --page"):
            import page_service.server  # noqa: F401
    if gateway:
        with needs_extra("gateway", "vscan up --gateway"):
            import gateway_service.wiring  # noqa: F401
    from vscan_client.cli.local_stack import LocalStack

    file = read_settings(settings_file)
    both = {"device": device, "dtype": dtype, "redis_password_file": _absolute(redis_password_file)}
    options = by_service(settings or [], gateway=gateway, **both)
    told = {service: {**file.of(service), **options[service]} for service in options}
    for url in (redis_url, *(each.get("redis_url") for each in told.values())):
        refuse_password_in(url, "redis_url")
    with Output(logs) as output, sigterm_as_ctrl_c():
        stack = LocalStack(
            model=model,
            decoder_bind=decoder,
            encoder_bind=encoder,
            redis_url=redis_url,
            settings=told,
            otlp_endpoint=otlp_endpoint,
            on_line=output.line,
            page_bind=page_bind if page else None,
            gateway_bind=gateway_bind if gateway else None,
            start_timeout_s=start_timeout,
        )
        print(f"starting {model or 'the embedded model'} …", flush=True)
        with _started(stack, file):
            _serve_until_stopped(stack, output)


@contextmanager
def _started(stack: LocalStack, file: SettingsFile) -> Iterator[None]:
    """A stack that runs meanwhile. Raises StartupError, which names the file where a setting of it is refused."""
    with file.named_in_errors():
        stack.start()
    try:
        yield
    finally:
        stack.stop()


class Output:
    """Where the children's lines go: to files of their own, or to stdout, each with its child's name before it.

    On the terminal lines are held back until `release`, so that a refusal to start is one line.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._held: list[str] | None = []
        self._lock = threading.Lock()
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidArgument("--logs", f"{folder}: {error.strerror}") from error

    def line(self, name: str, line: str) -> None:
        """A line that a child wrote."""
        with self._lock:
            if self._folder is not None:
                with (self._folder / f"{name}.log").open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
            elif self._held is not None:
                self._held.append(f"{name:<7} | {line}")
            else:
                self._write(f"{name:<7} | {line}\n")

    def release(self) -> None:
        """Writes what was held back; from now on lines are written as they come."""
        with self._lock:
            self._write("".join(f"{line}\n" for line in self._held or ()))
            self._held = None

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except (BrokenPipeError, ValueError):
            self._held = None  # nobody reads any more; the stack goes on

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        self._held = None


def _serve_until_stopped(stack: LocalStack, output: Output) -> None:
    try:
        print(_how_to_reach(stack.addresses), flush=True)  # whoever reads it may stop the stack at once
        output.release()
        death = stack.wait()
    except KeyboardInterrupt:
        print("stopping …", flush=True)
        return
    if death is not None:
        raise StartupError(f"{death.name}: {death.why}; the others were stopped")


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Meanwhile SIGTERM ends what runs as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def by_service(settings: list[str], *, gateway: bool = False, **of_both: str | None) -> dict[str, dict[str, str]]:
    """`encoder.NAME=VALUE` and `decoder.NAME=VALUE` by service, beside what holds for both; with a `gateway` its own too.

    Raises:
        InvalidArgument: one is of no such form.
    """
    both = {name: value for name, value in of_both.items() if value is not None}
    found = {service.value: dict(both) for service in (Service.ENCODER, Service.DECODER)}
    if gateway:
        found[Service.GATEWAY.value] = {}
    for text in settings:
        service, dot, rest = text.partition(".")
        if service == Service.GATEWAY and not gateway:
            raise InvalidArgument("-s", f"{text!r} is for a gateway: add --gateway")
        if not dot or service not in found:
            raise InvalidArgument("-s", f"{text!r} is not of the form encoder.NAME=VALUE or decoder.NAME=VALUE")
        name, value = assignment(rest)
        found[service][name] = value
    return found


def _how_to_reach(addresses: Addresses) -> str:
    server = "" if addresses.decoder == shared.DEFAULT_SERVER else f" --server {addresses.decoder}"
    return "\n".join(
        [
            "ready",
            f"  decoder  {addresses.decoder}",
            f"  encoder  {addresses.encoder}",
            f"  redis    {addresses.redis_url or 'none'}",
            *([f"  gateway  http://{addresses.gateway}/v1"] if addresses.gateway else []),
            *([f"  page     http://{addresses.page}/"] if addresses.page else []),
            f"  ask      vscan ask{server} FILE... QUESTION",
            "  stop     Ctrl-C",
        ]
    )
