"""Who clients are: asks the program's own check, and never waits for it.

A plain check runs in a worker thread, a coroutine in the server's loop. Either way what
it says is taken in by the thread that turns the server.
"""

from __future__ import annotations

__all__ = ("Guard", "Verdict")

import contextvars
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hisock.engine.threads import Workers
from hisock.errors import HiSockError, InvalidOption
from hisock.handlers.signature import read_signature
from hisock.types import Credentials, Identity
from hisock.wire.payload import check_name

if TYPE_CHECKING:
    from hisock.engine.serve import ServerEngine

#: What a check says: an identity, ``True`` for one that need not be known, or no.
Verdict: TypeAlias = Identity | bool

_KINDS: Final = frozenset({"plain", "coroutine"})
#: Seconds after the time is up at which a coroutine is cancelled, if the end of it was
#: not noticed otherwise: the client is refused first, and that is what is reported.
_MERCY: Final = 0.5


class Guard:
    """The check of one server, if it has one.

    Args:
        engine: The server's engine.
        name: What the server is called in texts.

    Attributes:
        check: What ``authenticate`` registered.
    """

    __slots__ = ("_engine", "_is_async", "_takes", "_verdicts", "_workers", "check")

    def __init__(self, engine: ServerEngine, name: str) -> None:
        self._engine = engine
        self.check: Callable[..., Any] | None = None
        self._is_async = False
        self._takes = 1
        # Of its own: checks that hang must not hold up handlers.
        self._workers = Workers(f"{name} check")
        self._verdicts: deque[Callable[[], None]] = deque()

    @property
    def is_set(self) -> bool:
        """Whether clients have to say who they are."""
        return self.check is not None

    @property
    def needs_turn(self) -> bool:
        """Whether the check can only go on while somebody turns the server."""
        return self._is_async

    def set(self, check: Callable[..., Any]) -> None:
        """Have newcomers checked from now on, in place of what checked them before.

        Raises:
            HandlerSignatureError: It takes something else than credentials.
        """
        command = "authenticate"
        signature = read_signature(check, command, ("credentials",), kinds=_KINDS)
        self._is_async = signature.kind == "coroutine"
        self._takes = signature.takes
        self.check = check

    def ask(self, credentials: Credentials, done: Callable[[Verdict], None]) -> None:
        """Have somebody checked; ``done`` is called in a turn, or by ``work_off``."""
        assert self.check is not None
        check = partial(self.check, *(credentials,)[: self._takes])
        if not self._is_async:
            self._workers.submit(check, partial(self._answered, done))
            return
        engine = self._engine
        coroutine = check()
        if engine.limits.authentication:
            limit = engine.limits.authentication + _MERCY
            coroutine = engine.coroutines().within(limit, coroutine)
        context = contextvars.copy_context()
        answered = partial(self._answered, done)
        engine.spawn(coroutine, context, answered, "authenticate")

    def _answered(
        self,
        done: Callable[[Verdict], None],
        answer: Any,
        error: BaseException | None,
    ) -> None:
        """In the thread of the check: leave what it says for whoever turns."""
        self._verdicts.append(partial(self._decide, done, answer, error))
        self._engine.finished(self.work_off)

    def work_off(self) -> None:
        """Take in what checks have said since; only in a turn."""
        while self._verdicts:
            self._verdicts.popleft()()

    def _decide(
        self,
        done: Callable[[Verdict], None],
        answer: Any,
        error: BaseException | None,
    ) -> None:
        verdict: Verdict = False
        wrong: HiSockError | None = None
        if error is None:
            try:
                verdict = self._read(answer)
            except HiSockError as raised:
                wrong = raised
        done(verdict)
        if wrong is not None:
            self.failed(wrong)
        elif isinstance(error, Exception):
            assert self.check is not None
            self._engine.reports.check_failed(self.check, error, is_ours=False)

    def _read(self, answer: Any) -> Verdict:
        """What a check has returned.

        Raises:
            InvalidOption, InvalidName: It is neither yes nor no.
        """
        if answer is None or isinstance(answer, bool):
            return bool(answer)
        if isinstance(answer, Identity):
            check_name(answer.name, self._engine.limits.name)
            return answer
        raise InvalidOption(
            "authenticate returns True, an Identity, False or None, not "
            f"{type(answer).__name__}"
        )

    def failed(self, error: HiSockError) -> None:
        """Report that a check has not come to a yes or no."""
        assert self.check is not None
        self._engine.reports.check_failed(self.check, error, is_ours=True)

    def close(self) -> None:
        """Let the threads end as soon as they have nothing more to do."""
        self._workers.close()
