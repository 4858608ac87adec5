"""Both sides of a conversation, their bytes piped by hand, for the tests here."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Final

from msgspec import Raw

from hisock.session.connection import Connection
from hisock.session.events import Closed, Event, Messages, Opened
from hisock.session.requests import Requests
from hisock.types import Limits
from hisock.wire import classic, compact
from hisock.wire.classic import encode_frame, header
from hisock.wire.frames import (
    PROTO,
    Bye,
    Frame,
    Hello,
    NoTLS,
    Probe,
    Welcome,
)

START: Final = 100.0
ADA = Hello("Ada", "red")
CUT = Closed("the other side closed the connection", is_cut=True)


def frame(body: bytes, header_len: int = 16) -> bytes:
    """A body behind its header."""
    return header(len(body), header_len) + body


def hello(header_len: int = 16) -> bytes:
    """What a client says first."""
    return frame(encode_frame(ADA), header_len)


def plain(events: list[Event]) -> list[object]:
    """Events, with the bodies of messages in place of the object around them."""
    return [
        list(event.rest) if isinstance(event, Messages) else event for event in events
    ]


class Pair:
    """A client's and a server's connection and a clock, without anything between."""

    def __init__(self, *, limits: Limits | None = None, header_len: int = 16) -> None:
        self.now = START
        self.header_len = header_len
        self.server = Connection(limits or Limits(), START)
        self.client = Connection(limits or Limits(), START, header_len=header_len)

    def say_hello(self) -> list[Event]:
        """The client's hello reaches the server."""
        return self.server.feed(hello(self.header_len), self.now)

    def to_server(self, *bodies: bytes) -> list[object]:
        """Messages reach the server."""
        data = b"".join(frame(body, self.header_len) for body in bodies)
        return plain(self.server.feed(data, self.now))

    def to_client(self, *bodies: bytes) -> list[object]:
        """Messages reach the client."""
        data = b"".join(frame(body, self.server.header_len) for body in bodies)
        return plain(self.client.feed(data, self.now))

    def advance(self, seconds: float) -> list[object]:
        """Time passes; what both sides make of it."""
        self.now += seconds
        return plain(self.server.tick(self.now) + self.client.tick(self.now))


#: What the client's clock shows at ``START``, in milliseconds.
ADAS_CLOCK: Final = 5_000
NEW_ADA: Final = Hello("Ada", "red", PROTO, ADAS_CLOCK)
WELCOME: Final = Welcome(PROTO, "Ada", "red", 100_000)
HI: Final = Raw(b"\xc4\x02hi")
WOKEN: Final = "woken"


def said(what: Frame, *, by_client: bool, header_len: int = 16) -> bytes:
    """A frame of the classic wire behind its header."""
    return frame(encode_frame(what, by_client=by_client), header_len)


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The data in pieces, cut at these places."""
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places) if a < b]


def flat(events: list[Event]) -> list[object]:
    """Bodies one by one, each with its wire, however the reads were cut."""
    told: list[object] = []
    for event in events:
        if isinstance(event, Messages):
            told += [(event.is_packed, body) for body in event.rest]
        else:
            told.append(event)
    return told


def fed(
    connection: Connection, pieces: Iterable[bytes], now: float = START
) -> list[object]:
    """What all the pieces tell."""
    events: list[Event] = []
    for piece in pieces:
        events += connection.feed(piece, now)
    return flat(events)


def packed(command: str | None, content: bytes) -> bytes:
    """A message of the compact wire, with its header."""
    return joined(compact.Writer(0).message(command, content))


def joined(data: compact.Encoded) -> bytes:
    """A frame as it is on the wire, in one piece."""
    return data if isinstance(data, bytes) else b"".join(data)


def goodbye(connection: Connection) -> Bye:
    """What the compact wire says last."""
    frames: list[bytes] = []
    compact.Decoder(0).feed(connection.take_bytes(), frames, [])
    bye = compact.decode(frames[-1])
    assert isinstance(bye, Bye)
    return bye


class Talk:
    """Both sides of a conversation, its bytes piped by hand, in pieces of any size.

    It does what the engine does: the client says hello and probes at once, the server
    welcomes whoever speaks the compact wire too, and answers the probe of all others.
    """

    def __init__(
        self,
        *,
        client_offers: bool = True,
        server_offers: bool = True,
        header_len: int = 16,
        limits: Limits | None = None,
    ) -> None:
        self.now = START
        self.limits = limits or Limits()
        self.client = Connection(
            self.limits, START, header_len=header_len, offers_compact=client_offers
        )
        self.server = Connection(self.limits, START, offers_compact=server_offers)
        self.server_offers = server_offers
        self.hello = NEW_ADA if client_offers else ADA
        self.upward = said(self.hello, by_client=True, header_len=header_len)
        self.upward += said(Probe(), by_client=True, header_len=header_len)
        self.downward = b""
        self.all_upward = self.all_downward = b""
        self.at_server: list[object] = []
        self.at_client: list[object] = []

    def client_sends(self, command: str, content: bytes) -> None:
        """A message goes to the server, on the wire that holds now."""
        self.upward += self._message(self.client, True, command, content)

    def server_sends(self, command: str, content: bytes) -> None:
        """A message goes to the client, on the wire that holds now."""
        self.downward += self._message(self.server, False, command, content)

    def _message(
        self, side: Connection, by_client: bool, command: str, content: bytes
    ) -> bytes:
        if side.writes_compact:
            return packed(command, content)
        writer = classic.Writer(side.header_len, 0, by_client=by_client)
        return writer.message(command, content)

    def deliver(self, size: int = 10**6) -> None:
        """Pipe until nothing moves, at most ``size`` bytes at a time."""
        while self.upward or self.downward:
            data, self.upward = self.upward[:size], self.upward[size:]
            self.all_upward += data
            for event in self.server.feed(data, self.now):
                self._serve(event)
            self.downward += self.server.take_bytes()
            data, self.downward = self.downward[:size], self.downward[size:]
            self.all_downward += data
            self.at_client += flat(self.client.feed(data, self.now))
            self.upward += self.client.take_bytes()

    def _serve(self, event: Event) -> None:
        (*told,) = flat([event])
        self.at_server += told
        if isinstance(event, Opened) and event.hello.proto and self.server_offers:
            self.server.serve(event.hello.name, event.hello.group, self.now)
        elif (False, b"$DH_NUMS$") in told and not self.server.writes_compact:
            self.downward += said(NoTLS(), by_client=False)


def agreed(limits: Limits | None = None) -> Talk:
    """A conversation that is on the compact wire, both ways."""
    talk = Talk(limits=limits)
    talk.deliver()
    return talk


def requests_of(side: Connection) -> Requests:
    """The calls and streams of a connection on the compact wire."""
    assert side.requests is not None
    return side.requests


def ids_of(by_client: bool) -> tuple[str, int]:
    """A side of the compact wire, and the first id that its peer gives."""
    return ("compact client", 2) if by_client else ("compact server", 1)


def in_stage(stage: str, limits: Limits | None = None) -> Connection:
    """A connection at one point of the negotiation."""
    limits = limits or Limits()
    match stage:
        case "hello":
            return Connection(limits, START)
        case "asking":
            return Talk(limits=limits).client
        case "classic client":
            side = Talk(limits=limits).client
            fed(side, [frame(b"$NOTLS$")])
        case "classic server":
            side = Talk(limits=limits).server
            fed(side, [said(ADA, by_client=True)])
        case "unwelcomed":
            side = Talk(limits=limits).server
            fed(side, [said(NEW_ADA, by_client=True)])
        case "welcoming":
            side = in_stage("unwelcomed", limits)
            side.serve("Ada", "red", START)
        case "compact client":
            side = agreed(limits).client
        case "compact server":
            side = agreed(limits).server
        case "closing":
            side = agreed(limits).server
            side.close("done", START)
        case _:
            side = agreed(limits).client
            side.lost("lost", START)
    side.take_bytes()
    return side


STAGES: Final = (
    "hello",
    "asking",
    "classic client",
    "classic server",
    "unwelcomed",
    "welcoming",
    "compact client",
    "compact server",
    "closing",
    "closed",
)
