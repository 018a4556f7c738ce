"""`vscan eval` of boxes and of videos, against a real gRPC server that answers with the question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.client_cli import vscan
from tests.support.client_decoder import TOKENS_BEFORE, ScriptedDeployment
from tests.support.videos import video

VIDEO_QA = Path(__file__).parents[2] / "data" / "eval" / "video_qa"


def boxes_asked_for(folder: Path, *sentences: str) -> tuple[object, ...]:
    """Phrases about a picture of 400 x 400 px whose left upper quarter is meant. The server says them again, boxes and all."""
    (folder / "a.jpg").write_bytes(b"picture")
    row = {"image": "a.jpg", "bbox": [0, 0, 200, 200], "width": 400, "height": 400}
    (folder / "val.jsonl").write_text("".join(json.dumps(row | {"sent": sentence}) + "\n" for sentence in sentences))
    return "refcoco", "--questions", folder / "val.jsonl", "--images", folder, "--out", folder / "refcoco.json"


def summary(folder: Path, name: str) -> dict[str, Any]:
    """What a run wrote."""
    return dict(json.loads((folder / f"{name}.json").read_text()))


def test_boxes_are_read_as_the_servers_family_names_them(address: str, tmp_path: Path) -> None:
    asked = boxes_asked_for(tmp_path, "a dog [0, 0, 0.5, 0.5]", "a cat [0, 0, 0.25, 0.25]", "a bird")
    ran = vscan("eval", *asked, "--server", address)
    assert ran.code == 0, ran.err
    assert "RefCOCO: accuracy at IoU 0.5 33.33 % (3 questions)" in ran.out
    told = summary(tmp_path, "refcoco")
    assert told["counts"]["answers without a box (wrong)"] == 1
    assert told["settings"]["box_form"] == "cropped-unit"  # the server says that it is a llava


def test_pixels_of_what_the_encoder_saw_are_known_from_its_tokens(address: str, tmp_path: Path) -> None:
    assert TOKENS_BEFORE == 12 * 12  # so 400 x 400 px were looked at as 336 x 336
    asked = boxes_asked_for(tmp_path, "a dog [0, 0, 168, 168]", "a cat [0, 0, 118, 118]")
    ran = vscan("eval", *asked, "--box-form", "resized-pixels", "--server", address)
    assert ran.code == 0, ran.err
    assert summary(tmp_path, "refcoco")["score"] == 50
    other = vscan("eval", *asked, "--box-form", "pixels", "--server", address)
    assert (other.code, "box_form" in other.err) == (2, True)  # a run under other settings is not gone on with


def test_a_judge_has_the_last_word_on_videos(deployment: ScriptedDeployment, address: str, tmp_path: Path) -> None:
    for name in ("clip1.mp4", "clip2.mp4"):
        (tmp_path / name).write_bytes(video(frames=3))
    asked = ["eval", "msvd-qa", "--questions", VIDEO_QA / "test_q.json", "--annotations", VIDEO_QA / "test_a.json"]
    asked += ["--images", tmp_path, "--out", tmp_path / "msvd.json", "--frames", "2", "--server", address]
    ran = vscan(*asked, "--export", tmp_path / "pred.json")
    assert ran.code == 0, ran.err
    assert "MSVD-QA: exact match (not the official score) 0.00 %" in ran.out
    assert all(request.chat.messages[0].parts[0].video.sampling.frames == 2 for request in deployment.requests)
    exported = [json.loads(line) for line in (tmp_path / "pred.json").read_text().splitlines()]
    assert exported[1]["pred"] == "0 image(s), 1 video(s): is it night?"
    verdicts = {line["id"]: [{"pred": "yes", "score": 4}, {"pred": line["pred"]}] for line in exported}
    (tmp_path / "verdicts.json").write_text(json.dumps(verdicts))
    asked_before = len(deployment.requests)
    ran = vscan(*asked, "--judged", tmp_path / "verdicts.json")
    assert ran.code == 0, ran.err
    assert len(deployment.requests) == asked_before  # the answers were there
    told = summary(tmp_path, "msvd")
    assert (told["score"], told["further"]) == (100, {"mean score of 0 to 5 (judge's)": 4})


def test_options_that_a_task_has_no_use_for_are_refused(address: str, tmp_path: Path) -> None:
    gqa = ("eval", "gqa", "--questions", tmp_path, "--images", tmp_path, "--server", address)
    assert vscan(*gqa, "--box-form", "unit").one_line.endswith("box-form: gqa asks for no boxes")
    assert vscan(*gqa, "--judged", tmp_path).one_line.endswith("judged: gqa is scored without a judge")
    assert "'miles', limit resized-pixels" in vscan("eval", *boxes_asked_for(tmp_path, "x"), "--box-form", "miles").one_line
