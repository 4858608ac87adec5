"""A WebSocket (RFC 6455) that carries the arrays of the compact wire, one a message.

A thin coat over the sans-I/O protocol of the ``websockets`` library, which reads and
checks all but the usual frames; pure. To the rest of hisock it looks like the compact
wire: bytes in, frames with their lengths out, and the other way round.
"""

from __future__ import annotations

__all__ = ("OWN", "SILENT", "Failing", "Unwelcome", "WebSocket")

import logging
from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol, Side
from websockets.protocol import State as PeerState

from hisock.errors import RemoteProtocolError
from hisock.wire import compact, ws_frames
from hisock.wire.compact import HEADER_LEN
from hisock.wire.frames import BYE_WORDS, Bye
from hisock.wire.text import from_text

#: Close codes of our own begin here, see ``docs/wire.md``.
OWN: Final = 4000
#: Codes of goodbyes; see ``docs/wire.md``.
_CLOSED: Final = 0
_GOING_AWAY: Final = 16
#: Goodbyes for which the RFC has a code.
_CODES: Final = {_CLOSED: 1000, 5: 1002, 6: 1009, _GOING_AWAY: 1001}
#: Bytes of a reason (RFC 6455 §5.5: 125 with the code).
_REASON: Final = 123
_BYE: Final = b"\x23"

# What goes wrong is told by our own texts.
SILENT: Final = logging.Logger("hisock.websockets", logging.CRITICAL + 1)
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


class Failing(Protocol):
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


class WebSocket:
    """One end of a connection that began with a ``GET``, a server's or a client's.

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
        self._library: Failing | None = None
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
    def _protocol(self) -> Failing:
        """The library's half, made when something unusual first comes or goes: it is
        larger than all the rest (bench/websocket_memory.py)."""
        if self._library is None:
            most = self._largest or None
            side = Side.SERVER if self._is_masked else Side.CLIENT
            self._library = Failing(side, max_size=most, logger=SILENT)
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
        if self.is_over or (not self.is_open and self.is_answered):
            return b""
        if not self.is_open:
            data = self._feed_head(data)
            if not (data or self.is_open):
                return b""
        came = self._heed_end(self._take_in(data))
        self._note_writes()
        return came

    def _take_in(self, data: bytes) -> list[bytes]:
        """The messages in what was read, each behind its header.

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
        """The messages that the library has whole, each behind its header."""
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
                    body = self._take_message(body, is_text=self._text is not None)
                    came += (compact.header(len(body)), body)
        except Unwelcome as error:
            self._protocol.fail(error.code, str(error))
        return came

    def _heed_end(self, came: list[bytes]) -> bytes:
        """All that came, with the goodbye that a close may be."""
        data = b"".join(came)
        if _BYE in data and not self._heard_bye:
            self._heard_bye = any(body[1:2] == _BYE for body in came[1::2])
        closed = None if self._library is None else self._library.close_rcvd
        if self._heard_bye:
            self._close_if_due()
        elif closed is not None and closed.code in self._goodbyes:
            self._heard_bye = True
            code = self._goodbyes[closed.code]
            reason = closed.reason.removeprefix(f"{BYE_WORDS[code]}: ")
            data += compact.encode(Bye(code, reason))
        return data

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
        """What a whole message is on the compact wire, without its header.

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
        return body

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
        return None if self._library is None else self._failure[1]

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

    @property
    def frames(self) -> Callable[[bytes], bytes] | None:
        """What makes of messages what ``write`` would write, where all get the same."""
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
        code = _CODES.get(said.code, OWN + said.code)
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
