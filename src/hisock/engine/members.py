"""Who is on a server, and what is sent to them; may be called from any thread."""

from __future__ import annotations

__all__ = ("Members",)

import time
import warnings
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from hisock.engine.blame import users_line
from hisock.engine.delivery import Delivery
from hisock.engine.fanout import FanOut, FanOuts
from hisock.engine.link import Link
from hisock.engine.log import logger
from hisock.engine.post import Post
from hisock.engine.repeats import Repeats
from hisock.engine.threads import StateLock, Turn
from hisock.errors import (
    HiSockError,
    InvalidOption,
    MessageTooLarge,
    NotSendable,
    SendTimeout,
    ServerClosed,
    WouldBlock,
)
from hisock.hub.outbox import STALL
from hisock.hub.registry import Registry
from hisock.hub.targets import find, find_group, search
from hisock.session.resume import ACK_SIZE
from hisock.types import ClientInfo, Limits
from hisock.wire import classic, compact
from hisock.wire.compact import Encoded
from hisock.wire.frames import ClientAnswer, Joined, Left

_log = logger("hisock.server")
_USUAL = Delivery()
#: Bytes of ``Limits.outbox`` from which on it may be looked for acknowledgements a
#: little later than at the very byte.
_ROOMY: Final = 4 * ACK_SIZE


class Members:
    """The members of a server.

    Args:
        name: What the server is called in texts.
        limits: How much may be sent.
        lock: Guards the registry and the links.
        turn: Who turns the server.
        outgoing: When a send leaves.
        settle: Called under the lock with a link that is behind or ended.
        roster: Whether clients are told of each other.

    Attributes:
        registry: Who is here.
        is_closed: Whether nobody will be any more.
        is_foreign: Whether that is since this process was forked.
        wait_beside: Waits a moment for something to be so, while somebody reads.
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        lock: StateLock,
        turn: Turn,
        outgoing: Post,
        settle: Callable[[Link], None],
        *,
        roster: bool,
    ) -> None:
        self.registry: Registry[Link] = Registry()
        self.is_closed = self.is_foreign = False
        self.roster = roster
        self._name = name
        self._limits = limits
        self._lock = lock
        self._turn = turn
        self._outgoing = outgoing
        self._settle = settle
        self.wait_beside: Callable[[Callable[[], bool]], None] = lambda is_done: None
        self._repeats = Repeats()
        self._fan_outs = FanOuts()
        self._fans_out = outgoing.fans_out and not 0 < limits.outbox < _ROOMY
        self._compact = compact.Writer(limits.message)
        self._text_writer: compact.Writer | None = None
        self._classic: dict[int, classic.Writer] = {}

    def writer_for(self, link: Link) -> classic.Writer | compact.Writer:
        """What encodes messages for a link; the same one for all of its kind."""
        if link.connection.writes_compact:
            return (
                self._text if getattr(link.secure, "is_text", False) else self._compact
            )
        header_len = link.connection.header_len
        writer = self._classic.get(header_len)
        if writer is None:
            largest = self._limits.message
            writer = classic.Writer(header_len, largest, by_client=False)
            self._classic[header_len] = writer
        return writer

    @property
    def _text(self) -> compact.Writer:
        if self._text_writer is None:
            from hisock.wire.text import TextWriter  # 3 ms that few servers need

            self._text_writer = TextWriter(self._limits.message)
        return self._text_writer

    # --- look-ups ------------------------------------------------------------------

    def look_up(self, who: Any) -> Link:
        """The link of a client, with a warning if others have its name too.

        Raises:
            InvalidClient, UnknownClient: As ``hub.targets.find``.
        """
        with self._lock.reading:
            link, warning = find(self.registry, who)
        if warning:
            warnings.warn(warning, UserWarning, stacklevel=users_line())
        return link

    def group(self, group: str) -> list[Link]:
        """Everybody in a group.

        Raises:
            UnknownGroup: Nobody is.
        """
        with self._lock.reading:
            return find_group(self.registry, group)

    def in_group(self, group: str) -> list[Link]:
        """Everybody in a group; nobody is no error."""
        with self._lock.reading:
            return self.registry.in_group(group)

    def everybody(self) -> list[Link]:
        """Everybody, the oldest first."""
        with self._lock.reading:
            return list(self.registry)

    def answer(self, who: str) -> ClientAnswer:
        """What a client is told that asks who somebody is."""
        if not self.roster:
            return ClientAnswer(None, "this server does not tell (roster=False)")
        try:
            with self._lock.reading:
                member, _ = search(self.registry, who)
                info = None if member is None else dict(member.info)
        except ValueError as error:
            return ClientAnswer(None, str(error))
        return ClientAnswer(info, "$NOEXIST$")

    # --- changes; under the lock ---------------------------------------------------

    def remove(self, link: Link) -> None:
        """A member has left."""
        self.registry.remove(link)
        self._fan_outs.clear()

    def change(self, link: Link, key: str, new: str | None) -> tuple[bool, str | None]:
        """Give a member another name or group; whether it is one, and the old one."""
        if not link.is_member:
            return False, None
        old: str | None = link.info[key]
        change = self.registry.rename if key == "name" else self.registry.regroup
        change(link, new)
        return True, old

    def join_group(self, link: Link, group: str) -> None:
        """Put a member into a group beside its own.

        Raises:
            InvalidOption: It is in ``Limits.groups`` of them.
        """
        if not link.is_member:
            return
        limit = self._limits.groups
        # Its own is among them only if it was joined, too: so it outlives a regroup.
        joined = self.registry.joined_by(link)
        if 0 < limit <= len(joined) and group not in joined:
            raise InvalidOption(f"{dict(link.info)} is in {len(joined)} groups already")
        self.registry.join(link, group)

    def leave_group(self, link: Link, group: str) -> None:
        """Take a member out of a group, its own included."""
        if link.is_member:
            self.registry.leave(link, group)

    # --- sending -------------------------------------------------------------------

    def send_to(
        self,
        who: Any,
        command: str | None,
        content: Any,
        wish: Delivery | None = None,
    ) -> None:
        """Send to one client; outside a turn this waits while its outbox is full.

        Raises:
            InvalidClient, UnknownClient: As ``hub.targets.find``.
            NotSendable, MessageTooLarge: The message cannot be sent.
            SendTimeout: The client took nothing for 10 s.
            ServerClosed: The server is.
        """
        link = who._member if isinstance(who, ClientInfo) else None
        if link is None or link not in self.registry.members:
            self.check_open()
            link = self.look_up(who)
        if wish is not None:
            self._send_as(link, command, content, wish, waits=not self._turn.is_mine)
            return
        frame = link.writer.message(command, content)
        # ``Link.is_behind``, which is asked first, in place (bench/ping_pong.py).
        replay = link.replay
        if (
            (
                link.outbox.size
                or (replay is not None and replay.size > link.look_at)
                or (link.secure is not None and link.secure.pending)
            )
            and link.outbox.is_full
            and not self._turn.is_mine
        ):
            self._wait_for_room(link)
        self._outgoing.send(link, frame)

    def _send_as(
        self,
        link: Link,
        command: str | None,
        content: Any,
        wish: Delivery,
        *,
        waits: bool,
    ) -> None:
        """Send as the sender wishes; what is usual is to wait, where one may."""
        frame = link.writer.message(command, content, wish.until)
        if wish.is_loose:
            self._lock.run(self._outgoing.offer, link, frame, wish, command)
            return
        if link.outbox.is_full:
            if wish.when_slow == "raise":
                raise WouldBlock(_behind(link))
            if waits and wish.when_slow != "disconnect":
                self._wait_for_room(link)
        self._outgoing.send(link, frame)

    def send_now(
        self, link: Link, command: str | None, content: Any, wish: Delivery | None
    ) -> None:
        """Send to one client without waiting for room.

        Raises:
            NotSendable, MessageTooLarge: The message cannot be sent.
            WouldBlock: Twice as much waits for it as may.
        """
        is_loose = wish is not None and wish.is_loose
        twice = 2 * self._limits.outbox
        if link.outbox.is_full and link.outbox.held >= twice and not is_loose:
            raise WouldBlock(f"{_behind(link)}; await what a send returns")
        self._send_as(link, command, content, wish or _USUAL, waits=False)

    def send_group(
        self,
        group: str,
        command: str | None,
        content: Any,
        wish: Delivery | None = None,
        exclude: Any = None,
        *,
        may_be_empty: bool = False,
    ) -> None:
        """Send to everybody in a group.

        Raises:
            UnknownGroup: Nobody is in it, and that is not expected.
            NotSendable, MessageTooLarge: The message cannot be sent.
            ServerClosed: The server is.
        """
        self.check_open()
        is_usual = wish is None and exclude is None and isinstance(group, str)
        if is_usual and self._fan_out(group, command, content):
            return
        links = self.in_group(group) if may_be_empty else self.group(group)
        self.send_many(links, command, content, wish, exclude, group)

    def send_all(
        self,
        command: str | None,
        content: Any,
        wish: Delivery | None = None,
        exclude: Any = None,
    ) -> None:
        """Send to everybody.

        Raises:
            NotSendable, MessageTooLarge: The message cannot be sent.
            ServerClosed: The server is.
        """
        self.check_open()
        if wish is None and exclude is None and self._fan_out(None, command, content):
            return
        self.send_many(self.everybody(), command, content, wish, exclude)

    def _fan_out(self, group: str | None, command: str | None, content: Any) -> bool:
        """Send to a group, or everybody, what usually is possible at once; else false.

        Raises:
            NotSendable, MessageTooLarge: The message cannot be sent.
        """
        if not self._fans_out:
            return False
        fan = self._lock.share(self._find_fan_out, group)
        if fan is None:
            return False
        frame = self._compact.message(command, content)
        frames = {self._compact: frame}
        is_short = frame.__class__ is bytes
        try:
            for writer in fan.writers:
                if writer is not self._compact:
                    frames[writer] = frame = writer.message(command, content)
                    is_short = is_short and frame.__class__ is bytes
        except (NotSendable, MessageTooLarge):  # an old client's bad luck
            return False
        if not is_short:
            return False
        self._lock.share(self._outgoing.fan_out, fan, frames)
        return True

    def _find_fan_out(self, group: str | None) -> FanOut | None:
        return self._fan_outs.find(group, self._lock.changes, self._members_of)

    def _members_of(self, group: str | None) -> list[Link]:
        return self.everybody() if group is None else self.in_group(group)

    def send_many(
        self,
        links: Collection[Link],
        command: str | None,
        content: Any,
        wish: Delivery | None = None,
        exclude: Any = None,
        group: str | None = None,
    ) -> None:
        """Send to some, encoded once for each encoding that is in use.

        Raises:
            NotSendable, MessageTooLarge: The message cannot be sent, to nobody at all.
        """
        until = None if wish is None else wish.until
        links = self.without(links, exclude)
        # What cannot be sent on our own wire is the caller's mistake, even if nobody
        # is there; what only an old client cannot take is that client's bad luck.
        frames: dict[Any, Encoded | None] = {
            self._compact: self._compact.message(command, content, until)
        }
        problems: list[tuple[Link, HiSockError]] = []
        for link in links:
            writer = link.writer
            if writer not in frames:
                try:
                    frames[writer] = writer.message(command, content, until)
                except (NotSendable, MessageTooLarge) as error:
                    frames[writer] = None
                    problems.append((link, error))
        if wish is None:
            self._lock.run(self._outgoing.write_many, links, frames)
        else:
            self._check_room(links, wish)
            self._lock.run(self._write_as, links, frames, wish, command, group)
        for link, problem in problems:
            if count := self._repeats.due(problem.code):
                text = "what was sent to many cannot reach %s (%d): %s"
                _log.error(text, dict(link.info), count, problem)

    def _check_room(self, links: Iterable[Link], wish: Delivery) -> None:
        """Refuse before anybody gets it, or wait, where that is wished."""
        if wish.when_slow not in ("raise", "wait"):
            return
        for link in links:
            if link.outbox.is_full and wish.when_slow == "raise":
                raise WouldBlock(_behind(link))
            if link.outbox.is_full and not self._turn.is_mine:
                self._wait_for_room(link)

    def _write_as(
        self,
        links: Iterable[Link],
        frames: dict[Any, Encoded | None],
        wish: Delivery,
        command: str | None,
        group: str | None,
    ) -> None:
        for link in links:
            frame = frames[link.writer]
            if frame is None:
                continue
            if wish.is_loose:
                self._outgoing.offer(link, frame, wish, command, group)
            else:
                self._outgoing.write(link, frame)

    def tell_others(self, link: Link, frame: Joined | Left) -> None:
        """Tell those who want to know who came or went."""
        if not (self.roster and len(self.registry)):
            return
        links = [
            other
            for other in self.everybody()
            if other is not link and other.wants_roster
        ]
        writers = {other.writer for other in links}
        frames = {writer: writer.control(frame) for writer in writers}
        self._lock.run(self._outgoing.write_many, links, frames)

    def set_roster(self, link: Link, *, on: bool) -> None:
        """Tell a client from now on who joins and leaves, or no longer."""
        self._lock.run(self._set_roster, link, on)

    def _set_roster(self, link: Link, on: bool) -> None:
        if on and not link.wants_roster and self.roster and link.is_member:
            # It asked a moment late: those who came after it are news all the same.
            members = list(self.registry)
            for other in members[members.index(link) + 1 :]:
                frame = link.writer.control(Joined(dict(other.info)))
                self._outgoing.write(link, frame)
        link.wants_roster = on

    def without(self, links: Collection[Link], exclude: Any) -> Collection[Link]:
        """These links but those that ``exclude`` names: one client, several, or none.

        Raises:
            InvalidClient, UnknownClient: As ``look_up``.
        """
        if exclude is None:
            return links
        several = isinstance(exclude, list | set | frozenset) or (
            isinstance(exclude, tuple) and not _is_address(exclude)
        )
        left_out = {self.look_up(who) for who in (exclude if several else [exclude])}
        return [link for link in links if link not in left_out]

    def check_open(self) -> None:
        """Refuse to go on after the end.

        Raises:
            ServerClosed: The server is.
        """
        if self.is_foreign:
            raise ServerClosed(
                f"{self._name} is the parent's, which forked; start one in the child"
            )
        if self.is_closed:
            raise ServerClosed(f"{self._name} is closed")

    def _wait_for_room(self, link: Link) -> None:
        end = time.monotonic() + STALL
        while link.outbox.is_full and link.is_open:
            before = link.outbox.held + link.outbox.size
            self.wait_beside(lambda: not link.outbox.is_full)
            self._lock.run(self._push, link)
            now = time.monotonic()
            if link.outbox.held + link.outbox.size < before:
                end = now + STALL
            elif now >= end:
                raise SendTimeout(
                    f"{dict(link.info)} took nothing for {STALL:g} s while "
                    f"{link.outbox.held} bytes were waiting for it"
                )

    def _push(self, link: Link) -> None:
        link.flush()
        self._settle(link)


def _behind(link: Link) -> str:
    return f"{link.outbox.held} bytes wait for {dict(link.info)} already"


def _is_address(who: tuple[Any, ...]) -> bool:
    return len(who) == 2 and isinstance(who[1], int)
