"""`vscan up --model` and `vscan ask` with a checkpoint of every family that is served."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from decoder_service.language.registry import families
from tests.support.client_cli import vscan
from tests.support.client_up import vscan_up
from tests.support.qwen import shared_qwen

DATA = Path(__file__).parents[1] / "data" / "parity"
# The checkpoint, a picture, and how many visual tokens it has before and after stage 1: a sixth of each tile.
FAMILIES: dict[str, tuple[Callable[[], Path], str, int, int]] = {
    "llava": (lambda: DATA / "llava15", "sq_a.png", 576, 96),
    # Five tiles, and a newline for each of the 48 stitched rows.
    "llava_next": (lambda: DATA / "llava_next", "next_2x2.png", 5 * 576 + 48, 5 * 96 + 48),
    "qwen2_5_vl": (lambda: shared_qwen()[0], "qwen_a.png", 216, 36),
}
SETTINGS = ("-s", "encoder.torch_threads=1", "-s", "decoder.torch_threads=1")


def test_every_family_is_here() -> None:
    assert FAMILIES.keys() == families().keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_is_served_and_answers(family: str, tmp_path: Path) -> None:
    checkpoint, picture, before, after = FAMILIES[family]
    free = ("--decoder", "127.0.0.1:0", "--encoder", "127.0.0.1:0")
    with vscan_up(*free, *SETTINGS, "--model", checkpoint(), folder=tmp_path) as up:
        up.wait_ready()
        server = ("--server", up.addresses["decoder"])
        described = vscan("describe", *server)
        assert json.loads(described.out)["decoder"]["family"] == family
        ran = vscan("ask", DATA / picture, "is there a star", *server, "--json", "--max-new-tokens", "3")
        assert ran.code == 0, ran.err
        (image,) = json.loads(ran.out)["images"]
        assert (image["tokens_before"], image["tokens_after"]) == (before, after)
        assert up.end(signal.SIGINT) == (0, [])
