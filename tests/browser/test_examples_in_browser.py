"""The game of ``examples/browser_game`` and the whiteboard of ``hisock demo --serve``,
started as programs and used in pages of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.chaos.proxy import ChaosProxy

from hisock import HiSockClient, connect

from .conftest import Open, Run

GAME = Path(__file__).resolve().parents[2] / "examples" / "browser_game"
PATIENCE = 10.0
#: States that pass while a network or a page stands still: three seconds.
STALLED = 90


def address_of(url: str) -> tuple[str, int]:
    """Where a page's server listens."""
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    return host, int(port)


# --- the game ------------------------------------------------------------------------


def play(open_page: Open, url: str, name: str) -> Any:
    """Open the game and come in."""
    page = open_page(url)
    page.get_by_label("Your name").fill(name)
    page.get_by_text("Play").click()
    page.locator("#scores .me").wait_for()
    return page


def watch(watcher: HiSockClient, look: Callable[[dict[str, Any]], bool]) -> int:
    """Wait for a state in which it is so; how many came until then."""
    for count in range(1, 600):
        state = watcher.recv("state", timeout=PATIENCE)
        players = {player["name"]: player for player in state["players"]}
        if look(players):
            return count
    pytest.fail("that never happened")


def test_two_play(open_page: Open, run: Run) -> None:
    """Players see each other; one steers with keys, the other with a pointer."""
    terminal, url = run(str(GAME / "server.py"), "127.0.0.1", "0")
    with connect(address_of(url), name="Watcher") as watcher:
        ann, bob = play(open_page, url, "Ann"), play(open_page, url, "Bob")
        for page in (ann, bob):
            for name in ("Ann", "Bob", "Watcher"):
                page.locator("#scores").get_by_text(name).wait_for()

        # Each goes where there is room.
        first = {"Ann": 0.0, "Bob": 0.0}
        watch(watcher, lambda now: _note(first, now))
        key, way = ("ArrowLeft", -1) if first["Ann"] > 800 else ("ArrowRight", 1)
        ann.keyboard.down(key)
        watch(watcher, lambda now: way * (now["Ann"]["x"] - first["Ann"]) > 100)
        ann.keyboard.up(key)
        field = bob.locator("canvas").bounding_box()
        edge = 0.1 if first["Bob"] > 800 else 0.9
        bob.mouse.move(
            field["x"] + edge * field["width"], field["y"] + field["height"] / 2
        )
        bob.mouse.down()
        way = 1 if edge > 0.5 else -1
        watch(watcher, lambda now: way * (now["Bob"]["x"] - first["Bob"]) > 100)
        bob.mouse.up()
        bob.close(run_before_unload=True)
        watch(watcher, lambda now: "Bob" not in now)
    assert "is gone before" not in terminal.shown


def _note(places: dict[str, float], players: dict[str, Any]) -> bool:
    places.update({name: players[name]["x"] for name in places if name in players})
    return all(places.values())


_COUNT_STATES = """() => {
    const canvas = document.querySelector("canvas");
    window.states = 0;
    new MutationObserver((changes) => (window.states += changes.length)).observe(
        canvas, { attributeFilter: ["data-tick"] });
}"""


_BE_BUSY = """() => setTimeout(() => {
    const end = performance.now() + 3000;
    while (performance.now() < end);
})"""


@pytest.mark.parametrize("slow", ["network", "page"])
def test_a_slow_player_gets_the_newest_state(
    open_page: Open, run: Run, slow: str
) -> None:
    """After a network, or a page, that stood still there is no backlog of states."""
    _, url = run(str(GAME / "server.py"), "127.0.0.1", "0")
    with (
        ChaosProxy(address_of(url)) as proxy,
        connect(address_of(url), name="Watcher") as watcher,
    ):
        page = play(open_page, f"http://127.0.0.1:{proxy.address[1]}", "Slow")
        page.evaluate(_COUNT_STATES)
        if slow == "network":
            proxy.blackhole("down")
        else:
            page.evaluate(_BE_BUSY)
        passed = 0
        while passed < STALLED:
            newest = watcher.recv("state", timeout=PATIENCE)["tick"]
            passed += 1
        proxy.heal()

        page.wait_for_function(
            "tick => document.querySelector('canvas').dataset.tick >= tick", arg=newest
        )
        # At most 16 KiB of them were on their way.
        assert page.evaluate("() => states") < STALLED / 2


def test_a_player_in_a_tunnel_is_waited_for(open_page: Open, run: Run) -> None:
    """Others see that it is away; it comes back as the same player, to one state."""
    _, url = run(str(GAME / "server.py"), "127.0.0.1", "0")
    with ChaosProxy(address_of(url)) as proxy:
        page = play(open_page, f"http://127.0.0.1:{proxy.address[1]}", "Ann")
        other = play(open_page, url, "Bob")
        proxy.refuse("rst")
        proxy.cut("rst")
        other.locator("#scores .away").get_by_text("Ann").wait_for()
        page.locator("#link").get_by_text("connection lost").wait_for()
        proxy.accept_again()

        other.locator("#scores li:not(.away)").get_by_text("Ann").wait_for()
        page.locator("#link").get_by_text("updates a second").wait_for()
        assert page.locator("#scores li").count() == 2


# --- the whiteboard ------------------------------------------------------------------

#: Whether there is ink at a place, in parts of the board.
_HAS_INK = """([x, y]) => {
    const canvas = document.querySelector("canvas");
    const at = [x * canvas.width, y * canvas.height].map(Math.round);
    return canvas.getContext("2d").getImageData(...at, 1, 1).data[3] > 0;
}"""


def draw(page: Any, *places: tuple[float, float]) -> None:
    """Draw a line with the mouse."""
    board = page.locator("canvas").bounding_box()
    for number, (x, y) in enumerate(places):
        page.mouse.move(
            board["x"] + x * board["width"], board["y"] + y * board["height"]
        )
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def look(open_page: Open, url: str, name: str, **options: Any) -> Any:
    """Open the whiteboard under a name."""
    page = open_page(url, **options)
    page.locator("#people").get_by_text("(you)").wait_for()
    page.get_by_label("You are").fill(name)
    page.get_by_label("You are").press("Enter")
    page.locator("#people").get_by_text(f"{name} (you)").wait_for()
    return page


def test_a_whiteboard_is_shared(open_page: Open, run: Run) -> None:
    """What one draws all see, later comers too; undo and clear are for all."""
    terminal, url = run("-m", "hisock", "demo", "--serve")
    ann = look(open_page, url, "Ann")
    bob = look(open_page, url, "Bob", viewport={"width": 390, "height": 780})

    draw(ann, (0.2, 0.2), (0.5, 0.2), (0.5, 0.8))
    bob.wait_for_function(_HAS_INK, arg=[0.5, 0.6])
    bob.locator("#pointers").get_by_text("Ann").wait_for()
    draw(bob, (0.1, 0.9), (0.9, 0.9))
    ann.wait_for_function(_HAS_INK, arg=[0.7, 0.9])
    cid = look(open_page, url, "Cid")
    for place in ([0.5, 0.6], [0.7, 0.9]):
        cid.wait_for_function(_HAS_INK, arg=place)
    ann.get_by_text("Undo").click()
    for page in (ann, bob, cid):
        page.wait_for_function(f"place => !({_HAS_INK})(place)", arg=[0.5, 0.6])
        assert page.evaluate(_HAS_INK, [0.7, 0.9])
    cid.get_by_text("Clear for all").click()
    for page in (ann, bob, cid):
        page.locator("#empty").wait_for()
        assert not page.evaluate(_HAS_INK, [0.7, 0.9])

    terminal.expect("stays open, until Ctrl-C")
    bob.close(run_before_unload=True)
    terminal.expect("Bob left")
    assert "is gone before" not in terminal.shown
    if sys.platform != "win32":
        terminal.interrupt()


def test_a_line_that_a_cut_interrupts_is_whole(open_page: Open, run: Run) -> None:
    """What is drawn without a network arrives when it is back."""
    _, url = run("-m", "hisock", "demo", "--serve", "--port", "0")
    with ChaosProxy(address_of(url)) as proxy:
        ann = look(open_page, f"http://127.0.0.1:{proxy.address[1]}", "Ann")
        bob = look(open_page, url, "Bob")
        proxy.refuse("rst")
        proxy.cut("rst")
        ann.locator("#link").get_by_text("connection lost").wait_for()
        draw(ann, (0.3, 0.3), (0.3, 0.7))
        draw(ann, (0.6, 0.3), (0.6, 0.7))
        bob.locator("#people .away").get_by_text("Ann").wait_for()
        assert not bob.evaluate(_HAS_INK, [0.3, 0.5])
        proxy.accept_again()

        for place in ([0.3, 0.5], [0.6, 0.5]):
            bob.wait_for_function(_HAS_INK, arg=place)
        ann.locator("#link").get_by_text("nothing lost").wait_for()
