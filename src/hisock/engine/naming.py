"""Which names and groups clients may have, and who has to go for a name.

Only the thread that turns the server calls into here, and under the lock where it says.
"""

from __future__ import annotations

__all__ = ("Naming",)

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hisock.engine.link import Link
from hisock.hub.names import Policy, claim
from hisock.session.events import Messages
from hisock.types import Identity
from hisock.wire.frames import Bye, Groups, Regroup, Rename

if TYPE_CHECKING:
    from hisock.engine.gate import Gate
    from hisock.engine.serve import ServerEngine

#: The code of the goodbye to who loses its name; see ``docs/wire.md``.
_REPLACED = 2
_TAKEN = "another client has taken its name"


class Naming:
    """The names of one server's clients.

    Args:
        engine: The server's engine.
        gate: Ends the sessions of those who lose their name.

    Attributes:
        policy: What holds of names that somebody has.
        may_rename: Whether clients may change their name; ``None``: if nobody checks
            who they are.
        may_regroup: The same for groups.
    """

    __slots__ = ("_engine", "_gate", "_waits", "may_regroup", "may_rename", "policy")

    def __init__(self, engine: ServerEngine, gate: Gate) -> None:
        self._engine = engine
        self._gate = gate
        self.policy: Policy = "allow"
        self.may_rename: bool | None = None
        self.may_regroup: bool | None = None
        #: Who has lost its name and not left yet → who has it now.
        self._waits: dict[Link, Link] = {}

    def claim(
        self, link: Link, name: str | None, identity: Identity | None
    ) -> list[Link] | None:
        """Who has to go so that a client can have a name; ``None`` if it may not."""
        registry = self._engine.registry
        return claim(registry, name, link, identity, self.policy)

    def displace(self, rivals: Sequence[Link], link: Link) -> None:
        """Have those go whose name is another client's now."""
        for rival in rivals:
            if self._leaves_soon(rival):
                self._waits[rival] = link
            if not rival.is_dropped:
                bye = Bye(_REPLACED, _TAKEN)
                self._engine.ending.end_link(rival, bye, "replaced")
            elif self.policy == "replace":
                self._gate.end_session(rival, "replaced", _TAKEN)
            else:
                self._gate.end_session(rival, "evicted", _TAKEN)

    def _leaves_soon(self, rival: Link) -> bool:
        """Whether nobody's handler can hold up its ``leave``."""
        if rival.is_busy:
            return rival in self._waits.values()
        has_messages = any(isinstance(event, Messages) for event in rival.inbox)
        return not (rival.is_dropped and has_messages)

    def has_to_wait(self, link: Link) -> bool:
        """Whether somebody who had the name of a newcomer has not left yet."""
        return bool(self._waits) and link in self._waits.values()

    def has_left(self, rival: Link) -> None:
        """Somebody has left: who waited for that may join."""
        link = self._waits.pop(rival, None)
        if link is not None and not self.has_to_wait(link):
            link.is_busy = False
            self._engine.resume(link)

    # --- what clients ask for ------------------------------------------------------

    def may_change(self, key: str) -> bool:
        """Whether clients may change their ``name`` or ``group`` at all."""
        asked = self.may_rename if key == "name" else self.may_regroup
        return not self._gate.guard.is_set if asked is None else asked

    def change(
        self, link: Link, key: str, new: str | None
    ) -> tuple[bool, str | None, bool]:
        """Give a member another name or group, if it may have it; under the lock.

        Returns:
            Whether it has another now, the old one, and whether it was refused.
        """
        if not link.is_member:
            return False, None, False
        rivals: list[Link] | None = []
        if new != link.info[key]:
            rivals = self._rivals(link, key, new)
        is_refused = rivals is None
        changed, old = False, None
        if rivals is not None:
            self.displace(rivals, link)
            for rival in rivals:  # it has joined already, so it need not wait
                self._waits.pop(rival, None)
            changed, old = self._engine.members.change(link, key, new)
        if self._may_refuse(key):
            self._tell(link, key)
        return changed, old, is_refused

    def _rivals(self, link: Link, key: str, new: str | None) -> list[Link] | None:
        if not self.may_change(key):
            return None
        return self.claim(link, new, link.info.identity) if key == "name" else []

    def _may_refuse(self, key: str) -> bool:
        """Whether clients cannot know what became of what they asked for."""
        return not self.may_change(key) or (key == "name" and self.policy != "allow")

    def _tell(self, link: Link, key: str) -> None:
        """Tell a client what holds; one of 1.1 has no ear for it."""
        if link.connection.writes_compact:
            kind: Any = Rename if key == "name" else Regroup
            frame = link.writer.control(kind(link.info[key]))
            self._engine.outgoing.write(link, frame)

    def tell_groups(self, link: Link, refused: Sequence[str]) -> None:
        """Tell a client which groups it is in, and which of these it is not."""
        if link.is_member and link.connection.writes_compact:
            groups = self._engine.registry.groups_of(link)
            missing = [group for group in refused if group not in groups]
            frame = link.writer.control(Groups(sorted(groups), missing))
            self._engine.outgoing.write(link, frame)
