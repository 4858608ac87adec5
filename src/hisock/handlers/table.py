"""What ``on`` registered: commands, reserved events, and how each is called."""

from __future__ import annotations

__all__ = ("CLIENT_EVENTS", "SERVER_EVENTS", "HandlerEntry", "HandlerTable")

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from hisock.errors import ReservedCommand
from hisock.handlers.cast import cast_for
from hisock.handlers.signature import Signature, read_signature
from hisock.wire.payload import prefix_of

#: Event → the arguments it offers, on a server and on a client (1.1 manual, ``on``).
SERVER_EVENTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "join": ("client",),
        "leave": ("client",),
        "message": ("client", "message"),
        "name_change": ("client", "old_name", "new_name"),
        "group_change": ("client", "old_group", "new_group"),
    }
)
CLIENT_EVENTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "client_connect": ("client",),
        "client_disconnect": ("client",),
        "force_disconnect": (),
    }
)


class HandlerEntry:
    """One registered function, ready to be called with everything it may be offered.

    Attributes:
        command: What it handles.
        function: What the user decorated.
        signature: What it takes.
        call: Takes all that is offered, converts the message, passes on what the
            function takes. For a command that is always ``(client, message)``.
    """

    __slots__ = ("call", "command", "function", "signature")

    def __init__(
        self,
        command: str,
        function: Callable[..., Any],
        signature: Signature,
        call: Callable[..., Any],
    ) -> None:
        self.command = command
        self.function = function
        self.signature = signature
        self.call = call

    def describe(self, *, on_server: bool) -> dict[str, Any]:
        """The entry of ``funcs``, as hisock 1.1 wrote it."""
        hint = self.signature.hint
        return {
            "func": self.function,
            "name": getattr(self.function, "__name__", repr(self.function)),
            "type_hint": {"clt": self.signature.client_hint, "msg": hint}
            if on_server
            else hint,
        }


class HandlerTable:
    """Handlers of one server or client.

    Attributes:
        direct: First word of a message → its call, only for messages whose command
            cannot be any other. Changed in place, so a loop may hold on to it.
    """

    __slots__ = (
        "_by_word",
        "_entries",
        "_events",
        "_longest",
        "_on_server",
        "_tapped",
        "direct",
    )

    def __init__(self, *, on_server: bool) -> None:
        self._on_server = on_server
        self._events = SERVER_EVENTS if on_server else CLIENT_EVENTS
        self._entries: dict[str, HandlerEntry] = {}
        self._by_word: dict[bytes, list[tuple[bytes, HandlerEntry]]] = {}
        self._longest = 0
        self._tapped = False
        self.direct: dict[bytes, Callable[..., Any]] = {}

    def add(self, command: str, function: Callable[..., Any]) -> None:
        """Let ``function`` handle ``command``, instead of an earlier one.

        Raises:
            ReservedCommand: The command has the form ``$command$``, or is ``"*"``.
            HandlerSignatureError: The function does not fit.
        """
        prefix_of(command)
        if command == "*":
            raise ReservedCommand("'*' is reserved; register the commands one by one")
        offered = self._events.get(command)
        if offered is None:
            offered = ("client", "message") if self._on_server else ("message",)
        signature = read_signature(function, command, offered)
        call = _bind(function, signature, offered, is_event=command in self._events)
        self._entries[command] = HandlerEntry(command, function, signature, call)
        self._compile()

    def event(self, name: str) -> HandlerEntry | None:
        """The handler of a reserved event."""
        return self._entries.get(name) if name in self._events else None

    def find(self, body: bytes) -> tuple[HandlerEntry, bytes] | None:
        """The longest registered command that a message begins with, and its content.

        A command ends at a space or at the end of the message.
        """
        end = body.find(b" ", 0, self._longest + 1)  # no copy of a large message
        if end < 0:
            end = min(len(body), self._longest + 1)
        for command, entry in self._by_word.get(body[:end], ()):
            if body.startswith(command) and body[len(command) :][:1] in (b"", b" "):
                return entry, body[len(command) + 1 :]
        return None

    def tap(self) -> None:
        """Somebody wants to see every message: none is called directly any more."""
        self._tapped = True
        self._compile()

    def commands(self) -> list[HandlerEntry]:
        """Every handler of a command, in order of registration."""
        return [e for name, e in self._entries.items() if name not in self._events]

    def describe(self) -> Mapping[str, dict[str, Any]]:
        """``funcs`` of hisock 1.1."""
        return MappingProxyType(
            {
                command: entry.describe(on_server=self._on_server)
                for command, entry in self._entries.items()
            }
        )

    def _compile(self) -> None:
        """Make the look-ups anew; registering is rare, looking up is not."""
        by_word: dict[bytes, list[tuple[bytes, HandlerEntry]]] = {}
        for entry in self.commands():
            command = entry.command.encode()
            by_word.setdefault(command.partition(b" ")[0], []).append((command, entry))
        for entries in by_word.values():
            entries.sort(key=lambda pair: -len(pair[0]))
        self._by_word = by_word
        self._longest = max(map(len, by_word), default=0)
        self.direct.clear()
        if not self._tapped and self.event("message") is None:
            for word, entries in by_word.items():
                if entries[0][0] == word:
                    self.direct[word] = entries[0][1].call


def _bind(
    function: Callable[..., Any],
    signature: Signature,
    offered: tuple[str, ...],
    *,
    is_event: bool,
) -> Callable[..., Any]:
    """A callable that takes everything offered and passes on what fits.

    A command is always offered ``(client, message)``; on a client the first is
    nobody, so that one loop serves both sides.
    """
    if is_event and offered[-1:] != ("message",):
        return _take_first(function, signature.takes, len(offered))
    cast = cast_for(signature.hint)
    takes = signature.takes
    if offered == ("message",):
        if takes == 0:
            return lambda client, message: function()
        if cast is None:
            return lambda client, message: function(message)
        return lambda client, message: function(cast(message))
    if takes == 2:
        if cast is None:
            return function
        return lambda client, message: function(client, cast(message))
    return _take_first(function, takes, len(offered))


def _take_first(
    function: Callable[..., Any], takes: int, offered: int
) -> Callable[..., Any]:
    if takes == offered:
        return function
    return lambda *arguments: function(*arguments[:takes])
