"""What servers and clients have in common towards their users; no I/O."""

from __future__ import annotations

__all__ = (
    "Face",
    "Registered",
    "ThreadedFace",
    "check_known",
    "check_limits",
    "check_times",
)

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, Self

from hisock._near import did_you_mean
from hisock.engine.blame import users_line
from hisock.engine.pace import Pace
from hisock.engine.threads import Driver
from hisock.engine.waiting import check_timeout
from hisock.errors import InvalidOption, ReservedCommand
from hisock.handlers.table import DROP, RESUME, HandlerEntry, HandlerTable, Options
from hisock.types import Handler, Handlers, Limits
from hisock.wire.payload import prefix_of

#: Commands that are remembered as harmless.
_KNOWN: Final = 4096

#: Seconds that a session should last longer than it takes to notice a dead link.
_ROOM_TO_NOTICE: Final = 5.0

#: Seconds that a stopping thread waits for its peers, so that ``join`` is prompt.
_STOP_LINGER: Final = 0.5


if TYPE_CHECKING:

    class _Engine(Protocol):
        pace: Pace

        def run(self, *, wait: bool, timeout: float | None = None) -> bool: ...

        def poll(self, budget: float) -> int: ...

        def close(self, *, linger: float = ...) -> None: ...

        def abandon(self) -> None: ...


class Registered(Mapping[str, dict[str, Any]]):
    """The ``funcs`` of a server or client: live, read-only."""

    def __init__(self, table: HandlerTable) -> None:
        self._table = table

    def __getitem__(self, command: str) -> dict[str, Any]:
        return self._table.describe()[command]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.describe())

    def __len__(self) -> int:
        return len(self._table.describe())

    def __repr__(self) -> str:
        return repr(dict(self))


class Face:
    """The base of ``HiSockServer`` and ``HiSockClient``.

    Attributes:
        addr: The server's address, ``(ip, port)``.
        header_len: Bytes of every header.
    """

    #: What a user may not expect to arrive at a handler of the other side.
    _others_events: ClassVar[Collection[str]] = ()

    _side: ClassVar[str] = ""

    addr: Any
    header_len: int
    _engine: _Engine
    _table: HandlerTable
    #: Commands that were looked at before.
    _known: set[str]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close_after(error)

    def _close_after(self, error: BaseException | None) -> None:
        """Close, at the end of a ``with`` block."""
        self._engine.close()

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None:
            engine.abandon()

    @property
    def funcs(self) -> Mapping[str, dict[str, Any]]:
        """The registered handlers: command → ``func``, ``name``, ``type_hint``.

        Read-only (1.1 manual: "mainly used for under-the-hood code").
        """
        return Registered(self._table)

    def on(
        self,
        command: str,
        *,
        threaded: bool = False,
        override: bool = False,
        concurrency: int = 1,
        requires: str | Callable[[Any], object] | None = None,
        rate: str | float | None = None,
    ) -> Callable[[Handler], Handler]:
        """Register the decorated function for a command, or for a reserved event.

        What it returns answers a call; a generator answers a stream.

        Args:
            command: What the function handles; ``"*"`` is every command that nobody
                else handles, with the command before the content.
            threaded: Run it in a worker thread, so that it may wait.
            override: It takes the place of an earlier handler, on purpose. Without,
                a second handler for one command is warned of.
            concurrency: How many messages of one client it may work on at a time,
                where it is ``async def`` or threaded.
            requires: On a server: the role that a client needs (see ``authenticate``),
                or a plain function that gets the client and tells whether it may.
            rate: On a server: how often each client may have it run, like ``"20/s"`` or
                ``"100/min"``, on average; as many at once. What is more, or not
                permitted, is dropped and ``on_error`` told (``RateLimited``,
                ``Forbidden``); who calls gets a ``RemoteError`` with that code.

        Returns:
            A decorator that returns the function as it is.

        Raises:
            ReservedCommand: The command has the form ``$command$``.
            HandlerSignatureError: The function does not fit; raised by the decorator.
            InvalidOption: Another argument cannot work.

        .. versionchanged:: 4.0
            The keywords, and ``"*"``.
        """
        if callable(command):
            raise ReservedCommand(
                f'@{self._side}.on needs a command: write @{self._side}.on("name")'
            )
        prefix_of(command)
        options = Options(
            threaded=threaded,
            override=override,
            concurrency=concurrency,
            requires=requires,
            rate=rate,
        )

        def register(function: Handler) -> Handler:
            before = self._register(command, function, options)
            if before is not None and not override:
                _warn_of(command, before)
            return function

        return register

    def _register(
        self, command: str, function: Callable[..., Any], options: Options
    ) -> HandlerEntry | None:
        return self._table.add(command, function, options)

    def on_error(self, function: Handler) -> Handler:
        """Have the decorated function told of what goes wrong in handlers.

        It gets the error: a ``HandlerError`` with ``.client``, ``.command``, ``.where``
        and what was raised as ``__cause__``, or an ``UnknownCommand``; on a client also
        a ``Refused``, of a name or group it may not have. Without such a function they
        are logged.

        Raises:
            InvalidOption: It is no function.

        .. versionadded:: 4.0
        """
        if not callable(function):
            raise InvalidOption(f"on_error calls a function, not {function!r:.40}")
        self._table.on_error = function
        return function

    def on_drop(self, function: Handler) -> Handler:
        """Have the decorated function called when a link is cut, and its session not.

        On a server it gets the client, which stays a member until ``leave``; what is
        sent to it meanwhile waits.

        Raises:
            HandlerSignatureError: It takes something else.

        .. versionadded:: 4.0
        """
        self._register(DROP, function, Options())
        return function

    def on_resume(self, function: Handler) -> Handler:
        """Have the decorated function called when the session goes on after a cut.

        Raises:
            HandlerSignatureError: It takes something else.

        .. versionadded:: 4.0
        """
        self._register(RESUME, function, Options())
        return function

    def every(self, seconds: float) -> Callable[[Handler], Handler]:
        """Call the decorated function at that pace, while the loop verbs wait.

        Without drift and without overlap; what was missed is skipped. It does not end
        the wait of a turn.

        Args:
            seconds: From one call to the next.

        Raises:
            InvalidOption: That is no pace.

        .. versionadded:: 4.0
        """

        def register(function: Handler) -> Handler:
            self._repeat(seconds, function)
            return function

        return register

    def _repeat(self, seconds: float, function: Callable[..., Any]) -> None:
        self._engine.pace.every(seconds, function)

    def use(self, handlers: Handlers) -> None:
        """Register everything that a ``Handlers`` object has collected.

        Raises:
            HandlerSignatureError, ReservedCommand, InvalidOption: As ``on``.

        .. versionadded:: 4.0
        """
        if not isinstance(handlers, Handlers):
            raise InvalidOption(f"use() takes Handlers(), not {handlers!r:.40}")
        for verb, arguments, options, function in handlers._registered:
            decorate = getattr(self, verb, None)
            if decorate is None:
                raise InvalidOption(f"a {self._side} has no {verb}, as these handlers")
            if arguments or options:
                decorate = decorate(*arguments, **options)
            decorate(function)

    def poll(self, budget: float = 0.002) -> int:
        """Handle what waits, without ever waiting for more; for games.

        Args:
            budget: Seconds after which no further message is begun; at least one that
                waits is handled.

        Returns:
            How many messages were handled.

        Raises:
            AlreadyRunning, ClientDisconnected: As ``run`` and ``update``.

        .. versionadded:: 4.0
        """
        return self._engine.poll(budget)

    def _learn(self, command: str) -> None:
        """Look at a command once."""
        prefix_of(command)
        if command in self._others_events:
            warnings.warn(
                f"{command!r} is an event of hisock on the other side; no handler "
                "there will run for this message",
                UserWarning,
                stacklevel=users_line(),
            )
        elif len(self._known) < _KNOWN:
            self._known.add(command)

    def _compare(self, other: object) -> tuple[Any, Any] | None:
        """Both IP addresses, or ``None`` for a stranger (1.1 compares these alone)."""
        if isinstance(other, Face):
            theirs = _host(other.addr)
        elif isinstance(other, str):
            theirs = other.partition(":")[0]
        else:
            return None
        from ipaddress import ip_address  # 3 ms that few ever need

        try:
            return ip_address(_host(self.addr)), ip_address(theirs)
        except ValueError:
            return None

    def __eq__(self, other: object) -> bool:
        pair = self._compare(other)
        return NotImplemented if pair is None else pair[0] == pair[1]

    def __lt__(self, other: object) -> bool:
        pair = self._compare(other)
        return NotImplemented if pair is None else pair[0] < pair[1]

    def __le__(self, other: object) -> bool:
        pair = self._compare(other)
        return NotImplemented if pair is None else pair[0] <= pair[1]

    def __gt__(self, other: object) -> bool:
        pair = self._compare(other)
        return NotImplemented if pair is None else pair[0] > pair[1]

    def __ge__(self, other: object) -> bool:
        pair = self._compare(other)
        return NotImplemented if pair is None else pair[0] >= pair[1]

    def __hash__(self) -> int:
        return hash(_host(self.addr))


def _warn_of(command: str, before: HandlerEntry) -> None:
    """Tell of a handler that another one has taken the place of."""
    warnings.warn(
        f"{command!r} was handled by {before.signature.where}, which is not called any "
        "more; say override=True if that is meant",
        UserWarning,
        stacklevel=users_line(),
    )


def check_known(
    side: str, options: Mapping[str, Any], known: Iterable[str], also: Iterable[str]
) -> None:
    """Refuse what is no option, as Python does, and say what was probably meant.

    Args:
        side: Whose options they are.
        options: As the user gave them.
        known: Those that may be.
        also: Others, that have been taken out already.

    Raises:
        TypeError: There is no such option.
    """
    if unknown := options.keys() - set(known):
        wrong = min(unknown)
        near = did_you_mean(wrong, {*known, *also})
        raise TypeError(f"a {side} has no option {wrong!r}.{near}")


def check_limits(limits: Limits | None) -> Limits:
    """The limits that hold.

    Raises:
        InvalidOption: These are none.
    """
    if limits is None:
        return Limits()
    if not isinstance(limits, Limits):
        raise InvalidOption(f"limits is like Limits(message=1000), not {limits!r:.40}")
    return limits


def check_times(resume_window: float, dead_after: float) -> None:
    """Refuse what are no times, and warn of what hardly helps.

    Raises:
        InvalidOption: One is no number of seconds from 0 up.
    """
    for name, value in (("resume_window", resume_window), ("dead_after", dead_after)):
        check_timeout(value)
        if not value >= 0:
            raise InvalidOption(f"{name} is 0 (off) or more seconds, not {value!r}")
    if 0 < resume_window < dead_after + _ROOM_TO_NOTICE:
        warnings.warn(
            f"with resume_window={resume_window:g} and dead_after={dead_after:g} a "
            "session may be over before a dead link is noticed; "
            f"{dead_after + _ROOM_TO_NOTICE:g} s and more are of use",
            UserWarning,
            stacklevel=users_line(),
        )


def _host(address: Any) -> str:
    """The host of an address, or the path of a unix socket."""
    return str(address[0] if isinstance(address, tuple) else address)


class ThreadedFace(Face):
    """What turns itself in a thread has in common; comes before the face it turns."""

    @cached_property
    def _driver(self) -> Driver:
        return Driver(str(self), self._step, self._finish)

    def __enter__(self) -> Self:
        try:
            self._driver.start()
        except BaseException:  # Ctrl-C, just when the thread began
            self._driver.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._driver.stop()
        self._driver.join()

    def join(self) -> None:
        """Wait until the thread has ended: within a second of its being stopped."""
        self._driver.join()

    def run(self, timeout: float | None = None) -> None:
        """What the thread does: turn until stopped. Not meant to be called.

        Args:
            timeout: Not looked at: one ``run`` is all the turns.

        Raises:
            AlreadyRunning: The thread does.
        """
        self._driver.run()

    def _step(self, timeout: float) -> bool:
        return self._engine.run(wait=True, timeout=timeout)

    def _finish(self) -> None:
        self._engine.close(linger=_STOP_LINGER)
