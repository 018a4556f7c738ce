"""The page in Debian's Chromium: what is seen on it, before real services and before scripted ones."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Position, expect

from tests.support.browser import Watched, chromium, served_page
from tests.support.client_decoder import ScriptedDeployment, serving
from tests.support.videos import video
from vscan_client import Client
from vscan_client.cli.local_stack import ANY_PORT, LocalStack
from vscan_client.cli.questions import QuestionOptions

pytestmark = pytest.mark.system

SCENE = Path(__file__).parents[2] / "docs" / "images" / "scene.png"
QUESTION = "what letter is at the top center?"
BUDGET = "avg:11.1%"
_TAGS = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"], "resultTypes": ["violations"]}
# What is drawn upon what: each has to differ by 3 : 1 (WCAG 1.4.11). The diamond of the global scan has an edge of its own.
_DRAWN = ["ink", "soft", "line", "accent", "local", "other", "survivor", "lost", "bad"]
_PALETTE = """names => {
  const style = getComputedStyle(document.documentElement);
  const light = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  return Object.fromEntries(names.map((name) => [name, light(style.getPropertyValue(`--${name}`).trim())]));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    with LocalStack(decoder_bind=ANY_PORT, encoder_bind=ANY_PORT, environment={"OMP_NUM_THREADS": "1"}) as running:
        yield running
        for pid in running.pids.values():
            os.kill(pid, signal.SIGKILL)  # how they end in order has tests of its own, and takes seconds


@pytest.fixture(scope="module")
def scripted() -> Iterator[str]:
    """A page before a scripted decoder, which takes videos as the embedded model does not."""
    with serving(ScriptedDeployment()) as decoder, served_page(decoder) as url:
        yield url


@pytest.fixture
def watched(browser: Browser, scripted: str, request: pytest.FixtureRequest) -> Iterator[Watched]:
    wanted: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}} | getattr(request, "param", {})
    with browser.new_context(**wanted) as context:
        page = Watched(context, scripted)
        yield page
        page.check()


def test_a_picture_is_asked_about_and_its_patches_light_up(browser: Browser, stack: LocalStack) -> None:
    parts = stack.addresses
    places = {"encoder_address": (parts.encoder,), "redis_address": urlsplit(parts.redis_url).netloc}
    with served_page(parts.decoder, **places) as url, browser.new_context() as context:
        watched = Watched(context, url)
        page = watched.page
        expect(page.locator("#health")).to_contain_text(re.compile("decoder ready.*encoder ready.*redis ready"))
        watched.fill(SCENE, QUESTION)
        watched.press("Ask")
        watched.wait_done(0, 1)
        with Client(server=stack.addresses.decoder) as client:
            options = QuestionOptions(budget=BUDGET, report_kept=True).ask_options()
            answer = client.ask(SCENE, QUESTION, **options)
            plain = client.ask(SCENE, QUESTION, **QuestionOptions(reduction="none", rater="none").ask_options())
        (layer,) = answer.pruning
        chosen, right = watched.column(0), watched.column(1)
        expect(chosen.locator(".answer")).to_have_text(answer.text.strip())
        expect(right.locator(".answer")).to_have_text(plain.text.strip())
        expect(chosen.locator("use.survivor")).to_have_count(layer.tokens_after)
        expect(chosen.locator("use.lost")).to_have_count(layer.tokens_before - layer.tokens_after)
        chosen.get_by_label("what the encoder kept").check()
        expect(chosen.locator("use.mark")).to_have_count(answer.usage.visual_tokens)
        assert watched.row("kept by the encoder") == [str(answer.usage.visual_tokens), str(plain.usage.visual_tokens)]
        assert watched.row("after the last pruning layer") == [str(layer.tokens_after), str(plain.usage.visual_tokens)]
        assert watched.row("average over the layers")[1].startswith(f"{plain.usage.visual_tokens_average:.0f} (100.0%)")
        assert watched.row("where the tokens were") == ["encoded now", "encoded now"]
        expect(page.locator("#side-fair")).to_contain_text("The times compare: on both sides the tokens were encoded now")
        assert page.locator("#traces tbody tr").count() == 2 * 7
        assert stack.addresses.decoder in page.locator("#traces").inner_text()
        # The slider asks the left one again, and leaves the right one as it is.
        page.get_by_label("Visual tokens to keep").fill("6")
        expect(chosen.locator("h2")).to_have_text("Budget avg:33%")
        watched.wait_done(0)
        assert int(watched.row("kept by the encoder")[0]) > answer.usage.visual_tokens
        assert watched.row("kept by the encoder")[1] == str(plain.usage.visual_tokens)
        # Back where it was before, its name alone is sent, its tokens are found, and that is no fair race.
        page.get_by_label("Visual tokens to keep").fill("3")
        expect(chosen.locator("h2")).to_have_text(f"Budget {BUDGET}")
        watched.wait_done(0)
        assert watched.row("where the tokens were") == ["found in the decoder's memory", "encoded now"]
        expect(page.locator("#side-fair")).to_contain_text("do not compare: the left side's tokens were found in")
        watched.press("Ask")
        watched.wait_done(0, 1)
        expect(page.locator("#side-fair")).to_contain_text(
            "on both sides the tokens were found in the decoder's memory, and the decoder still had most of both prompts"
        )
        assert not any(cell.startswith("0 ") for cell in watched.row("prompt that the decoder still had"))
        watched.check()


def test_it_works_by_keys_alone(watched: Watched) -> None:
    page, keys = watched.page, watched.page.keyboard
    page.set_input_files("#files", SCENE)  # the browser's own chooser is no part of a page
    page.locator("#files").focus()
    seen = []
    for _ in range(6):
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.localName"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        keys.press("Tab")
    assert seen == ["files", "question", "budget", "summary", "compare", "ask"]
    page.locator("#compare").focus()
    keys.press("Space")  # not compared
    page.locator("#budget").focus()
    keys.press("ArrowRight")
    expect(page.locator("#budget-words")).to_contain_text("16%")
    page.locator("#question").focus()
    keys.type("what is")
    keys.press("Shift+Enter")
    keys.type("it")
    keys.press("Enter")
    watched.wait_done(0)
    assert page.locator(".column").count() == 1
    expect(page.locator("#about")).to_have_text("“what is\nit” about scene.png.")
    expect(page.locator("#status")).to_contain_text("Budget avg:16%: 24 of 144 tokens kept. Answer: 1 image(s): what is it")
    # The views, then the kept patches one after the other, with what was merged into each.
    page.locator("#ask").focus()
    keys.press("Tab")
    for shown in ("what was merged into what", "what the encoder kept"):
        keys.press("ArrowUp")
        expect(page.get_by_label(shown)).to_be_focused()
    expect(page.locator("use.local")).to_be_attached()
    keys.press("Tab")
    keys.press("ArrowRight")
    expect(page.locator("rect.held")).to_have_count(2)
    expect(page.locator(".patch output")).to_have_text(
        "row 1, column 2: kept by the local scan; 2 patches were merged into it; went on past layer 4"
    )


def test_a_patch_that_is_pointed_at_shows_what_was_merged(watched: Watched) -> None:
    page = watched.page
    watched.fill(SCENE, "what is it")
    watched.press("Ask")
    watched.wait_done(0, 1)
    # Six patches: numbers 1 and 5 were kept; 0 and 3 were merged into 1, 2 and 4 into 5.
    chosen, words = watched.column(0), watched.column(0).locator(".patch output")
    panel = chosen.locator(".panel svg")
    box = panel.bounding_box()
    assert box is not None
    middles = [(column + 0.5, row + 0.5) for row in (0, 1) for column in (0, 1, 2)]
    at = [Position(x=box["width"] * x / 3, y=box["height"] * y / 2) for x, y in middles]
    panel.hover(position=at[3])
    expect(words).to_have_text(re.compile("^dropped, and merged into row 1, column 2: kept by the local scan; 2 patches"))
    expect(chosen.locator("rect.held")).to_have_count(2)
    panel.click(position=at[5])
    expect(words).to_have_text(re.compile("^row 2, column 3: kept by the global scan; 2 .*; ended at layer 4"))
    page.mouse.move(0, 0)
    expect(words).to_have_text(re.compile("^row 2, column 3"))  # that was clicked
    chosen.get_by_label("what was merged into what").check()
    lines = chosen.locator("path.thread:not(.edge)").evaluate_all(
        "all => all.map((one) => one.getAttribute('d').split('M').length - 1)"
    )
    assert sum(lines) == 4 + 2  # all, and those of the patch that was clicked


@pytest.mark.parametrize(
    "watched",
    [
        {"viewport": {"width": 320, "height": 640}},
        {"color_scheme": "dark", "reduced_motion": "reduce"},
        {"color_scheme": "light", "forced_colors": "active"},
    ],
    indirect=True,
    ids=["phone", "dark", "forced"],
)
def test_everybody_can_read_it(watched: Watched) -> None:
    page = watched.page
    watched.fill(SCENE, "what is it")
    watched.press("Ask")
    watched.wait_done(0, 1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if page.evaluate("matchMedia('(forced-colors: none)').matches"):
        dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        assert dark == page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] < 128")
    light = page.evaluate(_PALETTE, [*_DRAWN, "paper", "sheet"])
    low = [(one, on) for one in _DRAWN for on in ("paper", "sheet") if _contrast(light[one], light[on]) < 3]
    assert low == []
    if page.evaluate("matchMedia('(prefers-reduced-motion: reduce)').matches"):
        assert page.evaluate("getComputedStyle(document.querySelector('.mark')).animationName") == "none"
    low_targets = "all => all.filter((one) => one.getBoundingClientRect().height < 24).map((one) => one.outerHTML)"
    assert (
        page.locator("button, summary, label:has(input), input[type=range], input[type=file]").evaluate_all(low_targets) == []
    )
    problems = Axe().run(page, options=_TAGS).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in problems] == []


def _contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_frames_of_a_video_are_drawn_beside_an_image(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(video(frames=12))
    (tmp_path / "odd.tiff").write_bytes(b"II*\0 no browser shows it")
    watched.fill([tmp_path / "clip.mp4", SCENE, tmp_path / "odd.tiff"], "what happens")
    watched.press("Ask")
    watched.wait_done(0, 1)
    chosen = watched.column(0)
    expect(chosen.locator(".answer")).to_have_text("2 image(s), 1 video(s): what happens")
    expect(chosen.locator("figcaption")).to_contain_text(["clip.mp4, 0.00 s", "clip.mp4, 0.50 s", "scene.png", "odd.tiff"])
    expect(chosen.locator("canvas")).to_have_count(2)
    expect(chosen.locator("img")).to_have_count(1)
    expect(chosen.locator(".notes .hint")).to_contain_text(["cannot show odd.tiff"])
    numbers = chosen.locator("canvas").evaluate_all("all => all.map(one => one.toDataURL())")
    assert numbers[0] != numbers[1]
