"""The SDK and the command line against a whole deployment: the embedded model, real Redis, three processes."""

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PillowImage

from embedded_model.album import Picture, draw_album
from tests.support.client_cli import in_a_process, vscan
from tests.support.prometheus import read_figures
from tests.support.redis_server import free_port
from tests.support.until import until
from vscan.errors import InvalidArgument, MissingImages
from vscan_client import (
    Answer,
    AsyncClient,
    Client,
    FinishReason,
    Image,
    KeepTokens,
    Message,
    Place,
    PruneSpec,
    Rater,
    ReductionMethod,
    ReductionSpec,
    SamplingSpec,
    TokensPerTile,
)
from vscan_client.cli.local_stack import ANY_PORT, Addresses, LocalStack

PICTURES, QUESTIONS = 3, 2
METRICS_PORT = free_port()


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    one_thread = {"torch_threads": "1"}
    counted = one_thread | {"metrics_bind": f"127.0.0.1:{METRICS_PORT}"}
    with LocalStack(
        decoder_bind=ANY_PORT,
        encoder_bind=ANY_PORT,
        settings={"encoder": one_thread, "decoder": counted},
    ) as stack:
        yield stack


@pytest.fixture
def at(stack: LocalStack) -> Addresses:
    return stack.addresses


@pytest.fixture
def client(at: Addresses) -> Iterator[Client]:
    with Client(server=at.decoder, encoder=at.encoder) as client:
        yield client


@pytest.fixture(scope="module")
def album() -> list[Picture]:
    return draw_album(23, pictures=PICTURES, questions=QUESTIONS)


def essence(answer: Answer) -> dict[str, Any]:
    """What must not depend on where the tokens were found, on rows that the decoder still had, or on the clock."""
    told = answer.to_dict()
    told["usage"] = {name: count for name, count in told["usage"].items() if not name.startswith("reused_")}
    kept = ("text", "finish_reason", "usage", "pruning", "seed")
    ids = [(token.token_id, [token_id for token_id, _ in token.top]) for token in answer.tokens]
    after = [image["tokens_after"] for image in told["images"]]
    return {name: told[name] for name in kept} | {"token_ids": ids, "tokens_after": after}


def logprobs(answer: Answer) -> Any:
    """To what float32 promises: sums over the rows of a step are rounded otherwise when some of them are reused."""
    return pytest.approx([logprob for token in answer.tokens for _, logprob in token.top], abs=2e-4)


def test_a_repeated_image_uploads_its_name_and_comes_from_memory(client: Client, album: list[Picture]) -> None:
    png, question = album[0].png(), album[0].questions[0].text
    cold, repeated = (client.ask(png, question, sampling=SamplingSpec(seed=1)) for _ in range(2))
    assert cold.client.sent_bytes > len(png)
    assert repeated.client.sent_bytes < 200
    assert (cold.images[0].place, repeated.images[0].place) == (Place.ENCODED, Place.MEMORY)
    assert essence(cold) == essence(repeated)
    assert cold.usage.reused_prompt_tokens == 0
    assert repeated.usage.reused_prompt_tokens
    assert cold.text
    assert cold.usage.visual_tokens < cold.usage.visual_tokens_unreduced
    assert cold.pruning[-1].tokens_after < cold.pruning[0].tokens_before
    assert len(cold.tokens) == cold.usage.completion_tokens


def test_sync_async_streamed_and_by_digest_are_one_answer(client: Client, at: Addresses, album: list[Picture]) -> None:
    png, question = album[1].png(), album[1].questions[0].text
    options: Any = {
        "reduction": ReductionSpec(method=ReductionMethod.VSCAN, budget=TokensPerTile(36)),
        "prune": PruneSpec(rater=Rater.TEXT_MEAN, budgets=(KeepTokens(12),)),
        "sampling": SamplingSpec(max_new_tokens=6, seed=2, ignore_eos=True, logprobs=2),
    }

    async def asked_in_a_loop() -> Answer:
        async with AsyncClient(server=at.decoder) as there:
            return await there.ask(png, question, **options)

    sync = client.ask(png, question, **options)
    streamed = client.stream(png, question, **options)
    text = "".join(streamed.texts())
    by_digest = client.ask(Image.from_digest(sync.images[0].sha256), question, **options)
    chat = client.chat([Message.user(png, question)], **options)
    everyone = [asyncio.run(asked_in_a_loop()), streamed.answer, by_digest, chat]
    assert [essence(answer) for answer in everyone] == [essence(sync)] * 4
    assert all([logprob for token in answer.tokens for _, logprob in token.top] == logprobs(sync) for answer in everyone)
    assert text == sync.text
    assert (sync.finish_reason, sync.usage.completion_tokens) == (FinishReason.LENGTH, 6)
    assert (sync.usage.visual_tokens, sync.pruning[0].tokens_after) == (36, 12)
    assert all(len(token.top) == 2 for token in sync.tokens)


def test_kept_patches_fit_the_counts(client: Client, album: list[Picture]) -> None:
    answer = client.ask([picture.png() for picture in album[:2]], "what is there", report_kept=True)
    for number, image in enumerate(answer.images):
        assert image.kept is not None
        assert len(image.kept.kept_indices) == image.tokens_after == len(image.kept.picked_by)
        assert image.kept.unreduced_count == image.tokens_before == 144
        assert answer.pruning[0].survivors[number]
        assert max(answer.pruning[0].survivors[number]) < image.tokens_after


def test_an_image_encoded_before_is_not_uploaded_with_the_question(client: Client, album: list[Picture]) -> None:
    png = album[2].png()
    assert client.lookup(png) == (None,)
    assert client.encode(png).image.place is Place.ENCODED
    assert client.lookup(png) != (None,)
    answer = client.ask(png, album[2].questions[0].text)
    assert answer.images[0].place in {Place.REDIS, Place.MEMORY, Place.ENCODER_MEMORY}
    assert answer.client.sent_bytes < 200


def test_errors_name_the_field_and_the_next_question_works(client: Client, album: list[Picture]) -> None:
    png, question = album[0].png(), album[0].questions[0].text
    with pytest.raises(InvalidArgument, match="temperature"):
        client.ask(png, question, sampling=SamplingSpec(temperature=-1.0))
    with pytest.raises(InvalidArgument, match=r"messages\[0\]\.parts\[0\]"):
        client.ask(b"not an image", question)
    with pytest.raises(MissingImages):
        client.ask(Image.from_digest(bytes(32)), question)
    assert client.ask(png, question).text


def test_ask_many_through_the_command_line(at: Addresses, album: list[Picture], tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    for picture in album:
        (tmp_path / f"{picture.name}.png").write_bytes(picture.png())
        for number, question in enumerate(picture.questions):
            lines.append({"id": f"{picture.name}/{number}", "image": f"{picture.name}.png", "question": question.text})
    lines.append({"id": "bad", "image": f"{album[0].name}.png", "question": "what", "temperature": -1})
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ran = vscan("ask-many", questions, "--server", at.decoder, "--concurrency", 3)
    assert (ran.code, ran.one_line) == (1, f"{PICTURES * QUESTIONS} answered, 1 failed, 0 were answered before")
    found = {line["id"]: line for line in map(json.loads, (tmp_path / "questions.answers.jsonl").read_text().splitlines())}
    assert found.keys() == {line["id"] for line in lines}
    assert found.pop("bad")["error"]["name"] == "InvalidArgument"
    assert all(line["text"] for line in found.values())
    again = vscan("ask-many", questions, "--server", at.decoder)
    assert again.one_line == f"0 answered, 1 failed, {PICTURES * QUESTIONS} were answered before"


def gqa_form(folder: Path) -> dict[str, str]:
    """Questions about fresh scenes in the form of GQA's release, `questions.json`, and the truth by their names."""
    records, truth = {}, {}
    for picture in draw_album(31, pictures=4, questions=4):
        (folder / f"{picture.name}.jpg").write_bytes(picture.png())
        for number, question in enumerate(picture.questions):
            name = f"{picture.name}/{number}"
            types = {"structural": "query", "semantic": question.family}
            records[name] = {"question": question.text, "imageId": picture.name, "answer": question.answer, "types": types}
            truth[name] = question.answer
    (folder / "questions.json").write_text(json.dumps(records))
    return truth


def questions_answered() -> float:
    """By the decoder's own count, when none is under way."""

    def is_idle() -> bool:
        return read_figures(METRICS_PORT).total("vscan_requests_running", rpc_method="/vscan.v1.Decoder/Generate") == 0

    asyncio.run(until(is_idle, what="the end of all calls"))
    figures = read_figures(METRICS_PORT)
    return figures.total("vscan_requests_total", rpc_method="/vscan.v1.Decoder/Generate", vscan_status="OK")


def test_a_benchmark_that_was_interrupted_goes_on_and_is_scored(at: Addresses, tmp_path: Path) -> None:
    truth = gqa_form(tmp_path)
    out, answers = tmp_path / "gqa.json", tmp_path / "gqa.answers.jsonl"
    files = ("--questions", tmp_path / "questions.json", "--images", tmp_path, "--out", out)
    # The embedded model knows the questions as they are, without a request for a short answer.
    command: Any = ("eval", "gqa", *files, "--server", at.decoder, "--concurrency", 2, "--prompt-suffix", "")
    with subprocess.Popen(in_a_process(*command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        asyncio.run(until(lambda: answers.exists() and answers.read_text().count("\n") > 3, what="three answers"))
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    left = len(truth) - (answers.read_text().count("\n") - 1)
    before = questions_answered()
    ran = vscan(*command)
    assert (ran.code, ran.one_line) == (0, f"{left} answered, 0 failed, {len(truth) - left} were answered before")
    assert questions_answered() - before == left
    found = {record["id"]: record["text"] for record in map(json.loads, answers.read_text().splitlines()[1:])}
    assert found.keys() == truth.keys()
    right = sum(found[name].strip().lower() == answer for name, answer in truth.items())
    summary = json.loads(out.read_text())
    assert (summary["score"], summary["n"]) == (100 * right / len(truth), len(truth))
    assert right > len(truth) / 2
    tokens = summary["visual_tokens"]
    assert tokens["unreduced"] > tokens["after_stage_1"] > tokens["average_over_layers"] > min(tokens["after_layer"].values())
    assert vscan(*command, "--keep", "4").code == 2
    assert questions_answered() - before == left


def test_describe_and_ask_through_the_command_line(at: Addresses, album: list[Picture], tmp_path: Path) -> None:
    told = json.loads(vscan("describe", "--server", at.decoder, "--encoder", at.encoder).out)
    assert told["decoder"]["encoder_fingerprint"] == told["encoder"]["fingerprint"] != ""
    (tmp_path / "a.png").write_bytes(album[0].png())
    ran = vscan(
        "ask", tmp_path / "a.png", "what is there", "--server", at.decoder, "--json", "--budget", "25%", "--keep", "50%"
    )
    answer = json.loads(ran.out)
    assert (answer["usage"]["visual_tokens"], answer["pruning"][0]["tokens_after"]) == (36, 18)
    ran = vscan(
        "ask", tmp_path / "a.png", "what is there", "--server", at.decoder, "--rater", "none", "--reduction", "none", "--json"
    )
    assert json.loads(ran.out)["usage"]["visual_tokens_average"] == 144


def test_the_cache_outlives_both_services(stack: LocalStack, album: list[Picture]) -> None:
    png, question = album[0].png(), album[0].questions[0].text
    with Client(server=stack.addresses.decoder) as client:
        before = client.ask(png, question, sampling=SamplingSpec(seed=1))
        stack.restart("decoder", "encoder", kill=True)
        after = client.ask(png, question, sampling=SamplingSpec(seed=1))
    assert after.images[0].place is Place.REDIS
    assert after.client.sent_bytes < 200 * after.client.attempts
    assert essence(after) == essence(before)


def test_answers_go_on_without_redis(stack: LocalStack, album: list[Picture]) -> None:
    with Client(server=stack.addresses.decoder) as client:
        before = client.ask(album[1].png(), "what is there")
        stack.restart("redis", kill=True)  # empty now
        assert client.ask(album[1].png(), "what is there").text == before.text


def test_show_draws_one_picture_and_several_at_several_budgets(at: Addresses, album: list[Picture], tmp_path: Path) -> None:
    files = [tmp_path / f"{picture.name}.png" for picture in album[:2]]
    for file, picture in zip(files, album, strict=False):
        file.write_bytes(picture.png())
    question = album[0].questions[0].text
    budgets = ("--budget", "33%", "--budget", "avg:11.1%")
    one = vscan("show", files[0], question, *budgets, "--server", at.decoder, "--out", tmp_path / "one")
    assert one.code == 0, one.err
    header, first, facts, answer, second, *_, written = one.out.splitlines()
    assert header == f"question: {question}"
    assert first.startswith("budget 33%: 144 → 47 → 15 visual tokens, ")
    assert second.startswith("budget avg:11.1%: 144 → 23 → 8 visual tokens, ")
    assert f"{files[0].name}: 47 of 144 kept: " in facts
    assert answer.strip().startswith("answer: ")
    assert written == f"written: {tmp_path / 'one' / 'show.png'}, {tmp_path / 'one' / 'show.html'}"
    assert PillowImage.open(tmp_path / "one" / "show.png").size[0] == 16 + 3 * 416
    page = (tmp_path / "one" / "show.html").read_text(encoding="utf-8")
    assert page.count('class="token ') == 47 + 23
    assert "does not say where" not in page
    whole = vscan(
        "show", files[0], "what is it? " * 50, "--reduction", "none", "--server", at.decoder, "--out", tmp_path / "whole"
    )
    assert (whole.code, whole.out.splitlines()[1][:12]) == (0, "budget none:"), whole.err
    both = vscan("show", *files, "which is larger?", *budgets, "--json", "--server", at.decoder, "--out", tmp_path / "both")
    assert both.code == 0, both.err
    told = json.loads(both.out)
    assert told["names"] == [file.name for file in files]
    assert [(each["budget"], each["usage"]["visual_tokens"]) for each in told["answers"]] == [("33%", 94), ("avg:11.1%", 46)]
    areas = {
        tuple(tile["area"].values()) for each in told["answers"] for image in each["images"] for tile in image["kept"]["tiles"]
    }
    assert areas == {(0.0, 0.0, 1.0, 1.0)}
    assert (tmp_path / "both" / "show.html").read_text(encoding="utf-8").count('class="token ') == 94 + 46


def test_show_says_what_it_cannot_do(at: Addresses, album: list[Picture], tmp_path: Path) -> None:
    server = ("--server", at.decoder)
    named = vscan("show", f"sha256:{'0' * 64}", "what?", *server)
    assert (named.code, "the file itself" in named.one_line) == (2, True)
    file = tmp_path / "a.png"
    file.write_bytes(album[0].png())
    (tmp_path / "taken").write_text("")
    taken = vscan("show", file, "what?", "--budget", "33%", "--out", tmp_path / "taken", *server)
    assert (taken.code, taken.one_line.startswith("vscan: --out: ")) == (2, True)
