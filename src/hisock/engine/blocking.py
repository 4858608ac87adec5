"""The client's engine: one link, turned by whoever calls, without asyncio.

Every public method may be called from any thread.
"""

from __future__ import annotations

__all__ = ("ClientEngine",)

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from hisock.engine.batch import Batches
from hisock.engine.calls import Runner, explain_conversion
from hisock.engine.inbox import Inbox
from hisock.engine.link import DONT_WAIT, Link
from hisock.engine.post import Post
from hisock.engine.repeats import Repeats
from hisock.engine.sharing import SharedPump
from hisock.engine.threads import StateLock, Turn, say_goodbye_at_exit
from hisock.engine.waiting import wait_for_room
from hisock.errors import (
    ClientDisconnected,
    Overloaded,
    RemoteProtocolError,
    RequestTimeout,
    SendTimeout,
    WouldBlock,
)
from hisock.handlers.dispatch import NoHandler, resolve, unknown_command
from hisock.handlers.table import HandlerEntry, HandlerTable
from hisock.hub.outbox import STALL, Outbox
from hisock.session.connection import LINGER, Closed, Connection, Messages
from hisock.types import Address, ClientInfo, Limits
from hisock.wire.classic import check_size, decode_answer, encode_frame, header
from hisock.wire.frames import Bye, ClientAnswer, Frame, Hello, Joined, Left

#: Lengths whose header is kept ready.
_HEADERS_KEPT: Final = 4096

_ENDED: Final = "the server ended the connection"

_log = logging.getLogger("hisock.client")


class ClientEngine:
    """Everything of a client that is not its face.

    Args:
        sock: A socket connected to the server; the engine closes it.
        hello: Who this client is.
        name: What the client is called in texts.
        limits: How much the server may ask for.
        header_len: Bytes of every header.
        cache_size: Messages to remember; 0 or less for none.
        waits: Whether a send may wait while the outbox is full.
        logs_errors: Whether a handler's exception is logged, for want of a caller.
    """

    def __init__(
        self,
        sock: socket.socket,
        hello: Hello,
        *,
        name: str,
        limits: Limits,
        header_len: int,
        cache_size: int,
        waits: bool,
        logs_errors: bool,
    ) -> None:
        self.table = HandlerTable(on_server=False)
        self.limits = limits
        self.pid = os.getpid()
        self.turn = Turn("update")
        self.cache: deque[dict[str, bytes]] = deque(maxlen=max(0, cache_size))
        self._lock = StateLock()
        self._name = name
        self._header_len = header_len
        self._headers: dict[int, bytes] = {}
        self._waits = waits
        self._logs_errors = logs_errors
        connection = Connection(limits, time.monotonic(), header_len=header_len)
        self.own_address: Address = sock.getsockname()[:2]
        self._link = Link(sock, connection, Outbox(limits.outbox), None)
        self._pump = SharedPump(self._link, self._lock)
        self._outgoing = Post(self._lock, self.turn, (), lambda link: None)
        self._runner = Runner(self.table, self, self._outgoing, by_client=False)
        self.batches = Batches(self._write)
        self._open_batches = self.batches.open
        self._unclaimed = Inbox(limits)
        self._dropped = Repeats()
        self._asking = threading.Lock()
        self._answers_due = 0
        self._heard_goodbye = False
        self._over: Closed | None = None
        #: Whether messages can be sent, as far as is known.
        self.is_usable = True
        self._closed = False
        if cache_size > 0:
            self.table.tap()
        say_goodbye_at_exit(self)
        self.send_frame(hello)

    # --- turning ---------------------------------------------------------------

    def run(self, *, wait: bool, timeout: float | None = None) -> bool:
        """One turn: read, run handlers, write.

        Args:
            wait: Whether to wait until a handler ran.
            timeout: Seconds to wait at most.

        Returns:
            Whether more may come.

        Raises:
            AlreadyRunning: Called inside a handler, or in two threads at once.
            ClientDisconnected: The server ended the connection earlier, or just now
                and no handler was told.
        """
        if self._closed:
            return False
        self._check_over()
        self.turn.run(self._turn, wait, timeout)
        return not self._closed

    def _turn(self, wait: bool, timeout: float | None) -> None:
        end = None if timeout is None else time.monotonic() + timeout
        if self._open_batches:
            self.batches.flush()
        try:
            if self._link.outbox.size:
                self._lock.run(self._link.flush)
            seen = self._pump.news
            if not wait:
                self._pump.pump(0.0, seen)
            while not self._dispatch() and not self._closed:
                self._check_over()
                left = None if end is None else end - time.monotonic()
                if not wait or (left is not None and left <= 0):
                    break
                self._pump.pump(left, seen)
                seen = self._pump.news
        finally:
            self._outgoing.current = None
            self._flush_unsent()
            self._pump.announce()

    def _check_over(self) -> None:
        over = self._over
        if over is not None:
            text = f"{self._name} is disconnected: {over.reason}"
            raise ClientDisconnected(text) from over.error

    def _dispatch(self) -> bool:
        """Run everything that was read; whether a handler ran."""
        ran = False
        link = self._link
        while link.inbox and not self._closed:
            event = self._lock.run(self._begin)
            if isinstance(event, Messages):
                if self._runner.run_messages(link, event, None):
                    ran = True
            elif isinstance(event, Closed):
                self._over = closed = event
                self._lock.run(self._done_with, event)
                ran = self._ended(closed) or ran
            self._lock.run(self._done_with, event)
        self._flush_unsent()
        return ran

    def _begin(self) -> Any:
        """The next event; it stays in the inbox until it is done with, so that no
        exception on the way loses it."""
        inbox = self._link.inbox
        if inbox and isinstance(inbox[0], Messages):
            self._outgoing.current = inbox[0]
            self._outgoing.note_time()
        return inbox[0] if inbox else None

    def _done_with(self, event: Any) -> None:
        self._outgoing.current = None
        inbox = self._link.inbox
        if inbox and inbox[0] is event:
            del inbox[0]

    def _ended(self, closed: Closed) -> bool:
        """The server ended the connection; whether a handler was told."""
        self.is_usable = False
        self._pump.announce()
        _log.info("%s is disconnected: %s", self._name, closed.reason)
        self._lock.run(self._link.settle)
        self._pump.drop()
        return self._runner.run_event(self._link, "force_disconnect")

    # --- what the runner asks --------------------------------------------------

    def control(self, link: Link, frame: Frame) -> bool:
        """Act on a frame that is not a message; whether a handler ran."""
        match frame:
            case Bye():
                self._lock.run(self._end, _ENDED)
            case Joined(info):
                return self._runner.run_event(
                    self._link, "client_connect", _as_client(info)
                )
            case Left(info):
                return self._runner.run_event(
                    self._link, "client_disconnect", _as_client(info)
                )
            case _:
                pass  # only a client says these, or nobody asked
        return False

    def _end(self, reason: str, error: RemoteProtocolError | None = None) -> None:
        events = self._link.connection.close(reason, time.monotonic())
        if events and error is not None:
            events = [Closed(reason, error)]
        self._link.end(events, discard=True)
        self._link.settle()

    def unclaimed(self, link: Link, body: bytes) -> bool:
        """Keep a message without a handler for ``recv_raw``."""
        for lost in self._lock.run(self._unclaimed.add, body) or ():
            if count := self._dropped.due("dropped"):
                text = unknown_command(self.table, lost)
                _log.warning("dropped what nobody received (%d): %s", count, text)
        self._pump.announce()
        return False

    def seen(self, link: Link, body: bytes) -> bool:
        """Remember a message in the cache."""
        if self.cache.maxlen:
            head = header(len(body), self._header_len)
            self.cache.append({"header": head, "content": body})
        return False

    def failed(self, link: Link, entry: HandlerEntry, error: Exception) -> None:
        """Let a handler's exception out of ``update``; log it where there is none."""
        error = explain_conversion(entry, error)
        if not self._logs_errors:
            raise error
        _log.error("handler %s failed", entry.signature.where, exc_info=error)

    def broken(self, link: Link, error: RemoteProtocolError) -> None:
        """End a connection on which a reserved message was none."""
        self._lock.run(self._end, str(error), error)

    # --- sending ---------------------------------------------------------------

    def send(self, prefix: bytes, content: bytes) -> None:
        """Send one message: a command with its space, or nothing, and the content.

        Raises:
            ClientDisconnected: The connection has ended.
            MessageTooLarge: The message is over a limit.
            SendTimeout: The server took nothing for 10 s.
            WouldBlock: The outbox is full and this client may not wait.
        """
        size = len(prefix) + len(content)
        try:
            frame = self._headers[size] + prefix + content
        except KeyError:
            frame = self._header(size) + prefix + content
        if self._open_batches and self.batches.collect(frame):
            return
        link = self._link
        if link.outbox.size or not (self.is_usable and link.connection.is_open):
            self._write(frame)
            return
        self._outgoing.send(link, frame)
        if link.outbox.size:
            self._see_off()

    def _header(self, size: int) -> bytes:
        check_size(size, self.limits.message, self._header_len)
        head = header(size, self._header_len)
        if len(self._headers) < _HEADERS_KEPT:
            self._headers[size] = head
        return head

    def send_frame(self, frame: Frame) -> None:
        """Send something that is not a message."""
        self.send(b"", encode_frame(frame))

    def _write(self, data: bytes) -> None:
        """Write where something may be in the way."""
        if not (self.is_usable and self._link.is_open):
            self._raise_closed()
        if self._link.outbox.is_full:
            self._wait_for_room()
        self._lock.run(self._post, data)
        self._see_off()

    def _see_off(self) -> None:
        """Wait until what could not be written at once is, where one may wait: nobody
        else will do it while the program does other things."""
        if self._link.outbox.size and self._waits and not self._outgoing.unsent:
            self._drain(STALL)

    def _raise_closed(self) -> None:
        self._check_over()
        if self._closed:
            raise ClientDisconnected(f"{self._name} was closed by this program")
        ends = [event for event in self._link.inbox if isinstance(event, Closed)]
        reason = ends[0].reason if ends else _ENDED
        raise ClientDisconnected(f"{self._name} is disconnected: {reason}")

    def _post(self, data: bytes) -> None:
        self._outgoing.write(self._link, data)

    def _flush_unsent(self) -> None:
        if self._outgoing.unsent:
            self._outgoing.flush()
            self._see_off()

    def _wait_for_room(self) -> None:
        if not self._waits:
            self._lock.run(self._link.flush)
            if self._link.outbox.is_full:
                raise WouldBlock(
                    f"{self._link.outbox.size} bytes wait to be sent already; call "
                    "update() and try again"
                )
        elif not self._drain(STALL):
            raise SendTimeout(
                f"the server took nothing for {STALL:g} s while "
                f"{self._link.outbox.size} bytes were waiting for it"
            )

    def _drain(self, patience: float) -> bool:
        """Write all that waits, and read meanwhile, so that both sides can go on.

        Returns:
            Whether all was written before nothing moved for ``patience`` seconds.
        """
        link = self._link
        end = time.monotonic() + patience
        while link.outbox.size and not link.is_over:
            before = link.outbox.size
            limit = self.limits.queue
            reading = link.is_open and (not limit or self._queued() < limit)
            part = min(0.1, patience)
            if not (reading and self._pump.try_pump(part)):
                wait_for_room(link.sock, part)
            self._lock.run(link.flush)
            now = time.monotonic()
            if link.outbox.size < before:
                end = now + patience
            elif now >= end:
                return False
        return True

    def _queued(self) -> int:
        return sum(e.size for e in self._link.inbox if isinstance(e, Messages))

    # --- receiving -------------------------------------------------------------

    def receive(
        self, wanted: Callable[[bytes], bool] | None, timeout: float | None
    ) -> bytes:
        """Wait for the next message without a handler; nothing else runs meanwhile.

        Args:
            wanted: Which of them; ``None`` for any.
            timeout: Seconds to wait at most; ``None`` for as long as it takes.

        Raises:
            ClientDisconnected: The connection ended first.
            Overloaded: More than ``Limits.queue`` bytes came that have a handler.
            RequestTimeout: It did not come in time.
        """
        end = None if timeout is None else time.monotonic() + timeout
        if self._open_batches:
            self.batches.flush()
        if self._outgoing.unsent:
            self._flush_unsent()
        link, look = self._link, self._find_unclaimed
        body: bytes | None
        while True:
            seen = self._pump.news
            if link.inbox or self._unclaimed.bodies:
                body = self._lock.run(look, wanted)
                if body is not None:
                    return body
                self._check_waiting()
            if not self.is_usable:
                self._raise_closed()
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise RequestTimeout(f"nothing came within {timeout:g} s")
            if self.turn.claims and not self.turn.is_mine:
                # Its handlers' turn sorts out what it has begun, and tells us.
                self._pump.wait_beside(left, seen)
                continue
            body = self._pump.pump(left, seen, look, wanted)
            if body is not None:
                return body

    def _find_unclaimed(self, wanted: Callable[[bytes], bool] | None) -> bytes | None:
        """Take the first message that nobody handles; in order of arrival."""
        inbox = self._link.inbox
        if len(inbox) == 1 and wanted is None:
            # What a dialogue usually finds (bench/ping_pong.py).
            event = inbox[0]
            if (
                type(event) is Messages
                and len(event.bodies) == 1
                and not event.place
                and event is not self._outgoing.current
                and not (self._unclaimed.bodies or self._answers_due)
                and not self.cache.maxlen
                and self._is_unclaimed(event.bodies[0])
            ):
                inbox.clear()
                return event.bodies[0]
        if self._unclaimed.bodies:
            kept = self._unclaimed.take(partial(self._is_wanted, wanted=wanted))
            if kept is not None:
                return kept
        current = self._outgoing.current
        if current is not None and not self.turn.is_mine:
            return None  # the other thread's turn sorts out what it has begun
        for event in inbox:
            if not isinstance(event, Messages):
                continue
            bodies = event.bodies
            for index in range(max(event.place, event.searched), len(bodies)):
                body = bodies[index]
                if not self._is_unclaimed(body):
                    if index == event.searched:
                        event.searched = index + 1
                elif self._is_wanted(body, wanted):
                    self._take_out(event, index)
                    if wanted is None and self.cache.maxlen:
                        self.seen(self._link, body)
                    return body
        return None

    def _is_wanted(self, body: bytes, wanted: Callable[[bytes], bool] | None) -> bool:
        if wanted is not None:
            return wanted(body)
        # While somebody waits for the answer to a question, it is not for others.
        return not (self._answers_due and decode_answer(body) is not None)

    def _take_out(self, event: Messages, index: int) -> None:
        """Take one body out of the middle of what a read brought."""
        event.size -= len(event.bodies[index])
        del event.bodies[index]
        if not event.bodies and event is not self._outgoing.current:
            self._link.inbox.remove(event)

    def _is_unclaimed(self, body: bytes) -> bool:
        if body[:1] != b"$":
            return self.table.find(body) is None
        try:
            found = resolve(self.table, body, by_client=False)
        except RemoteProtocolError:
            return False  # its turn comes, and ends the connection
        if isinstance(found, Bye):
            self._heard_goodbye = True
        return isinstance(found, NoHandler)

    def ask(self, question: Frame, timeout: float) -> ClientAnswer:
        """Send a question and wait for its answer, which has no label on this wire.

        One at a time, and in order: what answers an earlier question, whose asker has
        given up, is thrown away first.

        Raises:
            RequestTimeout: No answer came in ``timeout`` seconds.
            ClientDisconnected: The connection has ended.
        """
        with self._asking:
            end = time.monotonic() + timeout
            self.send_frame(question)
            self._answers_due += 1
            while True:
                left = max(0.0, end - time.monotonic())
                try:
                    answer = decode_answer(self.receive(_is_answer, left))
                except RequestTimeout:
                    text = f"the server did not answer within {timeout:g} s"
                    raise RequestTimeout(text) from None
                assert answer is not None
                self._answers_due -= 1
                if not self._answers_due:
                    return answer

    def _check_waiting(self) -> None:
        """Raise if there is no use in waiting: the end is in the inbox, behind messages
        that nobody asked for, or there are too many of those."""
        if 0 < self.limits.queue < self._queued():
            raise Overloaded(
                f"{self._queued()} bytes of other messages came while waiting; "
                "call update() more often"
            )
        for event in self._link.inbox:
            if isinstance(event, Closed):
                text = f"{self._name} is disconnected: {event.reason}"
                raise ClientDisconnected(text) from event.error
        if self._heard_goodbye:
            raise ClientDisconnected(f"{self._name} is disconnected: {_ENDED}")

    # --- ending ----------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether this side closed it."""
        return self._closed

    @property
    def is_open(self) -> bool:
        """Whether the link still carries messages."""
        return self._link.is_open

    def close(self, linger: float = LINGER) -> None:
        """Say goodbye, wait until the server has heard it or ``linger`` seconds."""
        if self._closed:
            return
        self._closed = True
        self.is_usable = False
        if self.pid != os.getpid():
            self._link.drop()  # the connection is still the parent's
            return
        if collected := self.batches.take():
            self._lock.run(self._post, collected)
        self._lock.run(self._end, "closed by this program")
        end = time.monotonic() + linger
        link = self._link
        while not link.is_over and self._over is None:
            left = end - time.monotonic()
            if left <= 0:
                break
            self._pump.pump(left, self._pump.news)
        self._pump.drop()
        self._pump.announce()

    def abandon(self) -> None:
        """Say goodbye without waiting: the interpreter or the object ends."""
        if self._closed or self.pid != os.getpid():
            return
        self._closed = True
        self.is_usable = False
        self._lock.run(self._abandon)

    def _abandon(self) -> None:
        if self._over is None:
            self._end("the program ended")
        self._link.drop()


def _is_answer(body: bytes) -> bool:
    return decode_answer(body) is not None


def _as_client(info: dict[str, Any]) -> ClientInfo:
    return ClientInfo(info.get("ip"), info.get("name"), info.get("group"))
