"""Tells a client's program what became of its link and of its session."""

from __future__ import annotations

__all__ = ("Telling",)

from typing import TYPE_CHECKING

from hisock.engine.log import logger
from hisock.engine.repeats import Repeats
from hisock.errors import SessionLost
from hisock.handlers.table import DROP, GAP, RESUME, SESSION_LOST
from hisock.session.events import Dropped, Lost, Resumed
from hisock.types import Gap
from hisock.wire import frames

if TYPE_CHECKING:
    from hisock.engine.blocking import ClientEngine

_log = logger("hisock.client")


class Telling:
    """What a client's handlers hear besides messages.

    Args:
        engine: The client's engine.

    Attributes:
        is_lost_to_tell: Whether the loss of a session waits in the inbox.
    """

    __slots__ = ("_engine", "_repeats", "is_lost_to_tell")

    def __init__(self, engine: ClientEngine) -> None:
        self._engine = engine
        self._repeats = Repeats()
        self.is_lost_to_tell = False

    def happened(self, event: Dropped | Resumed | Lost) -> bool:
        """The link or the session has changed; whether a handler was told."""
        engine = self._engine
        match event:
            case Dropped(reason):
                _log.info("%s lost its link and tries again: %s", engine.title, reason)
                return engine.run_event(DROP)
            case Resumed():
                return engine.run_event(RESUME)
            case Lost(error):
                return self._lost(error)

    def _lost(self, error: SessionLost) -> bool:
        self.is_lost_to_tell = False
        if self._engine.run_event(SESSION_LOST, error):
            return True
        _log.warning("%s", error)
        return False

    def loss_comes(self) -> None:
        """A session is lost; that waits in the inbox for its turn."""
        self.is_lost_to_tell = True

    def loss_first(self) -> bool:
        """Tell of a lost session before anything of the new one is received."""
        engine = self._engine
        if engine.turn.claims and not engine.turn.is_mine:
            return False
        inbox = engine.link.inbox
        lost = next((event for event in inbox if isinstance(event, Lost)), None)
        if lost is None:
            self.is_lost_to_tell = False
            return False
        engine.lock.run(inbox.remove, lost)
        self._lost(lost.error)
        return True

    def what_stays(self) -> bool:
        """Tell what was accepted and did not arrive, now that it is over for good;
        whether a handler was told."""
        from hisock.engine.undelivered import undelivered  # only at an end

        unacked = undelivered(self._engine.link)
        if not unacked:
            return False
        text = (
            f"{self._engine.title} ended before {len(unacked)} messages were "
            f"acknowledged, the first {unacked[0].command!r:.64}"
        )
        return self._lost(SessionLost(text, "closed", unacked))

    def gap(self, gap: frames.Gap) -> bool:
        """The server dropped messages for us, as their sender allowed."""
        engine = self._engine
        if engine.run_event(GAP, Gap(gap.count, gap.group)):
            return True
        if count := self._repeats.due("gap"):
            text = "%s was too slow and missed %d messages (%d)"
            _log.warning(text, engine.title, gap.count, count)
        return False
