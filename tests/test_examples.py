"""Every program in examples/ runs, as real processes on a real terminal's lines.

Each test reads like the terminals it opens: what is typed, and what must then appear.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from tests.terminal import Terminal

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
IMPORTED = {"safe_sums.py"}  # runs as a part of basic_server.py

needs_ctrl_c = pytest.mark.skipif(
    sys.platform == "win32", reason="on Windows interrupt() is no Ctrl-C but an end"
)


class Open(Protocol):
    """Opens a terminal and runs a program in it."""

    def __call__(self, program: str, *arguments: str) -> Terminal: ...


class Serve(Protocol):
    """Runs a server on a free port; its terminal, its host and its port."""

    def __call__(self, program: str, *arguments: str) -> tuple[Terminal, str, str]: ...


class Enter(Protocol):
    """Enters the chat under a name, in the lobby or another room."""

    def __call__(self, name: str, *room: str) -> Terminal: ...


@pytest.fixture
def run() -> Iterator[Open]:
    """Run examples; whatever is still running at the end of the test is killed."""
    terminals: list[Terminal] = []

    def open_terminal(program: str, *arguments: str) -> Terminal:
        terminals.append(Terminal(str(EXAMPLES / program), *arguments))
        return terminals[-1]

    yield open_terminal
    for terminal in terminals:
        terminal.kill()


@pytest.fixture
def serve(run: Open) -> Serve:
    """Run a server on a free port; its terminal, and its host and port."""

    def serve(program: str, *arguments: str) -> tuple[Terminal, str, str]:
        server = run(program, "127.0.0.1", "0", *arguments)
        address = server.expect_match(r"Serving at ([\d.]+):([1-9]\d*)\n")
        return server, address[1], address[2]

    return serve


def test_every_example_is_covered() -> None:
    """An example that no test runs would rot unseen."""
    source = Path(__file__).read_text(encoding="utf-8")
    programs = set(re.findall(r'\b(?:run|serve)\("(\w+\.py)"', source))

    assert {path.name for path in EXAMPLES.glob("*.py")} == programs | IMPORTED


def test_the_readme_names_every_example() -> None:
    """A reader of the table misses no program."""
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")

    files = sorted(EXAMPLES.rglob("*.py"))
    names = [path.relative_to(EXAMPLES).as_posix() for path in files]
    assert [name for name in names if f"({name})" not in readme] == []


def test_an_example_is_short() -> None:
    """A reader sees a program of the browser's examples at a glance."""
    files = EXAMPLES.glob("browser_*/*.py")
    long = [path for path in files if len(path.read_text("utf-8").splitlines()) >= 60]
    assert not long


@pytest.mark.parametrize(
    "program",
    [
        "basic_server.py",
        "chat_server.py",
        "queue_server.py",
        "threaded_server.py",
        "tictactoe_server.py",
    ],
)
def test_ctrl_c_ends_a_server_without_clients(serve: Serve, program: str) -> None:
    """Ctrl-C ends a server at once: exit code 0, no traceback."""
    server, _, _ = serve(program)

    server.interrupt()


# ── basic ───────────────────────────────────────────────────────────────────────────


def test_basic_greets_and_calculates(run: Open, serve: Serve) -> None:
    """The server greets a client by name, answers its sums, and sees it leave."""
    server, host, port = serve("basic_server.py")
    client = run("basic_client.py", host, port, "Ann")

    server.expect("Ann came from 127.0.0.1:")
    client.expect("The server said hello")
    for text, answer in (("2 ** 10", "1024"), ("-(3 + 4) * 2.5", "-17.5")):
        client.type(text)
        client.expect(f"Answer: {answer}\n")
    client.end_input()
    client.expect("Bye!")
    client.expect_end()
    server.expect("Ann left")
    server.interrupt()


def test_basic_asks_where_to_connect(run: Open, serve: Serve) -> None:
    """Without arguments the client asks for address, port and name."""
    server, host, port = serve("basic_server.py")
    client = run("basic_client.py")

    for question, reply in (("Address", host), ("port", port), ("name", "")):
        client.expect(question)
        client.type(reply)
    server.expect("Somebody came from")
    client.expect("The server said hello")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("__import__('os')", "only numbers and + - * / // % ** are allowed"),
        ("().__class__", "only numbers and + - * / // % ** are allowed"),
        ("9 ** 9 ** 9", "that exponent is too large"),
        ("9 ** 99", "that number is too large"),
        ("(-8) ** 0.5", "that number is too large, or not a real one"),
        ("1e999 - 1e999", "that number is too large"),
        ("1 / 0", "division by zero"),
        ("1 +", "that is not a sum"),
        ("", "that is not a sum"),
        ("1" + "+1" * 50, "that sum is too long"),
    ],
)
def test_basic_refuses(run: Open, serve: Serve, text: str, why: str) -> None:
    """What is not a bounded sum of numbers is refused in words, and nobody dies."""
    _, host, port = serve("basic_server.py")
    client = run("basic_client.py", host, port)

    client.type(text)
    client.expect(f"Answer: Sorry, {why}")
    client.type("1 + 1")
    client.expect("Answer: 2\n")


@needs_ctrl_c
def test_basic_client_notices_that_the_server_went(run: Open, serve: Serve) -> None:
    """After the server has ended, the next sum ends the client with a sentence."""
    server, host, port = serve("basic_server.py")
    client = run("basic_client.py", host, port)

    client.expect("Your sum: ")
    server.interrupt()
    client.type("1 + 1")
    client.expect("The server has gone.")
    client.expect_end()


# ── chat ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def chat(run: Open, serve: Serve) -> Enter:
    """Enter one chat under a name; wait until the server has let us in."""
    _, host, port = serve("chat_server.py")

    def enter(name: str, *room: str) -> Terminal:
        client = run("chat_client.py", host, port, name, *room)
        client.expect(f"* {name} came in")
        return client

    return enter


def test_chat_says_and_sees_who_is_there(chat: Enter) -> None:
    """What one says all hear; everyone sees who comes, who is there, who goes."""
    ann, bob = chat("Ann"), chat("Bob")

    ann.expect("* Bob came in")
    ann.type("hello there")
    for terminal in (ann, bob):
        terminal.expect("Ann: hello there")
    bob.type("/who")
    bob.expect("* In lobby: Ann, Bob\n")
    bob.type("/quit")
    bob.expect("Bye!")
    bob.expect_end()
    ann.expect("* Bob left")


def test_chat_rooms_are_separate(chat: Enter) -> None:
    """A line stays in its room; whoever changes the room hears the new one only."""
    ann, bob, cid = chat("Ann"), chat("Bob"), chat("Cid", "garden")

    bob.type("/room garden")
    ann.expect("* Bob went to garden")
    cid.expect("* Bob came from lobby")
    bob.expect("* Bob came from lobby")
    bob.type("nice flowers")
    cid.expect("Bob: nice flowers")
    ann.type("anybody here?")
    ann.expect("Ann: anybody here?")
    for terminal in (bob, cid):
        terminal.type("/who")
        terminal.expect("* In garden: Bob, Cid\n")
        assert "anybody here?" not in terminal.shown
    assert "nice flowers" not in ann.shown


def test_chat_notes_are_private(chat: Enter) -> None:
    """/to reaches one person in whatever room, and nobody else."""
    ann, bob, cid = chat("Ann"), chat("Bob", "garden"), chat("Cid")

    ann.type("/to Bob the key is under the mat")
    bob.expect("Ann (to you): the key is under the mat")
    cid.type("/who")
    cid.expect("* In lobby: Ann, Cid\n")
    assert "under the mat" not in ann.shown + cid.shown
    ann.type("/to Zoe hello?")
    ann.expect("* Nobody here is called Zoe")


def test_chat_shows_a_new_name(chat: Enter) -> None:
    """After /name everybody sees the new name, and can write to it."""
    ann, bob = chat("Ann"), chat("Bob")

    ann.type("/name Anna")
    for terminal in (ann, bob):
        terminal.expect("* Ann is now Anna")
    ann.type("me again")
    bob.expect("Anna: me again")
    bob.type("/to Anna found you")
    ann.expect("Bob (to you): found you")


def test_chat_explains_itself(chat: Enter) -> None:
    """An unknown or incomplete command shows the help and says nothing to others."""
    ann = chat("Ann")

    for command in ("/dance", "/to Bob", "/name", ""):
        ann.type(command)
    for _ in range(3):
        ann.expect("Commands:")
    ann.type("done")
    ann.expect("Ann: done")
    assert "Ann: /" not in ann.shown


def test_chat_keeps_control_characters_out(chat: Enter) -> None:
    """Nobody can move the cursor, or ring the bell, of another's terminal."""
    ann, bob = chat("Ann"), chat("Bob")

    ann.type("a\x1b[2Jb\ac")
    bob.expect("Ann: a[2Jbc\n")


@pytest.mark.parametrize(
    "way",
    [Terminal.end_input, pytest.param(Terminal.interrupt, marks=needs_ctrl_c)],
)
def test_chat_client_leaves(chat: Enter, way: Callable[[Terminal], None]) -> None:
    """The end of the input and Ctrl-C leave as politely as /quit."""
    ann, bob = chat("Ann"), chat("Bob")

    way(bob)
    bob.expect("Bye!")
    bob.expect_end()
    ann.expect("* Bob left")


@needs_ctrl_c
def test_chat_ends_with_the_server(run: Open, serve: Serve) -> None:
    """When the server is closed, a client that waits for its user ends by itself."""
    server, host, port = serve("chat_server.py")
    ann = run("chat_client.py", host, port, "Ann")

    ann.expect("* Ann came in")
    server.interrupt()
    ann.expect("The server has closed the chat.")
    ann.expect_end()


# ── tic-tac-toe ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def players(run: Open, serve: Serve) -> tuple[Terminal, Terminal]:
    """Two terminals with a game that has just begun: X, O."""
    _, host, port = serve("tictactoe_server.py")
    x = run("tictactoe_client.py", host, port)
    x.expect("Waiting for an opponent ...")
    o = run("tictactoe_client.py", host, port)
    x.expect("You are X.")
    o.expect("You are O.")
    return x, o


def play(players: tuple[Terminal, Terminal], squares: str) -> None:
    """Play these squares in turn, X first."""
    for number, square in enumerate(squares):
        player = players[number % 2]
        player.expect("Your move (1-9): ")
        player.type(square)


def test_tictactoe_won(players: tuple[Terminal, Terminal]) -> None:
    """Three in a row win; both see the last board and how it ended, and are done."""
    x, o = players

    play(players, "14253")
    for player, result in ((x, "You win!"), (o, "You lose.")):
        player.expect("X | X | X\n--+---+--\nO | O | 6\n--+---+--\n7 | 8 | 9\n")
        player.expect(result)
        player.expect_end()


def test_tictactoe_won_by_the_second(players: tuple[Terminal, Terminal]) -> None:
    """O can win too, on a diagonal."""
    x, o = players

    play(players, "132547")
    x.expect("You lose.")
    o.expect("You win!")


def test_tictactoe_won_with_the_last_square(
    players: tuple[Terminal, Terminal],
) -> None:
    """A full board with three in a row is won, not drawn."""
    x, o = players

    play(players, "126374958")
    x.expect("X | O | O\n--+---+--\nO | O | X\n--+---+--\nX | X | X\n")
    x.expect("You win!")
    o.expect("You lose.")


def test_tictactoe_drawn(players: tuple[Terminal, Terminal]) -> None:
    """A full board without three in a row is a draw for both."""
    play(players, "123546879")
    for player in players:
        player.expect("A draw.")
        player.expect_end()


@pytest.mark.parametrize("illegal", ["5", "0", "10", "45", "-1", "X", "", "corner"])
def test_tictactoe_refuses(players: tuple[Terminal, Terminal], illegal: str) -> None:
    """A move that is no free square is refused, and asked again; nothing is lost."""
    x, o = players

    play(players, "5")
    o.expect("Your move (1-9): ")
    o.type(illegal)
    o.expect(f"{illegal!r} is not a free square. Your move (1-9): ")
    o.type("1")
    x.expect("O | 2 | 3\n--+---+--\n4 | X | 6\n--+---+--\n7 | 8 | 9\n")


def test_tictactoe_opponent_leaves(players: tuple[Terminal, Terminal]) -> None:
    """Whoever stays wins, and the terminal of whoever waits says so at once."""
    x, o = players

    x.expect("Your move (1-9): ")
    x.end_input()
    x.expect("You have left the game.")
    x.expect_end()
    o.expect("Your opponent has left. You win!")
    o.expect_end()


@needs_ctrl_c
def test_tictactoe_forgets_who_left_while_waiting(run: Open, serve: Serve) -> None:
    """A game never begins against somebody who has already left."""
    server, host, port = serve("tictactoe_server.py")
    first = run("tictactoe_client.py", host, port)
    first.expect("Waiting for an opponent ...")
    first.interrupt()
    second = run("tictactoe_client.py", host, port)
    second.expect("Waiting for an opponent ...")
    third = run("tictactoe_client.py", host, port)

    second.expect("You are X.")
    third.expect("You are O.")
    server.interrupt()


# ── threaded ────────────────────────────────────────────────────────────────────────


def test_threaded_counts_beside_the_server(run: Open, serve: Serve) -> None:
    """The main thread counts on and tells all clients; each may also ask."""
    server, host, port = serve("threaded_server.py", "0.05")
    clients = [run("threaded_client.py", host, port) for _ in range(2)]

    for client in clients:
        asked = client.expect_match(r"We asked, and the counter stands at (\d+)\.\n")
        first = client.expect_match(r"Tick (\d+)\n")
        second = client.expect_match(r"Tick (\d+)\n")
        assert int(asked[1]) <= int(first[1])
        assert int(second[1]) == int(first[1]) + 1
    server.interrupt()
    if sys.platform != "win32":
        last = server.expect_match(r"Counted to (\d+)\.\n")
        assert int(last[1]) >= int(second[1])
        for client in clients:
            client.expect("The server has gone.")
            client.expect_end()


# ── queue ───────────────────────────────────────────────────────────────────────────


def test_queue_gives_jobs_to_workers(run: Open, serve: Serve) -> None:
    """A job comes back done, or with the words of whoever refused it."""
    server, host, port = serve("queue_server.py")
    for name in ("one", "two"):
        run("queue_worker.py", host, port, name).expect(f"{name} waits for work")
        server.expect(f"{name} is here as workers")
    client = run("queue_client.py", host, port)

    for typed, answer in (
        ("12", "12 = 2 x 2 x 3"),
        ("97", "97 = 97"),
        ("1", "No: 1 has no prime factors (too_small)"),
        ("many", "A whole number, please."),
    ):
        client.expect("Number: ")
        client.type(typed)
        client.expect(answer)
    client.expect("Number: ")
    client.end_input()
    client.expect_end()


@needs_ctrl_c
def test_queue_goes_on_when_workers_leave(run: Open, serve: Serve) -> None:
    """Jobs go to who is left; without anybody the asker is told so."""
    server, host, port = serve("queue_server.py")
    workers = [run("queue_worker.py", host, port, name) for name in ("one", "two")]
    for worker in workers:
        worker.expect("waits for work")
    client = run("queue_client.py", host, port)

    for worker, answer in zip(
        workers,
        ("15 = 3 x 5", "No: no worker is connected (nobody_works)"),
        strict=True,
    ):
        worker.interrupt()
        client.expect("Number: ")
        client.type("15")
        client.expect(answer)
    server.interrupt()
    server.expect("Closed.")
