"""When a send leaves: at once, or with the rest of what a batch of handlers sends.

One rule for servers and clients.
"""

from __future__ import annotations

__all__ = ("FLUSH_SIZE", "Post")

import time
from collections.abc import Callable, Iterable, Mapping, Sized
from operator import length_hint
from typing import Any, ClassVar, Final

from hisock.engine.delivery import Delivery
from hisock.engine.fanout import FanOut, outlet_of
from hisock.engine.link import DONT_WAIT, Link
from hisock.engine.threads import StateLock, Turn
from hisock.session.events import Messages
from hisock.session.resume import Written
from hisock.wire import compact
from hisock.wire.compact import Encoded
from hisock.wire.frames import Gap

#: Seconds that what a handler sent may wait for the rest of its batch.
COALESCE: Final = 0.001
#: Bytes for one peer that do not wait for the rest of the batch.
FLUSH_SIZE: Final = 64 * 1024


class Post:
    """What handlers send, collected while further messages of their batch wait.

    Args:
        lock: Guards the links.
        turn: Who runs the handlers; only their own sends are collected.
        ready: Links whose messages wait; more than one means that others wait, too.
        behind: Called with a link that has more to write than it took, or ended.

    Attributes:
        current: The messages whose handlers run; set by the engine that runs them.
        gather: Has ``flush`` called at the end of this turn of the program's own loop,
            where one turns: until then every send waits for more.
        is_gathering: Whether that is to come.
        unsent: Links and fan-outs with something collected; empty most of the time.
    """

    #: Whether ``fan_out`` may be used.
    fans_out: ClassVar[bool] = True

    __slots__ = (
        "_behind",
        "_fan",
        "_lock",
        "_mark",
        "_ready",
        "_turn",
        "current",
        "gather",
        "is_gathering",
        "unsent",
    )

    def __init__(
        self,
        lock: StateLock,
        turn: Turn,
        ready: Sized,
        behind: Callable[[Link], None],
    ) -> None:
        self._lock = lock
        self._turn = turn
        self._ready = ready
        self._behind = behind
        self._mark = 0.0
        self.is_gathering = False
        self.current: Messages | None = None
        self.gather: Callable[[], None] | None = None
        self.unsent: dict[Link | FanOut, None] = {}
        #: The one for which something is collected.
        self._fan: FanOut | None = None

    def note_time(self) -> None:
        """A batch begins; what its handlers send may wait from now on."""
        if not self.unsent:
            self._mark = time.monotonic()

    def send(self, link: Link, frame: Written) -> bool:
        """Send a frame; takes the lock. Whether something waits to be written now.

        Usually all of it is done in place (bench/single_send.py, bench/ping_pong.py).
        """
        lock = self._lock
        if self.gather is not None or not isinstance(frame, bytes):
            lock.run(self.write, link, frame)
            return not isinstance(frame, bytes) and link.is_behind
        current = self.current
        try:
            lock.take()
            replay = link.replay  # another by now, if it was lost meanwhile
            free = not (
                link.outbox.size
                or lock.is_busy
                or lock.settle
                or link.is_torn
                or link.is_dropped
                or link.secure
                or not link.connection.is_open
            ) and (
                current is None
                or not (length_hint(current.rest) or len(self._ready) > 1)
            )
            if free:
                lock.is_busy = link.is_torn = True
                try:
                    if replay is not None:  # ``Replay.note`` in place
                        if replay.blocks is None:
                            replay.note(frame)
                        else:
                            replay.blocks.append(frame)
                            replay.size += len(frame)
                    sent = link.sock.send(frame, DONT_WAIT)
                    if sent == len(frame):
                        link.is_torn = False
                        if replay is None or replay.size <= link.look_at:
                            return False
                    else:
                        lock.changes += 1  # at once: somebody may send to many next
                        link.keep(frame, sent)
                except BaseException as error:
                    lock.changes += 1
                    if not isinstance(error, OSError):  # Ctrl-C: it is torn
                        raise
                    link.keep_all(frame, error)
                finally:
                    lock.is_busy = False
                    if lock.postponed:
                        lock.catch_up()
        finally:
            try:  # noqa: SIM105  # a call is dear
                lock.give()
            except RuntimeError:  # it was not taken
                pass
        lock.run(*((self._behind, link) if free else (self.write, link, frame)))
        return link.is_behind

    def write(self, link: Link, frame: Written) -> None:
        """As ``send``, under the lock; one whose end has begun hears no more, and that
        is no error."""
        if not link.is_open:
            return
        if self.gather is not None and isinstance(frame, bytes):
            self._keep(link, frame, self.gather)
            return
        if isinstance(frame, bytes) and self._is_collecting:
            self._collect(link, frame)
            return
        self.write_now(link, frame)

    def fan_out(self, fan: FanOut, frames: Mapping[Any, Encoded | None]) -> None:
        """As ``write_many``, to all of a fan-out; shares the lock."""
        lock, behind = self._lock, list[Link]()
        size = max(map(len, frames.values()))  # type: ignore[arg-type]  # bytes
        waits = self._is_collecting or self.gather is not None
        if (
            fan.changes != lock.changes
            or fan.room < size
            or (lock.settle is not None and fan is not self._fan)
            # In another group's, made since, one of these may be among the quick.
            or any(map(outlet_of, fan.others))
        ):
            lock.note_change()
            self.write_many(fan.links, frames)
        elif waits or lock.settle is not None:
            self._fan, lock.settle = fan, self._settle
            self.unsent[fan] = None
            fan.collect(frames)
            if fan.size >= FLUSH_SIZE or not waits:
                self._flush_fan(fan)
            self.write_many(fan.others, frames)
        else:
            lock.changes += 1  # until all have taken it, whatever interrupts that
            try:
                fan.write(frames, behind)
            finally:
                self._see_to(behind)
            if not behind:
                lock.changes -= 1
            if fan.others:
                self.write_many(fan.others, frames)

    @property
    def _is_collecting(self) -> bool:
        """Whether what this thread sends is to wait for more."""
        current = self.current
        return (
            current is not None
            and (length_hint(current.rest) > 0 or len(self._ready) > 1)
            and self._turn.is_mine
        )

    def _flush_fan(self, fan: FanOut) -> None:
        lock, behind = self._lock, list[Link]()
        lock.changes += 1  # until all have taken it, whatever interrupts that
        try:
            fan.flush(behind)
            self._fan = lock.settle = None
        finally:
            self._see_to(behind)
        if not behind:
            lock.changes -= 1

    def _see_to(self, behind: list[Link]) -> None:
        """These links did not take all of what was sent to many."""
        for link in behind:
            if link.is_behind or not link.connection.is_open:
                self._behind(link)

    def _settle(self) -> None:
        """Something changes: let each have for itself what was collected for many."""
        fan = self._fan
        if fan is not None:
            self.unsent.update(dict.fromkeys(fan.waiting))
            fan.settle()
            self._lock.changes += 1
        self._fan = self._lock.settle = None

    def write_many(
        self, links: Iterable[Link], frames: Mapping[Any, Encoded | None]
    ) -> None:
        """As ``write``, to each of many what there is for its writer.

        What is the same for all is asked once, and what is usual done in place
        (bench/websocket_fan_out.py).
        """
        if self.gather is not None or self._is_collecting:
            self._collect_many(links, frames)
            return
        for link in links:
            frame = frames[link.writer]
            if (
                frame.__class__ is not bytes
                or not link.connection.is_open
                or link.outbox.size
                or link.is_torn
                or link.is_dropped
            ):
                if frame is not None:
                    self.write(link, frame)
                continue
            link.is_torn = True
            replay = link.replay
            if replay is not None:  # ``Replay.note`` in place
                if replay.blocks is None:
                    replay.note(frame)
                else:
                    replay.blocks.append(frame)
                    replay.size += len(frame)
            try:
                sent = link.sock.send(frame, DONT_WAIT)
                if sent == len(frame):
                    link.is_torn = False
                else:
                    link.keep(frame, sent)
            except OSError as error:
                link.keep_all(frame, error)
            if (
                link.outbox.size
                or not link.connection.is_open
                or (replay is not None and replay.size > link.look_at)
                or (link.secure is not None and link.secure.pending)
            ):
                self._behind(link)

    def _collect_many(
        self, links: Iterable[Link], frames: Mapping[Any, Encoded | None]
    ) -> None:
        """The same, where they all are to wait for more."""
        unsent = self.unsent
        for link in links:
            frame = frames[link.writer]
            if frame.__class__ is bytes and (
                link.connection.is_open or link.is_dropped
            ):
                outbox = link.outbox
                if (waiting := outbox.frames) is None:
                    outbox.append(frame)
                else:  # ``Outbox.append`` in place
                    waiting.append(frame)
                    outbox.size += len(frame)
                unsent[link] = None
                if outbox.size >= FLUSH_SIZE:
                    self._flush_link(link)
            elif frame is not None:
                self.write(link, frame)
        if self.gather is None:
            self._flush_late()
        elif unsent and not self.is_gathering:
            self.is_gathering = True
            self.gather()

    def offer(
        self,
        link: Link,
        frame: Encoded,
        wish: Delivery,
        command: str | None,
        group: str | None = None,
    ) -> None:
        """Send a frame that may be dropped if the peer is too slow; under the lock."""
        outbox = link.outbox
        is_free = not (outbox.size or link.is_dropped or outbox.is_full)
        if is_free or not link.is_open:
            self.write(link, frame)
            return
        outbox.add_loose(
            frame if isinstance(frame, bytes) else b"".join(frame),
            _encode_gap if link.writer.is_compact else _tell_nothing,
            slot=(command, wish.key) if wish.when_slow == "latest" else None,
            group=group,
            drops_newest=wish.when_slow == "drop_newest",
        )
        self._flush_link(link)

    def _keep(self, link: Link, frame: bytes, gather: Callable[[], None]) -> None:
        link.outbox.append(frame)
        self.unsent[link] = None
        if link.outbox.size >= FLUSH_SIZE:
            self._flush_link(link)
        elif not self.is_gathering:
            self.is_gathering = True
            gather()

    def write_now(self, link: Link, frame: Written) -> None:
        """As ``write``, but not collected: somebody waits for the answer."""
        link.send(frame)
        if link.is_behind or not link.connection.is_open:
            self._behind(link)

    def _collect(self, link: Link, frame: bytes) -> None:
        link.outbox.append(frame)
        self.unsent[link] = None
        if link.outbox.size >= FLUSH_SIZE:
            self._flush_link(link)
        else:
            self._flush_late()

    def _flush_late(self) -> None:
        if time.monotonic() - self._mark > COALESCE:
            self._flush()

    def flush_due(self) -> None:
        """Write what was collected, if it has waited long enough; takes the lock."""
        if time.monotonic() - self._mark > COALESCE:
            self._lock.share(self._flush)

    def flush(self) -> None:
        """Write what was collected; takes the lock."""
        if self.unsent:
            self._lock.share(self._flush)

    def _flush(self) -> None:
        self.is_gathering = False
        fan, lock = self._fan, self._lock
        if fan is not None and fan.changes == lock.changes:
            self._flush_fan(fan)
        if self._fan is not None or len(self.unsent) > (fan is not None):
            lock.note_change()
        for link in self.unsent:
            if isinstance(link, Link):
                self._flush_link(link)
        self.unsent.clear()
        self._mark = time.monotonic()

    def _flush_link(self, link: Link) -> None:
        link.flush()
        if link.is_behind or not link.connection.is_open:
            self._behind(link)


def _encode_gap(count: int, group: str | None) -> bytes:
    return compact.encode(Gap(count, group))


def _tell_nothing(count: int, group: str | None) -> bytes:
    """The wire of 1.1 has no word for it."""
    return b""
