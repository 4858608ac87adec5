"""Finds, among what a client has read, the next message that no handler takes."""

from __future__ import annotations

__all__ = ("Search", "take_nested", "take_out")

from collections.abc import Callable
from functools import partial
from operator import length_hint
from typing import TYPE_CHECKING, Final

from hisock.engine.inbox import Mail
from hisock.engine.link import Link
from hisock.errors import RemoteProtocolError
from hisock.handlers.dispatch import NoHandler, resolve
from hisock.session.events import Messages
from hisock.wire import compact
from hisock.wire.classic import decode_answer
from hisock.wire.frames import Message, Request

if TYPE_CHECKING:
    from hisock.engine.blocking import ClientEngine

#: The kind of a message, as its second byte: most are.
_MESSAGE: Final = 1


class Search:
    """Looks through what waits, in order of arrival; under the lock.

    Args:
        engine: The engine whose inboxes these are.

    Attributes:
        answers_due: Answers to ``$GETCLT$`` on the classic wire that are on their way;
            nobody else may take them.
    """

    __slots__ = ("_engine", "_inbox", "_mails", "_outgoing", "answers_due")

    def __init__(self, engine: ClientEngine) -> None:
        self._engine = engine
        self._inbox = engine.link.inbox
        self._mails = engine.inbox.mails
        self._outgoing = engine.outgoing
        self.answers_due = 0

    def find_raw(self) -> bytes | Mail | None:
        """As ``find``, for who wants it whole; ``bytes`` is what came so."""
        event = self._single()
        if event is None or event.is_packed or self._engine.table.takes_any:
            return self.find()
        body = event.bodies[0]
        if body[:1] == b"$":
            return self.find()
        self._inbox.clear()
        return body

    def _single(self) -> Messages | None:
        """What waits, if that is one message and nobody else may have it: what a
        dialogue usually finds (bench/ping_pong.py)."""
        inbox = self._inbox
        if len(inbox) != 1 or self._mails:
            return None
        event = inbox[0]
        if (
            type(event) is Messages
            and len(event.bodies) == 1 == length_hint(event.rest)
            and event is not self._outgoing.current
            and not (self.answers_due or self._engine.cache.maxlen)
        ):
            return event
        return None

    def find(self, wanted: Callable[[Mail], bool] | None = None) -> Mail | None:
        """Take the first message that nobody handles and that is wanted."""
        engine = self._engine
        inbox = engine.link.inbox
        if wanted is None and (only := self._single()) is not None:
            mail = self._mail(only.bodies[0], is_packed=only.is_packed)
            if mail is not None:
                inbox.clear()
            return mail
        if engine.inbox.mails:
            kept = engine.inbox.take(partial(self._is_wanted, wanted=wanted))
            if kept is not None:
                return kept
        if engine.outgoing.current is not None and not engine.turn.is_mine:
            return None  # the other thread's turn sorts out what it has begun
        for event in list(inbox):
            if isinstance(event, Messages):
                found = self._find_in(event, wanted)
                if found is not None:
                    return found
        return None

    def _find_in(
        self, event: Messages, wanted: Callable[[Mail], bool] | None
    ) -> Mail | None:
        bodies = event.bodies
        engine = self._engine
        for index in range(max(event.place, event.searched), len(bodies)):
            mail = self._mail(bodies[index], is_packed=event.is_packed)
            if mail is None:
                if index == event.searched:
                    event.searched = index + 1
            elif self._is_wanted(mail, wanted):
                take_out(engine.link, event, index, engine.outgoing.current)
                if wanted is None and engine.cache.maxlen:
                    engine.remember(mail)
                return mail
        return None

    def _is_wanted(self, mail: Mail, wanted: Callable[[Mail], bool] | None) -> bool:
        if wanted is not None:
            return wanted(mail)
        # While somebody waits for the answer to a question, it is not for others.
        return not (
            self.answers_due
            and not mail.is_packed
            and decode_answer(mail.whole()) is not None
        )

    def _mail(self, body: bytes, *, is_packed: bool) -> Mail | None:
        """What was read as mail, if nobody handles it."""
        return self._packed(body) if is_packed else self._text(body)

    def _text(self, body: bytes) -> Mail | None:
        table = self._engine.table
        if body[:1] != b"$":
            if table.takes_any and (table.everything or table.find(body)):
                return None
            return Mail(None, body)
        try:
            found = resolve(table, body, by_client=False)
        except RemoteProtocolError:
            return None  # its turn comes, and ends the connection
        if not isinstance(found, NoHandler) or table.everything is not None:
            return None
        return Mail(None, body)

    def _packed(self, body: bytes) -> Mail | None:
        table = self._engine.table
        try:
            frame = compact.decode(body)
        except RemoteProtocolError:
            return None  # its turn comes, and ends the connection
        match frame:
            case Message(None, content, _):
                return self._raw(memoryview(content))
            case Message(command, content, ttl):
                handled = table.get(command) or table.everything
                if handled is not None or self._engine.is_expired(ttl):
                    return None
                return Mail(command, memoryview(content), is_packed=True)
        return None

    def _raw(self, content: memoryview) -> Mail | None:
        mail = Mail(None, content, is_packed=True)
        try:
            return None if self._engine.table.find(mail.whole()) else mail
        except RemoteProtocolError:
            return None  # its turn comes, and ends the connection

    def find_nested(self) -> Request | None:
        """Take out the first call that is made on behalf of one of ours."""
        link = self._engine.link
        nested = take_nested(link, self._engine.outgoing.current)
        return nested


def take_nested(link: Link, current: Messages | None) -> Request | None:
    """Take the first call out of what waits that is made on behalf of one of ours.

    Args:
        link: Whose messages wait; under the lock.
        current: Those whose handlers run at the moment.
    """
    requests = link.connection.requests
    if requests is None or not requests.asked:
        return None
    for event in list(link.inbox):
        if not isinstance(event, Messages) or not event.is_packed:
            continue
        for index in range(event.place, len(event.bodies)):
            if event.bodies[index][1] == _MESSAGE:
                continue
            try:
                frame = compact.decode(event.bodies[index])
            except RemoteProtocolError:
                continue  # its turn comes, and ends the connection
            if isinstance(frame, Request) and frame.within in requests.asked:
                take_out(link, event, index, current)
                return frame
    return None


def take_out(link: Link, event: Messages, index: int, current: Messages | None) -> None:
    """Take one body out of the middle of what a read brought."""
    event.size -= len(event.bodies[index])
    del event.bodies[index]
    if not event.bodies and event is not current:
        link.inbox.remove(event)
