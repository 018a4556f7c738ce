"""A whole service process around the toy decoder: `python -m tests.support.toy_service_main [field=value …]`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from tests.support.toy_services import DECODER, ToyDecoder
from vscan.config import ServiceSettings
from vscan.errors import CheckpointError
from vscan.rpc.server import RpcServer
from vscan.rpc.service_main import run_service
from vscan.rpc.settings import RpcSettings
from vscan.telemetry.providers import Telemetry
from vscan.telemetry.settings import TelemetrySettings
from vscan.v1 import decoder_pb2_grpc


class ToySettings(RpcSettings, TelemetrySettings, ServiceSettings):
    """What the toy can be told."""

    model_config = SettingsConfigDict(env_prefix="VSCAN_TOY_")

    fault: str = Field(
        default="", description="What goes wrong once the port is open: checkpoint, bug, slow; or at the end: hang."
    )


async def serve(settings: ToySettings, telemetry: Telemetry, on_stopping: Callable[[float], None]) -> None:
    """As a service's `__main__` does it."""
    if settings.fault == "hang":
        threading.Thread(target=threading.Event().wait, name="wedged").start()  # for which the interpreter waits as it ends
        patience, on_stopping = on_stopping, lambda seconds: patience(min(seconds, 0.5))
    server = RpcServer(settings, services=[DECODER], telemetry=telemetry, on_stopping=on_stopping)
    decoder_pb2_grpc.add_DecoderServicer_to_server(ToyDecoder(), server.server)  # type: ignore[no-untyped-call]
    await server.start()
    if settings.fault == "checkpoint":
        raise CheckpointError("`bind` has nothing to do with it:\nthe checkpoint lacks a half")
    if settings.fault == "slow":
        threading.Event().wait()
    if settings.fault == "bug":
        raise ValueError("a bug of ours")
    await server.set_ready(DECODER, True)
    await server.wait_for_termination()


def main(arguments: list[str]) -> int:
    """Every argument is `field=value`."""
    return run_service("vscan-toy", ToySettings, serve, dict(argument.split("=", 1) for argument in arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
