"""A server's side of what its handlers' runner asks; see ``calls.Owner``."""

from __future__ import annotations

__all__ = ("Answers",)

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hisock.engine.inbox import Mail
from hisock.engine.link import Link
from hisock.engine.running import Running
from hisock.errors import (
    CommandError,
    HiSockError,
    InvalidName,
    MessageTooLarge,
    RemoteProtocolError,
)
from hisock.handlers.cast import unpack
from hisock.handlers.table import HandlerEntry
from hisock.session.resume import Written
from hisock.wire.frames import (
    Bye,
    ClientAnswer,
    Compact,
    Frame,
    Gap,
    GetClient,
    Groups,
    NoTLS,
    PackedFrame,
    Probe,
    Regroup,
    Rename,
    Request,
    Roster,
)
from hisock.wire.payload import check_name

if TYPE_CHECKING:
    from hisock.engine.serve import ServerEngine


class Answers(Running):
    """What the runner of a server's handlers asks of its engine.

    Args:
        engine: The engine.
    """

    __slots__ = ()

    _engine: ServerEngine

    def control(self, link: Link, frame: Frame | PackedFrame) -> bool:
        """Act on a frame that is not a message; whether a handler ran."""
        engine = self._engine
        match frame:
            case Rename(name):
                return self._change(link, "name", name)
            case Regroup(group):
                return self._change(link, "group", group)
            case Bye():
                engine.lock.run(engine.ending.hang_up, link)
            case Probe():
                if not link.connection.writes_compact:
                    engine.outgoing.send(link, link.writer.control(NoTLS()))
            case GetClient(who) if not link.connection.writes_compact:
                self._reply(link, engine.members.answer(who))
            case Roster(on):
                engine.members.set_roster(link, on=on)
            case Gap(count):
                engine.reports.gap(link.info, count)
            case Groups(join, leave):
                self._regroup(link, join, leave)
            case _:
                kind = type(frame).__name__
                if link.connection.writes_compact or isinstance(frame, Compact):
                    self.broken(link, RemoteProtocolError(f"no client sends {kind}"))
        return False

    def _change(self, link: Link, key: str, new: str | None) -> bool:
        engine = self._engine
        try:
            check_name(new, engine.limits.name)
        except InvalidName as error:
            self.broken(link, RemoteProtocolError(str(error)))
            return False
        change = engine.gate.naming.change
        changed, old, is_refused = engine.lock.run(change, link, key, new)
        if is_refused:
            engine.gate.tell_denied(link, key, new)
        if not changed:
            return False
        return engine.run_event(link, f"{key}_change", link.info, old, new)

    def _regroup(self, link: Link, join: list[str], leave: list[str]) -> None:
        engine = self._engine
        naming = engine.gate.naming
        try:
            for group in (*join, *leave):
                check_name(group, engine.limits.name)
            if not naming.may_change("group"):
                engine.lock.run(naming.tell_groups, link, join)
                return
            for group in join:
                engine.lock.run(engine.members.join_group, link, group)
        except HiSockError as error:
            self.broken(link, RemoteProtocolError(str(error)))
            return
        for group in leave:
            engine.lock.run(engine.members.leave_group, link, group)

    def _reply(self, link: Link, answer: ClientAnswer) -> None:
        try:
            frame = link.writer.control(answer)
        except MessageTooLarge:
            # Better a short answer than none: the client waits for it.
            refusal = ClientAnswer(None, "too long for your header_len")
            frame = link.writer.control(refusal)
        self._engine.outgoing.send(link, frame)

    def answer_own(self, link: Link, request: Request) -> Any:
        """Answer ``$GETCLT$``.

        Raises:
            CommandError: Nobody is, or the server does not tell.
        """
        who = unpack(request.content)
        if request.command != "$GETCLT$" or not isinstance(who, str):
            raise CommandError("unknown_command", "hisock has no such call")
        answer = self._engine.members.answer(who)
        if answer.info is None:
            nobody = answer.refusal == "$NOEXIST$"
            code = "unknown_client" if nobody else "refused"
            raise CommandError(code, answer.refusal)
        return answer.info

    def unclaimed(self, link: Link, mail: Mail) -> None:
        """Log once what no handler took."""
        self._engine.reports.unclaimed(link.info, mail)

    def seen(self, link: Link, whole: Callable[[], bytes]) -> bool:
        """Give every message to the ``message`` handler, after its own."""
        # A handler that ended the client also ended what the client gets to say.
        if not link.is_member or self._engine.table.event("message") is None:
            return False
        return self._engine.run_event(link, "message", link.info, whole())

    def failed(self, link: Link, entry: HandlerEntry, error: Exception) -> None:
        """Report what a handler raised; it costs nobody else anything."""
        if type(error) is RemoteProtocolError:
            self.broken(link, error)
        else:
            self._engine.reports.failed(link.info, entry, error)

    def broken(self, link: Link, error: RemoteProtocolError) -> None:
        """End a client that sent what is none of hisock's."""
        engine = self._engine
        engine.lock.run(engine.ending.end_link, link, Bye(5, str(error)[:1024]))

    def send(self, link: Link, frame: Written) -> None:
        """Send frames to a client."""
        self._engine.outgoing.send(link, frame)

    def reply(self, link: Link, frame: Written) -> None:
        """As ``send``; that of a coroutine that has ended leaves at once, if it is the
        only one (bench/calls.py)."""
        engine = self._engine
        outgoing = engine.outgoing
        if (
            outgoing.gather is None
            or outgoing.current is not None
            or link.outbox.size
            or engine.has_finished_handlers
            or not (link.is_open and engine.turn.is_mine)
        ):
            outgoing.send(link, frame)
        else:
            engine.lock.run(outgoing.write_now, link, frame)

    def resume(self, link: Link) -> None:
        """Look at a link again, if there is a reason: its handler has finished."""
        if link.inbox or link.is_paused or not link.connection.is_open:
            self._engine.resume(link)
