"""The page in Debian's Chromium: files that are dropped, mistakes that are told, questions that overtake each other."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.support.browser import Watched, chromium, served_page
from tests.support.client_decoder import ScriptedDeployment, serving
from tests.support.until import GIVE_UP_SECONDS
from tests.support.videos import video
from vscan.errors import InternalError, InvalidArgument

pytestmark = pytest.mark.system

SCENE = Path(__file__).parents[2] / "docs" / "images" / "scene.png"
# How many object URLs are in use, and canvases and media elements in the document.
_COUNT_URLS = """
  window.urls = new Set();
  const [make, drop] = [URL.createObjectURL, URL.revokeObjectURL];
  URL.createObjectURL = (file) => { const url = make.call(URL, file); window.urls.add(url); return url; };
  URL.revokeObjectURL = (url) => { window.urls.delete(url); drop.call(URL, url); };
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def deployment() -> ScriptedDeployment:
    """What the decoder does and has seen."""
    return ScriptedDeployment()


@pytest.fixture
def watched(browser: Browser, deployment: ScriptedDeployment) -> Iterator[Watched]:
    bounds = {"max_upload_bytes": 1024 * 1024, "max_question_chars": 40, "max_files": 3}
    with (
        serving(deployment) as decoder,
        served_page(decoder, encoder_address=(decoder,), **bounds) as url,
        browser.new_context(viewport={"width": 900, "height": 900}) as context,
    ):
        context.add_init_script(_COUNT_URLS)
        page = Watched(context, url)
        yield page
        page.check()


def _acquired(semaphore: threading.Semaphore) -> bool:
    return semaphore.acquire(timeout=GIVE_UP_SECONDS)


def _move_slider(watched: Watched, place: int) -> None:
    watched.page.get_by_label("Visual tokens to keep").fill(str(place))


def _let_it_rest(watched: Watched) -> None:
    """Lets all timers of the page pass that a slider starts, as later ones come after them."""
    watched.page.evaluate("new Promise((later) => setTimeout(later, 400))")


def test_files_are_dropped_anywhere(watched: Watched, tmp_path: Path) -> None:
    page, chosen, error = watched.page, watched.page.locator("#chosen"), watched.page.locator("#files-error")
    watched.drop(str(SCENE))
    expect(chosen).to_have_text("scene.png (2 KiB)")
    assert page.locator("#files").evaluate("input => input.files.length") == 1
    (tmp_path / "pictures").mkdir()
    (tmp_path / "moving.gif").write_bytes(video("gif", frames=3))
    watched.drop(str(tmp_path / "pictures"))
    expect(error).to_have_text("pictures is a folder. Drop the files in it.")
    watched.drop(text="https://example.com/cat.png")
    expect(error).to_contain_text("A link was dropped. This page fetches nothing")
    watched.drop(text="some words")
    expect(error).to_have_text("What was dropped is not a file.")
    expect(chosen).to_have_text("scene.png (2 KiB)")  # still
    watched.drop(text="is it a star", at="#question")
    expect(page.get_by_label("Question")).to_have_value("is it a star")
    watched.drop(str(tmp_path / "moving.gif"), str(SCENE), at="#question")
    expect(chosen).to_have_text(re.compile(r"moving.gif \(\d KiB, its first picture only\), scene.png"))
    expect(error).to_be_empty()
    assert page.url == watched.url
    watched.press("Ask")
    watched.wait_done(0, 1)
    expect(watched.column(0).locator(".answer")).to_have_text("2 image(s): is it a star")


def test_what_is_wrong_is_said_beside_it(watched: Watched, deployment: ScriptedDeployment, tmp_path: Path) -> None:
    page = watched.page
    files_error, question_error = page.locator("#files-error"), page.locator("#question-error")
    watched.press("Ask")
    expect(files_error).to_have_text("Choose an image or a video.")
    expect(question_error).to_have_text("Write a question.")
    expect(page.locator("#files")).to_be_focused()
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(1024 * 1024)
    watched.fill(tmp_path / "large.png", "long " * 10)
    expect(files_error).to_have_text(
        "The files are too large: 1.0 MiB, at most 1.0 MiB together. Choose smaller or fewer files."
    )
    page.set_input_files("#files", [SCENE] * 4)
    expect(files_error).to_have_text("4 files; at most 3 for one question.")
    page.set_input_files("#files", SCENE)
    watched.press("Ask")
    expect(question_error).to_have_text("The question has 49 characters; at most 40.")
    assert watched.asks == []
    # What the services say.
    page.get_by_label("Question").fill("what is it")
    page.get_by_text("Another budget").click()
    page.locator("#other").fill("much")
    watched.press("Ask")
    expect(page.locator("#budget-error")).to_contain_text("'much' is neither a number of tokens nor a percentage")
    expect(watched.column(0).locator(".error")).to_have_text("No answer: see what is said beside the budget.")
    page.locator("#other").fill("")
    deployment.fail_with.append(InvalidArgument("messages[0].parts[0].image", "not an image"))
    watched.press("Ask")
    expect(files_error).to_have_text("Refused: file 1: not an image.")
    deployment.fail_after_first_text = InternalError("internal error", trace_id="ab" * 16)
    watched.press("Ask")
    expect(watched.column(0).locator(".error")).to_contain_text("ab" * 16)
    expect(watched.column(0).locator(".answer")).to_have_text("1")  # what had come
    expect(watched.column(0).locator(".stages .now")).to_have_text("broke off")
    deployment.fail_after_first_text = None
    # A file that is another by now.
    (tmp_path / "now.png").write_bytes(SCENE.read_bytes())
    page.set_input_files("#files", tmp_path / "now.png")
    (tmp_path / "now.png").unlink()
    watched.press("Ask")
    expect(files_error).to_contain_text("now.png cannot be read. It was changed or moved since")
    watched.complaints = [each for each in watched.complaints if "Failed to load resource: net::" not in each]  # of that file


def test_services_that_are_away_are_told(browser: Browser) -> None:
    with serving(ScriptedDeployment()) as decoder, browser.new_context() as context:
        with served_page(decoder, encoder_address=("127.0.0.1:1",)) as url:
            other = Watched(context, url)
            expect(other.page.locator("#health .away")).to_contain_text("encoder away")
            expect(other.page.locator("#health")).to_contain_text("decoder ready")
        other.fill(SCENE, "what is it")
        other.press("Ask")
        expect(other.column(0).locator(".error")).to_contain_text("The page's own server does not answer. Start it again")
        other.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        expect(other.page.locator("#health .away")).to_contain_text("page away")
    with browser.new_context() as context, served_page("127.0.0.1:1") as url:
        other = Watched(context, url)
        other.fill(SCENE, "what is it")
        other.press("Ask")
        expect(other.column(0).locator(".error")).to_contain_text("The decoder at 127.0.0.1:1 does not answer")
        expect(other.column(0).locator(".error")).to_contain_text("vscan up")
        expect(other.page.locator("#health .away")).to_contain_text("decoder away")


def test_stopping_ends_the_work_and_asking_begins_anew(watched: Watched, deployment: ScriptedDeployment) -> None:
    page = watched.page
    deployment.hold_after_first_text.clear()
    watched.fill(SCENE, "what is it")
    watched.press("Ask")
    expect(watched.column(0).locator(".answer")).to_have_text("1")
    expect(watched.column(0).locator("use.mark")).to_have_count(2)  # seen while the answer is being written
    _move_slider(watched, 5)
    page.locator("#stop").focus()
    page.keyboard.press("Escape")
    expect(watched.column(0).locator(".error")).to_have_text("Stopped.")
    expect(page.locator("#ask")).to_be_focused()
    expect(page.locator("#stop")).to_be_disabled()
    assert _acquired(deployment.cancelled)
    _let_it_rest(watched)
    assert len(watched.asks) == 1
    deployment.hold_after_first_text.set()
    page.get_by_role("button", name="Ask").dblclick()
    watched.wait_done(0, 1)
    expect(watched.column(0).locator("h2")).to_have_text("Budget avg:22%")
    assert len(watched.asks) == 3  # the one that was stopped, and one for each side


def test_a_later_question_leaves_nothing_of_an_earlier_one(watched: Watched, deployment: ScriptedDeployment) -> None:
    page = watched.page
    deployment.hold_after_first_text.clear()
    watched.fill(SCENE, "old old old")
    watched.press("Ask")
    expect(watched.column(0).locator(".answer")).to_have_text("1")
    page.get_by_label("Question").fill("new")
    expect(page.locator("#about")).to_contain_text("The form says something else by now: press Ask.")
    _move_slider(watched, 6)
    _let_it_rest(watched)
    assert len(watched.asks) == 1  # nobody asked the other question
    watched.press("Ask")
    assert _acquired(deployment.cancelled)
    expect(watched.column(0).locator(".answer")).to_have_text("1")
    expect(page.locator("#status")).to_have_text("Budget avg:33%: asked.")  # not that the one before was stopped
    deployment.hold_after_first_text.set()
    watched.wait_done(0, 1)
    expect(page.locator(".answer")).to_have_text(["1 image(s): new"] * 2)
    expect(page.locator("#about")).to_have_text("“new” about scene.png.")
    assert "old old" not in page.locator("main").inner_text()
    assert [request.chat.messages[0].parts[-1].text for request in deployment.requests] == ["old old old", "new", "new"]


def test_the_slider_moves_while_no_reduction_is_asked(watched: Watched, deployment: ScriptedDeployment) -> None:
    page, held = watched.page, list[Route]()

    def hold_the_first(route: Route) -> None:
        if held or b"\r\nnone\r\n" not in (route.request.post_data_buffer or b""):
            route.continue_()
        else:
            held.append(route)

    page.route("**/ask", hold_the_first)
    watched.fill(SCENE, "what is it")
    watched.press("Ask")
    watched.wait_done(0)
    expect(watched.column(1).locator(".stages .now")).to_have_text("asked")
    for place in (0, 8, 2):  # at once: asked about where it rests
        _move_slider(watched, place)
    expect(page.locator(".column h2")).to_have_text(["Budget avg:8%", "No reduction"])
    watched.wait_done(0, 1)
    assert [request.reduction.budget.target_average for request in deployment.requests[:2]] == pytest.approx([0.111, 0.08])
    assert len(deployment.requests) == 3
    _move_slider(watched, 3)  # no reduction is there by now
    expect(watched.column(0).locator("h2")).to_have_text("Budget avg:11.1%")
    watched.wait_done(0)
    assert len(deployment.requests) == 4


def test_other_files_end_the_questions_about_those_before(watched: Watched, deployment: ScriptedDeployment) -> None:
    page = watched.page
    deployment.hold_after_first_text.clear()
    watched.fill(SCENE, "what is it")
    watched.press("Ask")
    expect(watched.column(0).locator(".answer")).to_have_text("1")
    page.set_input_files("#files", SCENE.with_name("kept.png"))
    expect(watched.column(0).locator(".error")).to_have_text("Stopped, as other files were chosen.")
    assert _acquired(deployment.cancelled)
    deployment.hold_after_first_text.set()
    for _ in range(3):
        watched.press("Ask")
        watched.wait_done(0, 1)
    # Its tokens are gone from the cache: the file goes again, and nobody is asked to send it.
    deployment.known.clear()
    watched.press("Ask")
    watched.wait_done(0, 1)
    expect(watched.column(0).locator(".stages")).to_contain_text("gone from the cache: the files are sent again")
    assert page.evaluate("window.urls.size") == 1
    assert page.locator("img, canvas").count() == 2


def test_a_page_that_is_left_asks_no_more_and_comes_back_as_it_was(watched: Watched, deployment: ScriptedDeployment) -> None:
    page = watched.page
    deployment.hold_after_first_text.clear()
    watched.fill(SCENE, "what is it")
    _move_slider(watched, 7)
    watched.press("Ask")
    expect(watched.column(0).locator(".answer")).to_have_text("1")
    page.goto("about:blank")
    assert _acquired(deployment.cancelled)
    deployment.hold_after_first_text.set()
    page.go_back()
    expect(page.get_by_label("Question")).to_have_value("what is it")
    expect(page.locator("#budget-words")).to_contain_text("50%")
    watched.press("Ask")
    watched.wait_done(0, 1)
    expect(watched.column(0).locator("h2")).to_have_text("Budget avg:50%")
