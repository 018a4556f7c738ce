"""The page in Debian's Chromium, and what a browser complains about there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anyio.from_thread import start_blocking_portal
from playwright.sync_api import Browser, BrowserContext, Locator, Request, expect, sync_playwright

from tests.support.pages import page_of

WAIT_MS = 30_000
# What the browser itself says of a question that the page's server refuses: its log of the network, no fault of the page.
_REFUSED = "Failed to load resource: the server responded with a status of 4"


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser. Its file chooser, clipboard and mouse are real; its window is not."""
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def served_page(decoder: str, **settings: Any) -> Iterator[str]:
    """The page's own server in a thread, before the decoder at an address; gives its URL."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(page_of(decoder, **settings)) as client:
        yield f"{str(client.base_url).rstrip('/')}/"


class Watched:
    """A page, and what went wrong on it, left its origin, or broke off."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context, self.url = context, url
        self.page = context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.complaints, self.requests, self.failed = list[str](), list[Request](), list[str]()
        self.page.on("console", lambda message: self._complain(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self._complain(str(error)))
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("requestfailed", lambda request: self.failed.append(f"{request.url}: {request.failure}"))
        self.page.goto(url)
        expect(self.page.locator("#health li")).not_to_have_count(0)

    def _complain(self, text: str) -> None:
        if _REFUSED not in text:
            self.complaints.append(text)

    def check(self) -> None:
        """Raises AssertionError where the browser complained, or something elsewhere was asked for."""
        assert self.complaints == [], self.complaints
        own = (self.url, f"blob:{self.url}")
        assert [request.url for request in self.requests if not request.url.startswith(own)] == []

    @property
    def asks(self) -> list[Request]:
        """The questions that were sent."""
        return [request for request in self.requests if request.url.endswith("/ask")]

    def fill(self, files: Any, question: str) -> None:
        """Chooses files and writes a question."""
        self.page.set_input_files("#files", files)
        self.page.get_by_label("Question").fill(question)

    def press(self, name: str) -> None:
        """Clicks a button."""
        self.page.get_by_role("button", name=name).click()

    def column(self, number: int) -> Locator:
        """An answer: 0 at the chosen budget, 1 with no reduction."""
        return self.page.locator(".column").nth(number)

    def wait_done(self, *numbers: int) -> None:
        """Waits until answers are whole."""
        for number in numbers:
            expect(self.column(number).locator(".stages .now")).to_contain_text("done")

    def row(self, head: str) -> list[str]:
        """Cells of the table side by side."""
        heads = self.page.get_by_role("rowheader", name=head, exact=True)
        return self.page.locator("#side-rows tr").filter(has=heads).locator("td").all_inner_texts()

    def drop(self, *paths: str, text: str = "", at: str = "#trace-title, h1") -> None:
        """Drops files, folders or text with the mouse, as the system's drag and drop does."""
        box = self.page.locator(at).first.bounding_box()
        assert box is not None
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        items = [{"mimeType": "text/uri-list" if "://" in text else "text/plain", "data": text}] if text else []
        data = {"items": items, "files": list(paths), "dragOperationsMask": 1}
        session = self.context.new_cdp_session(self.page)
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, "data": data, **place})
        session.detach()
