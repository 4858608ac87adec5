"""Our two ends of a WebSocket, as the cases of the RFC want them: they send it back.

Everything is real but what a message means: the sockets, what reads and writes them,
the handshake, the frames, with the quick cut of the usual ones, the checks and the
close.
"""

from __future__ import annotations

__all__ = ("EchoServer", "call")

import os
import select
import socket
import threading
from contextlib import closing, suppress
from types import TracebackType
from typing import Any, Final, Self

from tests.web.raw import no_page

from hisock.engine.upgrade import UpgradedSocket
from hisock.wire.http import Rules
from hisock.wire.websocket import WebSocket
from hisock.wire.ws_client import ClientSide
from hisock.wire.ws_server import ServerSide

#: The largest messages of the cases have 16 MiB.
LARGEST: Final = 2**24
_READ: Final = 2**25
#: In front of text between reading and writing it. No case sends binary that begins
#: like this, nor like a goodbye.
_TEXT: Final = b"t\0"
#: Seconds without anything in which a case has failed.
_PATIENCE: Final = 20.0


class _Echo(WebSocket):
    """Takes any message, and writes it as what it was."""

    __slots__ = ()

    # Cases 9.3.1 to 9.3.3 cut 4 MiB into pieces of 64 bytes to 1 KiB, which hisock
    # refuses on purpose, as the test of bad input shows.
    _most_pieces = 2**16

    def _take_message(self, body: bytes, *, is_text: bool) -> bytes:
        return _TEXT + body if is_text else body

    def _write_message(self, body: bytes) -> None:
        if body.startswith(_TEXT):
            self._protocol.send_text(body[len(_TEXT) :])
            self._note_writes()
        else:
            super()._write_message(body)


class _EchoServerSide(_Echo, ServerSide):
    __slots__ = ()


class _EchoClientSide(_Echo, ClientSide):
    __slots__ = ()


def _echo(sock: UpgradedSocket) -> None:
    """Send back what comes, until the other side has ended."""
    sock.setblocking(False)
    sock.flush()
    while True:
        wants = select.POLLOUT if sock.pending else select.POLLIN
        poller = select.poll()
        poller.register(sock.fileno(), wants)
        assert poller.poll(_PATIENCE * 1000), "nothing came"
        if sock.pending:
            sock.flush()
            continue
        try:
            if not (came := sock.recv(_READ)):
                return
            sock.send(came)
        except BlockingIOError:
            continue
        except OSError as error:
            if not getattr(error, "violates", False):
                raise


def _run(raw: socket.socket, side: WebSocket) -> None:
    """Be one end of a connection. That it broke is for the other end to judge."""
    sock = UpgradedSocket(raw, side, lambda: LARGEST)
    with closing(sock), suppress(ConnectionError):
        _echo(sock)


def call(uri: str, address: tuple[str, int]) -> None:
    """Be a client, until the server has ended it."""
    _run(
        socket.create_connection(address, _PATIENCE),
        _EchoClientSide(uri, LARGEST, os.urandom),
    )


class EchoServer:
    """A server on a free port, with a thread for each client."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._threads = [threading.Thread(target=self._accept)]
        #: What went wrong in threads.
        self.errors: list[BaseException] = []

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        for thread in self._threads:
            thread.join(2 * _PATIENCE)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock = self._listener.accept()[0]
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: Any) -> None:
        side = _EchoServerSide(Rules((), (), "http").check, no_page, LARGEST)
        try:
            _run(sock, side)
        except BaseException as error:
            self.errors.append(error)
