"""A real Chromium for tests of what the server's port shows to browsers.

Playwright's loop runs in the thread of the test as long as the browser is there, so a
server of a test turns in a thread of its own, and nothing here calls ``asyncio.run``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from tests.terminal import Terminal

#: Debian's; the browsers that Playwright could fetch would come from elsewhere.
CHROMIUM = Path("/usr/bin/chromium")
#: A page that connects, and notes what happens.
PAGES = Path(__file__).with_name("pages")


def _missing(what: str) -> None:
    """Skip where something is missing; on a CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}; apt-get install chromium, pip install playwright")
    pytest.skip(what)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, as Playwright's ``Browser``."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("Playwright is not installed")
    if not CHROMIUM.exists():
        _missing(f"there is no {CHROMIUM}")
    # Chromium has no sandbox for root.
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if is_root else []
        )
        yield launched
        launched.close()


class Run(Protocol):
    """Runs a server as a program: its terminal, and the address that it prints."""

    def __call__(self, *command: str) -> tuple[Terminal, str]: ...


@pytest.fixture
def run() -> Iterator[Run]:
    """Run servers as programs; whatever still runs at the end of the test is killed."""
    terminals = []

    def run(*command: str) -> tuple[Terminal, str]:
        terminals.append(Terminal(*command))
        return terminals[-1], terminals[-1].expect_match(r"http://[\d.]+:[1-9]\d*")[0]

    yield run
    for terminal in terminals:
        terminal.kill()


class Visit:
    """One page of a context of its own, and all that it asked for or complained of.

    Attributes:
        page: Playwright's.
        requested: The URLs it asked for.
        complaints: Errors and warnings on its console, CSP's included; exceptions that
            nobody caught; dialogs that were opened.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requested: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._on_dialog)

    def _on_console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _on_dialog(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def went_nowhere_but(self, *origins: str) -> bool:
        """Whether all it asked for is of these origins; there has to be something."""
        inside = tuple(f"{origin}/" for origin in origins)
        urls = [url for url in self.requested if not url.startswith("data:")]
        return bool(urls) and all(url.startswith(inside) for url in urls)


class Open(Protocol):
    """Opens one more page, in a context of its own."""

    def __call__(self, url: str, **options: Any) -> Any: ...


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Open pages that know nothing of each other; options are those of a context.

    What a script throws and nobody catches fails the test.
    """
    contexts = []
    errors: list[str] = []

    def open_page(url: str, **options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        contexts[-1].set_default_timeout(10_000)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(f"{url}: {error}"))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """A new page, without anything of the pages before it."""
    context = browser.new_context()
    context.set_default_timeout(10_000)
    yield Visit(context.new_page())
    context.close()


@pytest.fixture
def connected(open_page: Open) -> Open:
    """Open ``pages/index.html`` and connect; ``page`` in it is what ``page.js`` has."""

    def connected(url: str, **options: Any) -> Any:
        page = open_page(url)
        page.wait_for_selector("html[data-ready]", state="attached")
        page.evaluate("(options) => page.connect(options)", options)
        return page

    return connected
