"""The one vocabulary of everything that peers tell each other.

A frame that the compact wire knows is written there as the MessagePack array
``[kind, field, ...]``; its kind is the ``tag`` below. On the classic wire a message
stays ``bytes`` until its handler is known: which of its words are the command depends
on what is registered (see ``handlers.table``).
"""

from __future__ import annotations

__all__ = (
    "BYE_WORDS",
    "LAST_NUMBERED",
    "PROTO",
    "Ack",
    "Auth",
    "Bye",
    "Cancel",
    "ClientAnswer",
    "ClientFrame",
    "Compact",
    "Credit",
    "End",
    "Failure",
    "FirstFrame",
    "Frame",
    "Gap",
    "GetClient",
    "Groups",
    "Hello",
    "Item",
    "Joined",
    "Left",
    "Message",
    "NoTLS",
    "PackedFrame",
    "PackedHello",
    "PackedWelcome",
    "Ping",
    "Pong",
    "Probe",
    "Refusal",
    "Regroup",
    "Rename",
    "Reply",
    "Request",
    "Roster",
    "Value",
    "Welcome",
    "message_of",
)

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeAlias

from msgspec import Meta, Raw, Struct
from msgspec.structs import replace

#: The version of the compact wire that this library speaks.
PROTO: Final = 2
#: Kinds up to this one have a number, and are acknowledged and replayed.
LAST_NUMBERED: Final = 31

#: Number of a call or stream: odd from clients, even from servers.
Id: TypeAlias = Annotated[int, Meta(ge=1, le=2**53)]
#: A point on the sender's own monotonic clock, in milliseconds.
Deadline: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]

_NONE: Final = Raw(b"\xc0")

#: What the codes of a goodbye mean, in the words of a refusal; from 16 on the other
#: side may come back.
BYE_WORDS: Final[Mapping[int, str]] = MappingProxyType(
    {
        0: "closed",
        1: "kicked",
        2: "replaced",
        3: "unauthorized",
        4: "name_taken",
        5: "protocol",
        6: "too_large",
        7: "version",
        8: "evicted",
        16: "going_away",
        17: "busy",
        18: "slow_consumer",
        19: "overflow",
        20: "silent",
        21: "rate",
    }
)


class Value(Struct, frozen=True):
    """A small immutable object; defining one is 20 times quicker than a dataclass."""


class _Frame(Struct, array_like=True, frozen=True):
    """A MessagePack array; further elements are room to grow, and ignored."""


# --- numbered: these change what the peer knows ---------------------------------


class Message(_Frame, tag=1, frozen=True):
    """A command and its content; without a command it is raw."""

    command: str | None
    content: Raw
    ttl: Deadline | None = None


def message_of(command: str, content: Any) -> Any:
    """A ``Message`` of just this command, without a deadline or anything behind it, and
    with content of this type: what most messages to one handler are.

    A tuple: its length is compared before all, and the command before the content is
    looked at, which may run code of the program's.
    """
    elements: Any = tuple
    return elements[Literal[1], Literal.__getitem__(command), content]


class Request(_Frame, tag=2, frozen=True):
    """A call (``stream`` 0), or a stream with its first credit in items.

    ``within`` is the receiver's own open call on whose behalf this one is made.
    """

    id: Id
    command: str
    content: Raw
    stream: Annotated[int, Meta(ge=0, le=2**31)] = 0
    ttl: Deadline | None = None
    within: Id | None = None


class Reply(_Frame, tag=3, frozen=True):
    """What a call's handler returned."""

    id: Id
    content: Raw


class Failure(_Frame, tag=4, frozen=True):
    """Why a call or stream came to nothing."""

    id: Id
    code: str
    text: str
    data: Raw = _NONE


class Item(_Frame, tag=5, frozen=True):
    """The next item of a stream."""

    id: Id
    content: Raw


class End(_Frame, tag=6, frozen=True):
    """A stream has no more items."""

    id: Id


class Credit(_Frame, tag=7, frozen=True):
    """So many items more may be sent."""

    id: Id
    n: Annotated[int, Meta(ge=1, le=2**31)]


class Cancel(_Frame, tag=8, frozen=True):
    """Nobody wants the answer any more."""

    id: Id


class Rename(_Frame, tag=9, frozen=True):
    """A client's new name, or none; from a server: the one that holds."""

    name: str | None


class Regroup(_Frame, tag=10, frozen=True):
    """A client's new group, or none; from a server: the one that holds."""

    group: str | None


class Roster(_Frame, tag=11, frozen=True):
    """Whether the client wants to hear who joins and leaves."""

    on: bool


class Joined(_Frame, tag=12, frozen=True):
    """Somebody else joined."""

    info: dict[str, Any]


class Left(_Frame, tag=13, frozen=True):
    """Somebody else left."""

    info: dict[str, Any]


class Gap(_Frame, tag=14, frozen=True):
    """So many messages for this client, or a group of it, were dropped."""

    count: int
    group: str | None = None


class Groups(_Frame, tag=15, frozen=True):
    """Groups that a client joins and leaves beside its own."""

    join: list[str]
    leave: list[str]


# --- not numbered ------------------------------------------------------------------


class Ack(_Frame, tag=32, frozen=True):
    """All frames up to this number have come."""

    number: Annotated[int, Meta(ge=0, le=2**53)]


class Ping(_Frame, tag=33, frozen=True):
    """Is somebody there?"""

    n: int


class Pong(_Frame, tag=34, frozen=True):
    """Yes."""

    n: int


class Bye(_Frame, tag=35, frozen=True):
    """The sender is about to end the connection, on purpose.

    ``code`` is a number of ``docs/wire.md``; ``retry_ms`` says after how long to come
    back, or with ``None`` not to. The classic wire has room for none of this.
    """

    code: int = 0
    text: str = ""
    retry_ms: int | None = None


# --- between a welcome that asks for proof and the first message -------------------


class PackedHello(_Frame, tag=36, frozen=True):
    """What a ``Hello`` says, by name, where there is no classic wire before."""

    fields: dict[str, Any]


class PackedWelcome(_Frame, tag=37, frozen=True):
    """The check said yes: all that a ``Welcome`` says, by name."""

    fields: dict[str, Any]


class Auth(_Frame, tag=38, frozen=True):
    """Who a client says it is, for the server's check."""

    token: str | None

    def __repr__(self) -> str:
        return "Auth(...)"  # no log, and no error, ever shows a token


# --- of the classic wire alone, and of the hand-over from it to the compact one -----


class Hello(Value, frozen=True):
    """The first thing a client says: who it is.

    Attributes:
        name: What others may call it.
        group: The group it is in.
        proto: The highest version of the compact wire it speaks; 0 for hisock 1.1.
        now: Its monotonic clock in milliseconds.
        sid: What it calls its session, 32 hexadecimal digits; empty for none.
        token: The secret of that session, 64 hexadecimal digits.
        next: The secret that holds once it has heard the welcome.
        got: Number of the last frame that it has.
        epoch: Of which session it has that, as the server calls it; empty for the first
            time.
        window: Seconds that it wants to be able to come back.
        beats: Whether it reads all the time, so that silence means that it is gone.
    """

    name: str | None
    group: str | None
    proto: int = 0
    now: int = 0
    sid: str = ""
    token: str = ""
    next: str = ""
    got: int = 0
    epoch: str = ""
    window: float = 0.0
    beats: bool = False

    def named(self, name: str) -> Hello:
        """The same under another name."""
        return replace(self, name=name)


class Welcome(Value, frozen=True):
    """The server's answer to a hello with ``proto``: from here on it writes compact.

    Attributes:
        proto: The version that both sides will speak.
        name: The client's name as the server knows it.
        group: Its group.
        now: The server's monotonic clock in milliseconds.
        sid: The session, as the client called it; empty if there is none.
        epoch: What the server calls it.
        got: Number of the last frame that the server has.
        resumed: Whether the session goes on from there.
        reason: Why not; or, if so, why the server had cut the link.
        missed: How many frames the client will never get; ``None`` if unknown.
        window: Seconds that the session is kept after a cut.
        auth: Whether the client has to prove first who it is; all else comes later.
    """

    proto: int
    name: str | None = None
    group: str | None = None
    now: int = 0
    sid: str = ""
    epoch: str = ""
    got: int = 0
    resumed: bool = False
    reason: str = ""
    missed: int | None = None
    window: float = 0.0
    auth: bool = False


class Compact(Value, frozen=True):
    """The client has read the welcome: from here on it writes compact."""


class Refusal(Value, frozen=True):
    """The server does not serve this client; instead of a welcome.

    Attributes:
        code: A word that programs can rely on.
        text: Why, for people.
        retry_ms: After how long another try makes sense; ``None`` for never.
    """

    code: str
    text: str
    retry_ms: int | None = None


class Probe(Value, frozen=True):
    """A client asks which keys the server has for 1.1's unfinished encryption."""


class NoTLS(Value, frozen=True):
    """The answer to a probe: none. So the server is of version 1.1."""


class GetClient(Value, frozen=True):
    """A client asks who somebody is."""

    who: str


class ClientAnswer(Value, frozen=True):
    """The answer to ``GetClient``: the client, or why not."""

    info: dict[str, Any] | None
    refusal: str = ""


PackedFrame: TypeAlias = (
    Message
    | Request
    | Reply
    | Failure
    | Item
    | End
    | Credit
    | Cancel
    | Rename
    | Regroup
    | Roster
    | Joined
    | Left
    | Gap
    | Groups
    | Ack
    | Ping
    | Pong
    | Bye
)

#: What may come first on the compact wire where proof is asked for.
FirstFrame: TypeAlias = PackedHello | PackedWelcome | Auth | Bye

#: What a client says in order, behind what it said before.
ClientFrame: TypeAlias = (
    Message | Request | Rename | Regroup | Roster | Groups | Gap | Bye
)

Frame: TypeAlias = (
    Hello
    | Welcome
    | Compact
    | Refusal
    | Rename
    | Regroup
    | Bye
    | Probe
    | NoTLS
    | GetClient
    | ClientAnswer
    | Joined
    | Left
)
