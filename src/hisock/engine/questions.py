"""What a client asks its server: calls, streams, who somebody is."""

from __future__ import annotations

__all__ = ("Questions",)

import threading
import time
from typing import TYPE_CHECKING, Any, Final

from hisock.engine.asking import (
    Stream,
    begin,
    outcome,
    packed,
    reader_for,
    serving_on,
)
from hisock.engine.inbox import Mail
from hisock.engine.waiting import check_timeout, end_of
from hisock.errors import (
    ClientDisconnected,
    LocalProtocolError,
    Refused,
    RemoteError,
    RequestTimeout,
    SendTimeout,
    SessionLost,
)
from hisock.session.connection import milliseconds
from hisock.session.requests import Asked
from hisock.wire import compact
from hisock.wire.classic import decode_answer
from hisock.wire.frames import Cancel, ClientAnswer, Credit, GetClient

if TYPE_CHECKING:
    from hisock.engine.blocking import ClientEngine

#: Seconds that an answer about another client may take.
_ANSWER: Final = 5.0


class _Stack(threading.local):
    """How many calls are served on this thread while others wait further out on it."""

    depth = 0


_stack = _Stack()


class Questions:
    """The asking half of a client's engine.

    Args:
        engine: The engine.
    """

    __slots__ = ("_asking", "_engine")

    def __init__(self, engine: ClientEngine) -> None:
        self._engine = engine
        self._asking = threading.Lock()

    # --- calls and streams -----------------------------------------------------

    def call(self, command: str, content: Any, timeout: float | None, kind: Any) -> Any:
        """What the server's handler returned; waits for it.

        Raises:
            RequestTimeout: No answer came in ``timeout`` seconds.
            RemoteError, SessionLost, ConversionError: As ``asking.outcome``.
        """
        read = reader_for(kind)
        end = ttl = None
        if timeout is not None:
            end = end_of(timeout)
            ttl = milliseconds(end)
        self._agree(timeout)
        asked = self.ask(command, content, ttl=ttl)
        try:
            while not asked.is_done:
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    raise RequestTimeout(
                        f"no answer to {command!r:.80} came within {timeout:g} s"
                    )
                self.wait(asked, left)
        except BaseException:
            self.give_up(asked)
            raise
        return outcome(asked, read)

    def stream(
        self, command: str, content: Any, timeout: float | None, kind: Any
    ) -> Stream[Any]:
        """Begin a stream."""
        read = reader_for(kind)
        if timeout is not None:
            check_timeout(timeout)
        self._agree(timeout)
        asked = self.ask(command, content, is_stream=True)
        return Stream(self, asked, read, timeout)

    def _agree(self, timeout: float | None) -> None:
        """Wait until the server has answered, and can answer calls at all."""
        engine = self._engine
        if engine.link.writer.is_compact:
            return
        if not engine.uplink.know_wire():
            try:
                engine.uplink.agree(30.0 if timeout is None else timeout)
            except SendTimeout as error:
                raise RequestTimeout(str(error)) from None
        self.check_wire()

    def check_wire(self) -> None:
        """Refuse calls to a server that knows none.

        Raises:
            Refused: It is a server of hisock 1.1.
        """
        if self._engine.uplink.wire == "classic":
            raise Refused(
                "the server speaks the wire of hisock 1.1, which has no calls and no "
                "streams; use send() and recv()",
                code="classic_wire",
            )

    def ask(
        self,
        command: str,
        content: Any,
        *,
        is_stream: bool = False,
        ttl: int | None = None,
    ) -> Asked:
        """Send a request.

        Args:
            command, content: What is asked for.
            is_stream: Whether items are to come.
            ttl: When it is no longer wanted, in milliseconds of our clock.

        Raises:
            ReservedCommand, NotSendable, MessageTooLarge: It cannot be sent.
            Overloaded: Too many are open.
            ClientDisconnected: The connection has ended.
        """
        engine = self._engine
        engine.uplink.flush()
        link, lock = engine.link, engine.lock
        if not (engine.is_usable and link.is_open):
            engine.raise_closed()
        content, within = packed(content), serving_on(link)
        # ``StateLock.run`` in place (bench/calls.py).
        with lock.reading:
            if lock.is_busy:
                raise LocalProtocolError(
                    "a signal handler cannot call while its own thread sends"
                )
            lock.is_busy = True
            try:
                asked = self._ask(command, content, is_stream, ttl, within)
            finally:
                lock.is_busy = False
                if lock.postponed:
                    lock.catch_up()
        engine.uplink.see_off()
        return asked

    def _ask(
        self,
        command: str,
        content: Any,
        is_stream: bool,
        ttl: int | None,
        within: int | None,
    ) -> Asked:
        """Begin a request and write it; under the lock."""
        link = self._engine.link
        if link.connection.requests is None or not link.is_open:  # it ended just now
            self._engine.raise_closed()
        if not link.writer.is_compact:  # another server, or session, just now
            raise SessionLost("the session was lost while this was about to leave")
        asked, frame = begin(link, command, content, is_stream, ttl, within)
        link.send(frame)
        return asked

    def wait(self, asked: Asked, timeout: float | None) -> None:
        """Wait a while for something to come; serves what is called within."""
        engine = self._engine
        seen = engine.pump.news
        if asked.answers or asked.is_done:
            return
        pumps = not engine.turn.claims or engine.turn.is_mine
        if pumps and engine.link.inbox and self._serve_nested():
            return
        try:
            if pumps and engine.link.inbox:
                engine.receiving.check()
            if not engine.is_usable:
                engine.raise_closed()
        except ClientDisconnected as error:
            if asked.answers or asked.failure is not None:
                return  # it ended just now, and the call knows why
            raise SessionLost(f"no answer came: {error}") from error
        engine.wait_more(timeout, seen)

    def _serve_nested(self) -> bool:
        """Run a call that the server makes on behalf of one that waits here."""
        engine = self._engine
        request = engine.lock.run(engine.search.find_nested)
        if request is None:
            return False
        _stack.depth += 1
        current, engine.outgoing.current = engine.outgoing.current, None
        try:
            engine.runner.run_nested(engine.link, request, None, _stack.depth)
        finally:
            _stack.depth -= 1
            engine.outgoing.current = current
        return True

    def give_up(self, asked: Asked) -> None:
        """Wait no longer for an answer, and tell the server."""
        requests = self._engine.link.connection.requests
        if requests is None or not self._engine.lock.run(requests.forget, asked):
            return
        self.tell(asked, Cancel(asked.id))

    def tell(self, asked: Asked, frame: Credit | Cancel) -> None:
        """Send what steers a stream."""
        engine = self._engine
        if engine.is_usable and engine.link.is_open:
            engine.outgoing.send(engine.link, compact.encode(frame))

    # --- who somebody is ---------------------------------------------------------

    def who_is(self, who: str) -> ClientAnswer:
        """Ask the server who somebody is.

        Raises:
            RequestTimeout: No answer came in 5 s.
            ClientDisconnected: The connection has ended.
        """
        self._engine.uplink.flush()
        try:
            self._engine.uplink.agree(_ANSWER)
        except SendTimeout:
            text = f"the server did not answer within {_ANSWER:g} s"
            raise RequestTimeout(text) from None
        if self._engine.uplink.wire == "classic":
            return self._who_is_classic(who)
        try:
            info = self.call("$GETCLT$", who, _ANSWER, dict)
        except RemoteError as error:
            nobody = error.code == "unknown_client"
            return ClientAnswer(None, "$NOEXIST$" if nobody else error.message)
        if isinstance(info.get("ip"), list):
            info["ip"] = tuple(info["ip"])
        return ClientAnswer(info)

    def _who_is_classic(self, who: str) -> ClientAnswer:
        """Where the answer has no label.

        One question at a time, and in order: what answers an earlier question, whose
        asker has given up, is thrown away first.
        """
        engine = self._engine
        with self._asking:
            end = time.monotonic() + _ANSWER
            engine.uplink.write(engine.link.writer.control(GetClient(who)))
            engine.search.answers_due += 1
            while True:
                left = max(0.0, end - time.monotonic())
                try:
                    mail = engine.receiving.next(self.is_answer, left)
                except RequestTimeout:
                    text = f"the server did not answer within {_ANSWER:g} s"
                    raise RequestTimeout(text) from None
                engine.search.answers_due -= 1
                if not engine.search.answers_due:
                    return self.read_answer(mail)

    @staticmethod
    def is_answer(mail: Mail) -> bool:
        """Whether this is what a server of 1.1 says of another client."""
        return not mail.is_packed and decode_answer(mail.whole()) is not None

    @staticmethod
    def read_answer(mail: Mail) -> ClientAnswer:
        """What it says."""
        answer = decode_answer(mail.whole())
        assert answer is not None
        return answer
