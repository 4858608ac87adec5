"""What the dashboard is shown of a server, and does to it; only where there is one.

Counts once a batch and once a second. Who has no dashboard does not import this.
"""

from __future__ import annotations

__all__ = ("WatchedPost", "WatchedRunner", "Watching")

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import nsmallest
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from hisock.engine.calls import Runner
from hisock.engine.delivery import Delivery
from hisock.engine.link import Link
from hisock.engine.post import Post
from hisock.errors import HiSockError, RemoteProtocolError
from hisock.handlers.cast import unpack
from hisock.session.events import Messages
from hisock.session.resume import Written
from hisock.web.records import TAIL, Failures, Series, Tail
from hisock.wire import compact
from hisock.wire.compact import Encoded
from hisock.wire.frames import Message, Request
from hisock.wire.http import HttpError
from hisock.wire.payload import as_text, prefix_of

if TYPE_CHECKING:
    from hisock.engine.serve import ServerEngine

#: Seconds between two counts, and between two pings of one client, while somebody
#: watches: so long after who watched was here last.
_PACE: Final = 1.0
_ASK: Final = 5.0
_PRESENCE: Final = 10.0
#: Clients that were cut off as too slow, and groups, that are told of.
_CUTS: Final = 20
_GROUPS: Final = 200
_GROUPS_OF_ONE: Final = 8
#: Clients of which a tail is kept at once.
_TAILS: Final = 8
#: How frames that say something go on: a message, a call.
_TALK: Final = frozenset({b"\x01", b"\x02"})
#: Bytes of content that is looked into for its text.
_LARGE: Final = 16 * 1024


class _Count:
    """What is counted of one client."""

    __slots__ = ("asked_at", "came", "came_before", "rates", "since", "went_before")

    def __init__(self, now: float) -> None:
        self.since = now
        self.asked_at = -_ASK
        self.came = self.came_before = self.went_before = 0
        self.rates = (0.0, 0.0)


class WatchedRunner(Runner):
    """A runner that tells what it has run.

    Attributes:
        watching: Whom.
    """

    __slots__ = ("watching",)

    watching: Watching

    def run_messages(
        self, link: Link, messages: Messages, client: Any, one: bool = False
    ) -> bool:
        """As ``Runner.run_messages``."""
        before = messages.place
        try:
            return super().run_messages(link, messages, client, one)
        finally:
            self.watching.handled(link, messages, before)

    def run_nested(
        self, link: Link, frame: Request, client: Any, depth: int = 0
    ) -> None:
        """As ``Runner.run_nested``."""
        self.watching.handled_nested(link, frame)
        super().run_nested(link, frame, client, depth)


class WatchedPost(Post):
    """A post that counts what it sends.

    Attributes:
        sent: How much to each link.
    """

    fans_out = False

    __slots__ = ("sent",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.sent: dict[Link, int] = {}

    def send(self, link: Link, frame: Written) -> bool:
        """As ``Post.send``, which usually asks none of the others."""
        before = self.sent.get(link, 0)
        is_behind = super().send(link, frame)
        if self.sent.get(link, 0) == before:
            self._note(link)
        return is_behind

    def write_many(
        self, links: Iterable[Link], frames: Mapping[Any, Encoded | None]
    ) -> None:
        """As ``Post.write_many``, but one by one, so that each is counted."""
        for link in links:
            frame = frames[link.writer]
            if frame is not None:
                self.write(link, frame)

    def offer(
        self,
        link: Link,
        frame: Encoded,
        wish: Delivery,
        command: str | None,
        group: str | None = None,
    ) -> None:
        """As ``Post.offer``; what is dropped later is counted, too."""
        before = self.sent.get(link, 0)
        super().offer(link, frame, wish, command, group)
        if self.sent.get(link, 0) == before:
            self._note(link)

    def write_now(self, link: Link, frame: Written) -> None:
        """As ``Post.write_now``."""
        self._note(link)
        super().write_now(link, frame)

    def _keep(self, link: Link, frame: bytes, gather: Callable[[], None]) -> None:
        self._note(link)
        super()._keep(link, frame, gather)

    def _collect(self, link: Link, frame: bytes) -> None:
        self._note(link)
        super()._collect(link, frame)

    def _note(self, link: Link) -> None:
        self.sent[link] = self.sent.get(link, 0) + 1


class Watching:
    """Watches one server; a ``web.dashboard.Source``.

    Args:
        engine: The server's engine.

    Attributes:
        clock: Tells the time, in seconds.
    """

    def __init__(self, engine: ServerEngine) -> None:
        self.clock: Callable[[], float] = time.monotonic
        assert isinstance(engine.outgoing, WatchedPost)
        self._engine = engine
        self._sent = engine.outgoing.sent
        self._counts: dict[Link, _Count] = {}
        self._tails: dict[Link, Tail] = {}
        self._series = Series()
        self._failures = Failures()
        self._cuts: deque[tuple[float, str | None, str]] = deque(maxlen=_CUTS)
        self._began = self._counted_at = self.clock()
        self._watched_at = -_PRESENCE
        engine.pace.every(_PACE, self._count)

    # --- what happens --------------------------------------------------------------

    def handled(self, link: Link, messages: Messages, before: int) -> None:
        """A batch was run from one place on."""
        place = messages.place
        if place <= before:  # nothing, or its client was ended in the middle
            return
        count = _count_packed if messages.is_packed else _count_text
        said = count(messages.bodies[before:place])
        self._count_of(link, self.clock()).came += said
        if self._tails and (tail := self._tails.get(link)) is not None:
            first = max(before, place - TAIL)
            now = self.clock()
            bodies = messages.bodies[first:place]
            read = _read_packed if messages.is_packed else _read_text
            came = [read(body, tail.wants_payload(now)) for body in bodies]
            tail.note(now, came, first - before)

    def handled_nested(self, link: Link, frame: Request) -> None:
        """A call is run on behalf of one of ours."""
        now = self.clock()
        self._count_of(link, now).came += 1
        if (tail := self._tails.get(link)) is not None:
            tail.note(now, [_read_frame(frame, tail.wants_payload(now))])

    def failed(self, code: str, text: str, where: str = "", line: str = "") -> None:
        """Something went wrong that is reported, too."""
        self._failures.note(self.clock(), code, text, where, line)

    def cut(self, link: Link, reason: str) -> None:
        """A client was cut off because it is too slow."""
        self._cuts.append((self.clock(), link.info["name"], reason))

    def _count_of(self, link: Link, now: float) -> _Count:
        count = self._counts.get(link)
        if count is None:
            count = self._counts[link] = _Count(now)
        return count

    def _count(self) -> None:
        now = self.clock()
        self._engine.lock.run(self._count_all, now)
        for link, tail in list(self._tails.items()):
            if tail.is_over(now) or not link.is_member:
                del self._tails[link]

    def _count_all(self, now: float) -> None:
        """Look how much came and went since the last time; under the lock."""
        seconds, self._counted_at = max(now - self._counted_at, 0.001), now
        registry = self._engine.registry
        for table in (self._counts, self._sent):
            for gone in [link for link in list(table) if link not in registry]:
                table.pop(gone, None)
        all_came = all_went = 0
        for link in registry:
            count = self._count_of(link, now)
            came = count.came - count.came_before
            sent = self._sent.get(link, 0)
            went = sent - count.went_before
            count.came_before, count.went_before = count.came, sent
            count.rates = round(came / seconds, 1), round(went / seconds, 1)
            all_came += came
            all_went += went
        self._series.add(all_came, all_went, seconds)
        if now - self._watched_at < _PRESENCE:
            self._ask(now)

    def _ask(self, now: float) -> None:
        """Measure round trips."""
        for link, count in self._counts.items():
            connection = link.connection
            may = connection.writes_compact and connection.is_open
            if may and connection.pinged_at is None and now - count.asked_at >= _ASK:
                count.asked_at = now
                connection.ping(now)
                link.heed()
                self._engine.pump.touch(link)

    # --- what is shown -------------------------------------------------------------

    def snapshot(self, search: str, most: int) -> dict[str, Any]:
        """The server as it is now."""
        engine, now = self._engine, self.clock()
        self._watched_at = now
        with engine.lock.reading:
            links = list(engine.registry)
            bound = engine.limits.outbox
            rows = [self._row(link, now) for link in _matching(links, search, most)]
            slow = [self._slow_row(link) for link in links if _is_slow(link, bound)]
            rates = [count.rates for count in self._counts.values()]
            return {
                "server": {"name": engine.name, "uptime": round(now - self._began)},
                "totals": {
                    "clients": len(links),
                    "dropped": len(engine.pump.dropped),
                    "in": round(sum(came for came, _ in rates), 1),
                    "out": round(sum(went for _, went in rates), 1),
                    "buffer": sum(link.outbox.held for link in links),
                    "bound": bound,
                },
                "clients": rows,
                "groups": self._groups(),
                "series": self._series.columns(),
                "slow": slow[:most],
                "cuts": [
                    {"name": name, "age": round(now - at, 1), "reason": reason}
                    for at, name, reason in reversed(self._cuts)
                ],
                "errors": self._failures.rows(now),
            }

    def client(self, number: int) -> dict[str, Any] | None:
        """One client as it is now; ``None`` if it is not here."""
        with self._engine.lock.reading:
            link = self._find(number)
            return None if link is None else self._row(link, self.clock())

    def _row(self, link: Link, now: float) -> dict[str, Any]:
        info, count = link.info, self._count_of(link, now)
        round_trip = link.connection.round_trip
        return {
            "id": info.id,
            "name": info["name"],
            "group": info["group"],
            "groups": sorted(self._engine.registry.groups_of(link))[:_GROUPS_OF_ONE],
            "wire": info.wire,
            "address": link.where,
            "connected": info.is_connected,
            "came": count.came,
            "rate_in": count.rates[0],
            "went": self._sent.get(link, 0),
            "rate_out": count.rates[1],
            "buffer": link.outbox.held,
            "slow": _is_slow(link, self._engine.limits.outbox),
            "round_trip": None if round_trip is None else round(round_trip * 1000, 2),
            "since": round(now - count.since),
        }

    def _slow_row(self, link: Link) -> dict[str, Any]:
        info = link.info
        return {"id": info.id, "name": info["name"], "buffer": link.outbox.held}

    def _groups(self) -> list[dict[str, Any]]:
        sizes = self._engine.registry.group_sizes()
        largest = nsmallest(_GROUPS, sizes, key=lambda each: (-each[1], each[0]))
        return [{"name": name, "members": size} for name, size in largest]

    def tail(self, client: int, after: int, *, payload: bool) -> dict[str, Any] | None:
        """What a client has sent lately; from the first time on that this is asked."""
        link = self._find(client)
        if link is None:
            return None
        now = self.clock()
        tail = self._tails.get(link)
        if tail is None:
            while len(self._tails) >= _TAILS:
                del self._tails[next(iter(self._tails))]
            tail = self._tails[link] = Tail(now)
        return {"client": client, **tail.after(after, now, payload=payload)}

    # --- what is done --------------------------------------------------------------

    def send(self, client: int, command: str, content: str) -> None:
        """Send a message to a client, without waiting.

        Raises:
            HttpError: It is not here, or that cannot be sent.
        """
        try:
            prefix_of(command)
            self._engine.members.send_now(self._here(client), command, content, None)
        except HiSockError as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from error

    def disconnect(self, client: int, *, reconnect: bool) -> None:
        """End a client, or only its connection.

        Raises:
            HttpError: It is not here.
        """
        ending, links = self._engine.ending, [self._here(client)]
        reason = "" if reconnect else "disconnected by the server's operator"
        ending.disconnect(links, reason, reconnect=reconnect)

    def _find(self, client: int) -> Link | None:
        with self._engine.lock.reading:
            registry = self._engine.registry
            return next((one for one in registry if one.info.id == client), None)

    def _here(self, client: int) -> Link:
        link = self._find(client)
        if link is None:
            raise HttpError(HTTPStatus.NOT_FOUND, "this client is not here any more")
        return link


def _count_packed(frames: Iterable[bytes]) -> int:
    """The messages and calls among frames."""
    return sum(frame[1:2] in _TALK for frame in frames)


def _count_text(bodies: Iterable[bytes]) -> int:
    """The messages among the bodies of the classic wire."""
    return sum(body[:1] != b"$" for body in bodies)


def _matching(links: Iterable[Link], search: str, most: int) -> Iterator[Link]:
    """The first clients whose name, group or address has that in it."""
    wanted = search.casefold()
    for link in links:
        if not most:
            return
        info = link.info
        texts = (info["name"] or "", info["group"] or "", link.where)
        if not wanted or any(wanted in text.casefold() for text in texts):
            most -= 1
            yield link


def _is_slow(link: Link, bound: int) -> bool:
    """Whether more than half of what may wait for a client does."""
    return 0 < bound < 2 * link.outbox.held


def _read_packed(body: bytes, wants_payload: bool) -> tuple[str, int, str | None]:
    """The command of a frame, its size, and what it carries if that is wanted."""
    try:
        frame = compact.decode(body)
    except RemoteProtocolError:
        return "(malformed)", len(body), None
    if isinstance(frame, Message | Request):
        command, _, text = _read_frame(frame, wants_payload)
        return command, len(body), text
    return f"({type(frame).__name__.lower()})", len(body), None


def _read_frame(
    frame: Message | Request, wants_payload: bool
) -> tuple[str, int, str | None]:
    size = len(frame.content)
    text: str | None = None
    if wants_payload and size > _LARGE:
        text = f"({size} bytes)"
    elif wants_payload:
        try:
            text = as_text(unpack(frame.content)).decode(errors="replace")
        except Exception:  # whatever a client made of it, it is its own affair
            text = "(malformed)"
    return "(raw)" if frame.command is None else frame.command, size, text


def _read_text(body: bytes, wants_payload: bool) -> tuple[str, int, str | None]:
    """The same of a body of the classic wire."""
    command, _, content = body[: 2 * _LARGE].partition(b" ")
    text = content[:_LARGE].decode(errors="replace") if wants_payload else None
    return command[:_LARGE].decode(errors="replace"), len(body), text
