"""The services of a run, on this machine, as the points want them one after the other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from studies.tune.grid import Known
from studies.tune.point import Deployment
from vscan.errors import StartupError
from vscan_client import Client
from vscan_client.cli.local_stack import ANY_PORT, LocalStack
from vscan_client.description import Description

_POLL_S = 0.05
_PAIRED_WITHIN_S = 60.0
# A prompt that finds its prefix in the KV cache has next to nothing to prefill, and points would find each other's.
# A decoder asks its encoder who it is this often; a replaced one has to be noticed.
_OURS = {"encoder": {}, "decoder": {"kv_reuse": "false", "encoder_refresh_seconds": "0.1"}}

Settings = Mapping[str, Mapping[str, str]]


class Deployed:
    """Starts in a `with`; then `move_to` restarts what must be.

    Args:
        model: checkpoint directory; None: the embedded model.
        settings: of both services, what the user gave for the whole run.
        first: settings of the first deployment, which is `known.reference`.
    """

    def __init__(self, model: Path | None, settings: Settings, first: Settings) -> None:
        self._whole_run = _joined(_OURS, settings)
        self._first = first
        self._stack = LocalStack(
            model=model, decoder_bind=ANY_PORT, encoder_bind=ANY_PORT, settings=_joined(self._whole_run, first)
        )
        self.restarts = 0

    @property
    def server(self) -> str:
        """The decoder's address."""
        return self._stack.addresses.decoder

    def move_to(self, deployment: Deployment) -> None:
        """Makes it run, and waits until the decoder knows its encoder.

        Raises:
            StartupError: a service refuses the settings.
        """
        restarted = self._stack.reconfigure(_joined(self._whole_run, self._settings_of(deployment)))
        self.restarts += len(restarted)
        if restarted:
            self._wait_until_paired()
        runs = Known.of(self.describe()).reference
        if runs != deployment:  # the environment may have the last word
            raise StartupError(f"{deployment} was asked for, {runs} runs")

    def describe(self) -> Description:
        """Both services."""
        addresses = self._stack.addresses
        with Client(server=addresses.decoder, encoder=addresses.encoder) as client:
            return client.describe()

    def _settings_of(self, wanted: Deployment) -> Settings:
        """What is as in the reference is said as it was for the first start, so that it is no difference."""
        encoder, decoder = dict(self._first.get("encoder", {})), dict(self._first.get("decoder", {}))
        if wanted.shallow_layer != self.known.shallow_layer:
            encoder["shallow_layer"] = str(wanted.shallow_layer)
        if wanted.window != self.known.window:
            encoder["window"] = str(wanted.window)
        if wanted.prune_layers != self.known.prune_layers:
            decoder["prune_layers"] = wanted.pruned_at
        return {"encoder": encoder, "decoder": decoder}

    def _wait_until_paired(self) -> None:
        give_up = time.monotonic() + _PAIRED_WITHIN_S
        while True:
            description = self.describe()
            assert description.encoder is not None
            if description.decoder.encoder_fingerprint == description.encoder.fingerprint:
                return
            if time.monotonic() > give_up:
                raise StartupError(f"the decoder did not notice its new encoder within {_PAIRED_WITHIN_S:g} s")
            time.sleep(_POLL_S)

    def __enter__(self) -> Self:
        began = time.monotonic()
        self._stack.start()
        try:
            self.known = Known.of(self.describe())
        except BaseException:
            self._stack.stop()
            raise
        self.start_s = time.monotonic() - began
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stack.stop()


def _joined(first: Settings, then: Settings) -> dict[str, dict[str, str]]:
    return {name: {**first.get(name, {}), **then.get(name, {})} for name in ("encoder", "decoder")}
