"""A WebSocket (RFC 6455) that carries the arrays of the compact wire, one a message.

A thin coat over the sans-I/O protocol of the ``websockets`` library, which reads and
checks; pure. To the rest of hisock it looks like the compact wire: bytes in, frames
with their lengths out, and the other way round.
"""

from __future__ import annotations

__all__ = ("ClientSide", "ServerSide", "Unwelcome", "WebSocket")

import logging
from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import ClassVar, Final

from websockets.client import ClientProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.http11 import Response as Answer
from websockets.protocol import Protocol
from websockets.protocol import State as PeerState
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from hisock.errors import NotSendable, RemoteProtocolError
from hisock.wire import compact
from hisock.wire.compact import HEADER_LEN
from hisock.wire.frames import BYE_WORDS, Bye
from hisock.wire.http import (
    HEAD,
    Head,
    HttpError,
    Response,
    is_broken,
    read_head,
    text,
)
from hisock.wire.text import from_text, to_text

#: Close codes of our own begin here, see ``docs/wire.md``.
_OWN: Final = 4000
#: Codes of goodbyes; see ``docs/wire.md``.
_CLOSED: Final = 0
_GOING_AWAY: Final = 16
#: Goodbyes for which the RFC has a code.
_CODES: Final = {_CLOSED: 1000, 5: 1002, 6: 1009, _GOING_AWAY: 1001}
#: What a client of ours hears in the codes with which a server fails the connection.
_FAILURES: Final = {1002: 5, 1003: 5, 1007: 5, 1008: 5, 1009: 6}
#: Goodbyes behind which nothing is acknowledged any more: refusals, and violations.
_AT_ONCE: Final = frozenset({3, 4, 5, 6, 7, 17, 20})
#: Bytes of a reason (RFC 6455 §5.5: 125 with the code).
_REASON: Final = 123
_BYE: Final = b"\x23"
_END: Final = b"\r\n\r\n"
_ANSWER: Final = b"HTTP/"
#: First bytes of an alert and of a handshake (RFC 8446 §5.1).
_TLS: Final = frozenset(b"\x15\x16")

# What goes wrong is told by our own texts.
_silent: Final = logging.Logger("hisock.websockets", logging.CRITICAL + 1)
_text_decoder: Final = getincrementaldecoder("utf-8")


def _reason(word: str, text: str) -> str:
    """A close's reason: our code first, and as much of the text as there is room for.

    ``docs/wire.md`` has the words.
    """
    told = f"{word}: {text}" if text else word
    return told.encode(errors="replace")[:_REASON].decode(errors="ignore")


class Unwelcome(Exception):
    """A message, or a piece of one, for which the connection is failed.

    Attributes:
        code: The RFC's.
    """

    def __init__(self, code: CloseCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Failing(Protocol):
    """The library's half, which says in our words why it fails the connection.

    Attributes:
        failure: The word of ``docs/wire.md``, and the text.
    """

    failure: tuple[str, str] | None = None

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        """As the library's."""
        if code != CloseCode.ABNORMAL_CLOSURE and self.failure is None:
            word = "protocol"
            if code == CloseCode.MESSAGE_TOO_BIG:
                word = "too_large"
                reason = f"a message of more than {self.max_message_size} bytes"
            self.failure = word, reason
            reason = _reason(word, reason)
        super().fail(code, reason)

    def recv_frame(self, frame: Frame) -> None:
        """As the library's, which would not have a close between two pieces."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None  # RFC 6455 §5.4: a close may stand there
        super().recv_frame(frame)


class _FailingServer(_Failing, ServerProtocol):
    pass


class _FailingClient(_Failing, ClientProtocol):
    pass


class WebSocket:
    """One end of a connection that began with a ``GET``; see the two below.

    Args:
        protocol: The library's half.

    Attributes:
        idle_talk: Pings and pongs that came, until somebody sets it back.
        is_open: Whether messages go both ways.
        is_over: Whether nothing more is to be written.
        is_text: Whether its messages are text: JSON.
        refusal: Why the request was not served.
    """

    __slots__ = (
        "_out",
        "_pieces",
        "_protocol",
        "_rest",
        "_heard_bye",
        "_said_bye",
        "_text",
        "idle_talk",
        "is_open",
        "is_over",
        "is_text",
        "refusal",
    )

    #: Pieces of one message; more is who makes work, not who has something to say.
    _most_pieces: ClassVar[int] = 1024
    #: Close codes that say what a goodbye says, and which.
    _goodbyes: ClassVar[Mapping[int, int]]

    def __init__(self, protocol: _Failing) -> None:
        self._protocol = protocol
        self._out: list[bytes] = []
        self._pieces: list[bytes] = []
        #: Checks the text of the message that comes; ``None`` if it is binary.
        self._text: IncrementalDecoder | None = None
        #: Of a frame that is to be written and is not whole yet.
        self._rest = b""
        #: Both have to be, so that the last acknowledgements arrive; then it is closed.
        self._said_bye: Bye | None = None
        self._heard_bye = False
        self.idle_talk = 0
        self.is_open = self.is_over = self.is_text = False
        self.refusal: str | None = None

    @property
    def largest(self) -> int:
        """Bytes of the largest message; 0 for any. May grow once the peer is known."""
        return self._protocol.max_message_size or 0

    @largest.setter
    def largest(self, largest: int) -> None:
        self._protocol.max_message_size = largest or None

    def take(self) -> bytes:
        """What is to be written now; once."""
        out, self._out = self._out, []
        return b"".join(out)

    def take_piece(self) -> bytes:
        """A piece of what may be written once all else is; nothing at the end."""
        return b""

    @property
    def has_more(self) -> bool:
        """Whether there may be another piece."""
        return False

    # --- what comes ----------------------------------------------------------------

    def feed(self, data: bytes) -> bytes:
        """What was read, as it would be on the compact wire."""
        if self.is_answered or self.is_over:
            return b""
        if not self.is_open:
            data = self._feed_head(data)
            if not (data or self.is_open):
                return b""
        if data:
            self._protocol.receive_data(data)
        came = self._messages()
        self._note_writes()
        return came

    def _feed_head(self, data: bytes) -> bytes:
        """Take in the handshake; what came behind it."""
        raise NotImplementedError

    def feed_eof(self) -> None:
        """The other side sends no more."""
        if self.is_answered:
            return
        self._protocol.receive_eof()
        self._note_writes()

    def _messages(self) -> bytes:
        """The messages that are whole, with their lengths."""
        came: list[bytes] = []
        try:
            for frame in self._protocol.events_received():
                assert isinstance(frame, Frame)
                if frame.opcode is Opcode.TEXT:
                    self._text = _text_decoder()
                elif frame.opcode is Opcode.BINARY:
                    self._text = None
                elif frame.opcode is not Opcode.CONT:
                    self.idle_talk += 1
                    continue
                self._keep(frame)
                if frame.fin:
                    body, self._pieces = b"".join(self._pieces), []
                    is_text = self._text is not None
                    came.append(self._take_message(body, is_text=is_text))
        except Unwelcome as error:
            self._protocol.fail(error.code, str(error))
        closed = self._protocol.close_rcvd
        if self._heard_bye:
            self._close_if_due()
        elif closed is not None and closed.code in self._goodbyes:
            self._heard_bye = True
            code = self._goodbyes[closed.code]
            reason = closed.reason.removeprefix(f"{BYE_WORDS[code]}: ")
            came.append(compact.encode(Bye(code, reason)))
        return b"".join(came)

    def _keep(self, frame: Frame) -> None:
        """Keep a piece of a message, if it may be one."""
        piece = bytes(frame.data)
        if self._text is not None:
            try:
                self._text.decode(piece, frame.fin)
            except UnicodeDecodeError as error:
                words = f"text that is not UTF-8: {error.reason}"
                raise Unwelcome(CloseCode.INVALID_DATA, words) from error
        self._pieces.append(piece)
        if len(self._pieces) > self._most_pieces:
            words = f"a message in more than {self._most_pieces} pieces"
            raise Unwelcome(CloseCode.POLICY_VIOLATION, words)

    def _take_message(self, body: bytes, *, is_text: bool) -> bytes:
        """What a whole message is on the compact wire.

        Raises:
            Unwelcome: It is nothing there.
        """
        if is_text is not self.is_text:
            words = "binary messages (MessagePack) only, as the first was one"
            if self.is_text:
                words = "text messages (JSON) only, as the first was one"
            raise Unwelcome(CloseCode.UNSUPPORTED_DATA, words)
        if is_text:
            try:
                body = from_text(body.decode())
            except RemoteProtocolError as error:
                raise Unwelcome(CloseCode.PROTOCOL_ERROR, str(error)) from error
        self._heard_bye = self._heard_bye or body[1:2] == _BYE
        return compact.header(len(body)) + body

    def violate(self, text: str) -> None:
        """Fail the connection over something that no message says."""
        self._protocol.fail(CloseCode.POLICY_VIOLATION, text)
        self._note_writes()

    @property
    def is_answered(self) -> bool:
        """Whether the request was answered, and no WebSocket came of it."""
        return self.refusal is not None

    @property
    def is_too_large(self) -> bool:
        """Whether a message was."""
        failure = self._protocol.failure
        return failure is not None and failure[0] == "too_large"

    @property
    def error(self) -> str | None:
        """What the other side did that the RFC or we forbid, or was too large."""
        failure = self._protocol.failure
        return None if failure is None else failure[1]

    # --- what goes -----------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write what would be written on the compact wire, frame by frame."""
        if self.is_over or not self.is_open:  # or the request was not served
            return
        held = self._rest + data if self._rest else data
        at, size = 0, len(held)
        while at + HEADER_LEN <= size:
            end = at + HEADER_LEN + int.from_bytes(held[at : at + HEADER_LEN], "big")
            if end > size:
                break
            body = held[at + HEADER_LEN : end]
            if self._protocol.close_sent is None:
                self._write_message(body)
                if body[1:2] == _BYE:
                    said = compact.decode(body)
                    assert isinstance(said, Bye)
                    self._said_bye = said
                    self._close_if_due()
            at = end
        self._rest = held[at:]

    def _write_message(self, body: bytes) -> None:
        raise NotImplementedError

    def _close_if_due(self) -> None:
        """A server closes once both have said goodbye."""

    def shut(self) -> None:
        """Nothing more will be written; a server closes where it heard a goodbye."""

    def close(self) -> None:
        """Close, as the RFC wants it, with our code and text; once."""
        if self.is_over or self._protocol.state is not PeerState.OPEN:
            return
        said = self._said_bye or Bye(_CLOSED if self._heard_bye else _GOING_AWAY)
        code = _CODES.get(said.code, _OWN + said.code)
        word = BYE_WORDS.get(said.code, "closed")
        self._protocol.send_close(code, _reason(word, said.text))
        self._note_writes()

    def _note_writes(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._out.append(data)
            else:
                self.is_over = True


class ServerSide(WebSocket):
    """A server's end.

    Args:
        check: Raises ``HttpError`` if a request may not be asked.
        answer: The response to one that asks for no WebSocket.
        largest: As above.
        pace: Passes the pieces of an answer on, and so knows how it goes.
    """

    __slots__ = (
        "_answer",
        "_body",
        "_check",
        "_head",
        "_is_settled",
        "_pace",
        "_response",
    )

    #: A page that is left says 1001, and does not come back.
    _goodbyes = MappingProxyType({1000: 0, 1001: 0})

    def __init__(
        self,
        check: Callable[[Head], None],
        answer: Callable[[Head], Response],
        largest: int,
        pace: Callable[[Iterable[bytes]], Iterator[bytes]] = iter,
    ) -> None:
        super().__init__(_FailingServer(max_size=largest or None, logger=_silent))
        self._check = check
        self._answer = answer
        self._pace = pace
        self._head = b""
        self._body: Iterator[bytes] | None = None
        self._response: Response | None = None
        #: Whether the first message has said what all others are.
        self._is_settled = False

    def _feed_head(self, data: bytes) -> bytes:
        self._head += data
        head, end, rest = self._head.partition(_END)
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
        if isinstance(response.body, tuple):  # short: there is no more to come
            self._out += self._body
            self._end()

    def _upgrade(self, request: Head, head: bytes) -> None:
        if "websocket" not in request.headers["upgrade"].lower():
            words = "only an upgrade to WebSocket is served here"
            raise HttpError(HTTPStatus.UPGRADE_REQUIRED, words)
        if request.headers.get("sec-websocket-version") != "13":
            words = "version 13 of WebSocket is served here"
            raise HttpError(HTTPStatus.UPGRADE_REQUIRED, words)
        protocol = self._protocol
        assert isinstance(protocol, ServerProtocol)
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
        self._note_writes()
        self.is_open = True

    def _take_message(self, body: bytes, *, is_text: bool) -> bytes:
        if not self._is_settled:
            self._is_settled, self.is_text = True, is_text
        return super()._take_message(body, is_text=is_text)

    def take_piece(self) -> bytes:
        """As above."""
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
        """As above."""
        return self._body is not None

    @property
    def is_answered(self) -> bool:
        """As above: with a page, or why there is none."""
        return self._body is not None or (self.is_over and not self.is_open)

    def _close_if_due(self) -> None:
        said = self._said_bye
        if said is not None and (self._heard_bye or said.code in _AT_ONCE):
            self.close()

    def close(self) -> None:
        """As above; an answer that is not complete stays so, and who has not even asked
        in time hears that, too."""
        if self._body is not None:
            self._end()
        elif not (self.is_open or self.is_over):
            words = "no whole request came in time"
            self._respond(text(HTTPStatus.REQUEST_TIMEOUT, words))
        else:
            super().close()

    def shut(self) -> None:
        """As above."""
        if self._heard_bye or not self.is_open:
            self.close()

    def _write_message(self, body: bytes) -> None:
        # RFC 6455 §5.2, a whole message without a mask; the library's own way
        # there makes four objects of it.
        if self.is_text:
            try:
                body = to_text(body).encode()
            except NotSendable as error:  # of a session that began as binary
                self._protocol.fail(CloseCode.INTERNAL_ERROR, str(error))
                return
        size, first = len(body), 0x81 if self.is_text else 0x82
        if size < 126:
            self._out.append(bytes((first, size)))
        elif size < 65536:
            self._out.append(bytes((first, 126)) + size.to_bytes(2, "big"))
        else:
            self._out.append(bytes((first, 127)) + size.to_bytes(8, "big"))
        self._out.append(body)


class ClientSide(WebSocket):
    """A client's end.

    Args:
        uri: Of the server, as the user gave it.
        largest: As above.
    """

    __slots__ = ("_early", "_has_heard")

    #: 1001 is a server that is there again later.
    _goodbyes = MappingProxyType(
        {1000: 0, **_FAILURES, **{_OWN + code: code for code in BYE_WORDS if code < 16}}
    )

    def __init__(self, uri: str, largest: int) -> None:
        protocol = _FailingClient(
            parse_uri(uri), max_size=largest or None, logger=_silent
        )
        super().__init__(protocol)
        #: What is to be written once the server has gone over.
        self._early = b""
        self._has_heard = False
        protocol.send_request(protocol.connect())
        self._note_writes()

    def _feed_head(self, data: bytes) -> bytes:
        protocol = self._protocol
        assert isinstance(protocol, ClientProtocol)
        if not self._has_heard and data[:5] != _ANSWER[: len(data)]:
            self.refusal = "what answers there speaks no HTTP"
            if data[0] in _TLS:
                self.refusal = "what answers there speaks TLS; use wss://"
            return b""
        self._has_heard = True
        protocol.receive_data(data)
        self._note_writes()
        if protocol.handshake_exc is not None:
            self.refusal = _why(protocol.handshake_exc)
        elif protocol.events and isinstance(protocol.events[0], Answer):
            del protocol.events[0]
            self.is_open = True
            early, self._early = self._early, b""
            self.write(early)
        return b""  # it has taken in what came behind

    def write(self, data: bytes) -> None:
        """As above; waits here until the server has answered the handshake."""
        if self.is_open:
            super().write(data)
        else:
            self._early += data

    def _write_message(self, body: bytes) -> None:
        self._protocol.send_binary(body)
        self._note_writes()


def _why(error: Exception) -> str:
    """Why a server did not go over to WebSocket."""
    response = getattr(error, "response", None)
    if not isinstance(response, Answer):
        return str(error)
    text = bytes(response.body or b"")[:200].decode(errors="replace").strip()
    return f"{response.status_code} {response.reason_phrase}: {text}"
