"""One client streams messages into a typed handler, on our own wire, in batches.

The baseline is one bare ``sendall`` for each message, drained without parsing.
"""

from __future__ import annotations

__all__ = ("main",)

import time
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from msgspec import Struct

from bench import one_way
from bench.peers import Pair, Subject, compare
from hisock import ClientInfo, connect, start_server


@dataclass
class Move:
    """Where a player goes."""

    player: str
    x: float
    y: float
    path: list[int]


class Step(Struct):
    """The same, in the words of msgspec."""

    player: str
    x: float
    y: float
    path: list[int]


#: What is sent: about 64 bytes each, and 1 KiB.
_CONTENTS: dict[str, Any] = {
    "bytes": b"x" * 59,
    "list": [2**40 + number for number in range(6)],
    "dataclass": Move("ada", 12.5, -3.25, [1, 2, 3, 4, 5, 6, 7, 8]),
    "struct": Step("ada", 12.5, -3.25, [1, 2, 3, 4, 5, 6, 7, 8]),
    "kilobyte": b"x" * 1024,
}


def our_server(pipe: Connection, amount: int, kind: str) -> None:
    """A handler counts; ``run()`` is turned by hand."""
    server = start_server(("127.0.0.1", 0))
    hint = type(_CONTENTS[kind])
    count = 0
    began = 0.0

    def move(client: ClientInfo, message: Any) -> None:
        nonlocal count, began
        if not count:
            began = time.perf_counter()
        count += 1

    move.__annotations__["message"] = list[int] if hint is list else hint
    server.on("move")(move)

    @server.on("ready")
    def ready() -> None:
        """The client asks this first, so that the wire is settled."""

    pipe.send(server.addr[1])
    while count < amount:
        server.run()
    pipe.send(amount / (time.perf_counter() - began))
    server.close()


def our_client(pipe: Connection, amount: int, kind: str) -> None:
    """Many sends, few writes."""
    client = connect(("127.0.0.1", pipe.recv()))
    client.call("ready")
    content = _CONTENTS[kind]
    with client.batch():
        for _ in range(amount):
            client.send("move", content)
    client.close()


def _subject(name: str, kind: str, goal: float) -> Subject:
    server, client = partial(our_server, kind=kind), partial(our_client, kind=kind)
    return Subject(name, Pair(server, client, measured_by_server=True), goal)


def _baseline(size: int) -> Pair:
    return Pair(
        partial(one_way.raw_server, size=size),
        partial(one_way.raw_client, size=size),
        measured_by_server=True,
    )


def main(amount: int = 400_000, runs: int = 5) -> dict[str, float]:
    """Measure and print; the ratios."""
    return {
        **compare(
            "one way in batches, 64 B, compact wire, messages",
            _baseline(64),
            [
                _subject("hisock, message: bytes", "bytes", 8.0),
                _subject("hisock, message: list[int]", "list", 8.0),
                _subject("hisock, message: a dataclass", "dataclass", 8.0),
                _subject("hisock, message: a Struct", "struct", 8.0),
            ],
            amount=amount,
            runs=runs,
        ),
        **compare(
            "one way in batches, 1 KiB, compact wire, messages",
            _baseline(1024),
            [_subject("hisock, message: bytes, 1 KiB", "kilobyte", 4.0)],
            amount=amount,
            runs=runs,
        ),
    }
