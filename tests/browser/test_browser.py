"""The browser that the other tests here rely on: it runs, and nothing escapes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hisock import start_threaded_server

from .conftest import Visit

_PAGE = """<!doctype html><title>a page</title><p id="seen">seen</p>
<script src="script.js"></script>"""
_SCRIPT = """document.querySelector("#seen").textContent = "run";
console.error("a complaint"); fetch("http://127.0.0.1:9/elsewhere").catch(() => 0);"""


def test_a_page_is_run_and_watched(visit: Visit, tmp_path: Path) -> None:
    """A script runs; what it complains of and where it goes is seen."""
    (tmp_path / "index.html").write_text(_PAGE)
    (tmp_path / "script.js").write_text(_SCRIPT)
    with start_threaded_server(("127.0.0.1", 0), pages=tmp_path) as server:
        origin = f"http://127.0.0.1:{server.addr[1]}"
        with visit.page.expect_request("**/elsewhere"):
            visit.page.goto(origin)

        assert visit.page.text_content("#seen") == "run"
        assert "a complaint" in visit.complaints
        assert not visit.went_nowhere_but(origin)
        assert visit.went_nowhere_but(origin, "http://127.0.0.1:9")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8/", "data:text/html,x"])
def test_a_page_that_asked_for_nothing_went_nowhere(visit: Visit, url: str) -> None:
    """That nothing was asked for is no proof of anything."""
    visit.requested.append(url)

    assert not visit.went_nowhere_but("http://127.0.0.1:80")
