"""Raw clients of four WebSocket servers: frames made beforehand out, bytes counted in.

The same for every server but for its handshake, so that only servers are compared.
"""

from __future__ import annotations

__all__ = (
    "FRAME_SIZE",
    "Mouth",
    "SIZE",
    "connect_raw",
    "count",
    "hear_out",
    "ping_pong",
    "pour",
)

import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

from websockets.frames import Frame, Opcode

from hisock.wire import compact
from hisock.wire.compact import HEADER_LEN
from hisock.wire.frames import PROTO, Ack, PackedHello

#: Bytes of a message, and of the frame in which a server sends it.
SIZE = 64
FRAME_SIZE = SIZE + 2
#: Different frames that are sent in turn: each has a mask of its own.
_MANY = 4096
#: The first byte of a frame that closes.
_CLOSE = 0x88
#: Messages after which a client of hisock acknowledges.
_OWED = 64


@dataclass(frozen=True, slots=True)
class Mouth:
    """How one library wants to be spoken to.

    Attributes:
        path: What is asked for.
        opcode: Of its messages.
        message: One of 64 bytes that the server counts, or sends back.
        go: One that has the server send to everybody.
        acknowledges: Whether the client has to say how many messages came.
    """

    path: str
    opcode: Opcode
    message: bytes
    go: bytes
    acknowledges: bool = False


def masked(opcode: Opcode, body: bytes) -> bytes:
    """A client's frame."""
    return Frame(opcode, body).serialize(mask=True)


def connect_raw(
    port: int, mouth: Mouth, group: str | None = None, *, has_session: bool = True
) -> socket.socket:
    """A connection whose handshake is done."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(
        f"GET {mouth.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(1)
    assert b" 101 " in head, head
    if mouth.acknowledges:
        sock.sendall(masked(Opcode.BINARY, _hello(group, has_session=has_session)))
        sock.recv(4096)
        if has_session:
            sock.sendall(acknowledgement(0))
    elif mouth.opcode is Opcode.TEXT:
        sock.recv(4096)
        sock.sendall(masked(Opcode.TEXT, b"40"))
        sock.recv(4096)
    return sock


def _hello(group: str | None, *, has_session: bool) -> bytes:
    fields: dict[str, object] = {"name": None, "group": group, "proto": PROTO, "now": 0}
    if has_session:
        token, following = os.urandom(32).hex(), os.urandom(32).hex()
        fields |= {"sid": os.urandom(16).hex(), "token": token, "next": following}
        fields |= {"got": 0, "window": 30.0, "beats": True}
    return compact.encode(PackedHello(fields))[HEADER_LEN:]


def acknowledgement(number: int) -> bytes:
    """A client of hisock has so many messages."""
    return masked(Opcode.BINARY, compact.encode(Ack(number))[HEADER_LEN:])


def pour(pipe: Connection, amount: int, mouth: Mouth) -> None:
    """Send messages as fast as they are taken."""
    frames = [masked(mouth.opcode, mouth.message) for _ in range(_MANY)]
    block = b"".join(frames)
    size = len(frames[0])
    sock = connect_raw(pipe.recv(), mouth)
    while amount > 0:
        sock.sendall(block[: amount * size])
        amount -= _MANY
    hear_out(sock)


def hear_out(sock: socket.socket) -> None:
    """Wait until the server closes, and do not answer that."""
    while (came := sock.recv(65536)) and came[0] != _CLOSE:
        pass


def ping_pong(pipe: Connection, amount: int, mouth: Mouth) -> None:
    """Send, wait, again."""
    frame = masked(mouth.opcode, mouth.message)
    size = bytes((SIZE,))
    sock = connect_raw(pipe.recv(), mouth)
    began = time.perf_counter()
    for number in range(1, amount + 1):
        sock.sendall(frame)
        if mouth.acknowledges and not number % _OWED:
            sock.sendall(acknowledgement(number - 1))
        while (came := sock.recv(4096))[1:2] != size:  # an acknowledgement alone
            assert came, "the server has cut us off"
            if len(came) >= FRAME_SIZE:  # one before the message
                break
    pipe.send(amount / (time.perf_counter() - began))


class _Crowd:
    """Many clients that count what comes."""

    def __init__(
        self, port: int, clients: int, mouth: Mouth | None, *, has_sessions: bool
    ) -> None:
        self._acknowledges = has_sessions and mouth is not None and mouth.acknowledges
        self._epoll = select.epoll()
        self._socks: dict[int, socket.socket] = {}
        self.counts: dict[int, int] = {}
        self._acked: dict[int, int] = {}
        for _ in range(clients):
            if mouth is None:
                sock = socket.create_connection(("127.0.0.1", port))
            else:
                sock = connect_raw(port, mouth, "crowd", has_session=has_sessions)
            sock.setblocking(False)
            fd = sock.fileno()
            self._socks[fd] = sock
            self.counts[fd] = self._acked[fd] = 0
            self._epoll.register(fd, select.EPOLLIN)
        self.total = 0

    def hear(self) -> None:
        """Wait for something, and count it."""
        acknowledges = self._acknowledges
        counts, socks = self.counts, self._socks
        for fd, _ in self._epoll.poll():
            came = len(socks[fd].recv(65536))
            assert came, "a server has cut a client off"
            counts[fd] += came
            self.total += came
            if acknowledges and counts[fd] - self._acked[fd] >= _OWED * FRAME_SIZE:
                self._acked[fd] = counts[fd]
                socks[fd].send(acknowledgement(counts[fd] // FRAME_SIZE))


def count(
    pipe: Connection,
    amount: int,
    mouth: Mouth | None,
    clients: int,
    window: int,
    *,
    has_sessions: bool = True,
) -> None:
    """Ask for broadcasts, so many at a time, until all have had all of them.

    Args:
        pipe: To the parent.
        amount: Of broadcasts.
        mouth: How to speak; ``None`` for no WebSocket at all.
        clients: How many listen.
        window: Broadcasts that are asked for at once, until everybody has had them.
        has_sessions: Whether clients of hisock could resume, and so acknowledge.
    """
    port = pipe.recv()
    crowd = _Crowd(port, clients, mouth, has_sessions=has_sessions)
    asking: Callable[[bytes], object]
    if mouth is None:
        asking, go = socket.create_connection(("127.0.0.1", port)).sendall, b"g"
    else:
        asking = connect_raw(port, mouth, has_session=False).sendall
        go = masked(mouth.opcode, mouth.go)
    done = 0
    began = time.perf_counter()
    while done < amount:
        asked = min(window, amount - done)
        asking(go * asked)
        done += asked
        while crowd.total < done * clients * FRAME_SIZE:
            crowd.hear()
    pipe.send(amount * clients / (time.perf_counter() - began))
