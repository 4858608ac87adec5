"""Raw sockets that speak the compact wire, frame by frame, as the test says."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any, Self

import msgspec

from hisock import HiSockClient, connect

from .test_blocking import HOST, PATIENCE, Raw, eventually, frame

# The kinds of docs/wire.md.
MESSAGE, REQUEST, REPLY, FAILURE, ITEM, END, CREDIT, CANCEL = range(1, 9)
BYE = 35


class Packed(Raw):
    """A raw peer that has agreed on the compact wire."""

    @classmethod
    def call_at(
        cls, address: tuple[str, int], name: str = "raw", group: str = "g"
    ) -> Self:
        """A raw client that has joined."""
        peer = cls(socket.create_connection(address, PATIENCE))
        hello = {"name": name, "group": group, "proto": 2, "now": 0}
        peer.send(b"$CLTHELLO$ " + msgspec.json.encode(hello), b"$DH_NUMS$")
        return peer

    def agree(self) -> None:
        """Take the server's welcome, and confirm it."""
        assert self.take().startswith(b"$WELCOME$ ")
        self.send(b"$COMPACT$")

    def put(self, *frames: list[Any]) -> None:
        """Write frames, all at once; each is its kind and what follows."""
        bodies = map(msgspec.msgpack.encode, frames)
        self.sock.sendall(b"".join(len(b).to_bytes(4, "big") + b for b in bodies))

    def next(self) -> list[Any]:
        """The next frame."""
        size = int.from_bytes(self._exactly(4), "big")
        elements: list[Any] = msgspec.msgpack.decode(self._exactly(size))
        return elements

    def is_quiet(self) -> bool:
        """Whether nothing has come that was not taken."""
        self.sock.setblocking(False)
        try:
            return not self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        finally:
            self.sock.settimeout(PATIENCE)


@contextlib.contextmanager
def welcomed(
    *, blocking: bool = True, buffer: int | None = None, **options: Any
) -> Iterator[tuple[HiSockClient, Packed]]:
    """Our client, and the raw server of its connection, agreed on the compact wire."""
    with socket.socket() as listener:
        listener.settimeout(PATIENCE)
        if buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        listener.bind((HOST, 0))
        listener.listen()
        address = listener.getsockname()
        with (
            connect(address, "us", blocking=blocking, **options) as client,
            Packed(listener.accept()[0]) as server,
        ):
            assert server.take().startswith(b"$CLTHELLO$ ")
            assert server.take() == b"$DH_NUMS$"
            server.sock.sendall(frame(b'$WELCOME$ {"proto": 2, "now": 0}'))

            def is_agreed() -> bool:
                client.poll(0.0)
                return client.wire == "compact"

            eventually(is_agreed, "the client has agreed")
            assert server.take() == b"$COMPACT$"
            yield client, server
            server.sock.close()
