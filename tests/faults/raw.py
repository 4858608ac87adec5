"""Raw sockets that play the bad or slow peer, and the honest ones beside it."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from hisock import ClientInfo, connect, start_threaded_server
from hisock.client import HiSockClient
from hisock.server import HiSockServer, ThreadedHiSockServer

HOST = "127.0.0.1"
PATIENCE = 5.0
CLIENT_HELLO = b"$CLTHELLO$ "
PROBE = b"$DH_NUMS$"
#: Bytes of a header that has room for the length of a hello which offers our wire.
ROOM_FOR_OFFER = 4
CLIENT_GOODBYE = b"$USRCLOSE$"
SERVER_GOODBYE = b"$DISCONN$"
#: What a hello says besides where the client wants to find its session again.
SESSION = {"sid", "token", "next", "got", "epoch", "window", "beats"}

Where = tuple[str, int]

_DESCRIPTORS = Path("/dev/fd")

needs_posix = pytest.mark.skipif(os.name != "posix", reason="POSIX only")
counts_descriptors = pytest.mark.skipif(
    not _DESCRIPTORS.is_dir(), reason="the system does not show open descriptors"
)


def eventually(
    condition: Callable[[], object], what: str, *, within: float = PATIENCE
) -> None:
    """Wait until a condition holds, or fail with what was expected."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"not within {within:g} s: {what}"
        time.sleep(0.002)


def turn_server(
    server: HiSockServer, condition: Callable[[], object], what: str
) -> None:
    """Turn a non-blocking server until a condition holds."""

    def holds() -> object:
        server.run()
        return condition()

    eventually(holds, what)


def open_descriptors() -> int:
    """How many descriptors this process has."""
    return len(os.listdir(_DESCRIPTORS))


def header(size: int, header_len: int = 16) -> bytes:
    """What 1.1 writes before a body."""
    return str(size).ljust(header_len).encode()


def frame(body: bytes, header_len: int = 16) -> bytes:
    """A body with its header."""
    return header(len(body), header_len) + body


def hello(name: str | None = "bad", group: str | None = None) -> bytes:
    """The body that a client begins with."""
    spelled = ["null" if each is None else f'"{each}"' for each in (name, group)]
    return b'$CLTHELLO$ {"name": %b, "group": %b}' % tuple(
        each.encode() for each in spelled
    )


class Raw:
    """A socket that says whatever the test says, and never waits for ever."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock

    @classmethod
    def call(cls, address: Where, *, buffer: int | None = None) -> Self:
        """Connect, with a small receive buffer if it is to be a slow reader."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        if buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.connect(address)
        return cls(sock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.sock.close()

    @property
    def address(self) -> Where:
        """Where this end is."""
        own: Where = self.sock.getsockname()[:2]
        return own

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    def throw(self, data: bytes) -> None:
        """Send what the other side may cut off."""
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def take(self, size: int) -> bytes:
        """Exactly so many bytes."""
        taken = b""
        while len(taken) < size:
            piece = self.sock.recv(size - len(taken))
            assert piece, f"it ended after {taken!r:.80}"
            taken += piece
        return taken

    def take_frame(self, header_len: int = 16) -> bytes:
        """One body."""
        return self.take(int(self.take(header_len)))

    def take_hello(
        self, name: str | None = None, header_len: int = 16, *, session: bool = False
    ) -> None:
        """What our client begins with: the hello, and the probe behind it.

        Args:
            session: Whether it asks for a session.
        """
        said = self.take_frame(header_len)
        if header_len < ROOM_FOR_OFFER:
            assert said == hello(name)
            return
        assert said.startswith(CLIENT_HELLO)
        offer = json.loads(said.removeprefix(CLIENT_HELLO))
        assert isinstance(offer.pop("now"), int)
        asked = {key for key in SESSION if offer.pop(key, self) is not self}
        assert asked == (SESSION if session else set())
        assert offer == {"name": name, "group": None, "proto": 2}
        assert self.take_frame(header_len) == PROBE

    def take_all(self) -> bytes:
        """Everything until the other side ends the connection, however it does."""
        taken = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := self.sock.recv(65536):
                taken += piece
        return taken

    def reset(self) -> None:
        """End with a reset in place of a clean end."""
        self.sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.sock.close()


class Listener:
    """A raw socket that plays the server."""

    def __init__(self, *, buffer: int | None = None) -> None:
        self.sock = socket.socket()
        self.sock.settimeout(PATIENCE)
        if buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.sock.bind((HOST, 0))
        self.sock.listen()
        self.address: Where = self.sock.getsockname()

    def accept(self) -> Raw:
        """The next client, its hello unread."""
        return Raw(self.sock.accept()[0])


@contextlib.contextmanager
def served(
    *,
    blocking: bool = False,
    buffer: int | None = None,
    answers: bool = True,
    **options: Any,
) -> Iterator[tuple[HiSockClient, Raw]]:
    """Our client, and the raw end of its connection with the hello taken off.

    It plays a server of 1.1, which ``answers`` the probe behind the hello. The client
    does not come back after a cut, unless the test says so.
    """
    listener = Listener(buffer=buffer)
    header_len = options.get("header_len", 16)
    reconnect = options.setdefault("reconnect", False)
    with (
        listener.sock,
        connect(listener.address, "us", blocking=blocking, **options) as client,
        listener.accept() as server,
    ):
        server.take_hello("us", header_len, session=reconnect)
        if answers and header_len >= ROOM_FOR_OFFER:
            server.send(frame(b"$NOTLS$", header_len))

            def is_answered() -> bool:
                client.poll(0.0)
                return client.wire == "classic"

            eventually(is_answered, "the client heard which wire is spoken")
        yield client, server
        # So that the client need not wait until it believes in the end.
        server.sock.close()


class Stage:
    """Our server in its thread, a record of what ran, and an honest client.

    Leaving the block proves that the honest client was not harmed.
    """

    def __init__(self, **options: Any) -> None:
        self.server: ThreadedHiSockServer = start_threaded_server((HOST, 0), **options)
        self.address = self.server.get_addr()
        #: What handlers were called with, in order.
        self.ran: list[tuple[Any, ...]] = []
        self.joined: list[str | None] = []
        self.left: list[str | None] = []
        self._said = 0
        self.server.on("join")(self._on_join)
        self.server.on("leave")(self._on_leave)
        self.server.on("echo")(self._on_echo)
        self.honest: HiSockClient

    def _on_join(self, client: ClientInfo) -> None:
        self.joined.append(client["name"])

    def _on_leave(self, client: ClientInfo) -> None:
        self.left.append(client["name"])

    def _on_echo(self, client: ClientInfo, content: bytes) -> None:
        self.server.send_client_raw(client, content)

    def record(self, *commands: str) -> None:
        """Register handlers that note what they were called with."""
        for command in commands:
            self.server.on(command)(self._note(command))

    def _note(self, command: str) -> Callable[[ClientInfo, bytes], None]:
        def note(client: ClientInfo, message: bytes) -> None:
            if client["name"] != "honest":
                self.ran.append((command, message))

        return note

    def __enter__(self) -> Self:
        self.server.start_server()
        try:
            self.honest = connect(self.address, "honest")
            self.check()
        except BaseException:
            self.server.stop_server()
            self.server.join()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.check()
                assert "honest" not in self.left
        finally:
            self.honest.close()
            self.server.stop_server()
            self.server.join()

    def check(self) -> float:
        """A round trip of the honest client; how long it took.

        Whatever another peer sent before it has been read by then.
        """
        began = time.monotonic()
        self._said += 1
        said = b"still here %d" % self._said
        self.honest.send("echo", said)
        assert self.honest.recv_raw() == said
        return time.monotonic() - began

    def peer(
        self,
        name: str | None = "bad",
        group: str | None = None,
        *,
        header_len: int = 16,
        buffer: int | None = None,
    ) -> Raw:
        """A raw client that has joined."""
        before = len(self.joined)
        peer = Raw.call(self.address, buffer=buffer)
        peer.send(frame(hello(name, group), header_len))
        eventually(lambda: len(self.joined) > before, f"{name} joins")
        return peer

    def stranger(self) -> Raw:
        """A raw connection that has said nothing."""
        return Raw.call(self.address)


def in_thread(action: Callable[[], object]) -> threading.Thread:
    """A started thread; a daemon, so that a hanging test can end."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def ends_within(thread: threading.Thread, seconds: float) -> bool:
    """Whether a thread ends in time."""
    thread.join(seconds)
    return not thread.is_alive()


def sockets_at(address: Where) -> list[socket.socket]:
    """Every open socket object of this process whose own end is at an address."""
    found = []
    for each in gc.get_objects():
        if type(each) is socket.socket and each.fileno() >= 0:
            with contextlib.suppress(OSError):
                if each.getsockname()[:2] == address:
                    found.append(each)
    return found
