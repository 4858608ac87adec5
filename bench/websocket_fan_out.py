"""64 bytes to 200 clients on WebSocket, one broadcast at a time and 32 in flight.

One at a time, the baseline is a bare loop of ``send``: what the kernel takes. In flight
it is ``websockets``. The clients are the same raw sockets for all; those of hisock also
acknowledge, as what can be resumed has to, or have no session, as those of the others.
"""

from __future__ import annotations

__all__ = ("main",)

import socket
from functools import partial
from multiprocessing.connection import Connection

from bench.peers import Pair, Subject, compare
from bench.websocket_raw import FRAME_SIZE, count
from bench.websocket_servers import LIBRARIES

_CLIENTS = 200
_WINDOW = 32


def bare_server(pipe: Connection, amount: int) -> None:
    """A loop of ``send`` for each byte that the last of its clients sends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=_CLIENTS)
    pipe.send(listener.getsockname()[1])
    crowd = [listener.accept()[0] for _ in range(_CLIENTS)]
    for sock in crowd:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    asking, _ = listener.accept()
    frame = bytes(FRAME_SIZE)
    while data := asking.recv(1024):
        for _ in data:
            for sock in crowd:
                sock.send(frame)


def _subject(
    name: str, window: int, goal: float | None = None, *, has_sessions: bool = True
) -> Subject:
    library = LIBRARIES[name]
    client = partial(
        count,
        mouth=library.mouths["go"],
        clients=_CLIENTS,
        window=window,
        has_sessions=has_sessions,
    )
    label = name if has_sessions else f"{name}, no sessions"
    return Subject(label, Pair(library.run, client), goal, library.needs)


def main(amount: int = 1_000, runs: int = 5) -> dict[str, float]:
    """Measure and print; the ratios."""
    bare = partial(count, mouth=None, clients=_CLIENTS, window=1)
    return {
        **compare(
            f"fan-out, 64 B to {_CLIENTS} clients, one at a time, messages",
            Pair(bare_server, bare),
            [
                _subject("hisock", 1, 0.95),
                _subject("hisock", 1, 0.95, has_sessions=False),
                _subject("websockets", 1),
                _subject("picows", 1),
                _subject("python-socketio", 1),
            ],
            amount=amount,
            runs=runs,
            base="a loop of send",
        ),
        **compare(
            f"fan-out, 64 B to {_CLIENTS} clients, {_WINDOW} in flight, messages",
            _subject("websockets", _WINDOW).pair,
            [
                _subject("hisock", _WINDOW, 10.0),
                _subject("picows", _WINDOW),
                _subject("python-socketio", _WINDOW),
            ],
            amount=amount,
            runs=runs,
            base="websockets",
        ),
    }
