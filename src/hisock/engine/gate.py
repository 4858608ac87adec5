"""Who comes in, on which wire, and who leaves: the server's members, one by one."""

from __future__ import annotations

__all__ = ("Gate",)

import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hisock.engine.link import Link
from hisock.engine.undelivered import undelivered
from hisock.errors import SessionLost
from hisock.handlers.table import DROP, RESUME
from hisock.hub.sessions import Sessions
from hisock.session.events import Closed, Dropped, Event, Opened, Resumed
from hisock.session.resume import Session
from hisock.types import ClientInfo
from hisock.wire.frames import PROTO, Hello, Joined, Left, Refusal

if TYPE_CHECKING:
    from hisock.engine.serve import ServerEngine

#: Milliseconds after which a client that found the server full may try again.
_TRY_AGAIN = 1000

_log = logging.getLogger("hisock.server")


class Gate:
    """Lets clients of a server in and out.

    Args:
        engine: The server's engine.
        capacity: Clients served at once; 0 for any number.
        wires: The wires that are spoken.
        window: Seconds that a session is kept after a cut.

    Attributes:
        sessions: Who may come back.
    """

    __slots__ = ("_capacity", "_engine", "_wires", "describe", "sessions")

    def __init__(
        self,
        engine: ServerEngine,
        capacity: int,
        wires: frozenset[str],
        window: float,
    ) -> None:
        self._engine = engine
        self.sessions: Sessions[Link] = Sessions(os.urandom, window)
        self._capacity = capacity
        self._wires = wires
        #: Makes what handlers get; the face sets it.
        self.describe: Callable[[Link, Hello], ClientInfo] = _describe

    def happened(self, link: Link, event: Event) -> bool:
        """Somebody said hello, or a connection is over; whether a handler ran."""
        match event:
            case Opened():
                return self._join(link, event)
            case Closed():
                return self._leave(link, event)
            case Dropped(reason):
                _done_with(link.inbox, event)
                _log.info("dropped: %s: %s", dict(link.info), reason)
                return self._engine.run_event(link, DROP, link.info)
            case Resumed():
                _done_with(link.inbox, event)
                _log.info("resumed: %s", dict(link.info))
                return self._engine.run_event(link, RESUME, link.info)
        raise AssertionError(event)

    def _join(self, link: Link, opened: Opened) -> bool:
        refusal = self._engine.lock.run(self._enter, link, opened.hello)
        _done_with(link.inbox, opened)  # a handler that raises is not run again
        if refusal:
            _log.warning("refused %s: %s", link.where, refusal)
            return False
        if not link.is_member:  # its socket belongs to a session of before
            return False
        info = link.info
        _log.info("joined: %s", dict(info))
        try:
            return self._engine.run_event(link, "join", info)
        finally:
            self._engine.members.tell_others(link, Joined(dict(info)))

    def _enter(self, link: Link, hello: Hello) -> str:
        """Add a client to the registry; why not, if not."""
        if link.is_member:
            return ""
        code, text = self._refusal(hello)
        known = self.sessions.find(hello) if self.sessions.wants(hello) else None
        if known is not None and code in ("", "busy"):
            code, text = self._resume(link, hello, *known)
            if not text:
                return ""
        if text:
            self._refuse(link, hello, code, text)
            return text
        if hello.proto and "compact" in self._wires:
            self._welcome(link, hello)
        link.writer = self._engine.members.writer_for(link)
        link.info = self.describe(link, hello)
        self._engine.registry.add(link)
        link.has_joined = link.is_member = True
        # Last: an interrupt in the middle of this write finds a member like any other.
        if link.connection.needs_attention:
            link.heed()
        return ""

    def _welcome(self, link: Link, hello: Hello) -> None:
        session, reason = None, ""
        if self.sessions.wants(hello):
            reason = self.sessions.why_not(hello)
            session = self.sessions.open(hello, link)
        link.connection.serve(
            *(hello.name, hello.group, time.monotonic()),
            session=session,
            reason=reason,
            beats=hello.beats,
        )
        link.begin_session(session)
        link.look_at = self._engine.limits.outbox
        link.wants_roster = False

    def _resume(
        self, newcomer: Link, hello: Hello, link: Link, session: Session
    ) -> tuple[str, str]:
        """Let a client go on with its session; why not, if not."""
        assert session.tokens is not None
        if not session.tokens.admits(hello.token):
            return "unauthorized", "this is not the token of that session"
        replay = session.replay
        if not replay.acked <= hello.got <= replay.last:
            return "protocol", f"frame {hello.got} was not sent, or is forgotten"
        if not newcomer.connection.is_open:
            return "gone", "it left before it was let in"
        if not link.is_dropped:
            link.lose_for("its client came back on another connection")
        session.tokens.offer(hello.token, hello.next)
        requests = link.connection.requests
        self._engine.pump.move(newcomer, link)
        info, reason, link.cut_reason = link.info, link.cut_reason, ""
        link.connection.serve(
            *(info["name"], info["group"], time.monotonic()),
            session=session,
            resumed=True,
            reason=reason,
            requests=requests,
            beats=hello.beats,
        )
        replay.acknowledge(hello.got)
        self._engine.registry.move(link, link.address[:2])
        link.inbox.append(Resumed())
        link.connection.needs_attention = False
        link.go_on(link.connection.take_bytes())
        return "", ""

    def end_session(self, link: Link, code: str, text: str) -> None:
        """End a session whose link is cut; under the lock."""
        self._engine.pump.release(link)
        link.is_dropped = False
        if link.connection.session is not None:
            self.sessions.end(link.connection.session, code)
        if link.connection.requests is not None:
            link.connection.requests.fail_all(SessionLost(f"no answer came: {text}"))
        self._engine.registry.remove(link)
        link.is_member = False
        link.inbox.append(Closed(text, is_cut=True))
        self._engine.resume(link)

    def _refusal(self, hello: Hello) -> tuple[str, str]:
        """Why a client is not served, as a code and a text; empty if it is."""
        if self._engine.is_closing:
            return "closed", "the server is closing"
        if 0 < self._capacity <= len(self._engine.registry):
            return "busy", f"the server is full ({self._capacity} clients)"
        if hello.proto and "compact" in self._wires:
            if hello.proto < PROTO:
                return "version", (
                    f"this server speaks version {PROTO} of the compact wire, the "
                    f"client speaks up to {hello.proto}; use a newer hisock there"
                )
        elif "classic" not in self._wires:
            return "version", "this server does not speak the wire of hisock 1.1"
        return "", ""

    def _refuse(self, link: Link, hello: Hello, code: str, text: str) -> None:
        if hello.proto and "compact" in self._wires:
            refusal = Refusal(code, text, 1000 if code == "busy" else None)
            link.end(link.connection.refuse(refusal, time.monotonic()), discard=True)
            self._engine.settle(link)
        else:
            self._engine.ending.say_goodbye(link, text)

    def _leave(self, link: Link, closed: Closed) -> bool:
        if not link.has_joined:
            _log.debug("! %s: %s", link.where, closed.reason)
            return False
        self._engine.lock.run(self.expel, link)
        _done_with(link.inbox, closed)
        # Behind a goodbye of ours nothing is left: it was the last to be written.
        if closed.is_cut or closed.error or link.connection.goodbye:
            self._report_undelivered(link)
        is_normal = not (closed.error or closed.reason.startswith("slow consumer"))
        level = logging.INFO if is_normal else logging.WARNING
        _log.log(level, "left: %s: %s", dict(link.info), closed.reason)
        try:
            return self._engine.run_event(link, "leave", link.info)
        finally:
            self._engine.members.tell_others(link, Left(dict(link.info)))

    def _report_undelivered(self, link: Link) -> None:
        """Tell of what was accepted for a client and is not known to have arrived."""
        sent = undelivered(link)
        if sent:
            self._engine.reports.undelivered(link.info, sent)

    def admit(self, address: Any) -> bool:
        """Let in whoever has said hello, but run nothing, if nobody turns the server.

        For a client in the same thread, that cannot go on before it is let in.

        Args:
            address: Where the client called; false if that is another server's.
        """
        if not self._engine.pump.listens_at(address):
            return False
        return self._engine.lend(self._admit)

    def _admit(self) -> None:
        self._engine.pump.step(wait=False)
        for link in list(self._engine.pump.ready):
            if link.inbox and isinstance(link.inbox[0], Opened):
                self._engine.lock.run(self._enter, link, link.inbox[0].hello)

    def expel(self, link: Link, reason: str = "unknown") -> None:
        """Take a client out of the look-ups; under the lock.

        Args:
            reason: What its client is told if it comes back all the same.
        """
        if link.is_member:
            self._engine.registry.remove(link)
            link.is_member = False
        session = link.connection.session
        if session is not None:
            self.sessions.end(session, reason)


def _describe(link: Link, hello: Hello) -> ClientInfo:
    info = ClientInfo(link.address[:2], hello.name, hello.group)
    info._member = link
    return info


def _done_with(inbox: list[Event], event: Event) -> None:
    """Take the first event out, unless that is done already."""
    if inbox and inbox[0] is event:
        del inbox[0]
