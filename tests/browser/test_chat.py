"""The chat of ``examples/browser_chat``, between pages and a Python program."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.chaos.proxy import ChaosProxy
from tests.terminal import Terminal

from hisock import HiSockClient, connect

from .conftest import Open, Run

CHAT = Path(__file__).resolve().parents[2] / "examples" / "browser_chat"
PATIENCE = 10.0


@pytest.fixture
def chat(run: Run) -> tuple[Terminal, str]:
    """A chat that runs: its terminal, and where it is."""
    return run(str(CHAT / "server.py"), "127.0.0.1", "0")


@pytest.fixture
def come_in(open_page: Open, chat: tuple[Terminal, str]) -> Any:
    """Open the page, say a name, and come into a room."""

    def come_in(name: str, room: str = "Lobby", at: str = "") -> Any:
        page = open_page(f"{at or chat[1]}/#{room}")
        page.get_by_label("Your name").fill(name)
        page.get_by_text("Come in").click()
        expect(page, "#people", name)
        return page

    return come_in


@pytest.fixture
def bob(chat: tuple[Terminal, str]) -> Iterator[HiSockClient]:
    """A Python program in the lobby."""
    host, port = chat[1].removeprefix("http://").split(":")
    with connect((host, int(port)), name="Bob", group="Lobby") as client:
        yield client


def expect(page: Any, place: str, text: str) -> None:
    """Wait until a place of the page shows a text."""
    page.locator(place).get_by_text(text).first.wait_for()


def say(page: Any, text: str) -> None:
    """Type a line, and Enter."""
    page.get_by_label("Your message").fill(text)
    page.get_by_label("Your message").press("Enter")


def lines(page: Any) -> list[str]:
    """What people have said, as the page shows it."""
    found: list[str] = page.locator("#lines .line p").all_text_contents()
    return found


def people(page: Any) -> list[str]:
    """Who is in the room, as the page shows it."""
    found: list[str] = page.locator("#people li > span + span").all_text_contents()
    return found


def test_a_page_and_a_python_program_talk(come_in: Any, bob: HiSockClient) -> None:
    """What one says the other gets, as text and as nothing else."""
    page = come_in("Ann")
    expect(page, "#people", "Bob")

    say(page, "Hello Bob, you are <b>Python</b>?")
    said: dict[str, Any] = {}
    while said.get("who") != "Ann":
        said = bob.recv("line", type=dict, timeout=PATIENCE)
    assert said["text"] == "Hello Bob, you are <b>Python</b>?"
    bob.send("say", '<img src=x onerror="document.title = 1"> I am')

    expect(page, "#lines", "I am")
    assert lines(page)[-1] == '<img src=x onerror="document.title = 1"> I am'
    assert page.locator("#lines img, #lines p b").count() == 0
    assert page.title() == "Chat"
    bob.change_name("Robert")
    expect(page, "#people", "Robert")
    bob.close()
    expect(page, "#lines", "Robert left")
    assert people(page) == ["Ann"]


def test_rooms_are_groups(come_in: Any) -> None:
    """A line stays in its room; who comes later sees what was said there."""
    ann, cid = come_in("Ann"), come_in("Cid", "Garden")

    say(cid, "nice flowers")
    expect(cid, "#lines", "nice flowers")
    assert lines(ann) == []
    ann.locator("#rooms").get_by_text("Garden").click()
    expect(ann, "#lines", "nice flowers")
    expect(cid, "#lines", "Ann came from Lobby")
    expect(cid, "#people", "Ann")
    assert people(ann) == people(cid) == ["Ann", "Cid"]
    assert ann.locator("#rooms [aria-current=true]").inner_text().startswith("Garden")


def test_a_name_is_one_persons(
    come_in: Any, bob: HiSockClient, open_page: Open
) -> None:
    """A name that is taken is refused, at the door and later; another one is not."""
    ann = come_in("Ann")

    ann.get_by_text("Change my name").click()
    ann.get_by_label("Your name").fill("Bob")
    ann.get_by_text("Come in").click()
    expect(ann, "dialog", "Somebody here has that name")
    ann.get_by_label("Your name").fill("Anna")
    ann.get_by_text("Come in").click()
    expect(ann, "#people", "Anna")
    stranger = open_page(ann.url)
    stranger.get_by_label("Your name").fill("Anna")
    stranger.get_by_text("Come in").click()
    expect(stranger, "dialog", "Somebody here has that name")


def test_a_page_without_a_connection_says_so(
    come_in: Any, chat: tuple[Terminal, str]
) -> None:
    """What is typed meanwhile is shown as waiting, and arrives once, in order."""
    host, port = chat[1].removeprefix("http://").split(":")
    with ChaosProxy((host, int(port))) as proxy:
        ann = come_in("Ann", at=f"http://127.0.0.1:{proxy.address[1]}")
        bob = come_in("Bob")
        proxy.refuse("rst")
        proxy.cut("rst")
        expect(ann, "#link", "connection lost")
        for text in ("one", "two"):
            say(ann, text)
        say(bob, "are you there?")
        expect(bob, "#lines", "are you there?")
        assert ann.locator("#waiting li").all_text_contents() == ["one", "two"]
        proxy.accept_again()

        expect(ann, "#link", "nothing lost")
        expect(ann, "#lines", "two")
        assert ann.locator("#waiting li").count() == 0
        assert lines(ann) == lines(bob) == ["are you there?", "one", "two"]
        ann.close(run_before_unload=True)


@pytest.mark.skipif(sys.platform == "win32", reason="interrupt() is no Ctrl-C there")
def test_a_chat_that_starts_anew(
    come_in: Any, chat: tuple[Terminal, str], run: Run
) -> None:
    """The page says that the server began anew, and one can go on talking."""
    terminal, url = chat
    ann = come_in("Ann")
    say(ann, "before")
    expect(ann, "#lines", "before")
    terminal.interrupt()
    expect(ann, "#link", "connection lost")

    run(str(CHAT / "server.py"), "127.0.0.1", url.rpartition(":")[2])

    expect(ann, "#lines", "The server began anew")
    say(ann, "after")
    expect(ann, "#lines", "after")
    assert people(ann) == ["Ann"]


def test_the_bot_rolls_dice(come_in: Any, chat: tuple[Terminal, str]) -> None:
    """A Python program of its own greets who comes, and answers."""
    address = chat[1].removeprefix("http://").split(":")
    bot = Terminal(str(CHAT / "bot.py"), *address)
    try:
        bot.expect("In Lobby")
        ann = come_in("Ann")
        expect(ann, "#lines", "Hello Ann!")
        say(ann, "roll 1")
        expect(ann, "#lines", "Ann rolls 1 of 1")
    finally:
        bot.kill()
