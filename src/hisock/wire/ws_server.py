"""A server's end of a WebSocket: the request, what answers it, and its frames."""

from __future__ import annotations

__all__ = ("ServerSide",)

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from types import MappingProxyType
from typing import ClassVar, Final

from websockets.frames import CloseCode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from hisock.errors import NotSendable
from hisock.wire import ws_frames
from hisock.wire.http import (
    END,
    HEAD,
    Head,
    HttpError,
    Response,
    is_broken,
    read_head,
    text,
)
from hisock.wire.text import to_text
from hisock.wire.websocket import SILENT, WebSocket

#: Goodbyes behind which nothing is acknowledged any more: refusals, and violations.
_AT_ONCE: Final = frozenset({3, 4, 5, 6, 7, 17, 20})
#: Bytes of messages that are kept to be written to others, too.
_KEPT: Final = 64 * 1024
#: Bytes of a body that leaves with its head; a longer one takes its time.
_SHORT: Final = 4096


class ServerSide(WebSocket):
    """A server's end.

    Args:
        check: Raises ``HttpError`` if a request may not be asked.
        answer: The response to one that asks for no WebSocket.
        largest: Bytes of the largest message; 0 for any.
        pace: Passes the pieces of an answer on, and so knows how it goes.
    """

    __slots__ = (
        "_answer",
        "_body",
        "_check",
        "_head",
        "_pace",
        "_response",
    )

    _is_masked = True
    #: What was written last as binary, by whichever of them, and how that is framed.
    _last: ClassVar[tuple[bytes, bytes]] = b"", b""

    #: A page that is left says 1001, and does not come back.
    _goodbyes = MappingProxyType({1000: 0, 1001: 0})

    def __init__(
        self,
        check: Callable[[Head], None],
        answer: Callable[[Head], Response],
        largest: int,
        pace: Callable[[Iterable[bytes]], Iterator[bytes]] = iter,
    ) -> None:
        super().__init__(largest)
        self._check = check
        self._answer = answer
        self._pace = pace
        self._head = b""
        self._body: Iterator[bytes] | None = None
        self._response: Response | None = None

    def _feed_head(self, data: bytes) -> bytes:
        self._head += data
        head, end, rest = self._head.partition(END)
        if not end and len(head) <= HEAD and not is_broken(head):
            return b""
        self._head = b""
        head += end
        try:
            if len(head) > HEAD:
                words = f"a head of more than {HEAD} bytes"
                raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, words)
            request = read_head(head)
            self._check(request)
            if "upgrade" in request.headers:
                self._upgrade(request, head)
                return rest
            response = self._answer(request)
        except HttpError as error:
            self.refusal = str(error)
            response = text(error.status, str(error))
        self._respond(response)
        return b""

    def _respond(self, response: Response) -> None:
        self._out.append(response.head)
        self._response = response
        self._body = self._pace(response.body)
        if isinstance(response.body, tuple) and response.size <= _SHORT:
            self._out += self._body
            self._end()

    def _upgrade(self, request: Head, head: bytes) -> None:
        if "websocket" not in request.headers["upgrade"].lower():
            words = "only an upgrade to WebSocket is served here"
            raise HttpError(HTTPStatus.UPGRADE_REQUIRED, words)
        if request.headers.get("sec-websocket-version") != "13":
            words = "version 13 of WebSocket is served here"
            raise HttpError(HTTPStatus.UPGRADE_REQUIRED, words)
        protocol = ServerProtocol(logger=SILENT)
        protocol.receive_data(head)
        asked = next(iter(protocol.events_received()), None)
        if not isinstance(asked, Request):  # a line longer than the library reads
            words = "a header is too long"
            raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, words)
        response = protocol.accept(asked)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            words = bytes(response.body).decode().strip()
            raise HttpError(HTTPStatus(response.status_code), words)
        protocol.send_response(response)
        self._out += protocol.data_to_send()
        self.is_open = True
        del self._answer, self._check, self._pace  # for requests; there is no other

    def take_piece(self) -> bytes:
        """As ``WebSocket.take_piece``."""
        if self._body is None:
            return b""
        if piece := next(self._body, b""):
            return piece
        self._end()
        return b""

    def _end(self) -> None:
        self._let_go()
        self.is_over = True

    def _let_go(self) -> None:
        self._body = None
        response, self._response = self._response, None
        if response is not None:
            response.close()

    @property
    def has_more(self) -> bool:
        """As ``WebSocket.has_more``."""
        return self._body is not None

    @property
    def is_answered(self) -> bool:
        """As ``WebSocket.is_answered``: with a page, or why there is none."""
        return self._body is not None or (self.is_over and not self.is_open)

    def _close_if_due(self) -> None:
        said = self._said_bye
        if said is not None and (self._heard_bye or said.code in _AT_ONCE):
            self.close()

    def close(self) -> None:
        """As ``WebSocket.close``; an answer that is not complete stays so, and who has
        not even asked in time hears that, too."""
        if self._body is not None:
            self._end()
        elif not (self.is_open or self.is_over):
            words = "no whole request came in time"
            self._respond(text(HTTPStatus.REQUEST_TIMEOUT, words))
        else:
            super().close()

    def shut(self) -> None:
        """As ``WebSocket.shut``."""
        if self._heard_bye or not self.is_open:
            self.close()

    def framed(self, data: bytes | bytearray | memoryview) -> bytes | None:
        """As ``WebSocket.framed``; a server's binary frames are the same for all."""
        known, framed = ServerSide._last
        return framed if data == known and self._is_usual else None

    @property
    def frames(self) -> Callable[[bytes], bytes] | None:
        """As ``WebSocket.frames``."""
        return ws_frames.plain_all if self._is_usual else None

    @property
    def _is_usual(self) -> bool:
        """Whether it writes binary, and nothing is begun or has ended."""
        has_ended = self._said_bye or self._is_closing
        return self.is_open and not (self.is_text or self._rest or has_ended)

    def write(self, data: bytes) -> None:
        """As ``WebSocket.write``; others may get it, too, so it is kept with its
        frames."""
        framed = self.framed(data)
        if framed is not None:
            self._out.append(framed)
            return
        was_usual = self._is_usual
        before = len(self._out)
        super().write(data)
        if was_usual and self._is_usual and len(data) <= _KEPT:
            ServerSide._last = data, b"".join(self._out[before:])

    def _write_message(self, body: bytes) -> None:
        if self.is_text:
            try:
                body = to_text(body).encode()
            except NotSendable as error:  # of a session that began as binary
                self._protocol.fail(CloseCode.INTERNAL_ERROR, str(error))
                return
        # The library's own way there makes four objects of it.
        self._out += ws_frames.plain(body, is_text=self.is_text)
