"""When a server reads a client no further, and whom it lets go when memory is short."""

from __future__ import annotations

__all__ = ("Memory", "gather", "is_overfed", "stop_asking")

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from hisock.engine.link import Link
from hisock.errors import Overloaded
from hisock.session.events import Messages
from hisock.types import Limits
from hisock.wire.compact import encode
from hisock.wire.frames import Cancel

if TYPE_CHECKING:
    from hisock.engine.listen import Pump

#: Seconds between two looks at what all links hold together.
_WEIGH: Final = 0.25

#: The pumps of this process. What is in a dictionary can be listed in one step, while
#: other threads come and go.
_pumps: Final[dict[weakref.ref[Pump], None]] = {}


def is_overfed(link: Link, limits: Limits) -> bool:
    """Whether as much waits for a client's handlers as may; more where this side awaits
    an answer or an acknowledgement, that would have to come after it."""
    waiting = [event for event in link.inbox if isinstance(event, Messages)]
    size = sum(event.size for event in waiting)
    requests = link.connection.requests
    if link.outbox.held or (requests is not None and requests.asked):
        return 0 < limits.queue < size
    count = sum(len(event.bodies) - event.place for event in waiting)
    too_many = 0 < limits.handler_messages < count
    return too_many or 0 < limits.handler_queue < size


def gather(link: Link) -> None:
    """Make one of what a busy client has sent in many pieces, so that to look how much
    waits costs the same each time."""
    inbox = link.inbox
    while len(inbox) > 1:
        before, last = inbox[-2:]
        if not (
            isinstance(last, Messages)
            and isinstance(before, Messages)
            and last.is_packed == before.is_packed
            and not (last.place or before.place)
        ):
            return
        size = before.size + last.size
        before.bodies += last.bodies
        before.size = size
        inbox.pop()


def stop_asking(link: Link, limits: Limits) -> None:
    """Too much came before the answers that this side awaits: they fail."""
    requests = link.connection.requests
    if requests is None or not requests.asked:
        return
    error = Overloaded(
        f"more than Limits.queue, {limits.queue} bytes, waits for handlers of "
        f"{dict(link.info)}, so the answer behind it is not read; let its handlers "
        "return sooner, or register them with concurrency="
    )
    for asked in requests.fail_asked(error):
        link.send(encode(Cancel(asked.id)))


class Memory:
    """How much all clients of all servers in this process may hold together.

    Args:
        pump: One server's links, which are let go where there is too much.
        limit: Bytes; 0 for any number.
    """

    __slots__ = ("_due", "_limit", "_pump")

    def __init__(self, pump: Pump, limit: int) -> None:
        self._pump = pump
        self._limit = limit
        self._due = 0.0
        _pumps[weakref.ref(pump, lambda gone: _pumps.pop(gone, None))] = None

    def excess(self, now: float) -> int:
        """How many bytes this server has to let go of; looked at now and then only.

        No more than it holds above its share: who holds much is to make room, and some
        server always holds more than that.
        """
        if not self._limit or now < self._due:
            return 0
        self._due = now + _WEIGH
        held = {pump: _held_by(pump) for pump in _all_pumps()}
        total = sum(held.values())
        if total <= self._limit:
            return total - self._limit
        sharing = sum(1 for size in held.values() if size)
        return min(total - self._limit, held[self._pump] - self._limit // sharing)

    def victims(self) -> list[Link]:
        """Whom to let go: sessions that are cut off, the oldest first, then who holds
        most."""
        pump = self._pump
        slow = [link for link in pump.links if link.is_open and link.outbox.held]
        slow.sort(key=lambda link: link.outbox.held, reverse=True)
        return [link for link in pump.dropped if link.outbox.held] + slow


def _all_pumps() -> Iterator[Pump]:
    """Those of every server in this process."""
    for reference in list(_pumps):
        pump = reference()
        if pump is not None:
            yield pump


def _held_by(pump: Pump) -> int:
    """Bytes that wait for the clients of one server."""
    links = [link for link in list(pump.links) if link.is_open]
    return sum(link.outbox.held for link in [*links, *list(pump.dropped)])
