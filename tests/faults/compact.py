"""Raw peers of the compact wire, for those who speak it badly."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from hypothesis import strategies as st

from hisock import connect
from hisock.client import HiSockClient

from .raw import Listener, Raw, Stage, eventually, frame

PACK: Final = msgspec.msgpack.encode
PROTOCOL_ERROR: Final = 5
TOO_LARGE: Final = 6


def packed(*elements: Any) -> bytes:
    """A frame with its header."""
    return sized(PACK(elements))


def sized(body: bytes) -> bytes:
    """Bytes behind the header of a frame."""
    return len(body).to_bytes(4, "big") + body


def hello(name: str | None, proto: object = 2, **claim: object) -> bytes:
    """What one of our clients begins with: the hello and the probe.

    Args:
        claim: What it says of a session; nothing for none.
    """
    fields = {"name": name, "group": None, "proto": proto, "now": 0, **claim}
    body = b"$CLTHELLO$ " + json.dumps(fields).encode()
    return frame(body) + frame(b"$DH_NUMS$")


class Compact(Raw):
    """A raw peer that has agreed on the compact wire."""

    def take_packed(self) -> list[Any]:
        """The next frame."""
        size = int.from_bytes(self.take(4), "big")
        elements: list[Any] = msgspec.msgpack.decode(self.take(size))
        return elements

    def expect_bye(self, code: int) -> str:
        """Wait for the goodbye and the end behind it; the reason that was given."""
        while True:
            kind, *rest = self.take_packed()
            if kind == 35:
                assert rest[0] == code
                assert self.take_all() == b""
                return str(rest[1])


def joined(stage: Stage, name: str = "bad") -> Compact:
    """A peer on the compact wire that has joined."""
    before = len(stage.joined)
    peer = Compact.call(stage.address)
    peer.send(hello(name))
    assert peer.take_frame().startswith(b"$WELCOME$ ")
    peer.send(frame(b"$COMPACT$"))
    eventually(lambda: len(stage.joined) > before, f"{name} joins")
    return peer


@contextlib.contextmanager
def served(**options: Any) -> Iterator[tuple[HiSockClient, Compact]]:
    """Our client, and the raw server of its connection, agreed on the compact wire."""
    listener = Listener()
    with (
        listener.sock,
        connect(listener.address, "us", **options) as client,
        listener.sock.accept()[0] as sock,
    ):
        server = Compact(sock)
        assert server.take_frame().startswith(b"$CLTHELLO$ ")
        assert server.take_frame() == b"$DH_NUMS$"
        server.send(frame(b'$WELCOME$ {"proto": 2, "now": 0}'))
        client.update(timeout=0)
        while client.wire is None:
            client.update(timeout=0.1)
        assert server.take_frame() == b"$COMPACT$"
        yield client, server
        sock.close()


#: What nobody should say: frames of any kind and shape, and bytes that are none.
PIECES: Final = st.lists(
    st.one_of(
        st.binary(max_size=40).map(sized),
        st.binary(max_size=12),
        st.tuples(
            st.integers(-3, 60),
            st.one_of(st.none(), st.integers(0, 9), st.text(max_size=6)),
            st.one_of(
                st.none(),
                st.integers(1 - 2**63, 2**63 - 1),
                st.binary(max_size=9),
            ),
        ).map(lambda row: packed(*row)),
    ),
    max_size=8,
)
