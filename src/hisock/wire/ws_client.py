"""A client's end of a WebSocket: the answer to its request, and its frames."""

from __future__ import annotations

__all__ = ("ClientSide",)

from collections.abc import Callable
from types import MappingProxyType
from typing import Final

from websockets.client import ClientProtocol
from websockets.http11 import Response
from websockets.uri import parse_uri

from hisock.wire import ws_frames
from hisock.wire.frames import BYE_WORDS
from hisock.wire.http import END
from hisock.wire.websocket import OWN, SILENT, Failing, WebSocket

#: What a client of ours hears in the codes with which a server fails the connection.
_FAILURES: Final = {1002: 5, 1003: 5, 1007: 5, 1008: 5, 1009: 6}
_ANSWER: Final = b"HTTP/"
#: First bytes of an alert and of a handshake (RFC 8446 §5.1).
_TLS: Final = frozenset(b"\x15\x16")
#: Bytes of masks that are drawn at once.
_MASKS: Final = 64 * ws_frames.MASK


class _FailingClient(Failing, ClientProtocol):
    pass


class ClientSide(WebSocket):
    """A client's end; its messages are binary.

    Args:
        uri: Of the server, as the user gave it.
        largest: Bytes of the largest message; 0 for any.
        draw: Draws so many random bytes, that nobody can foresee.
    """

    __slots__ = ("_draw", "_early", "_has_heard", "_masks", "_tail")

    _is_masked = False

    #: 1001 is a server that is there again later.
    _goodbyes = MappingProxyType(
        {1000: 0, **_FAILURES, **{OWN + code: code for code in BYE_WORDS if code < 16}}
    )

    def __init__(self, uri: str, largest: int, draw: Callable[[int], bytes]) -> None:
        super().__init__(largest)
        protocol = self._library = _FailingClient(parse_uri(uri), logger=SILENT)
        self._is_settled = True
        self._draw = draw
        self._masks = b""
        #: What is to be written once the server has gone over.
        self._early = b""
        self._has_heard = False
        #: The last of what was read of the answer, in which its end may begin.
        self._tail = b""
        protocol.send_request(protocol.connect())
        self._note_writes()

    def _feed_head(self, data: bytes) -> bytes:
        if not self._has_heard and data[:5] != _ANSWER[: len(data)]:
            self.refusal = "what answers there speaks no HTTP"
            if data[0] in _TLS:
                self.refusal = "what answers there speaks TLS; use wss://"
            return b""
        self._has_heard = True
        held = self._tail + data
        at = held.find(END)
        end = len(data) if at < 0 else at + len(END) - len(self._tail)
        self._tail = held[1 - len(END) :]
        self._feed_answer(data[:end])
        if self.is_open or end == len(data):
            return data[end:]
        self._feed_answer(data[end:])  # why not
        return b""

    def _feed_answer(self, data: bytes) -> None:
        protocol = self._library
        assert isinstance(protocol, _FailingClient)
        protocol.receive_data(data)
        self._note_writes()
        if protocol.handshake_exc is not None:
            self.refusal = _why(protocol.handshake_exc)
        elif protocol.events and isinstance(protocol.events[0], Response):
            self._library = None
            self.is_open = True
            early, self._early = self._early, b""
            self.write(early)

    def feed_eof(self) -> None:
        """As ``WebSocket.feed_eof``: an answer without a length ends so."""
        super().feed_eof()
        error = None if self._library is None else self._library.handshake_exc
        if error is not None and isinstance(getattr(error, "response", None), Response):
            self.refusal = _why(error)

    def write(self, data: bytes) -> None:
        """As ``WebSocket.write``; waits here until the server has gone over."""
        if self.is_open:
            super().write(data)
        else:
            self._early += data

    def _write_message(self, body: bytes) -> None:
        # RFC 6455 §10.3: each has its own. To draw them one by one costs more than the
        # rest of the frame (bench/websocket_one_way.py).
        masks = self._masks or self._draw(_MASKS)
        mask, self._masks = masks[: ws_frames.MASK], masks[ws_frames.MASK :]
        self._out += ws_frames.masked(body, mask)


def _why(error: Exception) -> str:
    """Why a server did not go over to WebSocket."""
    response = getattr(error, "response", None)
    if not isinstance(response, Response):
        return str(error)
    text = bytes(response.body or b"")[:200].decode(errors="replace").strip()
    return f"{response.status_code} {response.reason_phrase}: {text}"
