"""One client streams messages of 64 bytes to a WebSocket server, which counts them.

First each library's own client, then the same raw one, which writes frames made
beforehand, so that only the servers are compared. The baseline is ``websockets``.
"""

from __future__ import annotations

__all__ = ("main",)

from functools import partial

from bench.peers import Pair, Subject, compare
from bench.websocket_clients import CLIENTS
from bench.websocket_raw import pour
from bench.websocket_servers import LIBRARIES


def _subject(name: str, goal: float | None = None, *, raw: bool = False) -> Subject:
    library = LIBRARIES[name]
    client = partial(pour, mouth=library.mouths["move"]) if raw else CLIENTS[name][0]
    pair = Pair(library.run, client, measured_by_server=True)
    return Subject(name, pair, goal, library.needs)


def main(amount: int = 200_000, runs: int = 5) -> dict[str, float]:
    """Measure and print; the ratios."""
    ratios: dict[str, float] = {}
    for title, raw in (("its own client", False), ("the same raw client", True)):
        found = compare(
            f"one way, 64 B, WebSocket, {title}, messages",
            _subject("websockets", raw=raw).pair,
            [
                _subject("hisock", 3.0, raw=raw),
                _subject("picows", raw=raw),
                _subject("python-socketio", raw=raw),
            ],
            amount=amount,
            runs=runs,
            base="websockets",
        )
        ratios |= {f"{name}, {title}": ratio for name, ratio in found.items()}
    return ratios
