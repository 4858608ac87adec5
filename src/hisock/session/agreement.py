"""What is said before a client is let in: proof of who it is, the verdict, what waits.

Pure rules. No sockets, no clock, and no opinion on whether the proof is good enough.
"""

from __future__ import annotations

__all__ = (
    "CONFIRMATION",
    "EARLY",
    "FirstFrame",
    "Trial",
    "count_numbered",
    "end_by",
    "hear_verdict",
    "make_welcome",
    "pack",
    "refused",
    "refused_by",
)

from collections.abc import Iterable
from typing import Final

from hisock.errors import Refused, RemoteProtocolError, Unauthorized
from hisock.session.events import Closed, Presented
from hisock.session.resume import Session
from hisock.wire import classic, compact
from hisock.wire.compact import HEADER_LEN
from hisock.wire.frames import (
    BYE_WORDS,
    PROTO,
    Auth,
    Bye,
    Hello,
    PackedWelcome,
    Refusal,
    Welcome,
)
from hisock.wire.greeting import fields_of, welcome_of

#: Bytes that a client may send before it is let in, and of the largest message then.
EARLY: Final = 64 * 1024

#: With these a client goes over to the compact wire.
CONFIRMATION: Final = (b"$COMPACT$",)
#: What a client says on the classic wire that has no number.
_NOT_NUMBERED: Final = frozenset(
    (b"$COMPACT$", b"$DH_NUMS$", b"$USRCLOSE$", b"$USRCLOSE$ ")
)
#: From this code on a goodbye tells more than that somebody ended it.
_TELLING: Final = 2
#: Codes of goodbyes that say nothing of the client: it is to come back.
_PASSING: Final = frozenset({16, 18, 19, 20, 21})


def count_numbered(bodies: Iterable[bytes]) -> int:
    """How many have a number of what a client says before it has read the welcome."""
    return sum(body not in _NOT_NUMBERED for body in bodies)


class FirstFrame:
    """Waits for one whole frame of the compact wire, and keeps what comes after it.

    Args:
        largest: Bytes that the frame itself may have.

    Attributes:
        room: Bytes that may come after it.
    """

    __slots__ = ("_held", "_largest", "is_whole", "room")

    def __init__(self, largest: int = EARLY) -> None:
        self._held = b""
        self._largest = largest
        self.room = EARLY
        #: Whether the frame was there.
        self.is_whole = False

    def feed(self, data: bytes) -> bytes | None:
        """The frame, once, when it is complete.

        Raises:
            RemoteProtocolError: More came than may.
        """
        self._held += data
        held = self._held
        if self.is_whole:
            _check(len(held), self.room)
            return None
        if len(held) < HEADER_LEN:
            return None
        length = int.from_bytes(held[:HEADER_LEN], "big")
        _check(length, self._largest)
        if length < 2:  # the shortest array with a kind in it
            raise RemoteProtocolError(f"a frame has no {length} bytes")
        end = HEADER_LEN + length
        if len(held) < end:
            return None
        self.is_whole = True
        self._held = held[end:]
        _check(len(self._held), self.room)
        return held[HEADER_LEN:end]

    def rest(self) -> bytes:
        """What came after it; once."""
        rest, self._held = self._held, b""
        return rest


class Trial:
    """A client that has to prove who it is: what it says meanwhile is only kept.

    Args:
        hello: What it has said.
        header_len: Bytes of its classic headers.
        largest: Bytes of the largest message that the server takes; 0 for any.
        expects_proof: Whether it speaks the compact wire; one of 1.1 has nothing to
            prove it with, and says nothing more of itself.

    Attributes:
        bodies: What it said on the classic wire.
        count: How many of these have a number.
        decoder: Cuts these.
        has_left: Whether it said goodbye.
        hello: As above.
        is_asked: Whether it was told to prove it.
        is_judged: Whether it has, and the verdict is not out yet.
        speaks_compact: Whether it is past its ``$COMPACT$``.
    """

    __slots__ = (
        "_first",
        "_header_len",
        "_size",
        "bodies",
        "count",
        "decoder",
        "has_left",
        "hello",
        "is_asked",
        "is_judged",
        "speaks_compact",
    )

    def __init__(
        self, hello: Hello, header_len: int, largest: int, *, expects_proof: bool
    ) -> None:
        self.hello = hello
        self._header_len = header_len
        self._size = 0
        self._first = FirstFrame()
        largest = min(largest or EARLY, EARLY)
        self.decoder = classic.Decoder(header_len, largest, bare_tokens=True)
        self.decoder.marks = CONFIRMATION if expects_proof else None
        self.bodies: list[bytes] = []
        self.count = 0
        self.is_asked = self.is_judged = self.has_left = False
        self.speaks_compact = False

    @property
    def expects_proof(self) -> bool:
        """Whether it can prove who it is."""
        return self.decoder.marks is not None

    def feed(self, data: bytes) -> Presented | None:
        """Take in what was read; its proof, once that is there.

        Raises:
            RemoteProtocolError: Too much came, or something else than the proof.
        """
        if self.speaks_compact:
            return self._feed_first(data)
        before = len(self.bodies)
        rest = self.decoder.feed(data, self.bodies)
        mark = b"" if rest is None else self.bodies.pop()
        self._count(self.bodies[before:])
        if rest is None:
            return None
        if mark != CONFIRMATION[0] or not self.is_asked:
            raise RemoteProtocolError("$COMPACT$ came before the welcome")
        self.speaks_compact = True
        self._first.room = EARLY - self._size
        return self._feed_first(rest) if rest else None

    def _count(self, bodies: list[bytes]) -> None:
        self._size += sum(map(len, bodies)) + self._header_len * len(bodies)
        _check(self._size, EARLY)
        self.has_left = self.has_left or b"$USRCLOSE$" in bodies
        if self.expects_proof:
            self.count += count_numbered(bodies)

    def _feed_first(self, data: bytes) -> Presented | None:
        body = self._first.feed(data)
        if body is None:
            return None
        first = compact.decode_first(body, by_client=True)
        if isinstance(first, Auth):
            return Presented(self.hello, first.token)
        self.has_left = True
        return None

    @property
    def has_proof(self) -> bool:
        """Whether it has shown what it has to show."""
        return self._first.is_whole or (self.is_asked and not self.expects_proof)

    def rest(self) -> bytes:
        """What came after the proof, undecoded; once."""
        return self._first.rest()


def make_welcome(
    name: str | None,
    group: str | None,
    now: int,
    session: Session | None,
    *,
    resumed: bool,
    reason: str,
) -> Welcome:
    """What a server answers to a client that it serves on the compact wire.

    Args:
        name, group: Who it is from now on.
        now: The server's clock in milliseconds.
        session: What goes on if the link is cut.
        resumed, reason: As in the welcome.
    """
    if session is None:
        return Welcome(PROTO, name, group, now)
    return Welcome(
        *(PROTO, name, group, now),
        sid=session.sid,
        epoch=session.epoch,
        got=session.tell(),
        resumed=resumed,
        reason=reason,
        missed=None if resumed else session.missed,
        window=session.window,
    )


def pack(welcome: Welcome) -> bytes:
    """A welcome as a frame of the compact wire."""
    return compact.encode(PackedWelcome(fields_of(welcome)))


def hear_verdict(body: bytes) -> Welcome | Refusal | Bye:
    """What a server says of the proof: a welcome, a refusal, or that it ends for a
    while, which is no verdict.

    Raises:
        RemoteProtocolError: It is none of these.
    """
    first = compact.decode_first(body, by_client=False)
    if isinstance(first, PackedWelcome):
        return welcome_of(first.fields)
    assert isinstance(first, Bye)
    if first.code in _PASSING and first.retry_ms is not None:
        return first
    word = BYE_WORDS.get(first.code, "refused")
    return Refusal(word, first.text or word, first.retry_ms)


def refused(refusal: Refusal) -> Refused:
    """A refusal as the error that a client ends with."""
    if refusal.code == "unauthorized":
        return Unauthorized(refusal.text)
    return Refused(refusal.text, refusal.code)


def refused_by(refusal: Refusal) -> Bye:
    """A refusal, where there is no classic wire to say it on."""
    code = next((n for n, word in BYE_WORDS.items() if word == refusal.code), 0)
    return Bye(code, refusal.text, refusal.retry_ms)


def end_by(bye: Bye, *, is_cut: bool = False) -> Closed:
    """The end of a client to which its server said goodbye."""
    text = bye.text or "the server ended the connection"
    if bye.code < _TELLING or bye.code not in BYE_WORDS:
        return Closed(text, is_cut=is_cut)
    return Closed(text, refused(Refusal(BYE_WORDS[bye.code], text)), is_cut)


def _check(size: int, most: int) -> None:
    if size > most:
        raise RemoteProtocolError(
            f"{size} bytes came before the welcome, where {most} may", "too_large"
        )
