"""Raw peers that speak WebSocket: frame by frame, and as badly as the test wants."""

from __future__ import annotations

__all__ = (
    "BINARY",
    "CLOSE",
    "CONT",
    "HOST",
    "PING",
    "PONG",
    "TEXT",
    "Web",
    "array",
    "call_web",
    "closing",
    "hello",
    "no_page",
    "request",
    "sealed",
)

from http import HTTPStatus
from typing import Any, Final

import msgspec
from tests.faults.raw import HOST, Raw, Where

from hisock.wire.http import Head, HttpError, Response

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
PACK: Final = msgspec.msgpack.encode
#: RFC 6455 §1.3.
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT: Final = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
_MASK: Final = b"\x37\xfa\x21\x3d"

HEADERS: Final = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def request(target: str = "/", **changed: str | None) -> bytes:
    """The head of a request for a WebSocket.

    Args:
        changed: Headers with ``_`` for ``-``; ``None`` leaves one out.
    """
    headers: dict[str, str | None] = {**HEADERS}
    headers.update({name.replace("_", "-"): text for name, text in changed.items()})
    lines = [f"{name}: {text}" for name, text in headers.items() if text is not None]
    return "\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def sealed(
    opcode: int,
    body: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    mask: bool = True,
    size: int | None = None,
) -> bytes:
    """A frame as a client sends it.

    Args:
        reserved: The three bits, as a number.
        size: What the header claims, if not the truth.
    """
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    size = len(body) if size is None else size
    bit = 0x80 if mask else 0
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 2**16:
        head = bytes((first, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, bit | 127)) + size.to_bytes(8, "big")
    if not mask:
        return head + body
    key = (_MASK * (len(body) // 4 + 1))[: len(body)]
    number = int.from_bytes(body, "big") ^ int.from_bytes(key, "big")
    return head + _MASK + number.to_bytes(len(body), "big")


def array(*elements: Any) -> bytes:
    """A frame of hisock in a message of its own."""
    return sealed(BINARY, PACK(elements))


def hello(name: str | None = "bad", **more: Any) -> bytes:
    """What a client begins with."""
    return array(36, {"name": name, "group": None, "proto": 2, "now": 0, **more})


def closing(code: int, reason: str = "") -> bytes:
    """What ends a connection."""
    return sealed(CLOSE, code.to_bytes(2, "big") + reason.encode())


class Web(Raw):
    """A raw client whose connection was upgraded."""

    def take_head(self) -> bytes:
        """The head of the answer."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.take(1)
        return head

    def take_sealed(self) -> tuple[int, bytes]:
        """The next frame: its opcode and what it carries."""
        first, size = self.take(2)
        assert first & 0x80, "a server of ours never cuts a message"
        assert size < 0x80, "a server never masks"
        if size >= 126:
            size = int.from_bytes(self.take(2 if size == 126 else 8), "big")
        return first & 0x0F, self.take(size)

    def take_array(self) -> list[Any]:
        """The next frame of hisock."""
        opcode, body = self.take_sealed()
        assert opcode == BINARY, (opcode, body)
        elements: list[Any] = msgspec.msgpack.decode(body)
        return elements

    def enter(self, name: str = "bad") -> None:
        """Say hello, and be welcomed."""
        self.send(hello(name))
        kind, fields = self.take_array()
        assert (kind, fields["name"]) == (37, name)

    def expect_close(self) -> tuple[int, str]:
        """Wait for the close and the end behind it; its code and reason.

        A goodbye of hisock's may come before, with the same text.
        """
        while True:
            opcode, body = self.take_sealed()
            if opcode == CLOSE:
                break
        self.throw(sealed(CLOSE, body))  # RFC 6455 §5.5.1
        assert self.take_all() == b""
        return int.from_bytes(body[:2], "big"), body[2:].decode()


def call_web(address: Where) -> Web:
    """A raw client whose connection was upgraded."""
    peer = Web.call(address)
    peer.send(request())
    head = peer.take_head()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert ACCEPT in head
    return peer


def no_page(head: Head) -> Response:
    """The answer of a port that has WebSockets and nothing else."""
    text = "a WebSocket is served here, and no page"
    raise HttpError(HTTPStatus.UPGRADE_REQUIRED, text)
