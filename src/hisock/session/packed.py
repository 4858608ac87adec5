"""The handshake of a client whose hello is compact already: on a WebSocket.

Pure. It has not yet heard of HTTP, which is read below it.
"""

from __future__ import annotations

__all__ = ("PackedHandshake",)

from hisock.errors import RemoteProtocolError
from hisock.session.agreement import EARLY, FirstFrame
from hisock.session.events import Closed, Event, Messages, Opened
from hisock.session.handshake import Handshake
from hisock.session.states import Input, State, next_state
from hisock.wire import compact
from hisock.wire.frames import Bye
from hisock.wire.greeting import hello_of


class PackedHandshake(Handshake):
    """Adds to the handshake that of a server with such a client."""

    __slots__ = ()

    def expect_packed(self) -> None:
        """What comes is compact from the first byte, the hello too."""
        self.is_packed = True
        self.state = next_state(self.state, Input.UPGRADE)
        self._hello = self.http = None
        self._first = FirstFrame(self._limits.hello or EARLY)
        self.feed = self._feed_packed_hello

    def _feed_packed_hello(self, data: bytes, now: float) -> list[Event]:
        assert self._first is not None
        try:
            body = self._first.feed(data)
            if body is None:
                return []
            hello = hello_of(compact.decode_hello(body), self._limits.name)
            if not hello.proto:
                raise RemoteProtocolError("the hello names no version")
        except RemoteProtocolError as error:
            return self._end(Input.VIOLATION, now, Closed(str(error), error))
        self.is_open = True
        self.deadline = None
        self._learn_clock(hello.now, now)
        opened: list[Event] = [Opened(hello)]
        rest = self._first.rest()
        if self.is_guarded:
            return opened + self._begin_trial(hello, rest, now)
        self.state = next_state(self.state, Input.HELLO)
        self._first = FirstFrame()
        self.feed = self._feed_early
        return opened + self._feed_early(rest, now) if rest else opened

    def _feed_early(self, data: bytes, now: float) -> list[Event]:
        """Nothing is said between hello and welcome, but goodbye."""
        assert self._first is not None
        try:
            body = self._first.feed(data)
            if body is None:
                return []
            said = compact.decode(body)
            if not isinstance(said, Bye):
                raise RemoteProtocolError("a message came before the welcome")
        except RemoteProtocolError as error:
            return self._end(Input.VIOLATION, now, Closed(str(error), error))
        self.goodbye = said
        self.feed = self._feed_nothing
        return [Messages([body], is_packed=True)]

    def violated(self, error: RemoteProtocolError, now: float) -> list[Event]:
        """The bytes below this are not what they should be."""
        if self.state is State.CLOSING:  # it is said already
            return self.lost(str(error), now)
        return self._end(Input.VIOLATION, now, Closed(str(error), error))
