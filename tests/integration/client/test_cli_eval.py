"""`vscan eval` against a real gRPC server whose answers are known: the question's own text."""

import asyncio
import json
import subprocess
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from studies.evaluation.asking import questions_of
from studies.evaluation.catalogue import TASKS, find_task
from tests.support.benchmarks import DATA, read
from tests.support.client_cli import Ran, in_a_process, vscan
from tests.support.client_decoder import ScriptedDeployment, serving
from tests.support.until import until
from vscan.errors import InternalError, Unavailable
from vscan.v1 import decoder_pb2
from vscan_client import AsyncClient, Retry
from vscan_client.cli.answer_file import AnswerFile
from vscan_client.cli.batch import Batch
from vscan_client.cli.questions import QuestionOptions

POPE = ("eval", "pope", "--questions", DATA / "pope/coco", "--images", DATA / "pope/val2014")
QUESTIONS = 8
VQAV2 = (
    *("eval", "vqav2", "--questions", DATA / "vqav2/v2_OpenEnded_mscoco_test-dev2015_questions.json"),
    *("--images", DATA / "vqav2/test2015"),
)

MSVD = ("eval", "msvd-qa", "--questions", DATA / "video_qa/test_q.json", "--images", "VIDEOS")
MME = ("eval", "mme", "--questions", DATA / "mme/llava_mme.jsonl", "--images", DATA / "mme")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "pope.json"


def run(address: str, out: Path, *more: object) -> Ran:
    return vscan(*POPE, "--server", address, "--out", out, *more)


def lines_of(out: Path) -> list[str]:
    """The whole lines of the file of answers."""
    answers = out.with_suffix(".answers.jsonl")
    return answers.read_text().split("\n")[:-1] if answers.exists() else []


def answers_in(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines_of(out)]


def asked(deployment: ScriptedDeployment) -> Counter[tuple[bytes, str]]:
    """How often each question came: digest of the image, and text."""
    told: Counter[tuple[bytes, str]] = Counter()
    for request in deployment.requests:
        image, text = request.chat.messages[0].parts
        told[image.image.sha256 or sha256(image.image.data).digest(), text.text] += 1
    return told


def test_a_run_is_scored_and_told(deployment: ScriptedDeployment, address: str, out: Path) -> None:
    ran = run(address, out, "--budget", "96", "--keep", "8")
    assert (ran.code, ran.one_line) == (0, "8 answered, 0 failed, 0 were answered before")
    # Every answer is "1 image(s): Is there …", which has no no: all are yes, of which half are right.
    assert ran.out.splitlines()[0] == "POPE: F1 66.67 % (8 questions)"
    assert "visual tokens: 144.0 → 24.0 from the encoder → 8.0 from layer 4 on; 16.0 on average over the layers" in ran.out
    summary = json.loads(out.read_text())
    assert (summary["task"], summary["metric"], summary["unit"], summary["n"]) == ("pope", "F1", "%", 8)
    assert summary["score"] == pytest.approx(200 / 3)
    assert summary["further"]["accuracy"] == 50
    assert summary["categories"]["recall"]["random"] == {"score": 100, "n": 4}
    assert summary["visual_tokens"] == {
        "unreduced": 144,
        "after_stage_1": 24,
        "after_layer": {"4": 8},
        "average_over_layers": 16,
    }
    assert sum(summary["places"].values()) == QUESTIONS
    assert summary["finish_reasons"] == {"end_of_sequence": QUESTIONS}
    assert (summary["settings"]["budget"], summary["settings"]["keep"]) == ("96", "8")
    assert summary["server"]["decoder"]["model"] == summary["settings"]["model"]


def test_questions_go_out_as_llavas_scripts_ask_them(deployment: ScriptedDeployment, address: str, out: Path) -> None:
    run(address, out)
    request = deployment.requests[0]
    assert (request.sampling.temperature, request.sampling.max_new_tokens) == (0, 128)
    assert request.chat.messages[0].parts[1].text.endswith("image?\nAnswer the question using a single word or phrase.")
    vscan(*POPE, "--server", address, "--out", out.with_name("own.json"), "--max-new-tokens", 2, "--prompt-suffix", "Short!")
    assert deployment.requests[-1].sampling.max_new_tokens == 2
    assert deployment.requests[-1].chat.messages[0].parts[1].text.endswith("image?\nShort!")


def test_a_second_run_asks_nothing_again(deployment: ScriptedDeployment, address: str, out: Path) -> None:
    run(address, out)
    before, count = json.loads(out.read_text()), len(deployment.requests)
    ran = run(address, out)
    assert ran.one_line == "0 answered, 0 failed, 8 were answered before"
    assert json.loads(out.read_text()) == before
    assert len(deployment.requests) == count


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (("--budget", "48"), 'budget was not given, is "48"'),
        (("--prompt-suffix", ""), 'prompt_suffix was "Answer the question using a single word or phrase.", is ""'),
        (("--limit", "3"), "limit was null, is 3"),
    ],
)
def test_a_run_under_other_settings_is_refused(
    deployment: ScriptedDeployment, address: str, out: Path, option: tuple[str, str], told: str
) -> None:
    run(address, out)
    before, count = answers_in(out), len(deployment.requests)
    ran = run(address, out, *option)
    assert ran.code == 2
    assert told in ran.one_line
    assert answers_in(out) == before
    assert len(deployment.requests) == count


def test_other_labels_are_other_settings(address: str, out: Path, tmp_path: Path) -> None:
    run(address, out)
    for file in (DATA / "pope/coco").iterdir():
        (tmp_path / file.name).write_text(file.read_text().replace('"no"', '"yes"'))
    ran = run(address, out, "--questions", tmp_path)
    assert ran.code == 2
    assert "questions_sha256 was" in ran.one_line


class Halting(ScriptedDeployment):
    """Answers so many questions and keeps the next one waiting."""

    def __init__(self, answered: int) -> None:
        super().__init__()
        self._answered = answered

    def _record(self, request: decoder_pb2.GenerateRequest, context: Any) -> None:
        super()._record(request, context)
        if len(self.requests) == self._answered + 1:
            self.hold_before.clear()


def test_a_run_that_was_killed_goes_on_where_it_was(out: Path) -> None:
    deployment = Halting(answered=3)
    with serving(deployment) as address:
        command = in_a_process(*POPE, "--server", address, "--out", out, "--concurrency", 1)
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            asyncio.run(until(lambda: not deployment.hold_before.is_set(), what="the fourth question"))
            process.kill()
        assert (len(answers_in(out)), out.exists()) == (1 + 3, False)
        deployment.hold_before.set()
        ran = run(address, out)
    assert ran.one_line == "5 answered, 0 failed, 3 were answered before"
    # Only the question that was under way when the run was killed was asked twice.
    assert sorted(asked(deployment).values()) == [1] * (QUESTIONS - 1) + [2]
    assert len({record["id"] for record in answers_in(out)[1:]}) == QUESTIONS
    assert json.loads(out.read_text())["score"] == pytest.approx(200 / 3)


def test_two_runs_do_not_write_one_file(deployment: ScriptedDeployment, address: str, out: Path) -> None:
    with AnswerFile(out.with_suffix(".answers.jsonl"), {"task": "pope"}):
        ran = run(address, out)
    assert (ran.code, ran.one_line) == (2, f"vscan: --out: {out.with_suffix('.answers.jsonl')}: another run is writing it")
    assert not deployment.requests


def test_runs_whose_names_have_dots_have_answers_of_their_own(address: str, tmp_path: Path) -> None:
    for budget in ("11.1", "22.2"):
        assert run(address, tmp_path / f"avg-{budget}", "--budget", f"avg:{budget}%", "--limit", 1).code == 0
    assert {path.name for path in tmp_path.glob("*.jsonl")} == {"avg-11.1.answers.jsonl", "avg-22.2.answers.jsonl"}


def test_a_run_with_failures_is_not_scored(deployment: ScriptedDeployment, address: str, out: Path) -> None:
    deployment.fail_with = [InternalError("the tokens\nare gone"), InternalError("internal error")]
    ran = run(address, out, "--concurrency", 1)
    assert ran.code == 1
    assert ran.err.splitlines() == [
        "6 answered, 2 failed, 0 were answered before",
        "2 of 8 failed (2 InternalError); not scored; run it again to go on",
        "the first, 'adversarial/1': the tokens are gone",
    ]
    summary = json.loads(out.read_text())
    assert (summary["score"], summary["failed"], summary["n"]) == (None, {"InternalError": 2}, 0)
    assert sum("error" in record for record in answers_in(out)) == 2
    ran = run(address, out)
    assert (ran.code, ran.one_line) == (0, "2 answered, 0 failed, 6 were answered before")
    assert json.loads(out.read_text())["n"] == QUESTIONS


def test_a_run_with_failures_is_not_handed_in(deployment: ScriptedDeployment, address: str, tmp_path: Path) -> None:
    deployment.fail_with = [InternalError("internal error")]
    ran = vscan(*VQAV2, "--server", address, "--out", tmp_path / "vqav2.json", "--export", tmp_path / "upload.json")
    assert ran.code == 1
    assert {path.name for path in tmp_path.iterdir()} == {"vqav2.json", "vqav2.answers.jsonl"}


def test_questions_that_fail_for_good_can_count_as_empty_answers(
    deployment: ScriptedDeployment, address: str, out: Path
) -> None:
    run(address, out)
    count = len(deployment.requests)
    lines = lines_of(out)
    broken = json.loads(lines[1])["id"]
    error = json.dumps({"id": broken, "error": {"name": "InvalidArgument", "message": "no image"}})
    out.with_suffix(".answers.jsonl").write_text("\n".join([lines[0], error, *lines[2:]]) + "\n")
    deployment.fail_with = [InternalError("no image")]
    ran = run(address, out, "--failed-as-empty")
    assert ran.code == 0
    assert ran.err.splitlines()[1] == "1 of 8 failed (1 InternalError); taken for empty answers"
    assert "note: 1 questions failed and count as empty answers" in ran.out
    summary = json.loads(out.read_text())
    assert (summary["n"], summary["failed"]) == (QUESTIONS, {"InternalError": 1})
    assert len(deployment.requests) == count + 1  # tried again, and only this one


@pytest.mark.parametrize(
    ("concurrency", "told"),
    [
        (1, "0 answered, 1 failed, 0 were answered before, 7 were not asked"),
        (2, "7 answered, 1 failed, 0 were answered before"),  # one of two may have met a restart
    ],
)
async def test_no_more_is_asked_of_a_server_that_is_away(
    deployment: ScriptedDeployment, address: str, out: Path, concurrency: int, told: str
) -> None:
    questions = questions_of(find_task("pope"), read("pope", "pope/coco", "pope/val2014"), QuestionOptions())
    deployment.fail_with = [Unavailable("gone")]
    with AnswerFile(out) as answers:
        batch = Batch(questions, answers)
        async with AsyncClient(server=address, retry=Retry(attempts=1)) as client:
            await batch.run(client, concurrency)
    assert batch.told() == told


class Flaky(ScriptedDeployment):
    """Is away for the first of every four calls."""

    def _record(self, request: decoder_pb2.GenerateRequest, context: Any) -> None:
        super()._record(request, context)
        if len(self.requests) % 4 == 1:
            self.fail_with.append(Unavailable("gone"))


async def test_a_server_that_comes_back_is_asked_on(out: Path) -> None:
    questions = questions_of(find_task("pope"), read("pope", "pope/coco", "pope/val2014"), QuestionOptions())
    with serving(Flaky()) as address, AnswerFile(out) as answers:
        batch = Batch(questions, answers)
        async with AsyncClient(server=address, retry=Retry(attempts=1)) as client:
            await batch.run(client, 2)
    assert batch.told() == "6 answered, 2 failed, 0 were answered before"


def test_answers_without_labels_are_handed_in(address: str, tmp_path: Path) -> None:
    export = tmp_path / "upload.json"
    ran = vscan(*VQAV2, "--server", address, "--out", tmp_path / "vqav2.json", "--export", export)
    assert ran.code == 0
    assert ran.err.splitlines()[-1] == "1 of 1 questions have no label; not scored"
    assert json.loads(export.read_text()) == [
        {"question_id": 22000, "answer": "1 image s : what colour is it answer question using single word or phrase"}
    ]
    assert json.loads((tmp_path / "vqav2.json").read_text())["score"] is None


def test_a_file_of_something_else_is_left_alone(address: str, out: Path) -> None:
    answers = out.with_suffix(".answers.jsonl")
    answers.write_text('{"id": 1, "text": "of ask-many"}\n')
    ran = run(address, out)
    assert (ran.code, "answers of another command" in ran.one_line) == (2, True)
    assert answers.read_text() == '{"id": 1, "text": "of ask-many"}\n'


def test_the_listing_names_every_benchmark_and_its_files() -> None:
    ran = vscan("eval", "--list")
    assert ran.code == 0
    assert {line.split()[0] for line in ran.out.splitlines() if not line.startswith(" ")} == set(TASKS)
    assert "    --questions testdev_balanced_questions.json, --images" in ran.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["eval"], "task: which one?"),
        (["eval", "popo"], "'popo' is none; pope?"),
        (["eval", "gqa"], "--questions: missing"),
        (["eval", "gqa", "--questions", "q.json"], "--images: missing"),
        ([*POPE, "--export", "x.json"], "export: pope has no form of its own"),
        ([*POPE, "--budget", "many"], "'many' is neither a number of tokens nor a percentage"),
        ([*POPE, "--split", "dev"], "split: pope takes none"),
        ([*POPE, "--out", "gone/x.json", "--server", "ADDRESS"], "gone"),
        ([*POPE, "--out", DATA], f"--out: {DATA}: Is a directory"),
        ([*POPE, "--frames", "4"], "--frames: pope asks about images, limit only with videos"),
        ([*POPE, "--top-p", "0.5"], "--top-p: given, and answers are greedy, limit only with a --temperature over 0"),
        ([*POPE, "--annotations", DATA / "pope/coco"], "--annotations: coco has its answers within"),
        ([*VQAV2, "--export", "gone/x.json"], "--export: gone is not a folder"),
        ([*VQAV2, "--export", DATA], f"--export: {DATA}: Is a directory"),
        ([*VQAV2, "--out", "OUT", "--export", "OUT"], "x.json is what --out writes too"),
        ([*MSVD, "--judged", "gone.json"], "judged: gone.json is not a file"),
        ([*MSVD, "--export", "x.json"], "export: a judge compares answers with labels"),
        ([*MME, "--annotations", "gone"], "annotations: gone is not a folder"),
    ],
)
def test_a_bad_option_is_one_line(address: str, tmp_path: Path, arguments: list[object], told: str) -> None:
    for clip in ("clip1.mp4", "clip2.mp4"):
        (tmp_path / clip).touch()
    here = {"ADDRESS": address, "VIDEOS": str(tmp_path), "OUT": str(tmp_path / "x.json")}
    ran = vscan(*(here.get(str(argument), argument) for argument in arguments))
    assert (ran.code, told in ran.one_line) == (2, True), ran.err
