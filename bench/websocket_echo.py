"""Round trips of 64 bytes with one client of a WebSocket server.

First each library's own client, then the same raw one. The baseline is ``websockets``.
"""

from __future__ import annotations

__all__ = ("main",)

from functools import partial

from bench.peers import Pair, Subject, compare
from bench.websocket_clients import CLIENTS
from bench.websocket_raw import ping_pong
from bench.websocket_servers import LIBRARIES


def _subject(name: str, client: object = None) -> Subject:
    library = LIBRARIES[name]
    mouth = library.mouths["echo"]
    asking = CLIENTS[name][1] if client is None else partial(ping_pong, mouth=mouth)
    return Subject(name, Pair(library.run, asking), None, library.needs)


def main(amount: int = 10_000, runs: int = 5) -> dict[str, float]:
    """Measure and print; the ratios."""
    ratios: dict[str, float] = {}
    for title, client in (("its own client", None), ("the same raw client", ping_pong)):
        first, *others = (_subject(name, client) for name in _ORDER)
        found = compare(
            f"echo, 64 B, WebSocket, {title}, round trips",
            first.pair,
            others,
            amount=amount,
            runs=runs,
            base=first.name,
        )
        ratios |= {f"{name}, {title}": ratio for name, ratio in found.items()}
    return ratios


_ORDER = ("websockets", "hisock", "picows", "python-socketio")
