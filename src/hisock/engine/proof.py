"""What a client proves with who it is, and what it calls itself."""

from __future__ import annotations

__all__ = ("Persona", "Proof")

import contextvars
import inspect
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from hisock.engine.log import logger
from hisock.errors import InvalidOption
from hisock.wire.frames import Welcome

if TYPE_CHECKING:
    from hisock.engine.blocking import ClientEngine

#: New names and groups that a server may owe an answer to.
_OPEN: Final = 1024

_log = logger("hisock.client")


class Proof:
    """A client's token, or the function that it is asked of before each connect.

    Args:
        token: That; ``None`` for none.
        is_async: Whether the function may be a coroutine.
        is_secretive: Whether something else tells who the client is, too.

    Attributes:
        is_secretive: Whether nothing leaves before the server has shown what it wants.

    Raises:
        InvalidOption: It is neither text nor such a function.
    """

    __slots__ = ("_ask", "_state", "_value", "is_secretive")

    def __init__(
        self, token: object, *, is_async: bool = False, is_secretive: bool = False
    ) -> None:
        self.is_secretive = is_secretive or token is not None
        self._ask: Callable[[], Any] | None = None
        self._value: str | None = None
        self._state: Literal["due", "asked", "there", "failed"] = "due"
        if callable(token):
            self._ask = token
            if self.is_coroutine and not is_async:
                raise InvalidOption(
                    "token= takes a plain function here; a coroutine only in hisock.aio"
                )
        else:
            self._value = _check(token)

    @property
    def is_coroutine(self) -> bool:
        """Whether it has to be awaited."""
        return inspect.iscoroutinefunction(self._ask)

    @property
    def is_asked(self) -> bool:
        """Whether the function runs just now."""
        return self._state == "asked"

    def ask(self) -> None:
        """Have the token for the first connect; the function may wait.

        Raises:
            InvalidOption: It returned no token.
            Exception: What it raised.
        """
        if self._ask is not None and self._state == "due":
            self._value = _check(self._ask())
            self._state = "there"

    async def ask_async(self) -> None:
        """The same for a coroutine."""
        assert self._ask is not None
        if self._state == "due":
            self._value = _check(await self._ask())
            self._state = "there"

    def take(self) -> str | None:
        """The token, for one connect."""
        self._state = "due"
        return self._value

    def prepare(self, engine: ClientEngine) -> bool | None:
        """See that there is a token for the next connect; under the lock.

        Returns:
            Whether there is, or ``None`` while the function runs: in a worker thread,
            or on the program's loop. The engine is woken then.
        """
        if self._ask is None or self._state == "there":
            return True
        if self._state == "failed":
            self._state = "due"
            return False
        if self._state == "due":
            self._state = "asked"
            got = partial(self._got, engine)
            if self.is_coroutine:
                engine.tasks.call_soon(partial(self._spawn, engine, got))
            else:
                engine.workers.submit(self._ask, got)
        return None

    def _spawn(self, engine: ClientEngine, got: Callable[..., None]) -> None:
        assert self._ask is not None
        engine.spawn(self._ask(), contextvars.copy_context(), got, "token")

    def _got(
        self, engine: ClientEngine, token: Any, error: BaseException | None
    ) -> None:
        """The function has come to its end, in whatever thread it ran."""
        state: Literal["there", "failed"] = "failed"
        if error is None:
            try:
                self._value, state = _check(token), "there"
            except InvalidOption as wrong:
                error = wrong
        if error is not None:
            # Its text may have anything in it, so it stays out of the log.
            kind = type(error).__name__
            _log.warning("%s has no token to come back with: %s", engine.title, kind)
        self._state = state
        engine.wake()


def _check(token: object) -> str | None:
    if token is None or isinstance(token, str):
        return token
    raise InvalidOption(
        "token is text, or a function that takes nothing and returns it, not "
        f"{type(token).__name__}"
    )


class Persona:
    """What a client calls itself, and what the server makes of it.

    A server that may refuse a new name or group answers each with the one that holds.

    Args:
        name, group: At first.

    Attributes:
        name, group: What holds, as far as is known.
    """

    __slots__ = ("_asked", "_said", "group", "name")

    def __init__(self, name: str | None, group: str | None) -> None:
        self.name = name
        self.group = group
        self._said = name, group
        self._asked: dict[str, deque[str | None]] = {}

    def wants(self, key: str, new: str | None) -> None:
        """It asks for another ``name`` or ``group``."""
        self._asked.setdefault(key, deque(maxlen=_OPEN)).append(new)
        setattr(self, key, new)

    def says_hello(self) -> None:
        """The server is told who it is."""
        self._said = self.name, self.group

    def is_welcome(self, welcome: Welcome) -> None:
        """The server begins a session with it, perhaps under another name."""
        held = (welcome.name, welcome.group)
        for key, said, holds in zip(("name", "group"), self._said, held, strict=True):
            if getattr(self, key) == said != holds:
                setattr(self, key, holds)

    def begins_anew(self) -> None:
        """What it asked for before is not answered any more."""
        self._asked.clear()

    def is_told(self, key: str, holds: str | None) -> tuple[bool, str | None]:
        """The server says what holds; whether that is a refusal, and of what."""
        asked = self._asked.get(key)
        new = asked.popleft() if asked else getattr(self, key)
        if new == holds:
            return False, None
        if not asked:  # else the answer to a later one counts
            setattr(self, key, holds)
        return True, new
