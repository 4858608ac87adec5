"""Sends the same to many at hardly more than a bare loop of ``send``.

What is to be looked at before each send is looked at once, and holds until something
changes that is not usual; ``threads.StateLock.changes`` tells.
"""

from __future__ import annotations

__all__ = ("FanOut", "FanOuts", "Outlet", "outlet_of")

import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice, repeat
from typing import Any, Final, TypeAlias

from hisock.engine.link import DONT_WAIT, Link
from hisock.hub.outbox import Outbox
from hisock.session.resume import ACK_SIZE, Block, Replay
from hisock.wire.compact import Encoded

#: A socket to write to, and what has to be made of the bytes before, if anything.
Outlet: TypeAlias = tuple[socket.socket, Callable[[bytes], bytes] | None]

_send: Final = socket.socket.send

#: Clients from which on it is worth the while.
_FEW: Final = 4
#: How often one has to serve to be worth making again at once; else so many sends go
#: without.
_USES: Final = 2
_REST: Final = 16
#: Groups that are known at once.
_MANY: Final = 256


class _Kind:
    """Those who get the same bytes.

    Attributes:
        links: Who they are.
        pending: Frames that all of them are still to get, the oldest first.
    """

    __slots__ = ("_frame", "_outboxes", "_replays", "_socks", "links", "pending")

    def __init__(self, frame: Callable[[bytes], bytes] | None) -> None:
        self._frame = frame
        self._socks: list[socket.socket] = []
        self._replays: list[Replay] = []
        self._outboxes: list[Outbox] = []
        self.links: list[Link] = []
        self.pending: list[bytes] = []

    def add(self, link: Link, sock: socket.socket) -> None:
        """One more gets them."""
        self.links.append(link)
        self._socks.append(sock)
        self._outboxes.append(link.outbox)
        if link.replay is not None:
            self._replays.append(link.replay)

    def write(self, written: bytes | Block, behind: list[Link]) -> None:
        """Write to all of them, in place of what is pending; ``behind`` gets who did
        not take all of it.

        A KeyboardInterrupt in the middle costs nobody the message.
        """
        data = written if isinstance(written, bytes) else written.data
        size = len(data)
        sent: list[Any] = []
        try:
            for replay in self._replays:  # ``Replay.note`` in place
                if replay.blocks is None:
                    replay.note(written)
                else:
                    replay.blocks.append(written)
                    replay.size += size
            if self._frame is not None:
                data = self._frame(data)
            self._pour(data, sent)
            if sent.count(len(data)) != len(sent):
                self._recover(written, data, sent, behind)
            self.pending.clear()
        except BaseException:
            self._recover(written, data, sent, behind)
            self.pending.clear()
            raise

    def _pour(self, data: bytes, sent: list[Any]) -> None:
        """Send to all, and put down how much each took, or what it failed with."""
        while len(sent) < len(self._socks):
            try:
                # One step for Python: no KeyboardInterrupt comes between writing and
                # putting down how much that was.
                socks = islice(self._socks, len(sent), None)
                sent.extend(map(_send, socks, repeat(data), repeat(DONT_WAIT)))
            except OSError as error:
                sent.append(error)

    def _recover(
        self,
        written: bytes | Block,
        data: bytes,
        sent: list[Any],
        behind: list[Link],
    ) -> None:
        """Keep what did not leave."""
        sent += repeat(None, len(self.links) - len(sent))
        for number, link in enumerate(self.links):
            result = sent[number]
            if result == len(data):
                continue
            behind.append(link)
            link.is_torn = True  # if it is struck in the middle of this, too
            sent[number] = len(data)
            if result is None:
                _take_back(link.replay, written)
                link.outbox.append(written)
            elif isinstance(result, OSError):
                link.keep_all(written, result)
            elif self._frame is None:
                link.keep(written, result)
            else:
                link.sock.keep_rest(memoryview(data)[result:])  # type: ignore[attr-defined]  # it was upgraded
            link.is_torn = False

    def settle(self) -> None:
        """Put what is pending where each of them has it alone."""
        pending = self.pending
        size = sum(map(len, pending))
        for outbox in self._outboxes:
            if outbox.frames is None:
                outbox.frames = deque()
            outbox.size += size
        queues = [outbox.frames for outbox in self._outboxes]
        # One step for Python: no KeyboardInterrupt comes in between.
        give = map(deque.extend, queues, repeat(pending))  # type: ignore[arg-type]  # none is None
        deque(chain(give, map(list.clear, (pending,))), 0)


def _take_back(replay: Replay | None, written: bytes | Block) -> None:
    """It was not written, though it may have been noted."""
    if replay is not None and replay.blocks and replay.blocks[-1] is written:
        replay.blocks.pop()
        replay.resize()


class FanOut:
    """Several links that take what is sent to them, for as long as nothing changes.

    Args:
        links: All of them.
        changes: How often something had changed when that was so.

    Attributes:
        others: Those of them that have to be looked at each time.
        room: Bytes that may be sent before somebody has to look for acknowledgements.
        size: Bytes that are pending for each.
        uses: How often it was asked for.
        writers: What encodes for them.
    """

    __slots__ = ("_kinds", "changes", "others", "room", "size", "uses", "writers")

    def __init__(self, links: Iterable[Link], changes: int) -> None:
        self.changes = changes
        self.room = ACK_SIZE
        self.size = self.uses = 0
        self.others: list[Link] = []
        kinds: dict[Any, _Kind] = {}
        for link in links:
            outlet = outlet_of(link)
            if outlet is None:
                self.others.append(link)
                continue
            sock, frame = outlet
            key = link.writer, frame
            if key not in kinds:
                kinds[key] = _Kind(frame)
            kinds[key].add(link, sock)
            if link.replay is not None:
                self.room = min(self.room, link.look_at - link.replay.size)
        self._kinds = [(writer, kind) for (writer, _), kind in kinds.items()]
        self.writers = {writer for writer, _ in self._kinds}
        self.writers.update(link.writer for link in self.others)

    @property
    def links(self) -> list[Link]:
        """All of them."""
        quick = [link for _, kind in self._kinds for link in kind.links]
        return quick + self.others

    @property
    def is_worth_it(self) -> bool:
        """Whether most are quick."""
        return sum(len(kind.links) for _, kind in self._kinds) >= _FEW

    def write(self, frames: Mapping[Any, Encoded | None], behind: list[Link]) -> None:
        """Write now, to all but the others; ``behind`` gets who did not take it all."""
        for writer, kind in self._kinds:
            frame = frames[writer]
            assert isinstance(frame, bytes)
            self.room -= len(frame)
            kind.write(frame, behind)

    def collect(self, frames: Mapping[Any, Encoded | None]) -> None:
        """Let all but the others wait for more."""
        largest = 0
        for writer, kind in self._kinds:
            frame = frames[writer]
            assert isinstance(frame, bytes)
            kind.pending.append(frame)
            largest = max(largest, len(frame))
        self.size += largest
        self.room -= largest

    def flush(self, behind: list[Link]) -> None:
        """Write what is pending; ``behind`` gets who did not take all of it."""
        for _, kind in self._kinds:
            pending = kind.pending
            if len(pending) > 1:
                kind.write(Block(len(pending), b"".join(pending)), behind)
            elif pending:
                kind.write(pending[0], behind)
        self.size = 0

    @property
    def waiting(self) -> list[Link]:
        """For whom something is pending."""
        return [link for _, kind in self._kinds if kind.pending for link in kind.links]

    def settle(self) -> None:
        """Put what is pending where each of them has it alone."""
        for _, kind in self._kinds:
            if kind.pending:
                kind.settle()
        self.size = 0


def outlet_of(link: Link) -> Outlet | None:
    """How to write to a link past everything, where nothing is in the way."""
    if (
        link.outbox.size
        or link.is_torn
        or link.is_dropped
        or link.is_unheard
        or not link.connection.is_open
    ):
        return None
    if link.secure is None:
        return link.sock, None
    outlet: Outlet | None = getattr(link.secure, "outlet", None)
    return outlet


class FanOuts:
    """The fan-outs to groups, and to everybody."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        #: For each group the fan-out, or how many sends it is not worth to make one;
        #: ``None`` is everybody.
        self._known: dict[str | None, FanOut | int] = {}

    def clear(self) -> None:
        """Somebody has left: hold on to nobody."""
        self._known.clear()

    def find(
        self,
        group: str | None,
        changes: int,
        members: Callable[[str | None], list[Link]],
    ) -> FanOut | None:
        """The one to a group; ``None`` where it is too small, or too much changes.

        Args:
            group: Its name; ``None`` for everybody.
            changes: How often something has changed by now.
            members: Who is in it.
        """
        known = self._known.get(group, 0)
        if isinstance(known, FanOut):
            known.uses += 1
            if known.changes == changes:
                return known
            known = 0 if known.uses > _USES else _REST
        if known:
            self._known[group] = known - 1
            return None
        links = members(group)
        if len(links) < _FEW:
            return None
        if len(self._known) >= _MANY:
            self._known.clear()
        fan = FanOut(links, changes)
        self._known[group] = fan if fan.is_worth_it else _REST
        return fan if fan.is_worth_it else None
