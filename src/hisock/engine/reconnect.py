"""Brings a client back to its server after a cut: when to try, and what then holds.

Never waits: whoever pumps calls ``work`` under the lock, and waits in between.
"""

from __future__ import annotations

__all__ = ("Reconnector", "Terms", "is_ready")

import errno
import os
import select
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from hisock.engine.dial import DEAD_AFTER, targets_of, tune
from hisock.engine.link import DONT_WAIT, Link
from hisock.engine.log import logger
from hisock.engine.proof import Persona, Proof
from hisock.errors import RemoteProtocolError, SessionLost
from hisock.session.connection import Connection, milliseconds
from hisock.session.events import Lost, Messages, Resumed
from hisock.session.reconnect import Backoff
from hisock.session.resume import ACK_SIZE, Session
from hisock.session.states import State
from hisock.wire.compact import encode
from hisock.wire.frames import (
    PROTO,
    Hello,
    PackedHello,
    Probe,
    Refusal,
    Value,
    Welcome,
)
from hisock.wire.greeting import fields_of

if TYPE_CHECKING:
    from hisock.engine.blocking import ClientEngine
    from hisock.engine.tls import ClientTls
    from hisock.engine.upgrade import ClientWeb

#: Seconds that one try may take until the connection stands.
_CONNECT: Final = 10.0
#: What a connect says that has only begun.
_BEGUN: Final = frozenset(
    (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN, 10035, 10036)
)
#: The shortest classic header that holds the length of a hello with ``proto``.
_ROOM_FOR_PROTO: Final = 4

_log = logger("hisock.client")


class Terms(Value, frozen=True, kw_only=True):
    """On what terms a client is connected, and comes back after a cut.

    Attributes:
        address: Where the user said the server is.
        targets: The socket families and addresses that it was found at.
        is_willing: Whether to come back at all.
        window: Seconds that the session shall last after a cut; 0 for no session.
        dead_after: Seconds of silence after which the server counts as gone.
        beats: Whether this client is read all the time.
        tls: Encrypts every connection; ``None`` for plain ones.
        proof: What proves who the client is.
    """

    address: Any
    targets: list[tuple[int, Any]]
    is_willing: bool
    window: float
    dead_after: float
    beats: bool
    tls: Any
    is_packed: bool
    proof: Any


class Reconnector:
    """What a client is to its server, over all links.

    Args:
        engine: The client's engine.
        terms: Of the connection.
        persona: Who the client is.

    Attributes:
        is_willing: As above; false once the program has closed the client.
        awaits: Whether a hello was said and not answered yet.
        trying: The socket of a try whose connection does not stand yet.
        persona, proof: As above.
    """

    __slots__ = (
        "_address",
        "_backoff",
        "_beats",
        "_dead_after",
        "_due",
        "_engine",
        "_following",
        "_give_up_at",
        "_is_packed",
        "_looks_up",
        "_next_target",
        "_reason",
        "_replaces",
        "_secure",
        "_session",
        "_targets",
        "_tls",
        "_token",
        "_was_welcome",
        "_window",
        "awaits",
        "is_willing",
        "persona",
        "proof",
        "trying",
    )

    def __init__(
        self,
        engine: ClientEngine,
        terms: Terms,
        persona: Persona,
    ) -> None:
        self._engine = engine
        self.persona = persona
        self.proof: Proof = terms.proof
        self._address = terms.address
        self._targets = terms.targets
        self._next_target = 0
        self._looks_up = False
        self.is_willing = terms.is_willing
        self._window = terms.window if terms.is_willing else 0.0
        self._dead_after = terms.dead_after
        self._beats = terms.beats
        self._tls: ClientTls | ClientWeb | None = terms.tls
        self._is_packed = terms.is_packed
        self._backoff = Backoff(_chance)
        self._due: float | None = None
        self._give_up_at = 0.0
        self.trying: socket.socket | None = None
        self._secure: Any = None
        self.awaits = False
        self._was_welcome = False
        self._reason = ""
        #: Whether the session took the place of one whose loss has not been told.
        self._replaces = False
        self._session: Session | None = None
        self._begin()

    def _begin(self) -> None:
        """Draw what proves that the next session is ours."""
        offers = self._is_packed or self._engine.header_len >= _ROOM_FOR_PROTO
        if offers and self._window:
            self._session = Session(os.urandom(16).hex(), self._window)
        self._token = os.urandom(32).hex()
        self._following = os.urandom(32).hex()

    def connection(self, now: float) -> Connection:
        """The conversation on a new socket."""
        engine = self._engine
        connection = Connection(
            engine.limits,
            now,
            header_len=engine.header_len,
            offers_compact=engine.header_len >= _ROOM_FOR_PROTO,
            session=self._session,
            dead_after=self._dead_after,
            is_packed=self._is_packed,
        )
        connection.token = self.proof.take()
        return connection

    def say_hello(self, link: Link, now: float) -> None:
        """Begin the conversation; under the lock."""
        self.awaits = True
        self._give_up_at = now + (self._dead_after or DEAD_AFTER)
        link.begin_session(self._session)
        link.look_at = ACK_SIZE
        if self._is_packed:
            fields = fields_of(self._hello(now))
            link.send_control(encode(PackedHello(fields)))
            return
        control = self._engine.classic_writer.control
        if self._engine.header_len < _ROOM_FOR_PROTO:
            self.awaits = False
            link.is_dropped = False
            who = Hello(self.persona.name, self.persona.group)
            link.send_control(control(who))
            return
        # Both in one write: a 1.1 server answers the second, ours the first.
        link.send_control(control(self._hello(now)) + control(Probe()))

    def _hello(self, now: float) -> Hello:
        self.persona.says_hello()
        who = (self.persona.name, self.persona.group, PROTO, milliseconds(now))
        session = self._session
        if session is None:
            return Hello(*who)
        return Hello(
            *who,
            sid=session.sid,
            token=self._token,
            next=self._following,
            got=session.tell(),
            epoch=session.epoch,
            window=self._window,
            beats=self._beats,
        )

    # --- what the server says --------------------------------------------------

    def answered(self, welcome: Welcome | None) -> bool:
        """The server has said which wire it speaks; without a welcome it is of 1.1.
        Whether the link was cut before, and is whole again."""
        self.awaits = False
        self._backoff.reset()
        self._due = None
        link = self._engine.link
        if welcome is not None:
            self._token = self._following
            self._following = os.urandom(32).hex()
        was_dropped = link.is_dropped
        if not was_dropped:
            self._agree(link, welcome)
        elif (
            welcome is not None
            and welcome.resumed
            and self._session is not None
            and not self._replaces
        ):
            self._resume(link, self._session, welcome)
        else:
            self._start_over(link, welcome)
        self._was_welcome = True
        return was_dropped and link.connection.is_open

    def _agree(self, link: Link, welcome: Welcome | None) -> None:
        """The first answer of all, or of a new session."""
        if welcome is not None:
            self.persona.is_welcome(welcome)
        if welcome is None or not welcome.sid:
            self._session = link.connection.session = None
            link.begin_session(None)
        elif self._session is not None:
            replay = self._session.replay
            if welcome.got <= replay.last:  # what was said before the welcome
                replay.acknowledge(welcome.got)
            self._session.epoch = welcome.epoch
            self._session.window = welcome.window

    def _resume(self, link: Link, session: Session, welcome: Welcome) -> None:
        replay = session.replay
        if not replay.acked <= welcome.got <= replay.last:
            text = "the server resumed at a frame that was not sent"
            self._engine.end(text, RemoteProtocolError(text))
            return
        replay.acknowledge(welcome.got)
        session.epoch = welcome.epoch
        because = f" (it had cut us: {welcome.reason})" if welcome.reason else ""
        _log.info("%s is back%s", self._engine.title, because)
        _put_first(link, Resumed())

    def _start_over(self, link: Link, welcome: Welcome | None) -> None:
        """The server does not know the session any more: say what that costs."""
        session, connection = self._session, link.connection
        if not self._was_welcome and session is not None and not session.replay.last:
            _put_first(link, Resumed())  # nothing was ever sent, so nothing is lost
            self._agree(link, welcome)
            return
        reason = "classic" if welcome is None else welcome.reason or "unknown"
        missed = None if welcome is None else welcome.missed
        error = self._loss(link, self._reason or reason, missed)
        self.persona.begins_anew()
        self._reason = ""
        self._replaces = False
        link.outbox.clear()
        if connection.requests is not None:
            connection.requests.fail_all(error)
            connection.new_requests()
        if session is not None:
            session.replay.clear()
        self._agree(link, welcome)
        _put_first(link, Lost(error))
        self._engine.telling.loss_comes()
        self._engine.uplink.forget_wire()

    def _loss(self, link: Link, reason: str, missed: int | None) -> SessionLost:
        from hisock.engine.undelivered import undelivered  # only at an end

        unacked = undelivered(link)
        text = (
            f"{self._engine.title} begins anew: its session is lost ({reason}), "
            f"{len(unacked)} messages may not have arrived"
        )
        return SessionLost(text, reason, unacked, missed)

    def refused(self, refusal: Refusal) -> bool:
        """The server does not let us in; whether another try makes sense."""
        if not (self.is_willing and self._was_welcome):
            return False
        if refusal.retry_ms is None:
            return False
        if refusal.code == "unauthorized" and self._session is not None:
            self._reason = self._reason or "unauthorized"
            old = self._session
            self._begin()
            # What was sent is reported with the next welcome, whatever that says.
            self._session.replay = old.replay
            self._replaces = True
        self.come_back(refusal.retry_ms)
        return True

    def come_back(self, retry_ms: int) -> None:
        """Try again, but not sooner than the server asks for."""
        self._due = self._engine.now() + self._backoff.after(retry_ms / 1000)

    # --- trying ----------------------------------------------------------------

    def work(self, now: float) -> None:
        """Take the next step, if one is due; under the lock."""
        link = self._engine.link
        if not link.is_dropped:
            return
        if self.trying is not None:
            self._look(link, self.trying, now)
        elif link.connection.state is not State.CLOSED:
            if now >= self._give_up_at:
                link.lose_for("the server did not answer the hello")
        elif self.is_willing:
            self._wait_or_try(link, now)

    def _wait_or_try(self, link: Link, now: float) -> None:
        if self._due is None:
            goodbye = link.connection.goodbye
            if goodbye is not None and goodbye.retry_ms is not None:
                self.come_back(goodbye.retry_ms)
            else:
                self._due = now + self._backoff.next()
        if self._due is not None and now >= self._due:
            has_proof = self.proof.prepare(self._engine)
            if has_proof is None:
                return
            self._due = None
            if has_proof:
                self._try(link, now)

    def _try(self, link: Link, now: float) -> None:
        family, address = self._targets[self._next_target % len(self._targets)]
        self._next_target += 1
        if self._next_target % len(self._targets) == 0:
            self._look_up()
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            result = sock.connect_ex(address)
        except OSError as error:
            result = error.errno or errno.EINVAL
        if result == 0 and self._tls is None:
            self._stand(link, sock, now)
        elif result == 0:
            self.trying, self._give_up_at = sock, now + _CONNECT
            self._begin_shaking(link, sock, now)
        elif result in _BEGUN and family != getattr(socket, "AF_UNIX", None):
            self.trying = sock
            self._give_up_at = now + _CONNECT
        else:
            sock.close()

    def _look_up(self) -> None:
        """Ask what the server's name stands for by now; in a thread, as it may take."""
        where = self._address
        if isinstance(where, str) or self._targets[0][1][0] == where[0]:
            return  # a path, or an address that needs no look-up
        if not self._looks_up:
            self._looks_up = True
            self._engine.workers.submit(partial(targets_of, where), self._looked_up)

    def _looked_up(self, targets: Any, error: BaseException | None) -> None:
        self._looks_up = False
        if error is None and targets:
            self._targets = targets

    def _look(self, link: Link, sock: socket.socket, now: float) -> None:
        """See what became of a try."""
        if not (self.secures or is_ready(sock, 0.0)):
            if now >= self._give_up_at:
                self._drop_try()
            return
        if self.secures:
            self._shake(link, sock, now)
        elif sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._drop_try()
        elif self._tls is not None:
            self._begin_shaking(link, sock, now)
        else:
            self.trying = None
            self._stand(link, sock, now)

    @property
    def secures(self) -> bool:
        """Whether a handshake of TLS is under way: something to read is waited for."""
        return self._secure is not None

    def _begin_shaking(self, link: Link, sock: socket.socket, now: float) -> None:
        assert self._tls is not None
        tune(sock, dead_after=self._dead_after)
        self._secure = self._tls.wrap(sock, self._address)
        self._shake(link, sock, now)

    def _shake(self, link: Link, sock: socket.socket, now: float) -> None:
        """Go on with the handshake of TLS, as far as it goes without waiting."""
        secure = self._secure
        assert secure is not None
        try:
            is_done = secure.advance() and secure.flush()
        except OSError as broken:
            self._drop_try()
            error = getattr(broken, "error", None)
            if error is not None:  # the server is another: not to be trusted
                self._engine.end(str(broken), error)
            return
        if is_done:
            self.trying = self._secure = None
            self._stand(link, secure, now)
        elif now >= self._give_up_at:
            self._drop_try()

    def _drop_try(self) -> None:
        if self.trying is not None:
            self.trying.close()
            self.trying = self._secure = None

    def _stand(self, link: Link, sock: Any, now: float) -> None:
        """The connection stands: say who we are, and wait for the answer."""
        try:
            if isinstance(sock, socket.socket):
                tune(sock, dead_after=self._dead_after)
            sock.setblocking(self._engine.link_waits and bool(DONT_WAIT))
        except OSError:  # reset already
            sock.close()
            return
        if self._session is None:  # the last server knew none; this one may
            self._begin()
        requests = link.connection.requests
        link.sock.close()
        link.sock, link.fd = sock, sock.fileno()
        link.secure = None if isinstance(sock, socket.socket) else sock
        link.connection = self.connection(now)
        link.connection.requests = requests
        self._engine.moved()
        self.say_hello(link, now)

    def patience(self, now: float) -> float | None:
        """Seconds until ``work`` has something to do; ``None`` for nothing."""
        link = self._engine.link
        if not link.is_dropped:
            return None
        if self.trying is not None or link.connection.state is not State.CLOSED:
            return max(0.0, self._give_up_at - now)
        if self._due is None:
            return 0.0 if self.is_willing else None
        if self.proof.is_asked:
            return None  # it wakes us
        return max(0.0, self._due - now)

    def stop(self) -> None:
        """Come back no more."""
        self.is_willing = False
        self._drop_try()


def _put_first(link: Link, event: Resumed | Lost) -> None:
    """Tell it before the messages that the same read brought, behind all of before."""
    at = len(link.inbox)
    while at and isinstance(link.inbox[at - 1], Messages):
        at -= 1
    link.inbox.insert(at, event)


def _chance() -> float:
    """A number from 0 up to 1; the module ``random`` takes 5 ms to import."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


def is_ready(sock: socket.socket, timeout: float, *, reading: bool = False) -> bool:
    """Whether a connect has come to something; waits at most ``timeout`` seconds."""
    make: Callable[[], Any] | None = getattr(select, "poll", None)
    if make is None:
        # Windows tells a failed connect in the third list.
        readers = [sock] if reading else []
        writers = [] if reading else [sock]
        return any(select.select(readers, writers, [sock], timeout))
    poller = make()
    poller.register(sock, select.POLLIN if reading else select.POLLOUT)
    return bool(poller.poll(timeout * 1000))
