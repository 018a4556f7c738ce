"""`vscan ask`, `describe` and `encode` against a real gRPC server."""

import json
import re
import subprocess
from pathlib import Path

import pytest

import vscan as project
from tests.support.client_cli import in_a_process, vscan
from tests.support.client_decoder import ScriptedDeployment, serving
from vscan.errors import DeadlineExceeded, InternalError, InvalidArgument, VScanError
from vscan.specs import (
    JsonSchema,
    KeepTokens,
    PositionPolicy,
    PruneSpec,
    Rater,
    ReductionMethod,
    ReductionSpec,
    Regex,
    TargetAverage,
)
from vscan.wire import prune_from_proto, reduction_from_proto, sampling_from_proto
from vscan_client import Image, Video


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    """An image, as far as the scripted server cares."""
    path = tmp_path / "cat.png"
    path.write_bytes(b"cat")
    return path


def test_the_answer_is_printed(address: str, cat: Path) -> None:
    ran = vscan("ask", cat, cat, "what is it?", "--server", address)
    assert (ran.code, ran.out, ran.err) == (0, "2 image(s): what is it?\n", "")


def test_videos_are_asked_about_too(deployment: ScriptedDeployment, address: str, cat: Path) -> None:
    clip, gif = cat.with_name("clip.webm"), cat.with_name("cat.gif")
    clip.write_bytes(b"\x1a\x45\xdf\xa3")
    gif.write_bytes(b"GIF89a")
    ran = vscan("ask", "--video", gif, clip, cat, "what?", "--frames", "4", "--budget", "total:64", "--server", address)
    assert (ran.code, ran.out) == (0, "1 image(s), 2 video(s): what?\n")
    (request,) = deployment.requests
    first, image, last, _ = request.chat.messages[0].parts
    assert (first.video.data, image.image.data, last.video.data) == (b"\x1a\x45\xdf\xa3", b"cat", b"GIF89a")
    assert first.video.sampling.frames == last.video.sampling.frames == 4
    assert request.reduction.budget.total_tokens == 64

    video = Video.from_path(gif)
    told = json.loads(vscan("encode", "--video", gif, "--fps", "0.5", "--encoder", address).out)
    assert (told["file"], told["image"]["sha256"]) == (str(gif), video.digest)
    ran = vscan("ask", "--video", f"sha256:{video.digest}", "--fps", "0.5", "then?", "--server", address)
    assert (ran.out, ran.err) == ("0 image(s), 1 video(s): then?\n", "")


def test_json_is_one_object(address: str, cat: Path) -> None:
    ran = vscan("ask", cat, "what?", "--server", address, "--json", "--report-kept")
    told = json.loads(ran.out)
    assert told["text"] == "1 image(s): what?"
    assert told["usage"]["visual_tokens_unreduced"] == 144
    assert told["timings"]["prefill_ms"] == 2.0
    assert told["images"][0]["place"] == "encoded"
    assert told["images"][0]["kept"]["kept_indices"] == [1, 5]


def test_every_option_reaches_the_server(deployment: ScriptedDeployment, address: str, cat: Path) -> None:
    options = "--reduction vscan --budget avg:12.5% --rater text_mean --keep 8 --max-new-tokens 2 --temperature 0.5"
    more = (
        "--top-p 0.9 --top-k 5 --seed 3 --timeout 50 --local-share 0.25 --no-merge --positions keep --logprobs 2 --ignore-eos"
    )
    penalties = "--min-p 0.1 --repetition-penalty 1.25 --presence-penalty -0.5 --frequency-penalty 0.5 --stop-token-id 7"
    arguments = [*options.split(), *more.split(), *penalties.split(), "--stop", "a b", "--stop", "c", "--regex", "a|b c"]
    arguments += ["--priority", "-3", "--json"]
    ran = vscan("ask", cat, "what?", "--server", address, *arguments)
    assert json.loads(ran.out)["text"] == "1 image(s):"
    (request,) = deployment.requests
    assert reduction_from_proto(request.reduction) == ReductionSpec(
        method=ReductionMethod.VSCAN, budget=TargetAverage(0.125), local_share=0.25, merge=False
    )
    assert prune_from_proto(request.prune) == PruneSpec(
        rater=Rater.TEXT_MEAN, budgets=(KeepTokens(8),), positions=PositionPolicy.KEEP
    )
    sampling = sampling_from_proto(request.sampling)
    assert (sampling.max_new_tokens, sampling.temperature, sampling.top_p, sampling.top_k) == (2, 0.5, 0.9, 5)
    assert (sampling.seed, sampling.stop) == (3, ("a b", "c"))
    assert (sampling.logprobs, sampling.ignore_eos) == (2, True)
    assert (sampling.min_p, sampling.repetition_penalty) == (0.1, 1.25)
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.stop_token_ids) == (-0.5, 0.5, (7,))
    assert sampling.constraint == Regex("a|b c")
    assert (sampling.n, request.priority) == (None, -3)
    (left,) = deployment.time_left
    assert left is not None
    assert 0 < left < 60


def test_samples_are_printed_one_after_the_other(deployment: ScriptedDeployment, address: str, cat: Path) -> None:
    ran = vscan("ask", cat, "what?", "--server", address, "--samples", "2")
    assert ran.out == "--- sample 0 ---\n1 image(s): what?\n--- sample 1 ---\n1 1 image(s): 1 what?\n"
    told = json.loads(vscan("ask", cat, "what?", "--server", address, "--samples", "2", "--json").out)
    assert [sample["text"] for sample in told["samples"]] == ["1 image(s): what?", "1 1 image(s): 1 what?"]
    assert told["text"] == "1 image(s): what?"
    assert told["usage"]["completion_tokens"] == 6
    assert "samples" not in json.loads(vscan("ask", cat, "what?", "--server", address, "--json", "--samples", "1").out)


@pytest.mark.parametrize("as_file", [False, True])
def test_a_schema_is_a_text_or_a_file(
    deployment: ScriptedDeployment, address: str, cat: Path, tmp_path: Path, as_file: bool
) -> None:
    schema = '{"enum": ["yes", "no"]}'
    (tmp_path / "schema.json").write_text(schema)
    given = f"@{tmp_path / 'schema.json'}" if as_file else schema
    assert vscan("ask", cat, "what?", "--server", address, "--json-schema", given).code == 0
    assert sampling_from_proto(deployment.requests[0].sampling).constraint == JsonSchema(schema)


def test_the_server_may_be_named_by_the_environment(address: str, cat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSCAN_SERVER", address)
    assert vscan("ask", cat, "what?").out == "1 image(s): what?\n"


def test_an_image_may_be_named_by_its_digest(deployment: ScriptedDeployment, address: str) -> None:
    image = Image.from_bytes(b"cat")
    ran = vscan("ask", f"sha256:{image.digest}", "what?", "--server", address)
    assert ran.code == 1
    assert ran.one_line.endswith("send the bytes; a video's digest is given with --video")
    ran = vscan("ask", "--video", f"sha256:{image.digest}", "what?", "--server", address)
    assert ran.one_line.endswith("send the bytes")
    deployment.known.add(image.sha256)
    assert vscan("ask", f"sha256:{image.digest}", "what?", "--server", address).out == "1 image(s): what?\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidArgument("sampling.temperature", "-1", limit="0 to 2"), 2),
        (DeadlineExceeded("too late"), 4),
        (InternalError("internal error\n(two lines)"), 1),
    ],
)
def test_an_error_is_one_line_and_a_code(
    deployment: ScriptedDeployment, address: str, cat: Path, error: VScanError, code: int
) -> None:
    deployment.fail_with = [error]
    ran = vscan("ask", cat, "what?", "--server", address)
    assert (ran.code, ran.one_line) == (code, f"vscan: {' '.join(str(error).split())}")


def test_a_server_that_is_not_there_is_one_line_too(cat: Path) -> None:
    with serving(ScriptedDeployment()) as address:
        pass  # gone again
    ran = vscan("ask", cat, "what?", "--server", address)
    assert ran.code == 3
    assert ran.one_line.startswith(f"vscan: no server was reached: {address}: ")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["what?"], "an image or a video and a question"),
        (["--video", "gone.gif", "what?"], "gone.gif: No such file"),
        (["CAT", "what?", "--frames", "4"], "there is no video among the files"),
        (["--video", "CAT", "what?", "--frames", "4", "--fps", "2"], "either a number of frames or frames per second"),
        (["--video", "CAT", "what?", "--fps", "0"], "video.sampling.frames_per_second: 0"),
        (["gone.png", "what?"], "gone.png: No such file"),
        (["CAT", "CAT"], "the last argument is the question"),
        (["CAT", "what?", "--budget", "x"], "budget"),
        (["CAT", "what?", "--budget", "0"], "vscan: reduction.budget.tokens_per_tile: 0"),
        (["CAT", "what?", "--local-share", "2"], "vscan: reduction.local_share: 2"),
        (["CAT", "what?", "--positions", "best"], "positions"),
        (["CAT", "what?", "--reduction", "none", "--budget", "9"], "--budget: given, and nothing is reduced, limit only with"),
        (["CAT", "what?", "--reduction", "pool", "--local-share", "1"], "--local-share: given, and pool has no share"),
        (["CAT", "what?", "--rater", "none", "--keep", "9"], "--keep: given, and nothing is pruned, limit only with"),
        (["CAT", "what?", "--top-p", "0.9"], "--top-p: given, and answers are greedy, limit only with a --temperature over 0"),
        (["CAT", "what?", "--logprobs", "2"], "--logprobs: given, and not printed, limit only with --json"),
        (["CAT", "what?", "--rater", "best"], "rater"),
        (["sha256:12", "what?"], "sha256"),
        (["CAT", "what?", "--json-schema", "@gone.json"], "json_schema: gone.json: No such file"),
        (["CAT", "what?", "--json-schema", "{}", "--regex", "a"], "sampling.regex: beside a json_schema"),
        (["CAT", "what?", "--stop-token-id", "-1"], "sampling.stop_token_ids[0]: -1"),
        (["CAT", "what?", "--samples", "-1"], "sampling.n: -1"),
        (["CAT", "what?", "--priority", "2147483648"], "priority: 2147483648"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(cat: Path, arguments: list[str], named: str) -> None:
    ran = vscan("ask", *[str(cat) if argument == "CAT" else argument for argument in arguments])
    assert ran.code == 2
    assert named in ran.one_line


def test_an_unknown_option_is_an_error_of_usage(cat: Path) -> None:
    assert vscan("ask", cat, "what?", "--no-such-option").code == 2


def test_spans_are_printed_where_asked_for(address: str, cat: Path) -> None:
    ran = vscan("ask", cat, "what?", "--server", address, "--trace-console")
    assert ran.out == "1 image(s): what?\n"
    assert re.search(r"\bask\b", ran.err)
    assert "what?" not in ran.err


def test_describe(address: str) -> None:
    told = json.loads(vscan("describe", "--server", address).out)
    assert (told["decoder"]["model"], told["encoder"]) == ("scripted", None)
    assert json.loads(vscan("describe", "--server", address, "--encoder", address).out)["encoder"]["hidden_size"] == 64


def test_encode_prints_what_to_ask_about(deployment: ScriptedDeployment, address: str, cat: Path) -> None:
    ran = vscan("encode", cat, cat, "--encoder", address, "--budget", "24")
    first, second = map(json.loads, ran.out.splitlines())
    assert (first["image"]["place"], second["image"]["place"]) == ("encoded", "memory")
    assert first["image"]["sha256"] == Image.from_bytes(b"cat").digest
    assert vscan("ask", f"sha256:{first['image']['sha256']}", "what?", "--server", address).code == 0


def test_encode_refuses_before_anything_is_sent(cat: Path) -> None:
    assert "a video is needed" in vscan("encode").one_line
    assert "no video among" in vscan("encode", cat, "--frames", "4").one_line


def test_the_version() -> None:
    assert vscan("--version").out == f"{project.__version__}\n"


def test_a_reader_that_leaves_is_no_error(address: str, cat: Path) -> None:
    command = in_a_process("ask", cat, "what?", "--server", address)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1
