"""What servers and clients have in common towards their users; no I/O."""

from __future__ import annotations

__all__ = ("Face", "Registered", "ThreadedFace")

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from types import TracebackType
from typing import Any, ClassVar, Final, Protocol, Self

from hisock.engine.threads import Driver
from hisock.errors import ReservedCommand
from hisock.handlers.table import HandlerTable
from hisock.types import Address, Handler
from hisock.wire.payload import prefix_of

#: Commands whose bytes are kept ready.
_PREFIXES_KEPT = 4096


#: Seconds that a stopping thread waits for its peers, so that ``join`` is prompt.
_STOP_LINGER: Final = 0.5


class _Engine(Protocol):
    def run(self, *, wait: bool, timeout: float | None = None) -> bool: ...

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

    addr: Address
    header_len: int
    _engine: _Engine
    _table: HandlerTable
    _prefixes: dict[str, bytes]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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

    def on(self, command: str) -> Callable[[Handler], Handler]:
        """Register the decorated function for a command, or for a reserved event.

        Args:
            command: What the function handles.

        Returns:
            A decorator that returns the function as it is.

        Raises:
            ReservedCommand: The command has the form ``$command$``.
            HandlerSignatureError: The function's parameters or hints do not fit;
                raised by the decorator.
        """
        if callable(command):
            raise ReservedCommand(
                f'@{self._side}.on needs a command: write @{self._side}.on("name")'
            )
        prefix_of(command)

        def register(function: Handler) -> Handler:
            self._table.add(command, function)
            return function

        return register

    def _prefix(self, command: str, stacklevel: int = 3) -> bytes:
        """The bytes of a command, made once; ``stacklevel`` finds the user's line."""
        prefix = prefix_of(command)
        if command in self._others_events:
            warnings.warn(
                f"{command!r} is an event of hisock on the other side; no handler "
                "there will run for this message",
                UserWarning,
                stacklevel=stacklevel,
            )
        elif len(self._prefixes) < _PREFIXES_KEPT:
            self._prefixes[command] = prefix
        return prefix

    def _compare(self, other: object) -> tuple[Any, Any] | None:
        """Both IP addresses, or ``None`` for a stranger (1.1 compares these alone)."""
        if isinstance(other, Face):
            theirs = other.addr[0]
        elif isinstance(other, str):
            theirs = other.partition(":")[0]
        else:
            return None
        from ipaddress import ip_address  # 3 ms that few ever need

        try:
            return ip_address(self.addr[0]), ip_address(theirs)
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
        return hash(self.addr[0])


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

    def run(self) -> None:
        """What the thread does: turn until stopped. Not meant to be called.

        Raises:
            AlreadyRunning: The thread does.
        """
        self._driver.run()

    def _step(self, timeout: float) -> bool:
        return self._engine.run(wait=True, timeout=timeout)

    def _finish(self) -> None:
        self._engine.close(linger=_STOP_LINGER)
