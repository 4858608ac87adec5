"""Both sides of a session over a network of byte strings, glued as ``engine`` does it.

The rules are the real ones: connections, sessions, replays, outboxes and tokens. Only
the sockets are not, and nothing happens unless a test says so.
"""

from __future__ import annotations

from random import Random
from typing import Final

import msgspec

from hisock.errors import RemoteProtocolError
from hisock.hub.outbox import Outbox
from hisock.hub.sessions import Sessions
from hisock.session.connection import Connection, milliseconds
from hisock.session.events import Closed, Event, Messages, Opened
from hisock.session.resume import ACK_DELAY, Block, Session, Written, numbered
from hisock.session.states import State
from hisock.types import Limits
from hisock.wire import classic, compact
from hisock.wire.frames import PROTO, Bye, Hello, Message, Probe, Refusal, Welcome

HEADER_LEN: Final = 16
WINDOW: Final = 30.0
#: With less room than this nothing is taken at all, unless it is all.
_LOW_WATER: Final = 300


class Pipe:
    """One connection of the network; side 0 is the client's, side 1 the server's.

    Args:
        room: Bytes that may be under way in each direction.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.under_way = [b"", b""]  # from each side
        self.is_open = [True, True]
        self.is_cut = False

    def write(self, side: int, data: bytes | memoryview) -> int:
        """Send as much as there is room for; into a cut it goes, and never comes."""
        free = self.room - len(self.under_way[side])
        taken = bytes(data) if len(data) <= free else bytes(data[:free])
        if len(taken) < min(len(data), _LOW_WATER):
            return 0
        if not self.is_cut and self.is_open[1 - side]:
            self.under_way[side] += taken
        return len(taken)

    def read(self, side: int, size: int) -> bytes | None:
        """What the other side sent; nothing where nothing is there yet, ``None`` at the
        end."""
        data = self.under_way[1 - side][:size]
        self.under_way[1 - side] = self.under_way[1 - side][len(data) :]
        if not data and (self.is_cut or not self.is_open[1 - side]):
            return None
        return data

    def cut(self, first: int, second: int) -> None:
        """Lose all but so many of the bytes that are under way from each side."""
        self.is_cut = True
        self.under_way = [self.under_way[0][:first], self.under_way[1][:second]]


class Peer:
    """One side: what it has of the other, and what the other shall have of it.

    Attributes:
        side: 0 for a client, 1 for a server.
        pipe: Its connection of the network.
        got: The numbers of the messages that came.
        events: How the link fared.
    """

    connection: Connection

    def __init__(self, side: int, pipe: Pipe) -> None:
        self.side = side
        self.pipe = pipe
        self.outbox = Outbox(0)
        self.is_dropped = False
        self.awaits = False
        self.got: list[int] = []
        self.events: list[str] = []

    @property
    def session(self) -> Session:
        """What goes on over all links."""
        assert self.connection.session is not None
        return self.connection.session

    # --- what goes ---------------------------------------------------------------

    def send(self, frame: Written) -> None:
        """Write a frame after everything before it, as far as there is room."""
        if self.outbox.size or self.is_dropped:
            self.outbox.append(frame)
            self.flush()
            return
        replay = self.outbox.replay
        if replay is not None:
            replay.note(frame)
        parts = frame if isinstance(frame, tuple) else (_data(frame),)
        sent = self.pipe.write(self.side, b"".join(parts))
        if not sent and not isinstance(frame, tuple):
            if replay is not None:
                replay.take_back()
            self.outbox.append(frame)
            return
        left: list[memoryview] = []
        for part in parts:
            if sent < len(part):
                left.append(memoryview(part)[sent:])
            sent = max(0, sent - len(part))
        if left:
            self.outbox.keep(tuple(left))

    def send_control(self, data: bytes) -> None:
        """Write what has no number, before all that has none yet."""
        if self.outbox.size and not self.is_dropped:
            self.outbox.put_first(data)
            self.flush()
            return
        sent = self.pipe.write(self.side, data)
        assert sent == len(data) or not self.is_dropped, "no room for a hello"
        if sent < len(data):
            self.outbox.keep((memoryview(data)[sent:],))

    def flush(self) -> None:
        """Write what waits, as far as there is room."""
        while self.outbox.size and not self.is_dropped:
            head = self.outbox.head()
            sent = self.pipe.write(self.side, head)
            if sent:
                self.outbox.advance(sent, 0.0)
            if sent < len(head):
                return

    def go_on(self, first: bytes) -> None:
        """The other side has told what came: write the rest again, behind ``first``."""
        assert self.outbox.replay is not None
        self.is_dropped = False
        again = self.outbox.replay.again()
        self.outbox.resume([first, *again] if first else again)
        self.flush()

    def say(self, number: int, size: int = 0) -> None:
        """Send a message, with so many bytes beside its number."""
        self.send(message(number, size))

    def undelivered(self) -> list[int]:
        """The messages that may not have arrived."""
        assert self.outbox.replay is not None
        frames = [*self.outbox.replay.frames()]
        for waiting in self.outbox.waiting():
            frames += numbered(waiting)
        return [*map(_number_in, frames)]

    # --- what comes --------------------------------------------------------------

    def read(self, size: int, now: float) -> None:
        """Read once, at most so many bytes."""
        room = self.connection.room
        data = self.pipe.read(self.side, size if room is None else min(size, len(room)))
        if data is None:
            self.take(self.connection.feed_eof(now), now)
        elif data and room is not None:
            room[: len(data)] = data
            self.take(self.connection.feed(len(data), now), now)
        elif data:
            self.take(self.connection.feed(data, now), now)

    def take(self, events: list[Event], now: float) -> None:
        """Act on what was read."""
        for event in events:
            self.happened(event)
        if self.connection.needs_attention:
            self.heed(now)

    def happened(self, event: Event) -> None:
        """One event."""
        match event:
            case Messages():
                for body in event.rest:
                    self.got += _numbers(body, is_packed=event.is_packed)
            case Closed(reason, error, is_cut):
                self.events.append("cut" if is_cut else f"end: {reason}")
                if not is_cut:
                    raise RemoteProtocolError(reason) from error

    def heed(self, now: float) -> None:
        """Do what the conversation asks for."""
        connection = self.connection
        connection.needs_attention = False
        if connection.state is State.CLOSED:
            self.suspend(now)
        elif out := connection.take_bytes():
            self.send_control(out)

    def suspend(self, now: float) -> None:
        """The link is gone: what is sent waits for another."""
        self.is_dropped = True
        self.outbox.cut()
        self.connection.lost("", now)
        self.connection.needs_attention = False
        self.pipe.is_open[self.side] = False

    def tick(self, now: float) -> None:
        """Tell what came, if it is time."""
        session = self.connection.session
        if session is not None and now - session.owed_since >= ACK_DELAY:
            self.connection.acknowledge()
        self.take(self.connection.tick(now), now)


class Client(Peer):
    """The client's side, from its first hello on.

    Args:
        net: Where its connections end.
        seed: Where its secrets come from.
    """

    def __init__(self, net: Net, seed: int = 0) -> None:
        self._net = net
        self._draw = Random(seed).randbytes
        self._was_welcome = False
        #: What was reported as perhaps not delivered.
        self.lost: list[int] = []
        self._session = Session(self._draw(16).hex(), WINDOW)
        self.token, self.following = self._draw(32).hex(), self._draw(32).hex()
        super().__init__(0, net.connect())
        self._begin()

    def _begin(self) -> None:
        now = self._net.now
        self.connection = Connection(
            Limits(), now, header_len=HEADER_LEN, session=self._session
        )
        self.outbox.replay = self._session.replay
        self.awaits = True
        self.send_control(_said(self.hello(now)) + _said(Probe()))

    def hello(self, now: float) -> Hello:
        """What it says first on each link."""
        session = self._session
        return Hello(
            *("Ada", None, PROTO, milliseconds(now)),
            sid=session.sid,
            token=self.token,
            next=self.following,
            got=session.tell(),
            epoch=session.epoch,
            window=WINDOW,
        )

    def come_back(self, room: int = 10**9) -> None:
        """Try another connection, whatever is known of the one before."""
        self.suspend(self._net.now)
        requests = self.connection.requests
        self.pipe = self._net.connect(room)
        self._begin()
        self.connection.requests = requests

    @property
    def is_early(self) -> bool:
        """Whether a message leaves on the classic wire, before the first welcome."""
        return self.awaits and not self.is_dropped

    def say(self, number: int, size: int = 0) -> None:
        """Send a message, on the classic wire before the first welcome of all."""
        if self.is_early:
            content = _content(number, size)
            writer = classic.Writer(HEADER_LEN, 0, by_client=True)
            self._session.replay.note(message(number, size))
            self.outbox.keep((writer.message("a", content),))
            self.flush()
        else:
            super().say(number, size)

    def heed(self, now: float) -> None:
        """As every peer; a welcome or a refusal is acted on first."""
        connection = self.connection
        if connection.refusal is not None:
            self.suspend(now)
            return
        if not (connection.is_open and self.awaits and connection.is_agreed):
            super().heed(now)
            return
        connection.needs_attention = False
        out, welcome = connection.take_bytes(), connection.welcome
        assert welcome is not None
        self.awaits = False
        self.token, self.following = self.following, self._draw(32).hex()
        self._session.epoch = welcome.epoch
        if self.is_dropped:
            self._settle(welcome)
            self.go_on(out)
        else:
            self.events.append("welcome")
            self._session.replay.acknowledge(welcome.got)
            self.send_control(out)
        self._was_welcome = True

    def _settle(self, welcome: Welcome) -> None:
        replay = self._session.replay
        if welcome.resumed:
            if not replay.acked <= welcome.got <= replay.last:
                raise RemoteProtocolError("the server resumed at no frame of ours")
            replay.acknowledge(welcome.got)
            self.events.append("resumed")
        elif not self._was_welcome and not replay.last:
            self.events.append("welcome")  # nothing was ever sent
        else:
            self.events.append(f"lost: {welcome.reason}")
            self.lost += self.undelivered()
            self.outbox.clear()
            replay.clear()

    def happened(self, event: Event) -> None:
        """As every peer; a refusal is no mistake of anybody."""
        refusal = self.connection.refusal
        if isinstance(event, Closed) and refusal is not None:
            self.events.append(f"refused: {refusal.code}")
        else:
            super().happened(event)


class Member(Peer):
    """The server's side of a session; or of a connection that may become one."""

    def __init__(self, net: Net, pipe: Pipe) -> None:
        super().__init__(1, pipe)
        self.connection = Connection(Limits(), net.now)
        self.inbox: list[Event] = []


class Net:
    """A server, one client, and all connections between them."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 100.0
        #: Those whose hello was not acted on yet, the oldest first.
        self.doors: list[Member] = []
        self._draw = Random(seed).randbytes
        self.sessions: Sessions[Member] = Sessions(self._draw, WINDOW)
        #: What the hello knew that the present session was opened for, and its reason.
        self._opened = "", ""
        self.member: Member | None = None
        #: What the server reported as perhaps not delivered.
        self.lost: list[int] = []
        self._got_before: list[int] = []
        self.client = Client(self, seed)

    @property
    def server(self) -> Member:
        """The server's side, once the client was let in."""
        assert self.member is not None
        return self.member

    @property
    def got(self) -> list[int]:
        """What the server has had of the client, in all sessions."""
        return self._got_before + ([] if self.member is None else self.member.got)

    def connect(self, room: int = 10**9) -> Pipe:
        """A new connection; the server has not read a byte of it."""
        pipe = Pipe(room)
        self.doors.append(Member(self, pipe))
        return pipe

    def read_door(self, door: Member, size: int = 10**9) -> None:
        """The server reads once from somebody who is not let in yet."""
        data = door.pipe.read(1, size)
        if data is None:
            door.inbox += door.connection.feed_eof(self.now)
        elif data:
            door.inbox += door.connection.feed(data, self.now)
        self._turn(door)

    def enter(self) -> None:
        """The turns of those come that have said hello."""
        for door in [*self.doors]:
            self._turn(door, may_enter=True)

    def _turn(self, door: Member, *, may_enter: bool = False) -> None:
        first = door.inbox[0] if door.inbox else None
        if isinstance(first, Opened) and may_enter:
            self.doors.remove(door)
            if door.connection.is_open:
                self._let_in(door, first.hello)
            else:
                door.pipe.is_open[1] = False
        elif isinstance(first, Closed):
            self.doors.remove(door)
            door.pipe.is_open[1] = False

    def _let_in(self, door: Member, hello: Hello) -> None:
        known = self.sessions.find(hello)
        if known is not None:
            self._resume(door, hello, *known)
            return
        reason = self.sessions.why_not(hello)
        session = self.sessions.open(hello, door)
        session.epoch = self._draw(8).hex()
        self._opened = hello.epoch, reason
        door.connection.serve("Ada", None, self.now, session=session, reason=reason)
        door.outbox.replay = session.replay
        self.member = door
        door.take(door.inbox[1:], self.now)

    def _knows(self, hello: Hello, session: Session) -> bool:
        """Whether the client means this session, and not one before it of that name:
        it has heard a welcome of it, or never one at all."""
        return hello.epoch == session.epoch or (hello.epoch, "") == self._opened

    def _resume(
        self, door: Member, hello: Hello, member: Member, session: Session
    ) -> None:
        assert session.tokens is not None
        knows = self._knows(hello, session)
        if not knows:
            hello = msgspec.structs.replace(hello, got=0)
        replay = session.replay
        if not session.tokens.admits(hello.token):
            self._refuse(door, "unauthorized")
            return
        if not replay.acked <= hello.got <= replay.last:
            self._refuse(door, "protocol")
            return
        if not member.is_dropped:
            member.suspend(self.now)
        session.tokens.offer(hello.token, hello.next)
        requests = member.connection.requests
        member.pipe, member.connection = door.pipe, door.connection
        member.connection.serve(
            *("Ada", None, self.now),
            session=session,
            resumed=knows,
            reason="" if knows else self._opened[1],
            requests=requests,
        )
        replay.acknowledge(hello.got)
        member.connection.needs_attention = False
        member.go_on(member.connection.take_bytes())
        member.take(door.inbox[1:], self.now)

    def _refuse(self, door: Member, code: str) -> None:
        door.connection.refuse(Refusal(code, code), self.now)
        door.pipe.write(1, door.connection.take_bytes())
        door.pipe.is_open[1] = False

    def end_session(self, reason: str) -> None:
        """The window is over, or as bad: nobody waits for the client any more."""
        server, self.member = self.server, None
        self.lost += (undelivered := server.undelivered())
        self._got_before += server.got
        total = server.session.replay.acked + len(undelivered)
        self.sessions.end(server.session, reason, total)
        server.suspend(self.now)
        for door in self.doors:
            door.pipe.is_open[1] = False
        self.doors.clear()

    # --- all at once -------------------------------------------------------------

    def deliver(self, size: int = 10**9) -> None:
        """Pipe until nothing moves any more, at most ``size`` bytes at a time."""
        before: object = None
        while before != (before := self._mark()):
            for door in [*self.doors]:
                self.read_door(door, size)
            self.enter()
            for peer in self.peers:
                peer.flush()
                if peer.pipe.is_open[peer.side]:
                    peer.read(size, self.now)

    @property
    def peers(self) -> list[Peer]:
        """Both sides, as far as they are there."""
        return [self.client] if self.member is None else [self.client, self.member]

    def _mark(self) -> object:
        """What changes when something moves."""
        pipes = [each.pipe for each in (*self.peers, *self.doors)]
        peers = [(p.outbox.size, len(p.got), len(p.events)) for p in self.peers]
        return peers, [(*pipe.under_way, *pipe.is_open) for pipe in pipes]

    def settle(self) -> None:
        """Come back if need be, have all delivered, and acknowledged."""
        for _ in range(4):
            for peer in self.peers:
                peer.pipe.room = 10**9
            self.deliver()
            if not self.client.pipe.is_open[0]:
                self.client.come_back()
                self.deliver()
            self.now += ACK_DELAY
            for peer in self.peers:
                peer.tick(self.now)


def message(number: int, size: int = 0) -> bytes:
    """A message as it is on the wire."""
    frame = compact.Writer(0).message("a", _content(number, size))
    return frame if isinstance(frame, bytes) else b"".join(frame)


def in_parts(number: int, size: int) -> tuple[bytes, ...]:
    """A message as a large one is written."""
    frame = message(number, size)
    return frame[:7], frame[7:-1], frame[-1:]


def block(numbers: list[int]) -> Block:
    """Several messages that are written together."""
    return Block(len(numbers), b"".join(map(message, numbers)))


def _content(number: int, size: int) -> bytes:
    return b"%d:" % number + b"x" * size


def _data(frame: bytes | Block) -> bytes:
    return frame.data if isinstance(frame, Block) else frame


def _said(frame: Hello | Probe) -> bytes:
    body = classic.encode_frame(frame)
    return classic.header(len(body), HEADER_LEN) + body


def _numbers(body: bytes, *, is_packed: bool) -> list[int]:
    """The number in what came, if it is a message."""
    if is_packed:
        return [] if isinstance(compact.decode(body), Bye) else [_number_in(body)]
    command, _, content = body.partition(b" ")
    return [int(content.partition(b":")[0])] if command == b"a" else []


def _number_in(frame: bytes) -> int:
    said = compact.decode(frame)
    assert isinstance(said, Message)
    content: bytes = msgspec.msgpack.decode(said.content)
    return int(content.partition(b":")[0])
