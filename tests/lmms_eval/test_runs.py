"""lmms-eval's own command, in an environment of its own, against services as processes: `make test-lmms-eval`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from embedded_model.album import draw_album
from tests.support.service_process import ServiceProcess
from tests.support.stack import process_stack
from vscan import specs
from vscan_client import Client, Message

COMMAND = Path(__file__).parents[2] / ".venv-lmms-eval" / "bin" / "lmms-eval"
TASKS = Path(__file__).parent / "tasks"
# Of 144; so few that some answers are wrong, so that the score says whose answers were counted.
TOKENS = 10
SEED = 11
PICTURES = 6


@dataclass(frozen=True, slots=True)
class Question:
    """One line of a task's file."""

    images: list[str]
    question: str
    answer: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data: pictures and the files of the tasks."""
    assert COMMAND.is_file(), f"{COMMAND} is not there: make test-lmms-eval makes it"
    folder = tmp_path_factory.mktemp("lmms-eval")
    scenes, pairs = [], []
    album = draw_album(SEED, pictures=PICTURES, questions=8)
    for number, picture in enumerate(album):
        (folder / f"{picture.name}.png").write_bytes(picture.png())
        two = [f"{album[number - 1].name}.png", f"{picture.name}.png"]
        for asked in picture.questions:
            scenes.append(Question([two[1]], asked.text, asked.answer))
            pairs.append(Question(two, f"<image> <image>\n{asked.text}", asked.answer))
    broken = [*scenes[:2], Question([scenes[0].images[0]], "what is " * 4000, "no"), *scenes[2:4]]
    for name, questions in {"scenes": scenes, "pairs": pairs, "broken": broken}.items():
        lines = [json.dumps({"images": each.images, "question": each.question, "answer": each.answer}) for each in questions]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A decoder of the embedded model. Who names no budget gets the one that all tests here use."""
    with process_stack(tmp_path_factory.mktemp("stack"), encoder={"reduction_tokens_per_tile": TOKENS}) as stack:
        yield stack.decoder_address


@pytest.fixture(scope="module")
def gateway(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway in front of it."""
    process = ServiceProcess("gateway", tmp_path_factory.mktemp("gateway"), {"decoder_address": server})
    try:
        process.start()
        yield process.address
    finally:
        process.stop()


def run(folder: Path, server: str, tasks: str, *more: str, arguments: str = "") -> subprocess.CompletedProcess[str]:
    """lmms-eval with our model, as users run it."""
    model = ["--model", "vscan", "--model_args", f"server={server},budget={TOKENS},concurrent=4{arguments}"]
    return evaluate(folder, [*model, "--tasks", tasks, *more])


def evaluate(folder: Path, arguments: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Its command; `--verbosity DEBUG` is what makes it end with an error where a run fails."""
    command = [str(COMMAND), *arguments, "--include_path", str(TASKS), "--output_path", "out", "--log_samples"]
    others = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    return subprocess.run(
        [*command, "--verbosity", "DEBUG"],
        cwd=folder,
        env=others | offline | variables,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def results_in(folder: Path) -> dict[str, Any]:
    """What the latest run wrote."""
    return dict(json.loads(max((folder / "out").rglob("*_results.json"), key=lambda path: path.stat().st_mtime_ns).read_text()))


def answers_in(folder: Path, task: str) -> list[str]:
    """The answers that the latest run wrote down, in the documents' order."""
    latest = max((folder / "out").rglob(f"*_samples_vscan_{task}.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    samples = sorted((json.loads(line) for line in latest.read_text().splitlines()), key=lambda sample: sample["doc_id"])
    return [sample["filtered_resps"] for sample in samples]


def own_answers(folder: Path, server: str, task: str) -> tuple[list[str], list[str]]:
    """The answers that the SDK gets to the same questions, and the labels."""
    lines = [json.loads(line) for line in (folder / f"{task}.jsonl").read_text().splitlines()]
    with Client(server=server) as client:
        return [_ask(client, folder, line["images"], line["question"]) for line in lines], [line["answer"] for line in lines]


def _ask(client: Client, folder: Path, images: Sequence[str], question: str) -> str:
    text = question.rpartition("\n")[2]
    return client.chat(
        [Message.user(*(folder / image for image in images), text)],
        reduction=specs.ReductionSpec(budget=specs.TokensPerTile(TOKENS)),
        sampling=specs.SamplingSpec(max_new_tokens=8, temperature=0.0, stop=("\n",)),
    ).text


@pytest.mark.parametrize("interface", ["chat", "simple"])
def test_its_scores_are_those_of_our_own_count(folder: Path, server: str, interface: str) -> None:
    more = ["--force_simple"] if interface == "simple" else []
    tasks = ["scenes", "pairs"]
    done = run(folder, server, ",".join(f"vscan_{task}" for task in tasks), *more)
    assert done.returncode == 0, done.stdout + done.stderr
    told = results_in(folder)
    for task in tasks:
        answers, labels = own_answers(folder, server, task)
        right = [answer == label for answer, label in zip(answers, labels, strict=True)]
        assert 0 < sum(right) < len(right)  # else any other answers might have had this score
        assert told["results"][f"vscan_{task}"]["right,none"] == pytest.approx(sum(right) / len(right))
        assert answers_in(folder, task) == answers
    assert f"budget={TOKENS}," in told["config"]["model_args"]
    assert told["config"]["model_backend"].endswith(f"({interface})")
    assert told["throughput"]["avg_visual_tokens"] == TOKENS * 1.5  # half the questions show two pictures
    assert told["throughput"]["avg_visual_tokens_unreduced"] == 144 * 1.5
    assert "generation_kwargs.image_aspect_ratio means nothing" in done.stdout


def test_its_own_client_of_openais_api_has_the_same_score_at_the_gateway(folder: Path, server: str, gateway: str) -> None:
    known = {"OPENAI_API_BASE": f"http://{gateway}/v1", "OPENAI_API_KEY": "unused"}
    model = ["--model", "openai", "--model_args", "model_version=embedded,timeout=1"]
    done = evaluate(folder, [*model, "--tasks", "vscan_scenes"], **known)
    assert done.returncode == 0, done.stdout + done.stderr
    answers, labels = own_answers(folder, server, "scenes")
    right = [answer == label for answer, label in zip(answers, labels, strict=True)]
    assert 0 < sum(right) < len(right)
    assert answers_in(folder, "scenes") == answers
    assert results_in(folder)["results"]["vscan_scenes"]["right,none"] == pytest.approx(sum(right) / len(right))


def test_a_question_that_fails_ends_the_run_and_is_named(folder: Path, server: str) -> None:
    before = list((folder / "out").rglob("*_results.json"))
    done = run(folder, server, "vscan_broken")
    assert done.returncode != 0
    assert "RequestFailed: task vscan_broken, doc 2: messages" in done.stderr
    assert list((folder / "out").rglob("*_results.json")) == before


def test_a_task_that_wants_given_answers_scored_is_refused(folder: Path, server: str) -> None:
    done = run(folder, server, "vscan_choices", "--force_simple")
    assert done.returncode != 0
    assert "NotImplementedError: vscan_choices: vscan-serve generates answers and does not score given ones" in done.stderr
