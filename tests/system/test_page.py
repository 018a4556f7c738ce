"""The page in Debian's Chromium, before real services: real clicks, real keys, the real network log."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from tests.support.client_decoder import ScriptedDeployment, serving
from tests.support.videos import video
from vscan_client import Client
from vscan_client.cli.local_stack import ANY_PORT, DECODER, LocalStack
from vscan_client.cli.questions import QuestionOptions

pytestmark = pytest.mark.system

SCENE = Path(__file__).parents[2] / "docs" / "images" / "scene.png"
QUESTION = "what letter is at the top center?"
BUDGET = "avg:11.1%"
WAIT_MS = 30_000
_TAGS = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"], "resultTypes": ["violations"]}


class Watched:
    """A page, and what went wrong on it or left its origin."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        expect.set_options(timeout=WAIT_MS)
        self.url, self.complaints = url, list[str]()
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)
        expect(self.page.locator("#health li")).to_have_count(3)

    def ask(self, *, budget: str = BUDGET) -> None:
        """Chooses the file, asks, and waits for both answers."""
        self.page.set_input_files("#files", SCENE)
        self.page.get_by_label("Question").fill(QUESTION)
        self.page.get_by_role("button", name="Ask").click()
        self.wait_done(0)
        self.wait_done(1)

    def wait_done(self, column: int) -> None:
        """Waits until an answer is whole."""
        expect(self.page.locator(".column").nth(column).locator(".stages .now")).to_contain_text("done")

    def row(self, head: str) -> list[str]:
        """Cells of the table side by side."""
        return (
            self.page.locator("#side-rows tr")
            .filter(has=self.page.get_by_role("rowheader", name=head, exact=True))
            .locator("td")
            .all_inner_texts()
        )


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    with LocalStack(
        decoder_bind=ANY_PORT, encoder_bind=ANY_PORT, page_bind=ANY_PORT, environment={"OMP_NUM_THREADS": "1"}
    ) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def watched(browser: Browser, stack: LocalStack, request: pytest.FixtureRequest) -> Iterator[Watched]:
    wanted = {"viewport": {"width": 1280, "height": 900}} | getattr(request, "param", {})
    context = browser.new_context(**wanted)
    yield Watched(context, f"http://{stack.addresses.page}/")
    context.close()


def test_a_picture_is_asked_about_and_its_patches_light_up(watched: Watched, stack: LocalStack) -> None:
    page = watched.page
    watched.ask()
    with Client(server=stack.addresses.decoder) as client:
        options = QuestionOptions(budget=BUDGET, report_kept=True).ask_options()
        answer = client.ask(SCENE, QUESTION, **options)
        plain = client.ask(SCENE, QUESTION, **QuestionOptions(reduction="none", rater="none").ask_options())
    (layer,) = answer.pruning
    chosen, right = page.locator(".column").nth(0), page.locator(".column").nth(1)
    expect(chosen.locator(".answer")).to_have_text(answer.text.strip())
    expect(right.locator(".answer")).to_have_text(plain.text.strip())
    expect(chosen.locator("use.survivor")).to_have_count(layer.tokens_after)
    expect(chosen.locator("use.lost")).to_have_count(layer.tokens_before - layer.tokens_after)
    chosen.get_by_label("what the encoder kept").check()
    expect(chosen.locator("use.mark")).to_have_count(answer.usage.visual_tokens)
    assert watched.row("kept by the encoder") == [str(answer.usage.visual_tokens), str(plain.usage.visual_tokens)]
    assert watched.row("after the last pruning layer") == [str(layer.tokens_after), str(plain.usage.visual_tokens)]
    assert watched.row("average over the layers")[1].startswith(f"{plain.usage.visual_tokens_average:.0f} (100.0%)")
    assert page.locator("#trace-rows tr").count() == 7
    assert stack.addresses.decoder in page.locator("#trace-words").inner_text()
    # The slider asks the left one again, and leaves the right one as it is.
    page.get_by_label("Visual tokens to keep").fill("6")
    expect(chosen.locator("h2")).to_have_text("Budget avg:33%")
    watched.wait_done(0)
    assert int(watched.row("kept by the encoder")[0]) > answer.usage.visual_tokens
    assert watched.row("kept by the encoder")[1] == str(plain.usage.visual_tokens)
    # Back where it was before, its name alone is sent, and its tokens are found.
    page.get_by_label("Visual tokens to keep").fill("3")
    expect(chosen.locator("h2")).to_have_text(f"Budget {BUDGET}")
    watched.wait_done(0)
    assert watched.row("where the tokens were")[0] == "found in the decoder's memory"
    # Another question is asked of both: what stands side by side is about the same.
    page.get_by_label("Question").fill("is there a star")
    page.get_by_label("Visual tokens to keep").fill("4")
    expect(chosen.locator("h2")).to_have_text("Budget avg:16%")
    watched.wait_done(0)
    watched.wait_done(1)
    expect(right.locator(".answer")).to_have_text(re.compile("yes|no"))
    assert watched.complaints == []
    assert {url for url in watched.asked if not url.startswith((watched.url, f"blob:{watched.url}"))} == set()


def test_it_works_by_keys_alone(watched: Watched) -> None:
    page, keys = watched.page, watched.page.keyboard
    page.set_input_files("#files", SCENE)  # the browser's own chooser is no part of a page
    page.locator("#files").focus()
    seen = [page.evaluate("document.activeElement.id")]
    keys.press("Tab")
    seen.append(page.evaluate("document.activeElement.id"))
    keys.type(QUESTION)
    keys.press("Tab")
    seen.append(page.evaluate("document.activeElement.id"))
    keys.press("ArrowRight")
    expect(page.locator("#budget-words")).to_contain_text("16%")
    keys.press("Tab")
    seen.append(page.evaluate("document.activeElement.localName"))
    keys.press("Tab")
    seen.append(page.evaluate("document.activeElement.id"))
    keys.press("Space")  # not compared
    keys.press("Tab")
    seen.append(page.evaluate("document.activeElement.id"))
    assert seen == ["files", "question", "budget", "summary", "compare", "ask"]
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    keys.press("Enter")
    watched.wait_done(0)
    assert page.locator(".column").count() == 1
    expect(page.locator("#status")).to_contain_text("Budget avg:16%: 34 of 144 tokens kept. Answer: ")
    # The views, then the kept patches one after the other, with what was merged into each.
    keys.press("Tab")
    keys.press("ArrowUp")
    expect(page.locator("use.local").first).to_be_attached()
    keys.press("Tab")
    keys.press("ArrowRight")
    expect(page.locator("rect.looked")).to_have_count(1)
    expect(page.locator(".patch output")).to_contain_text("row ")
    assert watched.complaints == []


@pytest.mark.parametrize(
    "watched",
    [
        {"viewport": {"width": 320, "height": 640}},
        {"color_scheme": "dark", "reduced_motion": "reduce"},
        {"color_scheme": "light"},
    ],
    indirect=True,
    ids=["phone", "dark", "light"],
)
def test_everybody_can_read_it(watched: Watched) -> None:
    page = watched.page
    watched.ask()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] > 128")
    assert dark != light
    if page.evaluate("matchMedia('(prefers-reduced-motion: reduce)').matches"):
        assert page.evaluate("getComputedStyle(document.querySelector('.mark')).animationName") == "none"
    problems = Axe().run(page, options=_TAGS).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in problems] == []


def test_what_is_wrong_is_said_beside_it(watched: Watched, stack: LocalStack, tmp_path: Path) -> None:
    page = watched.page
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#files-error")).to_have_text("Choose an image or a video.")
    expect(page.locator("#question-error")).to_have_text("Write a question.")
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(49 * 1024 * 1024)
    page.set_input_files("#files", large)
    expect(page.locator("#files-error")).to_contain_text("at most 48.0 MiB")
    (tmp_path / "text.png").write_text("no image")
    page.set_input_files("#files", tmp_path / "text.png")
    page.get_by_label("Question").fill(QUESTION)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#files-error")).to_contain_text("Refused: ")
    page.set_input_files("#files", SCENE)
    page.get_by_text("Another budget").click()
    page.locator("#other").fill("much")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#budget-error")).to_contain_text("'much' is neither a number of tokens nor a percentage")
    page.locator("#other").fill("")
    os.kill(stack.pids[DECODER], signal.SIGSTOP)  # away, as one that hangs; the stack takes it for alive
    try:
        page.get_by_role("button", name="Ask").click()
        expect(page.locator("#health .away")).to_contain_text("decoder away")
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".column .error")).to_have_text("Stopped.")
    finally:
        os.kill(stack.pids[DECODER], signal.SIGCONT)


@pytest.fixture
def scripted_page() -> Iterator[str]:
    """A page before a scripted decoder, which takes videos as the embedded model does not."""
    with serving(ScriptedDeployment()) as decoder:
        environment = os.environ | {"VSCAN_PAGE_BIND": ANY_PORT, "VSCAN_PAGE_DECODER_ADDRESS": decoder}
        command = [sys.executable, "-m", "page_service"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield next(line.split()[1] for line in process.stdout if line.startswith("page "))
            finally:
                process.terminate()


def test_frames_of_a_video_are_drawn_beside_an_image(browser: Browser, scripted_page: str, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(video(frames=12))
    (tmp_path / "odd.tiff").write_bytes(b"II*\0 no browser shows it")
    watched = Watched(browser.new_context(), scripted_page)
    page = watched.page
    page.set_input_files("#files", [tmp_path / "clip.mp4", SCENE, tmp_path / "odd.tiff"])
    page.get_by_label("Question").fill("what happens")
    page.get_by_role("button", name="Ask").click()
    watched.wait_done(1)
    chosen = page.locator(".column").nth(0)
    expect(chosen.locator(".answer")).to_have_text("2 image(s), 1 video(s): what happens")
    expect(chosen.locator("figcaption")).to_contain_text(["clip.mp4, 0.00 s", "clip.mp4, 0.50 s", "scene.png", "odd.tiff"])
    expect(chosen.locator("canvas")).to_have_count(2)
    expect(chosen.locator("img")).to_have_count(1)
    expect(chosen.locator(".pictures .hint")).to_contain_text(["cannot show odd.tiff"])
    numbers = chosen.locator("canvas").evaluate_all("all => all.map(one => one.toDataURL())")
    assert numbers[0] != numbers[1]
    assert watched.complaints == []
    page.context.close()


def test_a_decoder_that_ended_is_told_in_words(watched: Watched, stack: LocalStack) -> None:
    stack._children[DECODER].terminate()
    assert stack._children[DECODER].wait(WAIT_MS / 1000)
    page = watched.page
    page.set_input_files("#files", SCENE)
    page.get_by_label("Question").fill(QUESTION)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".column .error")).to_contain_text(f"The decoder at {stack.addresses.decoder} does not answer")
    expect(page.locator(".column .error")).to_contain_text("vscan up")
    expect(page.locator("#health .away")).to_contain_text("decoder away")
