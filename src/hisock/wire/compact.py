"""Our own wire: a length of four bytes, then one MessagePack array ``[kind, ...]``.

Cuts bytes into frames and says what they mean; who may say what, and when, is decided
in ``session`` and ``engine``. ``docs/wire.md`` draws the bytes.
"""

from __future__ import annotations

__all__ = (
    "ACTS_AT_ONCE",
    "DECODE",
    "DECODE_FROM_CLIENT",
    "HEADER_LEN",
    "MALFORMED",
    "REQUEST",
    "LARGE",
    "NONE",
    "Decoder",
    "Encoded",
    "Writer",
    "cut_frames",
    "decode",
    "decode_first",
    "decode_hello",
    "decode_from_client",
    "encode",
    "header",
    "kind_of",
    "malformed",
    "pack",
    "raw",
    "raw_or_raise",
)

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Raw, msgpack

from hisock.errors import MessageTooLarge, NotSendable, RemoteProtocolError
from hisock.wire.buffer import Filling, PieceBuffer
from hisock.wire.frames import (
    LAST_NUMBERED,
    Auth,
    Bye,
    ClientFrame,
    FirstFrame,
    PackedFrame,
    PackedHello,
    PackedWelcome,
)
from hisock.wire.payload import as_text, check_content, prefix_of

#: Bytes of the length before each frame, the most significant first.
HEADER_LEN: Final = 4
#: The largest length that the header can hold.
LARGEST: Final = 2**32 - 1
#: From here on a frame is received in place, and written in parts that are not joined.
LARGE: Final = 128 * 1024
#: Bytes of a large frame that have to come before any memory is set aside for it.
_ENOUGH: Final = 16 * 1024
#: A frame as it is written; a large one in parts.
Encoded: TypeAlias = bytes | tuple[bytes, ...]
#: ``None`` as it is written.
NONE: Final = b"\xc0"
#: A request waits for its turn, but is known at once: a cancellation may overtake it.
REQUEST: Final = 2
#: Kinds that never wait behind a handler: replies and what steers streams, acks, pings.
ACTS_AT_ONCE: Final = frozenset({REQUEST, 3, 4, 5, 6, 7, 8, 32, 33, 34})

_MESSAGE: Final = 1
#: From here on the second byte of an array is not its kind, but part of its length.
_ARRAY_16: Final = 0xDC
#: Content that a peer could read as a message of hisock's own.
_TEXT: Final = (bytes, str, bytearray, memoryview)
#: Reserved commands that are calls of hisock's own.
_OWN_REQUESTS: Final = frozenset({"$GETCLT$"})
#: Headers seen before, for all decoders together, as on the classic wire.
_LENGTHS: Final[dict[bytes, int]] = {}
#: The same for messages, with the two bytes that make a frame one.
_MESSAGES: Final[dict[bytes, int]] = {}
_LOOK_AHEAD: Final = HEADER_LEN + 2
_REMEMBERED: Final = 4096


def _plain(value: Any) -> Any:
    """Text, bytes and numbers of a type of its own, as what they are."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise TypeError(f"objects of type {type(value).__name__} are not known")


def _no_extension(code: int, data: memoryview) -> Any:
    raise msgspec.ValidationError(f"extension {code} is not part of the wire")


class _Kind(msgspec.Struct, array_like=True):
    """The beginning of any frame; the rest of it is not even looked at."""

    kind: int


_encode: Final = msgpack.Encoder(enc_hook=_plain).encode
_kind: Final = msgpack.Decoder(_Kind).decode


def _prepare(kind: str, frame: bytes) -> Any:
    """Make the decoders when the first frame comes: 1.5 ms that an import need not."""
    global DECODE, DECODE_FROM_CLIENT
    DECODE = msgpack.Decoder(PackedFrame, ext_hook=_no_extension).decode
    DECODE_FROM_CLIENT = msgpack.Decoder(ClientFrame, ext_hook=_no_extension).decode
    return (DECODE if kind == "any" else DECODE_FROM_CLIENT)(frame)


#: ``decode`` as it comes from msgspec, for who handles ``MALFORMED`` itself.
DECODE: Callable[[bytes], PackedFrame] = partial(_prepare, "any")
#: The same for ``decode_from_client``.
DECODE_FROM_CLIENT: Callable[[bytes], ClientFrame] = partial(_prepare, "client")
MALFORMED: Final = (
    msgspec.MsgspecError,
    RecursionError,
    UnicodeDecodeError,
)


def header(length: int) -> bytes:
    """The length of a frame as it is written before it."""
    return length.to_bytes(HEADER_LEN, "big")


class Writer:
    """Writes messages; one for all peers of this wire.

    Args:
        largest: Bytes of the largest message that is allowed; 0 for any.
    """

    __slots__ = ("_headers", "_known", "_largest", "_prefixes", "_starts")

    is_compact = True

    def __init__(self, largest: int) -> None:
        self._largest = min(largest or LARGEST, LARGEST)
        self._headers: dict[int, bytes] = {}
        self._prefixes: dict[str | None, bytes] = {None: b"\x93\x01\xc0"}
        # Command → bytes of the packed content → header and prefix.
        self._starts: dict[str, dict[int, bytes]] = {}
        self._known = 0

    def message(
        self, command: str | None, content: Any, ttl: int | None = None
    ) -> Encoded:
        """A command with its content, or raw content.

        Args:
            command: ``None`` for raw content.
            content: What ``pack`` takes.
            ttl: When it is no longer wanted, in milliseconds of our clock.

        Raises:
            ReservedCommand, NotSendable, MessageTooLarge: It cannot be sent.
        """
        if ttl is None and (content.__class__ is not bytes or len(content) < LARGE):
            try:
                # What most messages are (bench/typed.py); the rest finds the words.
                payload = _encode(content)
                return self._starts[command][len(payload)] + payload  # type: ignore[index]  # None is never in it
            except Exception:
                pass
        return self._message(command, content, ttl)

    def _message(self, command: str | None, content: Any, ttl: int | None) -> Encoded:
        prefix = self._prefixes.get(command)
        if prefix is None:
            prefix = self._learn(command)
        elif command is None and isinstance(content, _TEXT):
            check_content(as_text(content))  # the same as on the classic wire
        if content.__class__ is bytes and len(content) >= LARGE:
            start = prefix if ttl is None else b"\x94" + prefix[1:]
            return self._in_parts(start, content, b"" if ttl is None else _encode(ttl))
        try:
            payload = _encode(content)
        except Exception as error:
            raise _not_sendable(content, error) from error
        if ttl is not None:
            payload += _encode(ttl)
            prefix = b"\x94" + prefix[1:]
        start = self._header(len(prefix) + len(payload)) + prefix
        if ttl is None and command is not None:
            self._remember(command, len(payload), start)
        return start + payload

    def _remember(self, command: str, size: int, start: bytes) -> None:
        """Know from now on how a message of this size begins."""
        if self._known >= _REMEMBERED:
            self._starts.clear()
            self._known = 0
        self._known += 1
        self._starts.setdefault(command, {})[size] = start

    def _in_parts(self, start: bytes, content: bytes, end: bytes) -> Encoded:
        """A frame around large bytes, which are not copied."""
        size = len(start) + 5 + len(content) + len(end)
        start = self._header(size) + start + b"\xc6" + header(len(content))
        return (start, content, end) if end else (start, content)

    def control(self, frame: PackedFrame) -> bytes:
        """What is not a message.

        Raises:
            NotSendable, MessageTooLarge: It cannot be sent.
        """
        try:
            body = _encode(frame)
        except Exception as error:
            raise _not_sendable(frame, error) from error
        return (self._headers.get(len(body)) or self._header(len(body))) + body

    def request(
        self,
        number: int,
        command: str,
        content: Any,
        stream: int = 0,
        ttl: int | None = None,
        within: int | None = None,
    ) -> Encoded:
        """A ``Request``.

        Raises:
            ReservedCommand, NotSendable, MessageTooLarge: It cannot be sent.
        """
        if command.__class__ is not str:
            prefix_of(command)  # which says what is wrong with it
        if command not in self._prefixes and command not in _OWN_REQUESTS:
            self._learn(command)
        if content.__class__ is bytes and len(content) >= LARGE:
            start = b"\x97\x02" + _encode(number) + _encode(command)
            end = _encode(stream) + _encode(ttl) + _encode(within)
            return self._in_parts(start, content, end)
        frame = (2, number, command, content, stream, ttl, within)
        return self._framed(frame, content)

    def reply(self, number: int, content: Any) -> Encoded:
        """A ``Reply``.

        Raises:
            NotSendable, MessageTooLarge: It cannot be sent.
        """
        if content.__class__ is bytes and len(content) >= LARGE:
            return self._in_parts(b"\x93\x03" + _encode(number), content, b"")
        return self._framed((3, number, content), content)

    def item(self, number: int, content: Any) -> bytes:
        """An ``Item`` of a stream.

        Raises:
            NotSendable, MessageTooLarge: It cannot be sent.
        """
        return self._framed((5, number, content), content)

    def _framed(self, frame: tuple[Any, ...], content: Any) -> bytes:
        try:
            body = _encode(frame)
        except Exception as error:
            raise _not_sendable(content, error) from error
        return (self._headers.get(len(body)) or self._header(len(body))) + body

    def _learn(self, command: str | None) -> bytes:
        assert command is not None
        prefix_of(command)  # the same commands as on the classic wire
        prefix = b"\x93\x01" + _encode(command)
        if len(self._prefixes) < _REMEMBERED:
            self._prefixes[command] = prefix
        return prefix

    def _header(self, size: int) -> bytes:
        if size > self._largest:
            raise MessageTooLarge(
                f"the message has {size} bytes, the limit is {self._largest}; "
                "send it in pieces, or raise Limits.message on both sides"
            )
        head = header(size)
        if len(self._headers) < _REMEMBERED and size < LARGE:
            self._headers[size] = head
        return head


class Decoder:
    """Cuts a stream of bytes into frames.

    Args:
        largest: Bytes of the largest frame that is accepted; 0 for any.
    """

    __slots__ = ("_buffer", "_is_cut", "_largest", "beside", "filling", "twice")

    def __init__(self, largest: int) -> None:
        self._largest = largest or LARGEST
        #: How many ``feed`` appended that have no number; for who counts.
        self.beside = 0
        #: How many it appended twice.
        self.twice = 0
        #: A large frame that is received in place.
        self.filling: Filling | None = None
        self._buffer = PieceBuffer()
        self._is_cut = False

    @property
    def room(self) -> memoryview | None:
        """Where the next bytes belong, inside a large frame."""
        return None if self.filling is None else self.filling.room

    def feed(
        self, data: bytes | int, frames: list[bytes], at_once: list[bytes]
    ) -> None:
        """Append every frame that is now complete to where it belongs.

        One pass over the read (bench/one_way.py).

        Args:
            data: What was read; or how much of it, if into ``room``.
            frames: Gets what takes effect in order, when its turn comes.
            at_once: Gets ``ACTS_AT_ONCE``; a request goes into both.

        Raises:
            RemoteProtocolError: A length is over the limit, or a frame does not begin
                like one. The lists have what came before it.
        """
        if self.filling is not None:
            data = self._fill(self.filling, data, frames, at_once)
        assert not isinstance(data, int)
        whole = data
        if self._is_cut:
            joined = self._buffer.join(data)
            if joined is None:
                return
            whole = joined
            self._is_cut = False
        known = _LENGTHS.get
        message = _MESSAGES.get
        largest = self._largest
        append = frames.append
        size = len(whole)
        at = 0
        missing = 0
        while at < size:
            start = at + HEADER_LEN
            length = message(whole[at : at + _LOOK_AHEAD])
            if length is not None and length <= largest:
                end = start + length
                if end <= size:
                    append(whole[start:end])
                    at = end
                    continue
            length = known(whole[at:start])
            if length is None or length > largest:
                if start > size:
                    missing, length = start - size, 0
                    break
                length = self._length(whole[at:start])
            end = start + length
            if end > size:
                missing = end - size
                break
            if whole[start + 1] == _MESSAGE and whole[start] < _ARRAY_16:
                append(whole[start:end])
                self._remember(whole[at : at + _LOOK_AHEAD], length)
            else:
                self._sort(whole[start:end], frames, at_once)
            at = end
        if at < size:
            self._hold(whole, at, missing, length or 0)

    def _hold(self, whole: bytes, at: int, missing: int, length: int) -> None:
        """Keep the beginning of a frame; its length is 0 as long as it is not known."""
        if length >= LARGE:
            start = at + HEADER_LEN
            came = len(whole) - start
            if came >= _ENOUGH:
                self.filling = Filling(length, whole[start:])
                return
            missing = _ENOUGH - came
        self._is_cut = True
        self._buffer.keep(whole[at:] if at else whole, missing)

    def _fill(
        self,
        filling: Filling,
        data: bytes | int,
        frames: list[bytes],
        at_once: list[bytes],
    ) -> bytes:
        """Go on with a large frame; what came after it."""
        if isinstance(data, int):
            frame, rest = filling.filled(data), b""
        else:
            frame, rest = filling.feed(data)
        if frame is not None:
            self.filling = None
            self._sort(frame, frames, at_once)
        return rest

    def _sort(self, frame: bytes, frames: list[bytes], at_once: list[bytes]) -> None:
        """Append a frame to where it belongs (bench/calls.py)."""
        kind = frame[1]
        if not (kind < 0x80 and 0x91 <= frame[0] <= 0x9F):  # ``kind_of`` in place
            kind = kind_of(frame)
        if kind == REQUEST:
            at_once.append(frame)
            frames.append(frame)
            self.twice += 1
        else:
            (at_once if kind in ACTS_AT_ONCE else frames).append(frame)
            if kind > LAST_NUMBERED:
                self.beside += 1

    @staticmethod
    def _remember(head: bytes, length: int) -> None:
        """Know a message of this length by its first bytes from now on."""
        if len(_MESSAGES) >= _REMEMBERED:
            _MESSAGES.clear()
        _MESSAGES[head] = length

    def _length(self, head: bytes) -> int:
        """Read a header that was not seen before."""
        length = int.from_bytes(head, "big")
        if length > self._largest:
            raise RemoteProtocolError(
                f"a frame of {length} bytes was announced, the limit is "
                f"{self._largest}",
                "too_large",
            )
        if length < 2:  # the shortest array with a kind in it
            raise RemoteProtocolError(f"a frame has no {length} bytes")
        if len(_LENGTHS) >= _REMEMBERED:
            _LENGTHS.clear()
        _LENGTHS[head] = length
        return length


def kind_of(frame: bytes) -> int:
    """The kind of a frame; the rest of it is looked at when its turn comes."""
    first, second = frame[0], frame[1]
    if 0x91 <= first <= 0x9F and second < 0x80:
        return second
    # Another way of writing the same is allowed, and as rare.
    try:
        return _kind(frame).kind
    except MALFORMED as error:
        raise malformed(error) from error


def cut_frames(data: bytes) -> Iterator[bytes]:
    """The frames in bytes that this side has encoded, without their headers."""
    at = 0
    while at < len(data):
        start = at + HEADER_LEN
        at = start + int.from_bytes(data[at:start], "big")
        yield data[start:at]


def decode(frame: bytes) -> PackedFrame:
    """What a frame says; its content stays packed.

    Raises:
        RemoteProtocolError: Its kind is unknown, or it lacks an element or has one of
            another type.
    """
    try:
        return DECODE(frame)
    except MALFORMED as error:
        raise malformed(error) from error


def decode_from_client(frame: bytes) -> ClientFrame:
    """As ``decode``, for what takes effect in order and a client may say.

    Raises:
        RemoteProtocolError: As ``decode``, and for what only a server says.
    """
    try:
        return DECODE_FROM_CLIENT(frame)
    except MALFORMED as error:
        raise malformed(error) from error


def decode_hello(frame: bytes) -> dict[str, Any]:
    """What a client says first, where there is no classic wire before.

    Raises:
        RemoteProtocolError: As ``decode``, and for everything else.
    """
    try:
        hello = msgpack.decode(frame, type=PackedHello, ext_hook=_no_extension)
    except MALFORMED as error:
        raise malformed(error) from error
    return hello.fields


def decode_first(frame: bytes, *, by_client: bool) -> FirstFrame:
    """As ``decode``, for what comes first where a client has to prove who it is.

    Raises:
        RemoteProtocolError: As ``decode``, and for everything else.
    """
    kinds: Any = Auth | Bye if by_client else PackedWelcome | Bye
    try:
        # Once a connection, so no decoder of it is kept.
        first: FirstFrame = msgpack.decode(frame, type=kinds, ext_hook=_no_extension)
    except MALFORMED as error:
        raise malformed(error) from error
    return first


def malformed(error: Exception) -> RemoteProtocolError:
    """What to say of bytes that are no frame, or no MessagePack."""
    if isinstance(error, RecursionError):
        return RemoteProtocolError("a frame is nested too deeply")
    return RemoteProtocolError(f"a frame is broken: {error}")


def encode(frame: PackedFrame | FirstFrame) -> bytes:
    """A short frame with its header."""
    body = _encode(frame)
    return header(len(body)) + body


def pack(content: Any) -> bytes:
    """Content as it is written.

    Raises:
        NotSendable: It is of a kind that cannot be.
    """
    try:
        return _encode(content)
    except Exception as error:
        raise _not_sendable(content, error) from error


def raw_or_raise(content: Any) -> Raw | bytes:
    """Content that is packed already, for a frame; large bytes stay as they are.

    Raises:
        NotSendable: It cannot be sent.
    """
    if content.__class__ is bytes and len(content) >= LARGE:
        return content
    return Raw(pack(content))


def raw(content: Any) -> Raw:
    """Content inside a frame that ``encode`` writes; ``None`` if it cannot be sent."""
    try:
        return Raw(_encode(content))
    except Exception:
        return Raw(NONE)


def _not_sendable(content: Any, error: Exception) -> NotSendable:
    kind = type(content).__name__
    match error:
        case OverflowError():
            text = "cannot send an integer of more than 64 bits; send it as text"
        case RecursionError():
            text = f"cannot send this {kind}: it is too deep, or contains itself"
        case UnicodeEncodeError():
            text = f"cannot send text that is not Unicode: {error.reason}"
        case _:
            text = (
                f"cannot send this {kind}: {error}; content is bytes, str, int, float, "
                "bool, None, list, tuple, dict, a dataclass or what msgspec converts"
            )
    return NotSendable(text)
