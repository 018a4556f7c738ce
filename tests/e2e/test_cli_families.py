"""`vscan up --model` and `vscan ask` with a checkpoint of every family that is served, about videos where it takes them."""

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from decoder_service.language.registry import families
from tests.support.client_cli import vscan
from tests.support.client_up import vscan_up
from tests.support.qwen import shared_qwen
from tests.support.video_llava import shared_video_llava
from tests.support.videos import video

DATA = Path(__file__).parents[1] / "data" / "parity"
# The checkpoint, a picture, and how many visual tokens it has before and after stage 1: a sixth of each tile.
FAMILIES: dict[str, tuple[Callable[[], Path], str, int, int]] = {
    "llava": (lambda: DATA / "llava15", "sq_a.png", 576, 96),
    # Five tiles, and a newline for each of the 48 stitched rows.
    "llava_next": (lambda: DATA / "llava_next", "next_2x2.png", 5 * 576 + 48, 5 * 96 + 48),
    "qwen2_5_vl": (lambda: shared_qwen()[0], "qwen_a.png", 216, 36),
    "video_llava": (lambda: shared_video_llava()[0], "sq_a.png", 16, 2),
}
# Of 3 seconds: when the frames come that are looked at by default, and their visual tokens before and after stage 1.
VIDEOS: dict[str, tuple[list[float], int, int]] = {
    # Two frames for each second, of which two make a tile of 2 x 3.
    "qwen2_5_vl": ([0, 0.5, 1, 1.5, 2, 2.5], 3 * 6, 3),
    # Eight frames, each of 4 x 4 and its [CLS], which is kept.
    "video_llava": ([0, 0.3, 0.7, 1.1, 1.5, 1.8, 2.2, 2.6], 8 * (16 + 1), 8 * (2 + 1)),
}
SETTINGS = ("-s", "encoder.torch_threads=1", "-s", "decoder.torch_threads=1")


def test_every_family_is_here() -> None:
    assert FAMILIES.keys() == families().keys()


def ask_about_videos(family: str, *server: object, folder: Path) -> None:
    """An MP4, which is a video by itself, and a GIF, which is one where it is said to be one."""
    mp4, gif = folder / "clip.mp4", folder / "clip.gif"
    mp4.write_bytes(video("mp4 h264"))
    neither = vscan("ask", Path(__file__), "what happens", *server)
    assert neither.code == 2
    assert "not an image of a known format" in neither.one_line
    assert ("; of a video MP4 or QuickTime, WebM or Matroska, GIF" in neither.one_line) == (family in VIDEOS)
    gif.write_bytes(video("gif"))
    options = (*server, "--json", "--max-new-tokens", "3")
    if family not in VIDEOS:
        refused = vscan("ask", mp4, "what happens", *options)
        assert (refused.code, "takes no videos" in refused.one_line) == (2, True)
        return
    seconds, before, after = VIDEOS[family]
    for place in ("encoded", "memory"):
        ran = vscan("ask", mp4, "--video", gif, "what happens", *options)
        assert ran.code == 0, ran.err
        for report in json.loads(ran.out)["images"]:
            assert report["frames"]["seconds"] == pytest.approx(seconds)
            assert report["frames"]["duration_seconds"] == pytest.approx(3)
            assert (report["tokens_before"], report["tokens_after"], report["place"]) == (before, after, place)
    two = ("--frames", "2", "--budget", "total:4")
    ran = vscan("ask", gif, mp4, "what happens", *two, *options)
    assert ran.code == 0, ran.err
    image, sampled = json.loads(ran.out)["images"]
    assert (image["frames"], image["tokens_after"]) == (None, 4)
    assert sampled["frames"]["seconds"] == pytest.approx([0, 1.5])
    named = vscan("ask", "--video", f"sha256:{sampled['sha256']}", "what happens", *two, *options)
    assert named.code == 0, named.err
    refused = vscan("ask", mp4, "what happens", "--frames", "1000", *options)
    assert (refused.code, "sampling.frames: 1000, limit" in refused.one_line) == (2, True)


def evaluate_boxes(*server: object, folder: Path) -> None:
    """A benchmark of boxes, with an answer that is forced: the left upper quarter, in pixels of what the encoder saw, which
    makes 84 x 56 px of so small a picture.
    """
    Image.new("RGB", (40, 30), "red").save(folder / "small.png")
    row = {"image": "small.png", "sent": "a star", "bbox": [0, 0, 20, 15], "width": 40, "height": 30}
    (folder / "val.jsonl").write_text(json.dumps(row) + "\n")
    options = (*server, "--out", folder / "boxes.json", "--regex", re.escape("[0, 0, 42, 28]"), "--max-new-tokens", "40")
    ran = vscan("eval", "refcoco", "--questions", folder / "val.jsonl", "--images", folder, *options)
    assert ran.code == 0, ran.err
    assert json.loads((folder / "boxes.json").read_text())["further"]["mean IoU"] == pytest.approx(100)


def evaluate_videos(*server: object, folder: Path) -> None:
    """A benchmark of videos."""
    data = DATA.parent / "eval" / "tgif_qa" / "Test_count_question.csv"
    for name in ("clip3.gif", "clip4.gif"):
        (folder / name).write_bytes(video("gif", 4))
    options = (*server, "--out", folder / "counts.json", "--max-new-tokens", "3")
    ran = vscan("eval", "tgif-qa", "--questions", data, "--images", folder, *options)
    assert ran.code == 0, ran.err
    assert json.loads((folder / "counts.json").read_text())["n"] == 3


# Pictures for each budget: of an image one, or the whole and its parts; of two frames two.
SCENES = {"llava": 1, "llava_next": 2, "qwen2_5_vl": 1 + 2, "video_llava": 1 + 2}


def draw(family: str, picture: Path, *server: object, folder: Path) -> None:
    """What the model was shown of an image, and of a video with it where it takes any; where its patches lie is stated."""
    clips = (folder / "clip.mp4", "--frames", "2") if family in VIDEOS else ()
    budgets = ("--budget", "10%", "--budget", "5%", "--max-new-tokens", "2")
    ran = vscan("show", picture, *clips, "what is it", *budgets, *server, "--out", folder / "out")
    assert ran.code == 0, ran.err
    page = (folder / "out" / "show.html").read_text(encoding="utf-8")
    once = SCENES[family]
    layers = page.count("<h3>Stage 2")
    bands = page.count("<h3>Stage 1")
    assert page.count('role="group"') == once * (1 + 2 * (1 + layers // bands))
    assert "does not say where" not in page


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
        ask_about_videos(family, *server, folder=tmp_path)
        if family in VIDEOS:
            evaluate_videos(*server, folder=tmp_path)
        if family == "qwen2_5_vl":
            evaluate_boxes(*server, folder=tmp_path)
        draw(family, DATA / picture, *server, folder=tmp_path)
        assert up.end(signal.SIGINT) == (0, [])
