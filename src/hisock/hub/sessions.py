"""Who may come back to a server after a cut, and what became of those who may not.

Pure and never locked; ``engine`` holds the lock around every call.
"""

from __future__ import annotations

__all__ = ("Sessions",)

from collections.abc import Callable, Iterator
from typing import Final, Generic, NamedTuple, TypeVar

from hisock.session.resume import Session, Tokens
from hisock.wire.frames import Hello

M = TypeVar("M")

#: Ended sessions whose end is remembered, so that their clients are told why.
_REMEMBERED: Final = 10_000


class _End(NamedTuple):
    """What is remembered of a session."""

    reason: str
    epoch: str
    total: int


class Sessions(Generic[M]):
    """The sessions of one life of a server, by the name their clients gave them.

    Args:
        draw: Draws so many random bytes.
        window: Seconds that a session is kept after a cut; 0 for no sessions.

    Attributes:
        life: What the epochs of all its sessions begin with.
        window: As above.
    """

    __slots__ = ("_count", "_ended", "_members", "life", "window")

    def __init__(self, draw: Callable[[int], bytes], window: float) -> None:
        self.life = draw(8).hex()
        self._count = 0
        self.window = window
        self._members: dict[str, tuple[M, Session]] = {}
        self._ended: dict[str, _End] = {}

    def __iter__(self) -> Iterator[M]:
        return (member for member, _ in self._members.values())

    def wants(self, hello: Hello) -> bool:
        """Whether both sides want a session."""
        return bool(hello.sid and hello.window > 0 and self.window > 0)

    def find(self, hello: Hello) -> tuple[M, Session] | None:
        """The member whose session a hello names."""
        return self._members.get(hello.sid)

    def open(self, hello: Hello, member: M) -> Session:
        """Begin a session for a member."""
        session = Session(hello.sid, min(hello.window, self.window))
        session.reason = self.why_not(hello)
        ended = self._ended.get(hello.sid)
        if ended is not None and ended.epoch == hello.epoch:
            session.missed = max(0, ended.total - hello.got)
        # Of its own: two sessions of one sid must not be taken for each other.
        self._count += 1
        session.epoch = f"{self.life}-{self._count}"
        session.tokens = Tokens(_digest, _equal, hello.token, hello.next)
        self._members[hello.sid] = member, session
        self._ended.pop(hello.sid, None)
        return session

    def end(self, session: Session, reason: str, total: int) -> None:
        """Nobody comes back to a session any more.

        Args:
            reason: One of the words of ``docs/wire.md`` that its client is told.
            total: Frames that were accepted for the client, from the first on.
        """
        if self._members.get(session.sid, (None, None))[1] is not session:
            return
        del self._members[session.sid]
        if len(self._ended) >= _REMEMBERED:
            del self._ended[next(iter(self._ended))]
        self._ended[session.sid] = _End(reason, session.epoch, total)

    def why_not(self, hello: Hello) -> str:
        """Why a session that a client asks for is not there; empty for a new one."""
        ended = self._ended.get(hello.sid)
        if ended is not None or not hello.epoch:
            return "" if ended is None else ended.reason
        same_life = hello.epoch.startswith(self.life)
        return "unknown" if same_life else "server_restarted"


def _digest(token: bytes) -> bytes:
    from hashlib import sha256  # 2 ms, and nothing of it before the first session

    return sha256(token).digest()


def _equal(one: bytes, other: bytes) -> bool:
    from hmac import compare_digest  # as above

    return compare_digest(one, other)
