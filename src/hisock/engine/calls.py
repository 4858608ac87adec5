"""Runs handlers: one loop over what was read, for servers and clients alike.

Knows neither sockets nor locks; what happens around a call is asked of an ``Owner``.
"""

from __future__ import annotations

__all__ = ("BLOCKED", "SERVING", "Runner")

import contextvars
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from hisock.engine.failing import failure
from hisock.engine.inbox import Mail
from hisock.engine.link import Link
from hisock.engine.post import Post
from hisock.engine.streams import Producer
from hisock.errors import (
    CommandError,
    MessageTooLarge,
    NotSendable,
    RemoteProtocolError,
)
from hisock.handlers.dispatch import Call, NoHandler, resolve, unknown_command
from hisock.handlers.permission import is_permitted
from hisock.handlers.table import HandlerEntry, HandlerTable
from hisock.session.events import Messages
from hisock.session.requests import DEEPEST, Answering
from hisock.types import AsyncClientInfo, ClientInfo
from hisock.wire import compact
from hisock.wire.frames import Failure, Message, PackedFrame, Request

if TYPE_CHECKING:
    from hisock.engine.owner import Owner

#: The call on whose behalf code runs: its link and id. Carried into workers and tasks.
SERVING: Final[contextvars.ContextVar[tuple[Link, int] | None]] = (
    contextvars.ContextVar("hisock_serving", default=None)
)

#: Seconds that a handler may hold up a loop without being named.
BLOCKED: Final = 0.25

_NO_STREAM: Final = CommandError(
    "no_stream", "this command answers one call; use call(), not stream()"
)
_ONLY_STREAM: Final = CommandError(
    "only_stream", "this command answers with a stream; use stream(), not call()"
)


class Runner:
    """Runs what a link received, message by message.

    Args:
        table: The handlers.
        owner: The engine.
        post: What the handlers send.
        by_client: Whether the messages come from a client, that is: on a server.
    """

    __slots__ = ("_by_client", "_owner", "_post", "_table", "blocked")

    def __init__(
        self, table: HandlerTable, owner: Owner, post: Post, *, by_client: bool
    ) -> None:
        self._table = table
        self._owner = owner
        self._post = post
        self._by_client = by_client
        #: Told of a handler that held up the loop, and for how many seconds.
        self.blocked: Callable[[str, float], None] | None = None

    # --- what was read -------------------------------------------------------------

    def run_messages(
        self, link: Link, messages: Messages, client: Any, *, one: bool = False
    ) -> bool:
        """Run handlers for what is left of ``messages``; whether one ran.

        With ``one`` only for the next of them.

        Stops where a handler takes longer than its call: ``link.is_busy``. An exception
        that leaves this method loses nothing: the iterator stands behind the message
        that raised it.
        """
        rest = islice(messages.rest, 1) if one else messages.rest
        if self.blocked is not None:
            rest = self._timed(rest, messages, self.blocked)
        if messages.is_packed:
            return self._run_packed(link, rest, client)
        return self._run_text(link, rest, client)

    def _timed(
        self,
        rest: Iterator[bytes],
        messages: Messages,
        blocked: Callable[[str, float], None],
    ) -> Iterator[bytes]:
        """Pass messages on, and look how long each takes."""
        for body in rest:
            began = time.monotonic()
            yield body
            took = time.monotonic() - began
            if took > BLOCKED:
                entry = self._entry_of(body, is_packed=messages.is_packed)
                blocked("?" if entry is None else entry.signature.where, took)

    def _entry_of(self, body: bytes, *, is_packed: bool) -> HandlerEntry | None:
        if not is_packed:
            found = self._table.find(body)
            return found[0] if found else self._table.everything
        frame = compact.decode(body)
        command = frame.command if isinstance(frame, Message | Request) else None
        return self._table.get(command) or self._table.everything

    def _run_text(self, link: Link, rest: Iterator[bytes], client: Any) -> bool:
        # Hot path: bench/one_way.py.
        find = self._table.direct.get
        unsent = self._post.unsent
        ran = False
        for body in rest:
            word, _, content = body.partition(b" ")
            call = find(word)
            if call is None:
                if self._run_other(link, body, client):
                    ran = True
                if link.is_busy:
                    break
            else:
                ran = True
                try:
                    call(client, content)
                except Exception as error:
                    self._failed_text(link, body, error)
            if unsent:
                self._post.flush_due()
        return ran

    def _run_packed(self, link: Link, rest: Iterator[bytes], client: Any) -> bool:
        # Hot path: bench/one_way.py.
        find = self._table.packed.get
        unsent = self._post.unsent
        decode = compact.DECODE_FROM_CLIENT if self._by_client else compact.DECODE
        ran = False
        for body in rest:
            try:
                frame = decode(body)
            except compact.MALFORMED as error:
                self._owner.broken(link, compact.malformed(error))
                break
            if (
                type(frame) is Message
                and frame.ttl is None
                and (call := find(frame.command)) is not None
            ):
                ran = True
                try:
                    call(client, frame.content)
                except Exception as error:
                    self._failed_packed(link, frame, error)
            else:
                if type(frame) is Request:  # bench/calls.py
                    ran = self.run_request(link, frame, client) or ran
                elif self._run_frame(link, frame, client):
                    ran = True
                if link.is_busy:
                    break
            if unsent:
                self._post.flush_due()
        return ran

    def _run_other(self, link: Link, body: bytes, client: Any) -> bool:
        """Run a classic message that needs a closer look."""
        try:
            what = resolve(self._table, body, by_client=self._by_client)
        except RemoteProtocolError as error:
            self._owner.broken(link, error)
            return False
        match what:
            case NoHandler():
                return self._run_everything(link, body, client)
            case Call(entry, content):
                who = _colour(entry, client)
                call = partial(entry.call, who, content)
                return self._handle(link, entry, call, lambda: body)
            case frame:
                return self._owner.control(link, frame)

    def _run_everything(self, link: Link, body: bytes, client: Any) -> bool:
        """A classic message without a handler of its own; whether ``"*"`` took it."""
        entry = self._table.everything
        if entry is None:
            self._owner.unclaimed(link, Mail(None, body))
            return self._after(link, partial(self._owner.seen, link, lambda: body))
        word, _, content = body.partition(b" ")
        command = word.decode(errors="replace")
        call = partial(entry.call, _colour(entry, client), command, content)
        return self._handle(link, entry, call, lambda: body)

    def _handle(
        self,
        link: Link,
        entry: HandlerEntry,
        call: Callable[[], Any],
        whole: Callable[[], bytes],
        answering: Answering | None = None,
    ) -> bool:
        """Begin a handler; its message counts as seen, whatever it comes to."""
        if not (entry.is_free or self._may(link, entry, answering)):
            return False
        if not self._table.is_watched:
            self.start(link, entry, call, answering)
            return True
        try:
            self.start(link, entry, call, answering)
        finally:
            self._after(link, partial(self._owner.seen, link, whole))
        return True

    def _may(
        self, link: Link, entry: HandlerEntry, answering: Answering | None
    ) -> bool:
        """Whether the client may have it run; if not, that is said."""
        failure: Exception | None = None
        try:
            if is_permitted(entry.options.requires, link.info):
                return entry.rate is None or self._is_due(link, entry, answering)
        except Exception as error:
            failure = error
        if answering is not None:
            text = f"you may not {entry.command!r:.64}"
            self._fail(link, answering, CommandError("forbidden", text))
        if failure is not None:
            self._owner.failed(link, entry, failure)
        elif answering is None:
            self._owner.forbidden(link, entry)
        return False

    def _is_due(self, link: Link, entry: HandlerEntry, answering: Any) -> bool:
        """Whether the client has not had it run too often; if so, it is told."""
        if self._owner.allows(link, entry):
            return True
        if answering is not None:
            text = f"{entry.command!r:.64} is limited to {entry.options.rate}"
            self._fail(link, answering, CommandError("rate_limited", text))
        else:
            self._owner.too_often(link, entry)
        return False

    def _run_frame(self, link: Link, frame: PackedFrame, client: Any) -> bool:
        match frame:
            case Message():
                return self._run_message(link, frame, client)
            case _:
                return self._owner.control(link, frame)

    def _run_message(self, link: Link, frame: Message, client: Any) -> bool:
        command, content = frame.command, frame.content
        if frame.ttl is not None and self._owner.is_expired(link, frame.ttl):
            return False
        if command is None:
            return self._run_raw(link, content, client)
        entry = self._table.get(command)
        mail = Mail(command, memoryview(content), is_packed=True)
        if entry is not None:
            call = partial(entry.call_packed, _colour(entry, client), content)
        elif (entry := self._table.everything) is not None:
            who = _colour(entry, client)
            call = partial(entry.call_packed, who, command, content)
        else:
            self._owner.unclaimed(link, mail)
            return self._after(link, partial(self._owner.seen, link, mail.whole))
        return self._handle(link, entry, call, mail.whole)

    def _run_raw(self, link: Link, content: Any, client: Any) -> bool:
        """Raw content; as on the classic wire a command that it begins with counts."""
        mail = Mail(None, bytes(content), is_packed=True)
        try:
            body = mail.whole()
        except RemoteProtocolError as error:
            self._owner.broken(link, error)
            return False
        found = self._table.find(body)
        if found is None:
            self._owner.unclaimed(link, mail)
            return self._after(link, partial(self._owner.seen, link, lambda: body))
        entry, text = found
        call = partial(entry.call, _colour(entry, client), text)
        return self._handle(link, entry, call, lambda: body)

    def run_request(self, link: Link, frame: Request, client: Any) -> bool:
        """Answer a call or a stream; whether a handler ran."""
        requests = link.connection.requests
        assert requests is not None
        answering = requests.begin(frame.id)  # a step that needs no lock
        if answering is None:
            self._refuse(link, frame.id, "too many calls are open")
            return False
        if answering.is_over or (  # cancelled, or too late, before its turn
            frame.ttl is not None and self._owner.is_expired(link, frame.ttl)
        ):
            self._owner.finish(link, answering)
            return False
        call = self._table.packed.get(frame.command)
        if call is not None and not answering.is_stream:
            self._answer_simply(link, frame, answering, call, client)
            return True
        return self._answer(link, frame, answering, client)

    def _answer_simply(
        self,
        link: Link,
        frame: Request,
        answering: Answering,
        call: Callable[..., Any],
        client: Any,
    ) -> None:
        """Answer a call by a simple handler, of which nobody else hears: what
        ``_answer`` to ``_reply`` come to then, in one piece (bench/calls.py)."""
        before = SERVING.set((link, answering.id))
        try:
            reply = link.writer.reply(answering.id, call(client, frame.content))
        except Exception as error:
            entry = self._table.get(frame.command)
            assert entry is not None  # as there are no simple ones without
            self._finished(link, entry, answering, None, error)
        else:
            if self._owner.finish(link, answering):
                self._owner.send(link, reply)
        finally:
            SERVING.reset(before)

    def run_nested(
        self, link: Link, frame: Request, client: Any, depth: int = 0
    ) -> None:
        """Answer a call that is made on behalf of one of ours, out of order."""
        requests = link.connection.requests
        assert requests is not None
        answering = requests.begin(frame.id)
        if answering is None or (  # which it refuses
            depth <= DEEPEST and not requests.nests_too_much(answering)
        ):
            self.run_request(link, frame, client)
        else:
            self._owner.finish(link, answering)
            text = f"calls are nested more than {DEEPEST} deep"
            self._refuse(link, frame.id, text)

    def _refuse(self, link: Link, number: int, text: str) -> None:
        self._owner.send(link, compact.encode(Failure(number, "overloaded", text)))

    def _answer(
        self, link: Link, frame: Request, answering: Answering, client: Any
    ) -> bool:
        command, content = frame.command, frame.content
        entry = self._table.get(command)
        if entry is not None:
            call = partial(entry.call_packed, _colour(entry, client), content)
        elif command[:1] == "$":
            self._answer_own(link, frame, answering)
            return False
        elif (entry := self._table.everything) is not None:
            who = _colour(entry, client)
            call = partial(entry.call_packed, who, command, content)
        else:
            text = unknown_command(self._table, command, for_peer=True)
            self._fail(link, answering, CommandError("unknown_command", text))
            return False

        def whole() -> bytes:
            return Mail(command, memoryview(content), is_packed=True).whole()

        return self._handle(link, entry, call, whole, answering)

    def _answer_own(self, link: Link, frame: Request, answering: Answering) -> None:
        try:
            if answering.is_stream:
                raise _NO_STREAM
            self._reply(link, answering, self._owner.answer_own(link, frame))
        except CommandError as error:
            self._fail(link, answering, error)

    def run_event(self, link: Link, event: str, *arguments: Any) -> bool:
        """Run the handler of a reserved event; whether there is one."""
        entry = self._table.event(event)
        if entry is None:
            return False
        if arguments and isinstance(arguments[0], ClientInfo):
            arguments = (_colour(entry, arguments[0]), *arguments[1:])
        self.start(link, entry, partial(entry.call, *arguments))
        if self._post.unsent:
            self._post.flush_due()
        return True

    # --- one handler ---------------------------------------------------------------

    def start(
        self,
        link: Link,
        entry: HandlerEntry,
        call: Callable[[], Any],
        answering: Answering | None = None,
    ) -> None:
        """Begin a handler; where it takes longer, ``link`` is busy until it is done."""
        wants_stream = answering is not None and answering.is_stream
        is_stream = "generator" in entry.kind
        if is_stream is not wants_stream:
            error = _ONLY_STREAM if is_stream else _NO_STREAM
            if answering is None:
                self._owner.failed(link, entry, error)
            else:
                self._fail(link, answering, error)
            return
        if entry.is_plain and answering is not None:
            self._answer_here(link, entry, call, answering)
            return
        if entry.is_plain:
            try:
                call()
            except Exception as raised:
                self._owner.failed(link, entry, raised)
            return
        context = contextvars.copy_context()
        if answering is not None:
            context.run(SERVING.set, (link, answering.id))
        if entry.options.threaded:
            self._start_threaded(link, entry, partial(context.run, call), answering)
        else:
            self._start_here(link, entry, call, context, answering)

    def _answer_here(
        self,
        link: Link,
        entry: HandlerEntry,
        call: Callable[[], Any],
        answering: Answering,
    ) -> None:
        """A plain function that answers a call."""
        before = SERVING.set((link, answering.id))
        try:
            result = call()
        except Exception as error:
            self._finished(link, entry, answering, None, error)
        else:
            self._finished(link, entry, answering, result, None)
        finally:
            SERVING.reset(before)

    def _start_here(
        self,
        link: Link,
        entry: HandlerEntry,
        call: Callable[[], Any],
        context: contextvars.Context,
        answering: Answering | None,
    ) -> None:
        done = partial(self._done, link, entry, answering)
        try:
            result = context.run(call)
        except Exception as error:
            self._finished(link, entry, answering, None, error)
            return
        match entry.kind:
            case "coroutine":
                link.begin(entry)
                self._owner.spawn(link, result, context, done, entry.signature.where)
            case "generator":
                assert answering is not None
                self._owner.produce(self._producer(link, entry, answering, result))
            case _:
                assert answering is not None
                fail = partial(self._finished, link, entry, answering, None)
                self._owner.produce_async(link, answering, result, context, fail)

    def _start_threaded(
        self,
        link: Link,
        entry: HandlerEntry,
        call: Callable[[], Any],
        answering: Answering | None,
    ) -> None:
        if entry.kind == "generator":
            assert answering is not None

            def produce() -> None:
                self._producer(link, entry, answering, call()).run()

            def over(_: Any, error: BaseException | None) -> None:
                if isinstance(error, Exception):
                    self._finished(link, entry, answering, None, error)

            self._owner.work(link, produce, over)
            return
        if answering is not None:
            call = partial(self._answer_at_once, link, answering, call)
        link.begin(entry)
        self._owner.work(link, call, partial(self._done, link, entry, answering))

    def _answer_at_once(
        self, link: Link, answering: Answering, call: Callable[[], Any]
    ) -> None:
        """In a worker: the answer waits for no turn; perhaps there is none."""
        try:
            self._reply(link, answering, call())
        except Exception as error:
            self._fail(link, answering, error)
            raise

    def _producer(
        self, link: Link, entry: HandlerEntry, answering: Answering, items: Any
    ) -> Producer:
        fail = partial(self._finished, link, entry, answering, None)
        return Producer(link, answering, items, self._owner.send, fail)

    def _done(
        self,
        link: Link,
        entry: HandlerEntry,
        answering: Answering | None,
        result: Any,
        error: BaseException | None,
    ) -> None:
        """A handler that took longer has come to its end."""
        link.end_of(entry)
        try:
            self._finished(link, entry, answering, result, error)
        finally:
            while link.todo and not link.is_busy:
                link.todo.pop(0)()
            self._owner.resume(link)

    def _after(self, link: Link, step: Callable[[], bool]) -> bool:
        """Do something once the handler of this message is done; whether one ran."""
        if not link.is_busy:
            return step()
        link.todo.append(step)
        return False

    def _finished(
        self,
        link: Link,
        entry: HandlerEntry,
        answering: Answering | None,
        result: Any,
        error: BaseException | None,
    ) -> None:
        if error is None:
            if answering is None:
                return
            try:
                self._reply(link, answering, result)
                return
            except (NotSendable, MessageTooLarge) as raised:
                error = raised
        if answering is not None:
            self._fail(link, answering, error)
            if isinstance(error, CommandError):
                return  # refused on purpose: the caller's business alone
        if isinstance(error, Exception):
            self._owner.failed(link, entry, error)

    def _reply(self, link: Link, answering: Answering, result: Any) -> None:
        frame = link.writer.reply(answering.id, result)
        if self._owner.finish(link, answering):
            self._owner.reply(link, frame)

    def _fail(self, link: Link, answering: Answering, error: BaseException) -> None:
        if self._owner.finish(link, answering):
            self._owner.send(link, compact.encode(failure(answering.id, error)))

    def _failed_text(self, link: Link, body: bytes, error: Exception) -> None:
        found = self._table.find(body)
        # The handler may have registered another in its own place meanwhile.
        if found is None:
            raise error
        self._owner.failed(link, found[0], error)

    def _failed_packed(self, link: Link, frame: Message, error: Exception) -> None:
        if isinstance(error, RemoteProtocolError):
            self._owner.broken(link, error)
            return
        entry = self._table.get(frame.command)
        if entry is None:
            raise error
        self._owner.failed(link, entry, error)


def _colour(entry: HandlerEntry, client: Any) -> Any:
    """The client as that handler's kind of function uses it."""
    if client is not None and entry.is_async:
        return client._other(AsyncClientInfo)
    return client
