"""A WebSocket (RFC 6455) that carries the arrays of the compact wire, one a message.

A thin coat over the sans-I/O protocol of the ``websockets`` library, which reads and
checks; pure. To the rest of hisock it looks like the compact wire: bytes in, frames
with their lengths out, and the other way round.
"""

from __future__ import annotations

__all__ = ("ClientSide", "ServerSide", "WebSocket")

import logging
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Final

from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.http11 import Response as Answer
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from hisock.errors import NotSendable, RemoteProtocolError
from hisock.wire import compact
from hisock.wire.compact import HEADER_LEN
from hisock.wire.frames import Bye
from hisock.wire.http import HEAD, Head, HttpError, Response, read_head, text
from hisock.wire.text import from_text, to_text

#: Pieces of one message; more is who makes work, not who has something to say.
_PIECES: Final = 1024
#: Close codes of our own begin here, see ``docs/wire.md``.
_OWN: Final = 4000
#: Goodbyes for which the RFC has a code.
_CODES: Final = {0: 1000, 5: 1002, 6: 1009, 16: 1001}
#: Bytes of a reason (RFC 6455 §5.5: 125 with the code).
_REASON: Final = 123
_BYE: Final = b"\x23"
_END: Final = b"\r\n\r\n"

# What goes wrong is told by our own texts.
_silent: Final = logging.Logger("hisock.websockets", logging.CRITICAL + 1)


class WebSocket:
    """One end of a connection that began with a ``GET``; see the two below.

    Args:
        protocol: The library's half.

    Attributes:
        is_open: Whether messages go both ways.
        is_over: Whether nothing more is to be written.
        is_text: Whether its messages are text: JSON.
        refusal: Why the request was not served.
    """

    __slots__ = (
        "_out",
        "_pieces",
        "_protocol",
        "_began_as",
        "_rest",
        "_heard_bye",
        "_said_bye",
        "is_open",
        "is_over",
        "is_text",
        "refusal",
    )

    #: Close codes that say what a goodbye says.
    _goodbyes: frozenset[int] = frozenset({1000})

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._out: list[bytes] = []
        self._pieces: list[bytes] = []
        #: Of a frame that is to be written and is not whole yet.
        self._rest = b""
        #: Both have to be, so that the last acknowledgements arrive; then it is closed.
        self._said_bye: Bye | None = None
        self._heard_bye = False
        self._began_as = Opcode.BINARY
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
        self._protocol.receive_eof()
        self._note_writes()

    def _messages(self) -> bytes:
        """The messages that are whole, with their lengths."""
        came: list[bytes] = []
        for frame in self._protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode is not Opcode.CONT:
                if frame.opcode not in (Opcode.BINARY, Opcode.TEXT):
                    continue
                self._began_as = frame.opcode
            self._pieces.append(bytes(frame.data))
            if frame.fin:
                body, self._pieces = b"".join(self._pieces), []
                if body := self._take_message(body, self._began_as is Opcode.TEXT):
                    self._heard_bye = self._heard_bye or body[1:2] == _BYE
                    came.append(compact.header(len(body)) + body)
            elif len(self._pieces) > _PIECES:
                words = f"a message in more than {_PIECES} pieces"
                self._protocol.fail(CloseCode.POLICY_VIOLATION, words)
            if self._protocol.close_sent is not None:
                break
        closed = self._protocol.close_rcvd
        if self._heard_bye:
            self._close_if_due()
        elif closed is not None and closed.code in self._goodbyes:
            self._heard_bye = True
            came.append(compact.encode(Bye(0, closed.reason)))
        return b"".join(came)

    def _take_message(self, body: bytes, is_text: bool) -> bytes:
        """A message that is whole, as it would be on the compact wire; empty if it may
        not be."""
        if is_text is not self.is_text:
            if is_text:
                words = "binary messages (MessagePack) only, as the first was one"
            else:
                words = "text messages (JSON) only, as the first was one"
            self._protocol.fail(CloseCode.UNSUPPORTED_DATA, words)
            return b""
        if not is_text:
            return body
        try:
            return from_text(body.decode())
        except UnicodeDecodeError as error:
            self._protocol.fail(CloseCode.INVALID_DATA, f"this is no UTF-8: {error}")
        except RemoteProtocolError as error:
            self._protocol.fail(CloseCode.PROTOCOL_ERROR, str(error))
        return b""

    @property
    def is_answered(self) -> bool:
        """Whether the request was answered, and no WebSocket came of it."""
        return self.refusal is not None

    @property
    def is_too_large(self) -> bool:
        """Whether a message was."""
        return isinstance(self._protocol.parser_exc, PayloadTooBig)

    @property
    def error(self) -> str | None:
        """What the other side did that the RFC forbids, or was too large."""
        if self.is_too_large:
            return f"a message of more than {self.largest} bytes"
        error = self._protocol.parser_exc
        if error is not None and not isinstance(error, EOFError):
            return str(error)
        sent, received = self._protocol.close_sent, self._protocol.close_rcvd
        if sent is not None and received is None and self._said_bye is None:
            return sent.reason
        return None

    # --- what goes -----------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write what would be written on the compact wire, frame by frame."""
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
        if not self.is_open or self._protocol.state is not State.OPEN:
            return  # or there is nobody to tell: the socket has ended
        said = self._said_bye or Bye(0 if self._heard_bye else 16)
        code = _CODES.get(said.code, _OWN + said.code)
        reason = said.text.encode()[:_REASON].decode(errors="ignore")
        self._protocol.send_close(code, reason)
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
    """

    __slots__ = ("_answer", "_body", "_check", "_head", "_is_settled")

    #: A page that is left says 1001, and does not come back.
    _goodbyes = frozenset({1000, 1001})

    def __init__(
        self,
        check: Callable[[Head], None],
        answer: Callable[[Head], Response],
        largest: int,
    ) -> None:
        super().__init__(ServerProtocol(max_size=largest or None, logger=_silent))
        self._check = check
        self._answer = answer
        self._head = b""
        self._body: Iterator[bytes] | None = None
        #: Whether the first message has said what all others are.
        self._is_settled = False

    def _feed_head(self, data: bytes) -> bytes:
        self._head += data
        at = self._head.find(_END)
        if at < 0 and len(self._head) <= HEAD:
            return b""
        end = at + len(_END)
        head, rest, self._head = self._head[:end], self._head[end:], b""
        try:
            if not 0 <= at <= HEAD:
                words = f"a head of more than {HEAD} bytes"
                raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, words)
            request = read_head(head)
            self._check(request)
            if "upgrade" in request.headers:
                self._upgrade(head)
                return rest
            response = self._answer(request)
        except HttpError as error:
            self.refusal = str(error)
            response = text(error.status, str(error))
        self._out.append(response.head)
        self._body = iter(response.body)
        return b""

    def _upgrade(self, head: bytes) -> None:
        protocol = self._protocol
        assert isinstance(protocol, ServerProtocol)
        protocol.receive_data(head)
        (asked,) = protocol.events_received()
        assert isinstance(asked, Request)
        response = protocol.accept(asked)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            words = bytes(response.body).decode().strip()
            raise HttpError(HTTPStatus(response.status_code), words)
        protocol.send_response(response)
        self._note_writes()
        self.is_open = True

    def _take_message(self, body: bytes, is_text: bool) -> bytes:
        if not self._is_settled:
            self._is_settled, self.is_text = True, is_text
        return super()._take_message(body, is_text)

    def take_piece(self) -> bytes:
        """As above."""
        if self._body is None:
            return b""
        if piece := next(self._body, b""):
            return piece
        self._body = None
        self.is_over = True
        return b""

    @property
    def has_more(self) -> bool:
        """As above."""
        return self._body is not None

    @property
    def is_answered(self) -> bool:
        """As above: with a page, or why there is none."""
        return self._body is not None or (self.is_over and not self.is_open)

    def _close_if_due(self) -> None:
        if self._said_bye is not None and self._heard_bye:
            self.close()

    def shut(self) -> None:
        """As above."""
        if self._heard_bye:
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

    __slots__ = ("_early",)

    def __init__(self, uri: str, largest: int) -> None:
        protocol = ClientProtocol(
            parse_uri(uri), max_size=largest or None, logger=_silent
        )
        super().__init__(protocol)
        #: What is to be written once the server has gone over.
        self._early = b""
        protocol.send_request(protocol.connect())
        self._note_writes()

    def _feed_head(self, data: bytes) -> bytes:
        protocol = self._protocol
        assert isinstance(protocol, ClientProtocol)
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
