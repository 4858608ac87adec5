"""Who comes in, on which wire, and who leaves: the server's members, one by one."""

from __future__ import annotations

__all__ = ("Gate",)

import os
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from hisock.engine.credentials import Guard, Verdict
from hisock.engine.link import Link
from hisock.engine.log import logger
from hisock.engine.naming import Naming
from hisock.engine.repeats import Repeats
from hisock.engine.stats import Tally
from hisock.engine.undelivered import accepted, undelivered
from hisock.errors import SessionLost, Unauthorized
from hisock.handlers.table import DROP, RESUME
from hisock.hub.sessions import Sessions
from hisock.session.events import (
    Closed,
    Dropped,
    Event,
    Opened,
    Presented,
    Resumed,
)
from hisock.session.resume import Session
from hisock.session.states import State
from hisock.types import ClientInfo, Credentials, Identity
from hisock.wire.frames import (
    BYE_WORDS,
    PROTO,
    Bye,
    Hello,
    Joined,
    Left,
    Refusal,
)

if TYPE_CHECKING:
    from hisock.engine.serve import ServerEngine

#: Milliseconds after which a client that found the server full may try again.
_TRY_AGAIN: Final = 1000
#: Words of refusals → codes of goodbyes.
_CODES: Final = {word: code for code, word in BYE_WORDS.items()}
#: Ends of sessions whose clients are to stay away.
_FINAL: Final = {
    "kicked": "the server has disconnected this client",
    "replaced": "another client has taken its name",
}

_log = logger("hisock.server")


class Gate:
    """Lets clients of a server in and out.

    Args:
        engine: The server's engine.
        capacity: Clients served at once; 0 for any number.
        wires: The wires that are spoken.
        window: Seconds that a session is kept after a cut.
        name: What the server is called in texts.

    Attributes:
        guard: Who says who clients are.
        naming: Which names and groups clients may have.
        sessions: Who may come back.
        tally: What has happened to clients.
        takes_classic: Whether clients of hisock 1.1, which have no token, are checked
            like all others; else they are refused where there is a check.
    """

    __slots__ = (
        "_capacity",
        "_checking",
        "_engine",
        "_new",
        "_repeats",
        "_wires",
        "describe",
        "guard",
        "naming",
        "sessions",
        "takes_classic",
        "tally",
    )

    def __init__(
        self,
        engine: ServerEngine,
        capacity: int,
        wires: frozenset[str],
        window: float,
        name: str,
    ) -> None:
        self._engine = engine
        self.guard = Guard(engine, name)
        self.naming = Naming(engine, self)
        self.takes_classic = False
        self.tally = Tally()
        #: Who is being checked.
        self._checking: set[Link] = set()
        #: Members of whom nobody has been told yet.
        self._new: set[Link] = set()
        self._repeats = Repeats()
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
            case Presented():
                self._check(link, event)
                return False
            case Closed():
                return self._leave(link, event)
            case Dropped(reason):
                _done_with(link.inbox, event)
                self._note_cut(link, reason)
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
            self._tell_refused(link, refusal)
            return False
        if not link.is_member:  # its socket belongs to a session of before
            return False
        if self.naming.has_to_wait(link):
            link.inbox.insert(0, Opened(opened.hello))
            link.is_busy = True  # until who had its name before has left
            return False
        self._new.discard(link)
        info = link.info
        _log.info("joined: %s", dict(info))
        try:
            return self._engine.run_event(link, "join", info)
        finally:
            self._engine.members.tell_others(link, Joined(dict(info)))

    def _tell_refused(self, link: Link, refusal: Refusal) -> None:
        self.tally.refuse(refusal.code)
        if count := self._repeats.due(refusal.code):
            _log.warning("refused %s: %s (%d)", link.where, refusal.text, count)

    def tell_denied(self, link: Link, key: str, new: str | None) -> None:
        """A client asked for a name or group that it may not have."""
        if count := self._repeats.due(key):
            text = "%s may not have the %s %.80r (%d)"
            _log.info(text, dict(link.info), key, new, count)

    def _enter(
        self,
        link: Link,
        hello: Hello,
        identity: Identity | None = None,
        *,
        is_checked: bool = False,
    ) -> Refusal | None:
        """Add a client to the registry, or have it checked first; why not, if not."""
        if link.is_member or link.has_joined:
            return None
        refusal = self._refusal(link, hello)
        known = self.sessions.find(hello) if self.sessions.wants(hello) else None
        if known is not None and refusal is not None and refusal.code == "busy":
            refusal = None  # it is a member already
        if refusal is None and self.guard.is_set and not is_checked:
            self._ask(link)
            return None
        if refusal is None and known is not None:
            refusal = self._resume(link, hello, identity, *known)
            if refusal is None:
                return None
        rivals: list[Link] | None = []
        if refusal is None:
            rivals = self.naming.claim(link, hello.name, identity)
            if rivals is None:
                text = f"another client is called {hello.name!r}"
                refusal = Refusal("name_taken", text)
        if refusal is not None:
            self._refuse(link, hello, refusal)
            return refusal
        self._add(link, hello, identity, rivals or [])
        return None

    def _add(
        self,
        link: Link,
        hello: Hello,
        identity: Identity | None,
        rivals: list[Link],
    ) -> None:
        self.naming.displace(rivals, link)
        if self._speaks_compact(link, hello):
            self._welcome(link, hello)
        link.writer = self._engine.members.writer_for(link)
        link.info = self.describe(link, hello)
        if identity is not None:
            link.info._session.identity = identity
            if isinstance(identity.data, dict):
                link.info.data.update(identity.data)
        self._engine.registry.add(link)
        self.tally.enter(link)
        link.has_joined = link.is_member = True
        self._new.add(link)
        self._let_in(link)
        # Last: an interrupt in the middle of this write finds a member like any other.
        if link.connection.needs_attention:
            link.heed()

    @staticmethod
    def _let_in(link: Link) -> None:
        """What it said before it was checked counts from now on."""
        if link.connection.state is State.ASKED:
            link.inbox += link.connection.let_in(time.monotonic())

    def _welcome(self, link: Link, hello: Hello) -> None:
        session, reason = None, ""
        if self.sessions.wants(hello) and link.connection.is_open:
            session = self.sessions.open(hello, link)
            reason = session.reason
        link.connection.serve(
            *(hello.name, hello.group, time.monotonic()),
            session=session,
            reason=reason,
            beats=hello.beats,
        )
        link.begin_session(session)
        if session is not None:
            link.look_at = session.replay.next_look(self._engine.limits.outbox)
        link.wants_roster = False

    def _resume(
        self,
        newcomer: Link,
        hello: Hello,
        identity: Identity | None,
        link: Link,
        session: Session,
    ) -> Refusal | None:
        """Let a client go on with its session; why not, if not."""
        assert session.tokens is not None
        if not session.tokens.admits(hello.token):
            # It is to begin a session of its own.
            return Refusal("unauthorized", "this is not the token of that session", 0)
        is_other = _names_of(newcomer) != _names_of(link)  # of a certificate
        if is_other or (
            self.guard.is_set and _id_of(link.info.identity) != _id_of(identity)
        ):
            return Refusal("unauthorized", "that session belongs to somebody else")
        replay = session.replay
        goes_on = session.goes_on(hello)
        got = hello.got if goes_on else 0
        if not replay.acked <= got <= replay.last:
            text = f"frame {got} was not sent, or is forgotten"
            return Refusal("protocol", text)
        if not newcomer.connection.is_open:
            return Refusal("gone", "it left before it was let in")
        if newcomer.connection.early:
            # On a resume nothing is said before the welcome: this is an earlier link,
            # overtaken by the one on which its client came back.
            return Refusal("gone", "it was let in too late")
        if not link.is_dropped:
            link.lose_for("its client came back on another connection")
        session.tokens.offer(hello.token, hello.next)
        if self.guard.is_set:
            link.info._session.identity = identity
        requests = link.connection.requests
        self._engine.pump.move(newcomer, link)
        info, reason, link.cut_reason = link.info, link.cut_reason, ""
        reason = reason if goes_on else session.reason
        link.connection.serve(
            *(info["name"], info["group"], time.monotonic()),
            session=session,
            resumed=goes_on,
            reason=reason,
            requests=requests,
            beats=hello.beats,
        )
        link.writer = self._engine.members.writer_for(link)  # text mode or not
        replay.acknowledge(got)
        self.tally.resumed += goes_on
        self._engine.registry.move(link, link.address[:2])
        link.inbox.append(Resumed())
        self._let_in(link)
        link.connection.needs_attention = False
        link.go_on(link.connection.take_bytes())
        return None

    # --- the check -------------------------------------------------------------

    def require(self, check: Callable[..., Any]) -> None:
        """Have newcomers checked from now on.

        Raises:
            HandlerSignatureError: As ``Guard.set``.
        """
        self.guard.set(check)
        self._engine.lock.run(self._require)

    def _require(self) -> None:
        self._engine.pump.is_guarded = True
        for link in self._engine.pump.links:
            link.connection.is_guarded = True

    def _ask(self, link: Link) -> None:
        """Have a newcomer prove who it is; under the lock."""
        connection = link.connection
        if connection.state is State.OPEN:
            # It said hello just before there was a check: the next time it is asked.
            link.lose_for("it has to be checked first")
        if connection.state is not State.ASKED:
            return
        if link.inbox and isinstance(link.inbox[0], Opened):
            del link.inbox[0]
        link.inbox[:0] = connection.ask(time.monotonic())
        if connection.needs_attention:
            link.heed()
        self._engine.pump.touch(link)

    def _check(self, link: Link, presented: Presented) -> None:
        """Ask the program who this is."""
        _done_with(link.inbox, presented)
        credentials = self._engine.lock.run(self._begin_check, link, presented)
        if credentials is not None:
            self._checking.add(link)
            self.guard.ask(credentials, partial(self._judged, link, presented.hello))

    def _begin_check(self, link: Link, presented: Presented) -> Credentials | None:
        connection, hello = link.connection, presented.hello
        if connection.state is not State.ASKED:
            return None
        connection.judge(time.monotonic())
        self._engine.pump.touch(link)
        known = self.sessions.find(hello) if self.sessions.wants(hello) else None
        tokens = None if known is None else known[1].tokens
        return Credentials(
            token=presented.token,
            name=hello.name,
            group=hello.group,
            address=link.address[:2],
            certificate_names=_names_of(link),
            wire=self._wire_of(link, hello),
            resuming=tokens is not None and tokens.admits(hello.token),
        )

    def _judged(self, link: Link, hello: Hello, verdict: Verdict) -> None:
        """The check has come to its end; in a turn."""
        self._checking.discard(link)
        refusal = self._engine.lock.run(self._decide, link, hello, verdict)
        if refusal is not None:
            self._tell_refused(link, refusal)

    def _decide(self, link: Link, hello: Hello, verdict: Verdict) -> Refusal | None:
        if link.connection.state is not State.ASKED:
            return None  # it is gone, or was refused for being late
        if verdict is False:
            refusal = Refusal("unauthorized", "the server's check said no")
            self._refuse(link, hello, refusal)
            return refusal
        identity = verdict if isinstance(verdict, Identity) else None
        if identity is not None and identity.name is not None:
            hello = hello.named(identity.name)
        opened = Opened(hello)
        link.inbox.insert(0, opened)  # its turn as a member is still to come
        refused = self._enter(link, hello, identity, is_checked=True)
        if refused is not None:
            _done_with(link.inbox, opened)
        self._look_again(link)
        return refused

    def _look_again(self, link: Link) -> None:
        """Have whoever turns look at a link of which it does not know that."""
        self._engine.resume(link)
        if not self._engine.turn.is_mine:
            self._engine.wake()

    # --- ends ------------------------------------------------------------------

    def end_session(self, link: Link, code: str, text: str) -> None:
        """End a session whose link is cut; under the lock."""
        self.tally.lost_sessions += code != "closed"
        self._engine.pump.release(link)
        link.is_dropped = False
        if link.connection.session is not None:
            self.sessions.end(link.connection.session, code, accepted(link))
        if link.connection.requests is not None:
            link.connection.requests.fail_all(SessionLost(f"no answer came: {text}"))
        self._engine.members.remove(link)
        link.is_member = False
        link.inbox.append(Closed(text, is_cut=True))
        self._look_again(link)

    def _wire_of(self, link: Link, hello: Hello) -> str:
        if link.connection.is_packed:
            return "websocket"
        return "compact" if self._speaks_compact(link, hello) else "classic"

    def _speaks_compact(self, link: Link, hello: Hello) -> bool:
        is_served = link.connection.is_packed or "compact" in self._wires
        return bool(hello.proto and is_served)

    def _refusal(self, link: Link, hello: Hello) -> Refusal | None:
        """Why a client is not served, as far as its hello tells."""
        if self._engine.is_closing:
            return Refusal("closed", "the server is closing")
        ended = self.sessions.why_not(hello) if self.sessions.wants(hello) else ""
        if ended in _FINAL:
            return Refusal(ended, _FINAL[ended])
        if self._speaks_compact(link, hello):
            if hello.proto < PROTO:
                # No longer: a stranger hears little more than it said.
                text = (
                    f"this server speaks version {PROTO}, "
                    f"the client up to {hello.proto}"
                )
                return Refusal("version", text)
        elif "classic" not in self._wires:
            text = "this server does not speak the wire of hisock 1.1"
            return Refusal("version", text)
        elif self.guard.is_set and not self.takes_classic:
            text = (
                "this server checks its clients, and one of hisock 1.1 has no token; "
                'wires=("classic", "compact") on the server lets the check decide'
            )
            return Refusal("unauthorized", text)
        if 0 < self._capacity <= len(self._engine.registry):
            text = f"the server is full ({self._capacity} clients)"
            return Refusal("busy", text, _TRY_AGAIN)
        return None

    def _refuse(self, link: Link, hello: Hello, refusal: Refusal) -> None:
        code, text, retry_ms = refusal.code, refusal.text, refusal.retry_ms
        if code == "unauthorized":
            self._engine.pump.note_refusal(link)
        if self._speaks_compact(link, hello) and not link.connection.writes_compact:
            link.end(link.connection.refuse(refusal, time.monotonic()), discard=True)
            self._engine.settle(link)
        else:
            bye = Bye(_CODES.get(code, 0), text, retry_ms)
            self._engine.ending.say_goodbye(link, text, bye)

    def _leave(self, link: Link, closed: Closed) -> bool:
        is_late = link in self._checking and isinstance(closed.error, Unauthorized)
        if is_late and closed.error is not None:
            self._checking.discard(link)
            self.guard.failed(closed.error)
        if not link.has_joined:
            _log.debug("! %s: %s", link.where, closed.reason)
            return False
        self._engine.lock.run(self._let_out, link)
        _done_with(link.inbox, closed)
        # Behind a goodbye of ours nothing is left: it was the last to be written.
        if closed.is_cut or closed.error or link.connection.goodbye:
            self._report_undelivered(link)
        is_normal = not (closed.error or self._note_cut(link, closed.reason))
        # Whoever may join may cause this without end.
        is_news = not is_normal and self._repeats.due(Closed)
        say = _log.warning if is_news else _log.info
        say("left: %s: %s", dict(link.info), closed.reason)
        self.naming.has_left(link)
        if link in self._new:  # it was gone before anybody heard of it
            self._new.discard(link)
            return False
        try:
            return self._engine.run_event(link, "leave", link.info)
        finally:
            self._engine.members.tell_others(link, Left(dict(link.info)))

    def _note_cut(self, link: Link, reason: str) -> bool:
        """Whether a client was cut off as too slow; the dashboard is told so."""
        is_slow = reason.startswith("slow consumer")
        if is_slow and self._engine.watching is not None:
            self._engine.watching.cut(link, reason)
        return is_slow

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
        self._engine.pump.step(False)
        for link in list(self._engine.pump.ready):
            event = link.inbox[0] if link.inbox else None
            if isinstance(event, Opened):
                self._engine.lock.run(self._enter, link, event.hello)
            elif isinstance(event, Presented) and not self.guard.needs_turn:
                self._check(link, event)
        self.guard.work_off()

    def _let_out(self, link: Link) -> None:
        self.expel(link)
        self.tally.leave(link)

    def expel(self, link: Link, reason: str = "unknown") -> None:
        """Take a client out of the look-ups; under the lock.

        Args:
            reason: What its client is told if it comes back all the same.
        """
        if link.is_member:
            self._engine.members.remove(link)
            link.is_member = False
        session = link.connection.session
        if session is not None:
            self.sessions.end(session, reason, accepted(link))


def _describe(link: Link, hello: Hello) -> ClientInfo:
    info = ClientInfo(link.address[:2], hello.name, hello.group)
    info._member = link
    return info


def _names_of(link: Link) -> tuple[str, ...]:
    """Whom its certificate names; nobody without one."""
    return tuple(getattr(link.sock, "peer_names", ()))


def _id_of(identity: Identity | None) -> str | int | None:
    return None if identity is None else identity.id


def _done_with(inbox: list[Event], event: Event) -> None:
    """Take the first event out, unless that is done already."""
    if inbox and inbox[0] is event:
        del inbox[0]
