"""The server's engine: who is here, what runs, what leaves; one turn at a time.

Owns hub, handlers and pump. Every public method may be called from any thread.
"""

from __future__ import annotations

__all__ = ("ServerEngine",)

import logging
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterable
from typing import Any, Literal

from hisock.engine.calls import Runner, explain_conversion
from hisock.engine.link import Link
from hisock.engine.listen import Pump
from hisock.engine.post import Post
from hisock.engine.repeats import Repeats
from hisock.engine.threads import StateLock, Turn, say_goodbye_at_exit
from hisock.engine.waiting import wait_for_room
from hisock.errors import (
    AlreadyRunning,
    ConversionError,
    InvalidName,
    RemoteProtocolError,
    SendTimeout,
    ServerClosed,
)
from hisock.handlers.dispatch import unknown_command
from hisock.handlers.table import HandlerEntry, HandlerTable
from hisock.hub.outbox import STALL
from hisock.hub.registry import Registry
from hisock.hub.targets import find, find_group, search
from hisock.session.connection import LINGER, Closed, Event, Messages, Opened
from hisock.types import ClientInfo, Limits
from hisock.wire.classic import (
    HEADER_LENS,
    check_size,
    encode_frame,
    header,
    largest_body,
)
from hisock.wire.frames import (
    Bye,
    ClientAnswer,
    Frame,
    GetClient,
    Hello,
    Joined,
    Left,
    NoTLS,
    Probe,
    Regroup,
    Rename,
)
from hisock.wire.payload import check_name

_log = logging.getLogger("hisock.server")


class ServerEngine:
    """Everything of a server that is not its face.

    Args:
        listener: A listening socket; the engine closes it.
        name: What the server is called in texts.
        limits: How much a peer may ask for.
        max_connections: Clients served at once; 0 for ``limits.connections``.
        errors: ``"log"`` keeps a handler's exception, ``"raise"`` lets it out of
            ``run``.
        roster: Whether clients are told of each other.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        name: str,
        limits: Limits,
        max_connections: int,
        errors: Literal["log", "raise"],
        roster: bool,
    ) -> None:
        self.table = HandlerTable(on_server=True)
        self.registry: Registry[Link] = Registry()
        self.limits = limits
        self.pid = os.getpid()
        self.turn = Turn("run")
        self._lock = StateLock()
        self._pump = Pump(listener, limits, self._lock)
        self._outgoing = Post(self._lock, self.turn, self._pump.ready, self._settle)
        self._runner = Runner(self.table, self, self._outgoing, by_client=True)
        self._name = name
        self._capacity = max_connections or limits.connections
        self._raises = errors == "raise"
        self._roster = roster
        self._closing = False
        self._give_up = 0.0
        self._finished = threading.Event()
        #: Whether the end is complete.
        self.is_closed = False
        self._repeats = Repeats()
        say_goodbye_at_exit(self)

    # --- turning ---------------------------------------------------------------

    def run(self, *, wait: bool, timeout: float | None = None) -> bool:
        """One turn: read, run handlers, write.

        Args:
            wait: Whether to wait until a handler ran.
            timeout: Seconds to wait at most.

        Returns:
            Whether the server is still open.

        Raises:
            AlreadyRunning: Called inside a handler, or in two threads at once.
        """
        if self.is_closed:
            return False
        try:
            self.turn.run(self._turn, wait, timeout)
        except AlreadyRunning:
            if self._closing and not self.turn.is_mine:
                return False  # close(), in another thread, turns it a last time
            raise
        return not self.is_closed

    def _turn(self, wait: bool, timeout: float | None) -> None:
        if self.is_closed:
            return  # while this thread was on its way to the turn
        end = None if timeout is None else time.monotonic() + timeout
        try:
            self._pump.step(wait=wait, timeout=timeout)
            while not self._dispatch() and wait and not self._closing:
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._pump.step(wait=True, timeout=left)
        finally:
            if self._outgoing.unsent:
                self._outgoing.flush()
        if self._closing:
            self._finish()

    def _dispatch(self) -> bool:
        """Run everything that was read; whether a handler ran."""
        ready = self._pump.ready
        ran = False
        while ready:
            link = ready[0]
            inbox = link.inbox
            while inbox:
                # It stays in the inbox until it is done with, so that no exception on
                # the way loses it: what was not run yet is run in the next turn.
                event = inbox[0]
                if not isinstance(event, Messages):
                    if self._happened(link, event):
                        ran = True
                # Who was refused is not heard, whatever else it had to say.
                elif link.has_joined:
                    self._outgoing.current = event
                    if len(event.bodies) > 1 or len(ready) > 1:
                        self._outgoing.note_time()
                    try:
                        if self._runner.run_messages(link, event, link.info):
                            ran = True
                    finally:
                        self._outgoing.current = None
                if inbox and inbox[0] is event:
                    del inbox[0]
            link.is_ready = False
            ready.popleft()
            if inbox and not link.is_ready:  # another thread ended it just now
                link.is_ready = True
                ready.append(link)
        if self._outgoing.unsent:
            self._outgoing.flush()
        return ran

    def _happened(self, link: Link, event: Opened | Closed) -> bool:
        if isinstance(event, Opened):
            return self._join(link, event)
        return self._leave(link, event)

    def _join(self, link: Link, opened: Opened) -> bool:
        refusal = self._lock.run(self._enter, link, opened.hello)
        _done_with(link.inbox, opened)  # a handler that raises is not run again
        if refusal:
            _log.warning("refused %s: %s", _where(link.address), refusal)
            return False
        info = link.info
        _log.info("joined: %s", dict(info))
        try:
            return self._runner.run_event(link, "join", info)
        finally:
            self._tell_others(link, Joined(dict(info)))

    def _enter(self, link: Link, hello: Hello) -> str:
        """Add a client to the registry; why not, if not."""
        if link.is_member:
            return ""
        text = ""
        if self._closing:
            text = "the server is closing"
        elif 0 < self._capacity <= len(self.registry):
            text = f"the server is full ({self._capacity} clients)"
        if text:
            self._say_goodbye(link, text)
            return text
        link.info = ClientInfo(link.address[:2], hello.name, hello.group)
        link.info._member = link
        link.largest = largest_body(link.connection.header_len, self.limits.message)
        self.registry.add(link)
        link.has_joined = link.is_member = True
        return ""

    def _leave(self, link: Link, closed: Closed) -> bool:
        if not link.has_joined:
            _log.debug("! %s: %s", _where(link.address), closed.reason)
            return False
        self._lock.run(self._expel, link)
        _done_with(link.inbox, closed)
        is_normal = not (closed.error or closed.reason.startswith("slow consumer"))
        level = logging.INFO if is_normal else logging.WARNING
        _log.log(level, "left: %s: %s", dict(link.info), closed.reason)
        try:
            return self._runner.run_event(link, "leave", link.info)
        finally:
            self._tell_others(link, Left(dict(link.info)))

    def _expel(self, link: Link) -> None:
        if link.is_member:
            self.registry.remove(link)
            link.is_member = False

    def _tell_others(self, link: Link, frame: Joined | Left) -> None:
        if self._roster and len(self.registry):
            others = [other for other in self.everybody() if other is not link]
            self._send_many(others, encode_frame(frame))

    # --- what the runner asks --------------------------------------------------

    def control(self, link: Link, frame: Frame) -> bool:
        """Act on a frame that is not a message; whether a handler ran."""
        match frame:
            case Rename(name):
                return self._change(link, "name", name)
            case Regroup(group):
                return self._change(link, "group", group)
            case Bye():
                self._lock.run(self._hang_up, link)
            case Probe():
                self._reply(link, NoTLS())
            case GetClient(who):
                self._reply(link, self._answer(who))
            case _:
                pass  # only a server says these
        return False

    def _change(self, link: Link, key: str, new: str | None) -> bool:
        try:
            check_name(new, self.limits.name)
        except InvalidName as error:
            self.broken(link, RemoteProtocolError(str(error)))
            return False
        changed, old = self._lock.run(self._enter_change, link, key, new)
        if not changed:
            return False
        return self._runner.run_event(link, f"{key}_change", link.info, old, new)

    def _enter_change(
        self, link: Link, key: str, new: str | None
    ) -> tuple[bool, str | None]:
        if not link.is_member:
            return False, None
        old: str | None = link.info[key]
        change = self.registry.rename if key == "name" else self.registry.regroup
        change(link, new)
        return True, old

    def _answer(self, who: str) -> ClientAnswer:
        if not self._roster:
            return ClientAnswer(None, "this server does not tell (roster=False)")
        try:
            with self._lock.reading:
                member, _ = search(self.registry, who)
                info = None if member is None else dict(member.info)
        except ValueError as error:
            return ClientAnswer(None, str(error))
        return ClientAnswer(info, "$NOEXIST$")

    def _reply(self, link: Link, frame: Frame) -> None:
        body = encode_frame(frame)
        if len(body) > link.largest:
            # Better a short answer than none: the client waits for it.
            body = encode_frame(ClientAnswer(None, "too long for your header_len"))
        head = header(len(body), link.connection.header_len)
        self._lock.run(self._outgoing.write, link, head + body)

    def unclaimed(self, link: Link, body: bytes) -> bool:
        """Log once what no handler took; ``message`` may still see it."""
        if self.table.event("message") is None:
            word = body[:64].partition(b" ")[0]
            if count := self._repeats.due(word):
                text = unknown_command(self.table, body)
                _log.warning("%s: %s (%d)", self._name, text, count)
        return False

    def seen(self, link: Link, body: bytes) -> bool:
        """Give every message to the ``message`` handler, after its own."""
        # A handler that ended the client also ended what the client gets to say.
        if not link.is_member:
            return False
        return self._runner.run_event(link, "message", link.info, body)

    def failed(self, link: Link, entry: HandlerEntry, error: Exception) -> None:
        """Log what a handler raised; it costs nobody else anything."""
        error = explain_conversion(entry, error)
        if self._raises:
            raise error
        who = dict(link.info)
        if isinstance(error, ConversionError):
            if count := self._repeats.due(entry.command):
                _log.warning("a message of %s was refused (%d): %s", who, count, error)
            return
        where = entry.signature.where
        _log.error("handler %s failed for %s", where, who, exc_info=error)

    def broken(self, link: Link, error: RemoteProtocolError) -> None:
        """End a client that sent a reserved message that is none."""
        self._lock.run(self._end_link, link, str(error))

    # --- sending ---------------------------------------------------------------

    def send_to(self, who: Any, body: bytes) -> None:
        """Send to one client; outside a turn this waits while its outbox is full.

        Raises:
            InvalidClient, UnknownClient: As ``hub.targets.find``.
            MessageTooLarge: The message is over a limit.
            SendTimeout: The client took nothing for 10 s.
            ServerClosed: The server is.
        """
        link = who._member if type(who) is ClientInfo else None
        if link is None or link not in self.registry.members:
            self._check(body, HEADER_LENS[-1])
            link = self.look_up(who, stacklevel=4)
        if len(body) > link.largest:
            self._check(body, link.connection.header_len)
        if link.outbox.size and link.outbox.is_full and not self.turn.is_mine:
            self._wait_for_room(link)
        head = header(len(body), link.connection.header_len)
        self._outgoing.send(link, head + body)

    def send_group(self, group: str, body: bytes) -> None:
        """Send to everybody in a group.

        Raises:
            UnknownGroup: Nobody is in it.
            MessageTooLarge: The message is over a limit.
            ServerClosed: The server is.
        """
        self._check(body, HEADER_LENS[-1])
        with self._lock.reading:
            members = find_group(self.registry, group)
        self._send_many(members, body)

    def send_all(self, body: bytes) -> None:
        """Send to everybody.

        Raises:
            MessageTooLarge: The message is over a limit.
            ServerClosed: The server is.
        """
        self._check(body, HEADER_LENS[-1])
        with self._lock.reading:
            members = list(self.registry)
        self._send_many(members, body)

    def _send_many(self, members: Iterable[Link], body: bytes) -> None:
        """Write to some clients; those whose header is too short for it are logged."""
        for link in self._lock.run(self._post, members, body) or ():
            if count := self._repeats.due("header_len"):
                text = "%d bytes are too many for the header_len of %s (%d)"
                _log.error(text, len(body), dict(link.info), count)

    def _check(self, body: bytes, header_len: int) -> None:
        if self.is_closed:
            raise ServerClosed(f"{self._name} is closed")
        check_size(len(body), self.limits.message, header_len)

    def _wait_for_room(self, link: Link) -> None:
        end = time.monotonic() + STALL
        while link.outbox.is_full and link.is_open:
            before = link.outbox.size
            wait_for_room(link.sock, 0.1)
            self._lock.run(self._push, link)
            now = time.monotonic()
            if link.outbox.size < before:
                end = now + STALL
            elif now >= end:
                raise SendTimeout(
                    f"{dict(link.info)} took nothing for {STALL:g} s while "
                    f"{link.outbox.size} bytes were waiting for it"
                )

    def _push(self, link: Link) -> None:
        link.flush()
        self._settle(link)

    def _post(self, links: Iterable[Link], body: bytes) -> list[Link]:
        """Write to some clients, encoded once for each header length.

        Returns:
            Those whose header cannot hold the length.
        """
        frames: dict[int, bytes] = {}
        short: list[Link] = []
        for link in links:
            header_len = link.connection.header_len
            frame = frames.get(header_len)
            if frame is None:
                if len(body) > largest_body(header_len):
                    short.append(link)
                    continue
                frame = frames[header_len] = header(len(body), header_len) + body
            self._outgoing.write(link, frame)
        return short

    def _settle(self, link: Link) -> None:
        """See to a link that is behind or ended; the turning thread does the rest."""
        self._pump.check_slow(link, time.monotonic())
        link.settle()
        if link.wants_writing or link.inbox or not link.is_open:
            self._pump.touch(link)
            if self.turn.claims:  # on this very thread: a signal handler, in its wait
                self._pump.wake()

    def look_up(self, who: Any, stacklevel: int = 3) -> Link:
        """The link of a client, with a warning if others have its name too.

        Raises:
            InvalidClient, UnknownClient: As ``hub.targets.find``.
        """
        with self._lock.reading:
            link, warning = find(self.registry, who)
        if warning:
            warnings.warn(warning, UserWarning, stacklevel=stacklevel)
        return link

    def group(self, group: str) -> list[Link]:
        """Everybody in a group.

        Raises:
            UnknownGroup: Nobody is.
        """
        with self._lock.reading:
            return find_group(self.registry, group)

    def everybody(self) -> list[Link]:
        """Everybody, the oldest first."""
        with self._lock.reading:
            return list(self.registry)

    # --- ending ----------------------------------------------------------------

    def disconnect(self, links: Iterable[Link], reason: str) -> None:
        """End some clients: they leave the look-ups now, ``leave`` runs in a turn."""
        self._lock.run(self._end_links, list(links), reason)

    def _end_links(self, links: list[Link], reason: str) -> None:
        for link in links:
            self._end_link(link, reason)

    def _hang_up(self, link: Link) -> None:
        """End a client that said goodbye; like 1.1 with nothing but the end."""
        self._expel(link)
        events = link.connection.feed_eof(time.monotonic(), "the client said goodbye")
        link.end(events, discard=True)
        self._settle(link)

    def _end_link(self, link: Link, reason: str) -> None:
        """End a client that nobody finds from now on."""
        self._expel(link)
        self._say_goodbye(link, reason)

    def _say_goodbye(self, link: Link, reason: str) -> None:
        link.end(link.connection.close(reason, time.monotonic()), discard=True)
        self._settle(link)

    def close(self, reason: str = "the server closed", linger: float = LINGER) -> None:
        """End every client and the server; in at most ``linger`` seconds and a bit."""
        if self.is_closed:
            return
        if self.pid != os.getpid():
            self._lock.run(self._let_go)
            return
        self._lock.run(self._begin_close, reason, linger)
        if self.turn.is_mine:
            self._pump.wake()  # from a signal handler, in its wait
            return  # the turn around this handler finishes it
        end = time.monotonic() + linger + 1.0
        while not self.turn.try_run(self._finish):
            self._pump.wake()
            if self._finished.wait(0.1):
                return
            if time.monotonic() >= end:
                text = "%s closes when the handler in another thread returns"
                _log.warning(text, self._name)
                return

    def _begin_close(self, reason: str, linger: float) -> None:
        if self._closing:
            return
        self._closing = True
        self._give_up = time.monotonic() + linger
        # Each leaves the look-ups in its turn: a ``leave`` handler that tells the
        # others finds them, though they hear no more.
        for link in list(self._pump.links):
            self._say_goodbye(link, reason)

    def _finish(self) -> None:
        """Say goodbye to all, wait until they have heard it, let go of everything."""
        if self.is_closed:
            return
        self._pump.stop_accepting()
        self._dispatch_ends()
        while self._pump.links and (left := self._give_up - time.monotonic()) > 0:
            self._pump.step(wait=True, timeout=left)
            self._dispatch_ends()
        self._pump.close()
        self.is_closed = True
        self._finished.set()
        _log.info("closed: %s", self._name)

    def _dispatch_ends(self) -> None:
        while True:
            try:
                self._dispatch()
            except Exception:
                # With errors="raise" a failing leave handler must not keep the port.
                _log.exception("a handler failed while the server closed")
            else:
                return

    def abandon(self) -> None:
        """Say goodbye without waiting: the interpreter or the object ends."""
        if self.is_closed or self.pid != os.getpid():
            return
        self._lock.run(self._abandon)

    def _abandon(self) -> None:
        self._begin_close("the server's program ended", 0.0)
        self.turn.try_run(self._let_go)

    def _let_go(self) -> None:
        self.is_closed = True
        self._finished.set()
        # After a fork the connections, and what watches them, are still the parent's.
        self._pump.close(shared=self.pid != os.getpid())


def _done_with(inbox: list[Event], event: Event) -> None:
    """Take the first event out, unless that is done already."""
    if inbox and inbox[0] is event:
        del inbox[0]


def _where(address: Any) -> str:
    return f"{address[0]}:{address[1]}"
