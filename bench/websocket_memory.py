"""What an idle WebSocket connection takes of its server's memory.

Resident memory of the server's process alone, after the first twenty connections; as
connections for each MiB, so that more is better. The baseline is ``websockets``.
"""

from __future__ import annotations

__all__ = ("main",)

from functools import partial
from multiprocessing.connection import Connection

from bench.peers import Pair, Subject, compare
from bench.websocket_raw import Mouth, connect_raw, hear_out
from bench.websocket_servers import LIBRARIES, WARM


def _idle(pipe: Connection, amount: int, mouth: Mouth) -> None:
    """Connect, and say nothing more."""
    port = pipe.recv()
    socks = [connect_raw(port, mouth) for _ in range(WARM + amount)]
    hear_out(socks[0])


def _subject(name: str, goal: float | None = None) -> Subject:
    library = LIBRARIES[name]
    client = partial(_idle, mouth=library.mouths["move"])
    pair = Pair(partial(library.run, weighs=True), client, measured_by_server=True)
    return Subject(name, pair, goal, library.needs)


def main(amount: int = 500, runs: int = 3) -> dict[str, float]:
    """Measure and print; the ratios."""
    return compare(
        "idle WebSocket connections",
        _subject("websockets").pair,
        [_subject("hisock", 2.0), _subject("picows"), _subject("python-socketio")],
        amount=amount,
        runs=runs,
        base="websockets",
        unit="/MiB",
    )
