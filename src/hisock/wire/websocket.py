"""A WebSocket (RFC 6455) that carries the arrays of the compact wire, one a message.

A thin coat over the sans-I/O protocol of the ``websockets`` library, which reads and
checks all but the usual frames; pure. To the rest of hisock it looks like the compact
wire: bytes in, frames with their lengths out, and the other way round.
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
from websockets.protocol import Protocol, Side
from websockets.protocol import State as PeerState
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from hisock.errors import NotSendable, RemoteProtocolError
from hisock.wire import compact, ws_frames
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
#: Bytes of masks that are drawn at once.
_MASKS: Final = 64 * ws_frames.MASK
#: Bytes of messages that are kept to be written to others, too.
_KEPT: Final = 64 * 1024

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


class _FailingClient(_Failing, ClientProtocol):
    pass


class WebSocket:
    """One end of a connection that began with a ``GET``; see the two below.

    Args:
        largest: Bytes of the largest message; 0 for any.

    Attributes:
        idle_talk: Pings and pongs that came, until somebody sets it back.
        is_open: Whether messages go both ways.
        is_over: Whether nothing more is to be written.
        is_text: Whether its messages are text: JSON.
        refusal: Why the request was not served.
    """

    __slots__ = (
        "_begun",
        "_is_settled",
        "_largest",
        "_left",
        "_library",
        "_out",
        "_pieces",
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
    #: Whether what comes has masks, as what comes to a server.
    _is_masked: ClassVar[bool]

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._library: _Failing | None = None
        self._out: list[bytes] = []
        #: Of the head of a frame that has come in part.
        self._begun = b""
        #: Bytes after which the library is between two frames again.
        self._left = 0
        self._pieces: list[bytes] = []
        #: Checks the text of the message that comes; ``None`` if it is binary.
        self._text: IncrementalDecoder | None = None
        #: Of a frame that is to be written and is not whole yet.
        self._rest = b""
        #: Both have to be, so that the last acknowledgements arrive; then it is closed.
        self._said_bye: Bye | None = None
        self._heard_bye = False
        #: Whether the first message has said what all others are.
        self._is_settled = False
        self.idle_talk = 0
        self.is_open = self.is_over = self.is_text = False
        self.refusal: str | None = None

    @property
    def _protocol(self) -> _Failing:
        """The library's half, made when something unusual first comes or goes: it is
        larger than all the rest (bench/websocket_memory.py)."""
        if self._library is None:
            most = self._largest or None
            side = Side.SERVER if self._is_masked else Side.CLIENT
            self._library = _Failing(side, max_size=most, logger=_silent)
        return self._library

    @property
    def _is_closing(self) -> bool:
        """Whether no message may follow: a close was sent, or none will be."""
        return self._library is not None and self._library.state is not PeerState.OPEN

    @property
    def largest(self) -> int:
        """Bytes of the largest message; 0 for any. May grow once the peer is known."""
        return self._largest

    @largest.setter
    def largest(self, largest: int) -> None:
        self._largest = largest
        if self._library is not None:
            self._library.max_message_size = largest or None

    @property
    def is_writing(self) -> bool:
        """Whether ``take`` has something."""
        return bool(self._out)

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
        came = self._heed_end(b"".join(self._take_in(data)))
        self._note_writes()
        return came

    def _take_in(self, data: bytes) -> list[bytes]:
        """The messages in what was read, as ``_messages``.

        The usual ones are cut out here, at a tenth of what the library takes
        (bench/websocket_one_way.py); it gets all else, frame by frame.
        """
        came: list[bytes] = []
        if self._begun:
            data, self._begun = self._begun + data, b""
        at = 0
        while at < len(data):
            if not self._left and self._is_closing:
                self._left = ws_frames.NEVER
            elif not self._left:
                at = self._cut_usual(data, at, came)
                left = ws_frames.left_of(data, at, is_masked=self._is_masked)
                if left is None:
                    self._begun = data[at:]
                    break
                self._left = left
            part = data[at : at + self._left]
            self._protocol.receive_data(part)
            self._left -= len(part)
            at += len(part)
            came += self._messages()
        return came

    def _cut_usual(self, data: bytes, at: int, came: list[bytes]) -> int:
        """Take in the binary messages that begin here; where anything else does."""
        if self._pieces or self.is_text:
            return at
        cut = ws_frames.cut_masked if self._is_masked else ws_frames.cut_plain
        at = cut(data, at, self._largest or ws_frames.NEVER, came)
        self._is_settled = self._is_settled or bool(came)
        return at

    def _feed_head(self, data: bytes) -> bytes:
        """Take in the handshake; what came behind it."""
        raise NotImplementedError

    def feed_eof(self) -> None:
        """The other side sends no more."""
        if self.is_answered:
            return
        self._protocol.receive_eof()
        self._note_writes()

    def _messages(self) -> list[bytes]:
        """The messages that the library has whole, with their lengths."""
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
        return came

    def _heed_end(self, came: bytes) -> bytes:
        """What came, with the goodbye that a close may be."""
        if _BYE in came and not self._heard_bye:
            frames = compact.cut_frames(came)
            self._heard_bye = any(frame[1:2] == _BYE for frame in frames)
        closed = None if self._library is None else self._library.close_rcvd
        if self._heard_bye:
            self._close_if_due()
        elif closed is not None and closed.code in self._goodbyes:
            self._heard_bye = True
            code = self._goodbyes[closed.code]
            reason = closed.reason.removeprefix(f"{BYE_WORDS[code]}: ")
            came += compact.encode(Bye(code, reason))
        return came

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
        if not self._is_settled:
            self._is_settled, self.is_text = True, is_text
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
        return self._failure[0] == "too_large"

    @property
    def error(self) -> str | None:
        """What the other side did that the RFC or we forbid, or was too large."""
        return self._failure[1]

    @property
    def _failure(self) -> tuple[str | None, str | None]:
        failure = None if self._library is None else self._library.failure
        return failure or (None, None)

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
            if not self._is_closing:
                self._write_message(body)
                if body[1:2] == _BYE:
                    said = compact.decode(body)
                    assert isinstance(said, Bye)
                    self._said_bye = said
                    self._close_if_due()
            at = end
        self._rest = held[at:]

    def framed(self, data: bytes | bytearray | memoryview) -> bytes | None:
        """What ``write`` makes of it, where that is known already."""
        return None

    def _write_message(self, body: bytes) -> None:
        raise NotImplementedError

    def _close_if_due(self) -> None:
        """A server closes once both have said goodbye."""

    def shut(self) -> None:
        """Nothing more will be written; a server closes where it heard a goodbye."""

    def close(self) -> None:
        """Close, as the RFC wants it, with our code and text; once."""
        if self.is_over or self._is_closing:
            return
        said = self._said_bye or Bye(_CLOSED if self._heard_bye else _GOING_AWAY)
        code = _CODES.get(said.code, _OWN + said.code)
        word = BYE_WORDS.get(said.code, "closed")
        self._protocol.send_close(code, _reason(word, said.text))
        self._note_writes()

    def _note_writes(self) -> None:
        if self._library is None:
            return
        for data in self._library.data_to_send():
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
        protocol = ServerProtocol(logger=_silent)
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

    def framed(self, data: bytes | bytearray | memoryview) -> bytes | None:
        """As above; nothing in a server's binary frames is of one connection."""
        known, framed = ServerSide._last
        return framed if data == known and self._is_usual else None

    @property
    def _is_usual(self) -> bool:
        """Whether it writes binary, and nothing is begun or has ended."""
        has_ended = self._said_bye or self._is_closing
        return self.is_open and not (self.is_text or self._rest or has_ended)

    def write(self, data: bytes) -> None:
        """As above; what was written is kept, for others may get it, too."""
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
        # The library's own way there makes four objects of it.
        if self.is_text:
            try:
                body = to_text(body).encode()
            except NotSendable as error:  # of a session that began as binary
                self._protocol.fail(CloseCode.INTERNAL_ERROR, str(error))
                return
        self._out += ws_frames.plain(body, is_text=self.is_text)


class ClientSide(WebSocket):
    """A client's end; its messages are binary.

    Args:
        uri: Of the server, as the user gave it.
        largest: As above.
        draw: Draws so many random bytes, that nobody can foresee.
    """

    __slots__ = ("_draw", "_early", "_has_heard", "_masks", "_tail")

    _is_masked = False

    #: 1001 is a server that is there again later.
    _goodbyes = MappingProxyType(
        {1000: 0, **_FAILURES, **{_OWN + code: code for code in BYE_WORDS if code < 16}}
    )

    def __init__(self, uri: str, largest: int, draw: Callable[[int], bytes]) -> None:
        super().__init__(largest)
        protocol = self._library = _FailingClient(parse_uri(uri), logger=_silent)
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
        at = held.find(_END)
        end = len(data) if at < 0 else at + len(_END) - len(self._tail)
        self._tail = held[1 - len(_END) :]
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
        elif protocol.events and isinstance(protocol.events[0], Answer):
            self._library = None
            self.is_open = True
            early, self._early = self._early, b""
            self.write(early)

    def write(self, data: bytes) -> None:
        """As above; waits here until the server has answered the handshake."""
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
    if not isinstance(response, Answer):
        return str(error)
    text = bytes(response.body or b"")[:200].decode(errors="replace").strip()
    return f"{response.status_code} {response.reason_phrase}: {text}"
