"""Real encoders for tests: in this process, wired as `python -m encoder_service` wires them, or as a process of their own."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import torch
from PIL import Image

from encoder_service.config import EncoderSettings
from encoder_service.service import EncoderService
from encoder_service.wiring import build
from vscan.rpc.error_details import error_from_rpc
from vscan.telemetry.providers import Telemetry
from vscan.v1 import encoder_pb2, encoder_pb2_grpc, visual_tokens_pb2

PARITY = Path(__file__).parents[1] / "data" / "parity"
LLAVA15 = PARITY / "llava15"
START_SECONDS = 120
# As the parity cases were made.
PARITY_SETTINGS: Mapping[str, Any] = {
    "model": LLAVA15,
    "device": "cpu",
    "dtype": "float32",
    "shallow_layer": 5,
    "window": 6,
    "redis_url": "",
    "bind": "127.0.0.1:0",
    "drain_seconds": 5,
}


@dataclass(frozen=True)
class RunningEncoder:
    """An encoder in this process, and a client of it."""

    service: EncoderService
    address: str
    stub: Any  # VisionEncoderStub
    channel: grpc.aio.Channel

    async def encode(self, data: bytes, **reduction: Any) -> encoder_pb2.EncodeResponse:
        """Encodes an image file; `reduction` are fields of ReductionSpec."""
        response: encoder_pb2.EncodeResponse = await self.stub.Encode(encode_request(data, **reduction), timeout=60)
        return response

    async def refusal(self, call: Any) -> Any:
        """The typed error that a call ends with."""
        try:
            await call
        except grpc.aio.AioRpcError as error:
            return error_from_rpc(error)
        raise AssertionError("the call was answered")


@asynccontextmanager
async def running_encoder(telemetry: Telemetry | None = None, **changes: Any) -> AsyncIterator[RunningEncoder]:
    """An encoder on a free port of loopback; memory cache only unless `redis_url` is given. Stops at the end."""
    torch.set_num_threads(1)
    service = await build(EncoderSettings(**{**PARITY_SETTINGS, **changes}), telemetry or Telemetry())
    try:
        address = await service.start()
        async with encoder_channel(address) as channel:
            yield RunningEncoder(service, address, encoder_stub(channel), channel)
    finally:
        await service.stop()


def encoder_stub(channel: grpc.aio.Channel) -> Any:
    """A client of an encoder."""
    return encoder_pb2_grpc.VisionEncoderStub(channel)  # type: ignore[no-untyped-call]


def encoder_channel(address: str) -> grpc.aio.Channel:
    """A plain channel with room for large messages."""
    return grpc.aio.insecure_channel(
        address, options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    )


class EncoderProcess:
    """`python -m encoder_service` on a free port. A context manager; `address` is set once it serves.

    Give `redis_url` for a shared cache; other settings by field name. Blocking: use it from sync fixtures or threads.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.address = ""
        self._ready_file = folder / "encoder.ready"
        self._log = folder / "encoder.log"
        self._settings = {**PARITY_SETTINGS, "torch_threads": 1, **settings, "ready_file": self._ready_file}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> EncoderProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """What it has printed."""
        return self._log.read_text()

    def start(self) -> EncoderProcess:
        """Starts it and waits until its port is open, and so until it is ready."""
        self._ready_file.unlink(missing_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "encoder_service"], env=encoder_environment(self._settings), stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready_file.exists():
            if self._process.poll() is not None:
                raise RuntimeError(f"the encoder ended with {self._process.returncode}:\n{self.log}")
            if time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the encoder did not serve within {START_SECONDS} s:\n{self.log}")
            time.sleep(0.02)
        self.address = self._ready_file.read_text().strip()
        return self

    def stop(self) -> int:
        """Ends it in order and returns its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """Ends it at once."""
        return self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freezes it: connections stay open, nothing is answered and nothing renewed."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, which: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("this encoder does not run")
        self._process.send_signal(which)

    def _end(self, how: signal.Signals) -> int:
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(signal.SIGCONT)  # a paused process would not hear SIGTERM
        process.send_signal(how)
        return process.wait(timeout=START_SECONDS)


def encoder_environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """This process's environment with an encoder's settings in it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VSCAN_")}
    return clean | {f"VSCAN_ENCODER_{name.upper()}": str(value) for name, value in settings.items() if value is not None}


def refused_start(**settings: Any) -> tuple[int, str]:
    """Exit code and stderr of an encoder that should not start."""
    done = subprocess.run(
        [sys.executable, "-m", "encoder_service"],
        env=encoder_environment({**PARITY_SETTINGS, **settings}),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    return done.returncode, done.stderr


def encode_request(data: bytes, **reduction: Any) -> encoder_pb2.EncodeRequest:
    """A request for one image file; `reduction` are fields of ReductionSpec."""
    return encoder_pb2.EncodeRequest(
        image=visual_tokens_pb2.Image(data=data), reduction=visual_tokens_pb2.ReductionSpec(**reduction)
    )


def tokens_per_tile(count: int) -> visual_tokens_pb2.Budget:
    """A budget in tokens."""
    return visual_tokens_pb2.Budget(tokens_per_tile=count)


def png(seed: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A picture of coloured blocks, another one for each seed."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (6, 8, 3), generator=generator, dtype=torch.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks.numpy()).resize(size, Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()
