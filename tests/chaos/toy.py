"""A small client and server that resume, or only reconnect: they prove the oracle.

No part of hisock is in them, so what fails with them is a fault of the tests.
"""

from __future__ import annotations

__all__ = ("toy_client", "toy_server")

import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from .faces import Options, Worker, send_all
from .pipes import Direction
from .traffic import COMMAND, Traffic, opposite

#: Seconds of silence after which a link is dead.
_SILENCE: Final = 0.5
_PING: Final = (0, None, None)


class _Toy:
    """One side: numbers what it sends, and keeps it until the other side has it.

    Args:
        traffic: What it sends and receives.
        direction: The way it sends.
        replays: Whether a new link begins with what the old one may have lost.
    """

    def __init__(self, traffic: Traffic, direction: Direction, *, replays: bool):
        self.is_over = threading.Event()
        self._traffic = traffic
        self._direction = direction
        self._book = traffic.books[opposite(direction)]
        self._replays = replays
        self._writing = threading.Lock()
        self._link: socket.socket | None = None
        self._kept: deque[tuple[int, str | None, Any]] = deque()
        self._number = self._got = 0
        self._is_first = True

    def send(self, command: str, content: Any) -> None:
        """Send, on this link or the next."""
        with self._writing:
            self._number += 1
            self._kept.append((self._number, command, content))
            self._write(self._kept[-1])

    def ping(self) -> None:
        """Say now and then what has come."""
        while not self.is_over.wait(_SILENCE / 5):
            with self._writing:
                self._write(_PING)

    def _write(self, frame: tuple[int, str | None, Any]) -> None:
        if self._link is not None:
            body = msgspec.msgpack.encode((self._got, *frame))
            try:
                self._link.sendall(struct.pack(">I", len(body)) + body)
            except OSError:
                self._link = None

    def serve(self, next_link: Callable[[], socket.socket]) -> None:
        """Use one link after another."""
        while not self.is_over.is_set():
            with contextlib.suppress(OSError, EOFError), next_link() as link:
                try:
                    self._resume(link)
                    while not self.is_over.is_set():
                        (size,) = struct.unpack(">I", _read(link, 4))
                        self._take(*msgspec.msgpack.decode(_read(link, size)))
                finally:
                    with self._writing:
                        self._link = None

    def _resume(self, link: socket.socket) -> None:
        link.settimeout(_SILENCE)
        link.sendall(struct.pack(">Q", self._got))
        (has,) = struct.unpack(">Q", _read(link, 8))
        with self._writing:
            self._forget(has)
            self._link = link
            if self._replays or self._is_first:
                for frame in tuple(self._kept):
                    self._write(frame)
            self._is_first = False
        self._resumed()

    def _resumed(self) -> None:
        if self._direction == "up":
            self._traffic.note_resume()

    def _take(self, has: int, number: int, command: str | None, content: Any) -> None:
        # Not under the lock: both sides may wait in it until the other reads.
        self._forget(has)
        if number == 0 or (self._replays and number <= self._got):
            return
        self._got = number
        if command == COMMAND:
            self._book.take(content)
        else:
            self._book.end(content)

    def _forget(self, has: int) -> None:
        while self._kept and self._kept[0][0] <= has:
            self._kept.popleft()


def _read(link: socket.socket, size: int) -> bytes:
    taken = bytearray()
    while len(taken) < size:
        piece = link.recv(min(1 << 16, size - len(taken)))
        if not piece:
            raise EOFError
        taken += piece
    return bytes(taken)


def toy_server(traffic: Traffic, at: tuple[str, int], options: Options) -> None:
    """Serve one client, on one link at a time."""
    toy = _Toy(traffic, "down", replays=options["replays"])
    with socket.create_server(at) as listener:
        listener.settimeout(_SILENCE)
        traffic.address.set_result(listener.getsockname())
        with _turned(toy, traffic, lambda: listener.accept()[0]):
            send_all(traffic, "down", toy.send)
            traffic.is_closing.wait()


def toy_client(traffic: Traffic, at: tuple[str, int], options: Options) -> None:
    """Connect whenever there is no link."""
    toy = _Toy(traffic, "up", replays=options["replays"])
    with _turned(toy, traffic, lambda: socket.create_connection(at, _SILENCE)):
        send_all(traffic, "up", toy.send)
        traffic.is_over.wait()


@contextlib.contextmanager
def _turned(
    toy: _Toy, traffic: Traffic, next_link: Callable[[], socket.socket]
) -> Iterator[None]:
    """Have a toy read and ping on threads of its own."""
    with Worker(traffic, toy.serve, next_link), Worker(traffic, toy.ping):
        try:
            yield
        finally:
            toy.is_over.set()
