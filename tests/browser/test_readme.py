"""The README's page, and the server beside it, as somebody pastes them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.test_docs import HOST, PROGRAMS, ROOT, Stage, serve_with_page


def test_the_readmes_chat_works_as_it_stands(browser: Any, tmp_path: Path) -> None:
    """Two windows of a browser: each hears what the other says."""
    (program,) = (
        block
        for block in PROGRAMS
        if block.path == ROOT / "README.md" and block.marker == "run: with its page"
    )
    with ExitStack() as stack:
        stage = Stage(tmp_path)
        stack.callback(stage.end)
        url = f"http://{HOST}:{serve_with_page(stage, program)}/"

        def come_in(name: str) -> Any:
            context = browser.new_context()
            stack.callback(context.close)
            page = context.new_page()
            page.on("dialog", lambda dialog: dialog.accept(name))
            page.goto(url)
            page.get_by_text(f"{name}: 1 + 2 = 3").wait_for()
            return page

        ann, bob = come_in("Ann"), come_in("Bob")
        bob.get_by_placeholder("Say something").fill("<b>hello</b>")
        bob.keyboard.press("Enter")
        for page in (ann, bob):
            page.get_by_text("Bob: <b>hello</b>").wait_for()
