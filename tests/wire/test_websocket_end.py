"""A WebSocket whose other side is gone without a word."""

from __future__ import annotations

from hisock.wire.http import Head, Response
from hisock.wire.ws_server import ServerSide

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def _no_page(head: Head) -> Response:
    raise AssertionError("nobody asks for a page")


def test_a_websocket_that_the_network_ended_is_closed_without_a_word() -> None:
    """The socket ends without a close frame: closing then has nobody to tell."""
    side = ServerSide(lambda head: None, _no_page, 1024)
    side.feed(UPGRADE)
    assert side.is_open
    side.take()

    side.feed_eof()
    side.close()

    assert side.take() == b""
    assert side.is_over
