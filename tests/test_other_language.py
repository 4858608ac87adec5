"""A client that knows nothing of hisock but docs/wire.md talks to a real server."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hisock import ClientInfo, ThreadedHiSockServer, start_threaded_server

CLIENT = Path(__file__).with_name("other_language.py")
PATIENCE = 10.0
#: Each way in which MessagePack writes a length or a number is in it.
ALL_FORMS: list[Any] = [
    *(None, True, False, 0.5, 7, -7, 200, 40_000, 2**31, 2**63),
    *(-100, -1000, -100_000, -(2**40)),
    *("né", "x" * 40, "x" * 300, "x" * 70_000),
    *(b"\xff", b"x" * 300, b"x" * 70_000),
    *([1, [2]], [0] * 20, [0] * 70_000),
    *({"a": {"b": None}}, {n: n for n in range(20)}, {n: 0 for n in range(70_000)}),
]


def lines_of_code() -> list[str]:
    """The client, without its blank lines."""
    text = CLIENT.read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip()]


def test_client_is_small() -> None:
    """A client with calls, streams and its own MessagePack fits into 60 lines."""
    assert len(lines_of_code()) <= 60


def test_client_is_plain() -> None:
    """It imports what any language has: sockets, and numbers as bytes."""
    imported: set[str | None] = set()
    for node in ast.walk(ast.parse("\n".join(lines_of_code()))):
        match node:
            case ast.Import(names):
                imported |= {alias.name for alias in names}
            case ast.ImportFrom(module):
                imported.add(module)
            case ast.Call(ast.Name("__import__")):
                imported.add("__import__")

    assert imported <= {"struct", "socket", "json"}


class Server:
    """A server that the client is written for, and what its handlers saw."""

    def __init__(self, server: ThreadedHiSockServer) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.left = threading.Event()
        self.port: int = server.addr[1]
        for handler in (self.join, self.leave, self.note, self.add, self.count):
            server.on(handler.__name__)(handler)
        server.on("ask")(self.ask)

    def join(self, client: ClientInfo) -> None:
        self.seen.append(("join", client["name"], client["group"], client.wire))
        client.send("welcome", "ann")

    def leave(self, client: ClientInfo) -> None:
        self.seen.append(("leave", client["name"]))
        self.left.set()

    def note(self, client: ClientInfo, content: object) -> None:
        self.seen.append(("note", content))

    def add(self, client: ClientInfo, numbers: list[float]) -> float:
        self.seen.append(("add", numbers))
        return sum(numbers)

    def count(self, client: ClientInfo, upto: int) -> Iterator[Any]:
        yield from range(1, upto)
        self.seen.append(("count", upto))
        yield ALL_FORMS

    async def ask(self, client: Any, question: str) -> Any:
        answer = await client.call("answer", question, timeout=PATIENCE)
        self.seen.append(("answer", answer))
        return answer


@pytest.fixture
def server() -> Iterator[Server]:
    """Such a server, in a thread of its own."""
    made = start_threaded_server(("127.0.0.1", 0))
    server = Server(made)
    made.start_server()
    yield server
    made.stop_server()
    made.join()


def test_both_sides_see_the_right_things(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It joins, sends, calls, is called back, reads a stream and says goodbye."""
    caplog.set_level(logging.INFO, "hisock.server")
    program = tmp_path / CLIENT.name
    text = CLIENT.read_text(encoding="utf-8")
    program.write_text(text.replace("6969", str(server.port)), encoding="utf-8")

    ended = subprocess.run(
        [sys.executable, "-X", "utf8", str(program)],
        capture_output=True,
        timeout=PATIENCE,
        encoding="utf-8",
        check=False,
    )

    assert (ended.stderr, ended.returncode) == ("", 0)
    assert ended.stdout.splitlines() == [
        "welcome ann",
        f"[3.5] ['Well? Yes.'] {ALL_FORMS}",
    ]
    assert server.left.wait(PATIENCE)
    assert server.seen == [
        ("join", "ann", None, "compact"),
        ("note", {"at": [3, -4, 0.5], "raw": b"\x00\xff", "ready": True, "by": None}),
        ("add", [1.0, 2.5]),
        ("answer", "Well? Yes."),
        ("count", 99),
        ("leave", "ann"),
    ]
    assert "the client said goodbye" in caplog.text
