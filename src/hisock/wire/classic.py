"""The wire of hisock 1.1: a padded length in ASCII digits, then the body.

Every function here is about bytes alone; which body is whose command is decided in
``handlers.table``, and what a control body means in ``session`` and ``engine``.
"""

from __future__ import annotations

__all__ = (
    "Decoder",
    "HelloReader",
    "Writer",
    "check_header_len",
    "check_size",
    "decode_answer",
    "decode_control",
    "encode_frame",
    "header",
    "largest_body",
)

import re
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, assert_never

from hisock.errors import (
    InvalidOption,
    MessageTooLarge,
    RemoteProtocolError,
)
from hisock.wire.buffer import PieceBuffer
from hisock.wire.frames import (
    Bye,
    ClientAnswer,
    Compact,
    Frame,
    GetClient,
    Hello,
    Joined,
    Left,
    NoTLS,
    Probe,
    Refusal,
    Regroup,
    Rename,
    Welcome,
)
from hisock.wire.greeting import (
    dump,
    fields_of,
    load_object,
    read_hello,
    read_refusal,
    read_welcome,
)
from hisock.wire.payload import as_text, check_content, prefix_of

#: The shortest hello has 40 bytes, so one digit cannot hold its length.
HEADER_LENS: Final = range(2, 65)

_DOLLAR: Final = ord("$")
#: What a server that wants TLS says to a client that does not.
_TLS_ALERT: Final = b"\x15\x03"
_HELLO: Final = b"$CLTHELLO$ "
_BARE_TOKENS: Final = (b"$CHNAME$", b"$CHGROUP$")
#: Digits and then spaces, nothing else: no sign, no underscore, no leading zero,
#: none of what ``int()`` forgives.
_LENGTH: Final = rb"(0|[1-9][0-9]*) *"
#: Headers seen before, for all decoders together: an own table each would let every
#: stranger claim memory. When it is full it begins anew.
_LENGTHS: Final[dict[bytes, int]] = {}
_REMEMBERED: Final = 4096
#: In place of a length: the command alone, and its space.
_PREFIX: Final = -1
#: Commands, and beginnings of messages, that are.
_LEADS: Final = 1024
#: Headers whose length is known without a look at them: a third of a MiB at most.
_MOST_LENGTHS: Final = 2048


def check_header_len(header_len: object) -> int:
    """The header length, if a hello fits under it.

    Raises:
        InvalidOption: It is no whole number from 2 to 64.
    """
    if isinstance(header_len, bool) or not isinstance(header_len, int):
        raise InvalidOption(f"header_len is a whole number, not {header_len!r}")
    if header_len not in HEADER_LENS:
        raise InvalidOption(
            f"header_len {header_len} cannot hold the length of a hello; "
            "it is 2 to 64 (16 unless both sides say otherwise)"
        )
    return header_len


def largest_body(header_len: int, limit: int = 0) -> int:
    """The largest body in bytes that ``header_len`` digits and a limit allow."""
    digits = int(10**header_len - 1)
    return min(digits, limit) if limit else digits


def check_size(size: int, largest: int, header_len: int) -> None:
    """Refuse a body that cannot be sent, before a byte of it is.

    Args:
        size: Bytes of the body.
        largest: Bytes of the largest message that is allowed; 0 for any.
        header_len: Digits that have to hold the size.

    Raises:
        MessageTooLarge: It is over one of them.
    """
    if 0 < largest < size:
        raise MessageTooLarge(
            f"the message has {size} bytes, the limit is {largest}; "
            "send it in pieces, or raise Limits.message on both sides"
        )
    if size > largest_body(header_len):
        raise MessageTooLarge(
            f"header_len {header_len} cannot hold the length of a message of {size} "
            "bytes; use a larger header_len (16 is usual)"
        )


@lru_cache(maxsize=4096)
def header(length: int, header_len: int) -> bytes:
    """The length of a body in digits, padded with spaces on the right."""
    return b"%d" % length + b" " * (header_len - len(str(length)))


class Writer:
    """Writes messages for peers of one header length.

    Args:
        header_len: Bytes of every header.
        largest: Bytes of the largest message that is allowed; 0 for any.
        by_client: Who writes.
    """

    __slots__ = ("_by_client", "_headers", "_largest", "_leads", "_room", "header_len")

    is_compact = False

    def __init__(self, header_len: int, largest: int, *, by_client: bool) -> None:
        self.header_len = header_len
        self._largest = largest
        self._by_client = by_client
        self._headers: dict[int, bytes] = {}
        #: Command → length of a content → all that comes before it.
        self._leads: dict[str, dict[int, bytes]] = {}
        #: How many more of these are remembered.
        self._room = _LEADS

    def message(
        self, command: str | None, content: Any, ttl: int | None = None
    ) -> bytes:
        """A command with its content, or raw content; this wire has no life time.

        Raises:
            ReservedCommand, NotSendable, MessageTooLarge: It cannot be sent.
        """
        if command is None:
            text: bytes = content if type(content) is bytes else as_text(content)
            if text[:1] == b"$":
                check_content(text)
            # ``framed`` in place (bench/ping_pong.py).
            return (self._headers.get(len(text)) or self._header(len(text))) + text
        leads = self._leads.get(command)
        if leads is None:
            leads = self._learn(command)
        text = content if type(content) is bytes else as_text(content)
        lead = leads.get(len(text))
        if lead is None:
            lead = self._lead(leads, len(text))
        return lead + text

    def control(self, frame: Frame) -> bytes:
        """What is not a message."""
        return self.framed(encode_frame(frame, by_client=self._by_client))

    def framed(self, body: bytes) -> bytes:
        """A body with its header.

        Raises:
            MessageTooLarge: It is over a limit.
        """
        return (self._headers.get(len(body)) or self._header(len(body))) + body

    def _learn(self, command: str) -> dict[int, bytes]:
        leads = {_PREFIX: prefix_of(command)}
        if len(self._leads) < _LEADS:
            self._leads[command] = leads
        return leads

    def _lead(self, leads: dict[int, bytes], size: int) -> bytes:
        prefix = leads[_PREFIX]
        lead = self._header(len(prefix) + size) + prefix
        if self._room:
            self._room -= 1
            leads[size] = lead
        return lead

    def _header(self, size: int) -> bytes:
        check_size(size, self._largest, self.header_len)
        head = header(size, self.header_len)
        if len(self._headers) < _REMEMBERED:
            self._headers[size] = head
        return head


class Decoder:
    """Cuts a stream of bytes into message bodies.

    Args:
        header_len: Bytes of every header.
        largest: Bytes of the largest body that is accepted; 0 for any.
        bare_tokens: Whether to accept the two headerless tokens that a 1.1 client
            sends for ``change_name(None)`` and ``change_group(None)``.

    Attributes:
        largest: As above.
        marks: A body whose first word is one of these is the last before the other
            side may change the wire; ``None`` while none is expected.
    """

    __slots__ = (
        "_bare_tokens",
        "_buffer",
        "_header_len",
        "_is_cut",
        "largest",
        "marks",
    )

    def __init__(
        self, header_len: int, largest: int, *, bare_tokens: bool = False
    ) -> None:
        self._header_len = header_len
        self.largest = largest
        self._bare_tokens = bare_tokens
        self._buffer = PieceBuffer()
        self._is_cut = False
        self.marks: tuple[bytes, ...] | None = None

    def feed(self, data: bytes, bodies: list[bytes]) -> bytes | None:
        """Append to ``bodies`` every body that is now complete.

        Returns:
            What came after a mark, which is then the last body; else ``None``.

        Raises:
            RemoteProtocolError: A header is not a length, or the length is over the
                limit. ``bodies`` has what came before it.
        """
        header_len = self._header_len
        largest = self.largest or sys.maxsize
        if (
            not self._is_cut
            and _LENGTHS.get(data[:header_len]) == len(data) - header_len <= largest
        ):
            bodies.append(data[header_len:])  # a single one, as in a dialogue
            marks = self.marks
            return b"" if marks and _is_mark(bodies[-1], marks) else None
        return self._feed_several(data, bodies, header_len, largest)

    def _feed_several(
        self, data: bytes, bodies: list[bytes], header_len: int, largest: int
    ) -> bytes | None:
        """As ``feed``; one pass over the read (bench/one_way.py)."""
        whole = data
        if self._is_cut:
            joined = self._buffer.join(data)
            if joined is None:
                return None
            whole = joined
            self._is_cut = False
        marks = self.marks
        known = _LENGTHS.get
        append = bodies.append
        size = len(whole)
        at = 0
        missing = 0
        while at < size:
            start = at + header_len
            head = whole[at:start]
            length = known(head)
            if length is None or length > largest:
                if head[0] == _DOLLAR and self._bare_tokens:
                    token = self._bare_token(whole[at : at + 9])
                    if token is None:
                        missing = 1
                        break
                    append(token)
                    at += len(token)
                    continue
                if start > size:
                    self._check(head)
                    missing = start - size
                    break
                length = self._length(head)
            end = start + length
            if end > size:
                missing = end - size
                break
            append(whole[start:end])
            at = end
            if marks is not None and _is_mark(bodies[-1], marks):
                return whole[at:]
        if at < size:
            self._is_cut = True
            self._buffer.keep(whole[at:] if at else whole, missing)
        return None

    def _length(self, head: bytes) -> int:
        """Read a header that was not seen before."""
        self._check(head)
        length = int(head)
        if 0 < self.largest < length:
            raise RemoteProtocolError(
                f"a message of {length} bytes was announced, "
                f"the limit is {self.largest}",
                "too_large",
            )
        if len(_LENGTHS) >= _MOST_LENGTHS:
            _LENGTHS.clear()
        _LENGTHS[head] = length
        return length

    def _check(self, head: bytes) -> None:
        """Refuse what is not a header, nor the beginning of one."""
        if head.startswith(_TLS_ALERT):
            raise RemoteProtocolError(
                f"the other side speaks TLS, so connect with tls=; got {head[:32]!r}"
            )
        if re.fullmatch(_LENGTH, head) is None:
            raise RemoteProtocolError(
                f"a header is digits and then spaces, {self._header_len} bytes; "
                f"got {head[:32]!r}"
            )

    @staticmethod
    def _bare_token(begin: bytes) -> bytes | None:
        """The headerless token at the front, or ``None`` while it may still come."""
        for token in _BARE_TOKENS:
            if begin.startswith(token):
                return token
            if token.startswith(begin):
                return None
        raise RemoteProtocolError(f"a header begins with a digit; got {begin!r}")


def _is_mark(body: bytes, marks: tuple[bytes, ...]) -> bool:
    """Whether the first word is a mark; one that only begins like it is a message."""
    return body.startswith(marks) and body.partition(b" ")[0] in marks


class HelloReader:
    """Reads a client's hello, and from it how long that client's headers are.

    The place of the hello's ``$`` is the length of the header, so a client whose
    ``header_len`` differs from the server's is served all the same.

    Args:
        largest: Bytes of the largest hello.
        largest_name: Bytes of UTF-8 that a name or a group may have.
    """

    __slots__ = ("_held", "_largest", "_largest_name")

    def __init__(self, largest: int, largest_name: int) -> None:
        self._held = b""
        self._largest = largest
        self._largest_name = largest_name

    def __len__(self) -> int:
        return len(self._held)

    def feed(self, data: bytes) -> tuple[Hello, int, bytes] | None:
        """The hello, the client's header length and what came after, once complete.

        Raises:
            RemoteProtocolError: This is not a hello.
        """
        self._held += data
        held = self._held
        header_len = held.find(b"$", 0, HEADER_LENS.stop)
        if header_len < 0:
            self._check_beginning(held)
            return None
        length = self._read_length(held[:header_len], header_len)
        end = header_len + length
        body = held[header_len:end]
        if not body.startswith(_HELLO[: len(body)]):
            raise RemoteProtocolError(_not_a_hello(body))
        if len(held) < end:
            return None
        self._held = b""
        return self._parse(body), header_len, held[end:]

    def _check_beginning(self, held: bytes) -> None:
        too_long = len(held) >= HEADER_LENS.stop
        if held and (too_long or re.fullmatch(_LENGTH, held) is None):
            raise RemoteProtocolError(
                f"a client begins with a length and $CLTHELLO$; got {held[:32]!r}"
            )

    def _read_length(self, head: bytes, header_len: int) -> int:
        if header_len not in HEADER_LENS or re.fullmatch(_LENGTH, head) is None:
            raise RemoteProtocolError(
                f"a client begins with a length and $CLTHELLO$; got {head[:32]!r}"
            )
        length = int(head)
        if 0 < self._largest < length:
            raise RemoteProtocolError(
                f"a hello of {length} bytes was announced, the limit is "
                f"{self._largest}",
                "too_large",
            )
        return length

    def _parse(self, body: bytes) -> Hello:
        if not body.startswith(_HELLO):
            raise RemoteProtocolError(_not_a_hello(body))
        return read_hello(body[len(_HELLO) :], self._largest_name)


def _not_a_hello(body: bytes) -> str:
    if body.startswith(b"$CLTHELLO${"):
        return (
            "this is the hello of hisock 2.x, whose wire this server does not speak; "
            "use hisock 1.1 or 4 and newer on the other side"
        )
    return f"a client begins with a length and $CLTHELLO$; got {body[:32]!r}"


def encode_frame(frame: Frame, *, by_client: bool = True) -> bytes:
    """The body of everything that is not a message.

    Args:
        frame: What to say.
        by_client: Who says it; each side has its own word for goodbye.
    """
    match frame:
        case Hello(name, group, 0):
            return _HELLO + dump({"name": name, "group": group})
        case Hello():
            return _HELLO + dump(fields_of(frame))
        case Rename(name):
            return _optional(b"$CHNAME$", name)
        case Regroup(group):
            return _optional(b"$CHGROUP$", group)
        case GetClient(who):
            return b"$GETCLT$ " + who.encode()
        case ClientAnswer(info, refusal):
            # The wire has no label for it; 1.1 wrote refusals as a traceback.
            return dump({"traceback": refusal} if info is None else info)
        case Joined(info):
            return b"$CLTCONN$ " + dump(info)
        case Left(info):
            return b"$CLTDISCONN$ " + dump(info)
        case Bye():
            return b"$USRCLOSE$" if by_client else b"$DISCONN$"
        case _:
            return _encode_agreement(frame)


def _encode_agreement(frame: Probe | NoTLS | Compact | Welcome | Refusal) -> bytes:
    """What settles which wire both sides will speak."""
    match frame:
        case Probe():
            return b"$DH_NUMS$"
        case NoTLS():
            return b"$NOTLS$"
        case Compact():
            return b"$COMPACT$"
        case Welcome():
            return b"$WELCOME$ " + dump(fields_of(frame))
        case Refusal(code, text, retry_ms):
            fields = {"code": code, "text": text, "retry": retry_ms}
            return b"$REFUSED$ " + dump(fields)
        case _:
            assert_never(frame)


def _optional(token: bytes, text: str | None) -> bytes:
    return token if text is None else b"%b %b" % (token, text.encode())


def decode_control(body: bytes, *, by_client: bool) -> Frame | None:
    """The frame of a reserved body, or ``None`` if it is a message like any other.

    Args:
        body: A body that begins with ``$``.
        by_client: Who sent it; each side has its own reserved words.

    Raises:
        RemoteProtocolError: The body is reserved, and broken.
    """
    token, space, rest = body.partition(b" ")
    read = (_FROM_CLIENT if by_client else _FROM_SERVER).get(token)
    if read is None:
        return None
    return read(rest if space else None)


def decode_answer(body: bytes) -> ClientAnswer | None:
    """The answer to ``$GETCLT$``, if this unlabelled body is one.

    Raises:
        RemoteProtocolError: It begins like one, and is broken.
    """
    if not body.startswith((b'{"ip"', b'{"traceback"')):
        return None
    if body.startswith(b'{"traceback"') and not body.endswith(b"}"):
        body += b"}"  # 1.1 forgets it
    info = _read_info(body)
    if "ip" in info:
        return ClientAnswer(info)
    return ClientAnswer(None, str(info.get("traceback")))


def _read_text(rest: bytes | None) -> str | None:
    if rest is None:
        return None
    try:
        return rest.decode()
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(f"a name is not UTF-8: {rest[:32]!r}") from error


def _read_info(rest: bytes | None) -> dict[str, Any]:
    info = load_object(rest or b"", "client")
    address = info.get("ip")
    if isinstance(address, list):
        info["ip"] = tuple(address)
    return info


def _second_hello(rest: bytes | None) -> Frame:
    raise RemoteProtocolError("a second hello came")


_FROM_CLIENT: Final[dict[bytes, Callable[[bytes | None], Frame]]] = {
    b"$CHNAME$": lambda rest: Rename(_read_text(rest)),
    b"$CHGROUP$": lambda rest: Regroup(_read_text(rest)),
    b"$USRCLOSE$": lambda rest: Bye(),
    b"$DH_NUMS$": lambda rest: Probe(),
    b"$GETCLT$": lambda rest: GetClient(_read_text(rest) or ""),
    b"$COMPACT$": lambda rest: Compact(),
    b"$CLTHELLO$": _second_hello,
}
_FROM_SERVER: Final[dict[bytes, Callable[[bytes | None], Frame]]] = {
    b"$DISCONN$": lambda rest: Bye(),
    b"$CLTCONN$": lambda rest: Joined(_read_info(rest)),
    b"$CLTDISCONN$": lambda rest: Left(_read_info(rest)),
    b"$NOTLS$": lambda rest: NoTLS(),
    b"$WELCOME$": read_welcome,
    b"$REFUSED$": read_refusal,
}
