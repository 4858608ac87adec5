"""Waits, on a client, for messages that no handler takes."""

from __future__ import annotations

__all__ = ("ENDED", "Receiving")

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from hisock.engine.inbox import Mail
from hisock.engine.waiting import check_timeout
from hisock.errors import ClientDisconnected, Overloaded, RequestTimeout
from hisock.session.events import Closed

if TYPE_CHECKING:
    from hisock.engine.blocking import ClientEngine

#: Why a client is disconnected, where nobody said why.
ENDED: Final = "the server ended the connection"


class Receiving:
    """What ``recv`` and its kind wait with.

    Args:
        engine: The client's engine.
    """

    __slots__ = ("_engine",)

    def __init__(self, engine: ClientEngine) -> None:
        self._engine = engine

    def next(
        self, wanted: Callable[[Mail], bool] | None, timeout: float | None
    ) -> Mail:
        """Wait for the next message without a handler; nothing else runs meanwhile.

        Args:
            wanted: Which of them; ``None`` for any.
            timeout: Seconds to wait at most; ``None`` for as long as it takes.

        Raises:
            ClientDisconnected: The connection ended first.
            Overloaded: More than ``Limits.queue`` bytes came that have a handler.
            RequestTimeout: It did not come in time.
        """
        find = self._engine.search.find
        look = find if wanted is None else partial(find, wanted)
        return self._wait(look, timeout)  # type: ignore[no-any-return]  # of look

    def next_raw(self) -> bytes:
        """As ``next``, for any message, whole.

        Raises:
            ClientDisconnected, Overloaded: As ``next``.
        """
        found = self._wait(self._engine.search.find_raw, None)
        return found if type(found) is bytes else found.whole()

    def _wait(self, look: Callable[[], Any], timeout: float | None) -> Any:
        """Wait until ``look`` finds something, and return that."""
        engine = self._engine
        end = None
        if timeout is not None:
            check_timeout(timeout)
            end = time.monotonic() + timeout
        uplink = engine.uplink  # its ``flush`` in place (bench/ping_pong.py)
        if uplink.batches.open or engine.outgoing.unsent:
            uplink.flush()
        link, pump = engine.link, engine.pump
        while True:
            seen = pump.news
            if engine.telling.is_lost_to_tell and engine.telling.loss_first():
                continue
            if link.inbox or engine.inbox.mails:
                found = engine.lock.run(look)
                if found is not None:
                    return found
                self.check()
            if not engine.is_usable:
                engine.raise_closed()
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise RequestTimeout(f"nothing came within {timeout:g} s")
            if engine.turn.claims and not engine.turn.is_mine:
                # Its handlers' turn sorts out what it has begun, and tells us.
                pump.wait_beside(left, seen)
                continue
            found = pump.pump(left, seen, look)
            if found is not None:
                return found

    def check(self) -> None:
        """Raise if there is no use in waiting: the end is in the inbox, behind messages
        that nobody asked for, or there are too many of those.

        Raises:
            ClientDisconnected, Overloaded: As said.
        """
        engine = self._engine
        if 0 < engine.limits.queue < engine.queued():
            raise Overloaded(
                f"{engine.queued()} bytes of other messages came while waiting; "
                "call update() more often"
            )
        for event in engine.link.inbox:
            if isinstance(event, Closed):
                text = f"{engine.title} is disconnected: {event.reason}"
                raise ClientDisconnected(text) from event.error
        if engine.link.connection.has_goodbye:
            engine.raise_closed()
