"""What a server has to count, and how it is told: ``stats()`` and ``/metrics``.

Nothing is counted for each message. What clients have sent and got is known to their
links and sessions, and added up when somebody asks; of those who left, once.
"""

from __future__ import annotations

__all__ = ("REFUSALS", "Tally", "stats_of")

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hisock.engine.link import Link
    from hisock.engine.serve import ServerEngine

#: Why clients are not served; whatever else there may be is counted as "other".
REFUSALS: Final = (
    *("busy", "closed", "kicked", "name_taken", "replaced", "unauthorized"),
    *("version", "other"),
)
#: What is known of each link.
_OF_LINKS: Final = ("messages_sent", "bytes_sent", "bytes_received", "late_replies")


class Tally:
    """What has happened to the members of a server.

    Attributes:
        joined: Clients that were let in.
        left: Of these, who are gone.
        resumed: Sessions that went on after a cut.
        lost_sessions: Sessions that ended because nobody came back to them.
        refused: Clients that were not let in, by reason.
    """

    __slots__ = (
        "_began",
        "_gone",
        "_here",
        "joined",
        "left",
        "lost_sessions",
        "refused",
        "resumed",
    )

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._here: dict[Link, None] = {}
        self._gone = dict.fromkeys(_OF_LINKS, 0)
        self.joined = self.left = self.resumed = self.lost_sessions = 0
        self.refused = dict.fromkeys(REFUSALS, 0)

    def enter(self, link: Link) -> None:
        """A client is let in."""
        self.joined += 1
        self._here[link] = None

    def leave(self, link: Link) -> None:
        """It is gone; what it had sent and got still counts."""
        if link not in self._here:  # noted already, when Ctrl-C struck
            return
        del self._here[link]
        self.left += 1
        for key, value in _of_link(link).items():
            self._gone[key] += value

    def refuse(self, code: str) -> None:
        """A client was not let in."""
        self.refused[code if code in REFUSALS else "other"] += 1

    def totals(self) -> dict[str, int]:
        """What is known of all links, of those that are gone, too; under the lock."""
        totals = dict(self._gone)
        for link in self._here:
            for key, value in _of_link(link).items():
                totals[key] += value
        return totals

    @property
    def uptime(self) -> int:
        """Seconds since the server was made."""
        return int(time.monotonic() - self._began)


def _of_link(link: Link) -> dict[str, int]:
    replay, requests = link.replay, link.connection.requests
    return {
        "messages_sent": 0 if replay is None else replay.last,
        "bytes_sent": 0 if replay is None else replay.acked_size + replay.size,
        "bytes_received": link.bytes_read,
        "late_replies": 0 if requests is None else requests.late,
    }


def stats_of(engine: ServerEngine) -> dict[str, int]:
    """Everything there is to tell of a server, in plain numbers."""
    with engine.lock.reading:
        return _stats_of(engine)


def _stats_of(engine: ServerEngine) -> dict[str, int]:
    members, pump, tally = list(engine.registry), engine.pump, engine.gate.tally
    requests = [r for link in members if (r := link.connection.requests)]
    websocket = sum(link.connection.is_packed for link in members)
    modern = sum(link.writer.is_compact for link in members)
    reports = engine.reports
    return {
        "clients": len(members),
        "clients_classic": len(members) - modern,
        "clients_compact": modern - websocket,
        "clients_websocket": websocket,
        "connections": len(pump.links),
        "groups": len(engine.registry.groups()),
        "dropped": len(pump.dropped),
        "buffered_bytes": sum(link.outbox.held for link in members),
        "open_calls": sum(len(r.asked) for r in requests),
        "open_requests": sum(len(r.answering) for r in requests),
        "joined": tally.joined,
        "left": tally.left,
        "resumed": tally.resumed,
        "lost_sessions": tally.lost_sessions,
        "slow_consumers": pump.slow_consumers,
        "messages_received": engine.messages_received,
        **tally.totals(),
        "expired_messages": engine.answers.expired,
        "undelivered_messages": reports.undelivered_messages,
        "handler_errors": reports.handler_errors,
        "unknown_commands": reports.unknown_commands,
        "forbidden_messages": reports.forbidden_messages,
        **{f"refused_{code}": count for code, count in tally.refused.items()},
        "refused_http": 0 if pump.website is None else pump.website.refused,
        "uptime": tally.uptime,
    }
