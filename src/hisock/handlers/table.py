"""What ``on`` registered: commands, reserved events, and how each is called."""

from __future__ import annotations

__all__ = (
    "CLIENT_EVENTS",
    "DROP",
    "EVERYTHING",
    "GAP",
    "RESUME",
    "SERVER_EVENTS",
    "SESSION_LOST",
    "HandlerEntry",
    "HandlerTable",
    "Options",
)

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from hisock.errors import InvalidOption
from hisock.handlers.cast import Cast, cast_for, decoder, unpack
from hisock.handlers.permission import check_permission, read_rate
from hisock.handlers.signature import Signature, read_signature
from hisock.wire.frames import Value, message_of
from hisock.wire.payload import prefix_of

#: The command whose handler gets what nobody else handles.
EVERYTHING: Final = "*"

#: Events that have a decorator of their own; as commands these names stay reserved.
DROP: Final = "$drop$"
RESUME: Final = "$resume$"
SESSION_LOST: Final = "$session_lost$"
GAP: Final = "$gap$"

#: Event → the arguments it offers, on a server and on a client (1.1 manual, ``on``).
SERVER_EVENTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "join": ("client",),
        "leave": ("client",),
        "message": ("client", "message"),
        "name_change": ("client", "old_name", "new_name"),
        "group_change": ("client", "old_group", "new_group"),
        DROP: ("client",),
        RESUME: ("client",),
    }
)
CLIENT_EVENTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "client_connect": ("client",),
        "client_disconnect": ("client",),
        "force_disconnect": (),
        DROP: (),
        RESUME: (),
        SESSION_LOST: ("lost",),
        GAP: ("gap",),
    }
)

_PLAIN: Final = frozenset({"plain"})
_SYNC: Final = frozenset({"plain", "generator"})
_ANY: Final = frozenset({"plain", "generator", "coroutine", "async_generator"})


class Options(Value, frozen=True, kw_only=True):
    """How a handler runs.

    Attributes:
        threaded: In a worker thread, not on the thread that turns.
        concurrency: How many of one client's messages may be handled at a time.
        override: Whether it is meant to take the place of an earlier one.
        requires: The role that a client needs; or what tells whether a client may.
        rate: How often a second each client may have it run, ``"20/s"``; ``None`` for
            as often as it likes.
    """

    threaded: bool = False
    concurrency: int = 1
    override: bool = False
    requires: str | Callable[[Any], object] | None = None
    rate: str | float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            InvalidOption: ``concurrency`` is no number from 1 up, ``requires`` neither
                a role nor a plain function, or ``rate`` no rate.
        """
        check_permission(self.requires)
        if self.rate is not None:
            read_rate(self.rate)
        number = self.concurrency
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InvalidOption(f"concurrency is 1 or more, not {number!r:.40}")


_USUAL: Final = Options()


class HandlerEntry:
    """One registered function, ready to be called with everything it may be offered.

    Attributes:
        command: What it handles.
        function: What the user decorated.
        signature: What it takes.
        options: How it runs.
        is_plain: Whether calling it is all there is to do.
        is_async: Whether it awaits.
        is_free: Whether every client may have it run, as often as it likes.
        rate: How often a second each may; ``None`` for any number of times.
        call: Takes all that is offered, converts the text of the message, passes on
            what the function takes. For a command that is always ``(client, text)``.
        call_packed: The same for MessagePack bytes.
        call_value: The same for what the message was converted to before; ``None`` if
            the function does not take it.
    """

    __slots__ = (
        "_content",
        "_read",
        "call",
        "call_packed",
        "call_value",
        "command",
        "function",
        "is_async",
        "is_free",
        "is_plain",
        "options",
        "rate",
        "signature",
    )

    def __init__(
        self,
        command: str,
        function: Callable[..., Any],
        signature: Signature,
        options: Options,
        offered: tuple[str, ...],
    ) -> None:
        self.command = command
        self.function = function
        self.signature = signature
        self.options = options
        self.is_async = signature.kind in ("coroutine", "async_generator")
        self.is_plain = signature.kind == "plain" and not options.threaded
        self.rate = None if options.rate is None else read_rate(options.rate)
        self.is_free = options.requires is None and self.rate is None
        self.call_value: Callable[[Any, Any], Any] | None = None
        self._content: Any = Any
        self._read: Callable[[bytes], Any] | None = None
        if offered[-1:] == ("message",):
            cast = cast_for(signature.hint)
            # Bytes are what it gets (bench/ping_pong.py, bench/one_way.py).
            is_as_sent = cast is None or signature.hint is bytes
            from_text = None if is_as_sent else cast and cast.from_text
            self.call = _bind(function, signature, offered, from_text)
            self.call_packed = _bind_packed(function, signature, offered, cast)
            self._content = Any if cast is None else cast.hint
            if (*offered[:-1], signature.takes) in (("client", 2), ("nobody", 1)):
                self.call_value = _bind(function, signature, offered, None)
        else:
            self.call = self.call_packed = _take_first(
                function, signature.takes, len(offered)
            )

    @property
    def kind(self) -> str:
        """What sort of function it is."""
        return self.signature.kind

    @property
    def is_simple(self) -> bool:
        """Whether there is nothing to look at before its call, nor after it."""
        return self.is_plain and self.is_free

    @property
    def read(self) -> Callable[[bytes], Any]:
        """Reads a whole message of the compact wire, with its content as hinted behind
        kind and command; raises anything for another one, and for content that does
        not fit as it is.

        Made when there are many: one decoding less for each (bench/typed.py).
        """
        if self._read is None:
            self._read = decoder(message_of(self.command, self._content))
        return self._read

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

    Args:
        on_server: Whose they are.
        is_async: Whether coroutines can run there; they can on every server.

    Attributes:
        direct: First word of a classic message → its call, only for messages whose
            command cannot be any other and whose handler is simple. Changed in place,
            so a loop may hold on to it.
        packed: Command of a compact message → its call, for simple handlers.
        everything: The handler of ``"*"``.
        outdated: Is no longer empty once ``direct`` and ``packed`` have changed; there
            is a new one then.
        is_watched: Whether somebody sees every message, besides its own handler.
        takes_any: Whether there is a handler of any message at all.
        on_error: What ``on_error`` registered.
    """

    __slots__ = (
        "_by_word",
        "_entries",
        "_events",
        "_kinds",
        "_longest",
        "_on_server",
        "_tapped",
        "direct",
        "everything",
        "is_watched",
        "on_error",
        "outdated",
        "packed",
        "takes_any",
    )

    def __init__(self, *, on_server: bool, is_async: bool = False) -> None:
        self._on_server = on_server
        self._events = SERVER_EVENTS if on_server else CLIENT_EVENTS
        self._kinds = _ANY if on_server or is_async else _SYNC
        self._entries: dict[str, HandlerEntry] = {}
        self._by_word: dict[bytes, list[tuple[bytes, HandlerEntry]]] = {}
        self._longest = 0
        self._tapped = False
        self.is_watched = self.takes_any = False
        self.everything: HandlerEntry | None = None
        self.direct: dict[bytes, Callable[..., Any]] = {}
        self.packed: dict[str | None, Callable[..., Any]] = {}
        self.outdated: list[bool] = []
        self.on_error: Callable[[Exception], Any] | None = None

    def add(
        self,
        command: str,
        function: Callable[..., Any],
        options: Options = _USUAL,
    ) -> HandlerEntry | None:
        """Let ``function`` handle ``command``, instead of an earlier one.

        Returns:
            The earlier one, if it is another function.

        Raises:
            ReservedCommand: The command has the form ``$command$``.
            HandlerSignatureError: The function does not fit.
            InvalidOption: ``requires`` means nothing for this command.
        """
        kinds = self._kinds
        offered = self._events.get(command)
        if offered is None or command[:1] != "$":
            prefix_of(command)
        if options.requires is not None or options.rate is not None:
            self._check_requires(command)
        if offered is None:
            offered = ("command", "message") if command == EVERYTHING else ("message",)
            if self._on_server:
                offered = ("client", *offered)
        else:
            kinds = kinds - {"generator", "async_generator"}
        signature = read_signature(function, command, offered, kinds=kinds)
        entry = HandlerEntry(command, function, signature, options, self._pad(offered))
        before = self._entries.get(command)
        self._entries[command] = entry
        self._compile()
        if before is None or _is_same(before.function, function):
            return None
        return before

    def _check_requires(self, command: str) -> None:
        if not self._on_server:
            raise InvalidOption(
                "requires= and rate= are for servers: a client has one server"
            )
        if command in self._events:
            raise InvalidOption(
                f"requires= and rate= are for commands; {command!r} happens to a "
                "client without its asking"
            )

    def _pad(self, offered: tuple[str, ...]) -> tuple[str, ...]:
        """On a client the first argument of a command is nobody, so that one loop
        serves both sides."""
        if self._on_server or offered[-1:] != ("message",):
            return offered
        return ("nobody", *offered)

    def event(self, name: str) -> HandlerEntry | None:
        """The handler of a reserved event."""
        return self._entries.get(name) if name in self._events else None

    def get(self, command: str | None) -> HandlerEntry | None:
        """The handler of exactly this command."""
        if command is None or command in self._events or command == EVERYTHING:
            return None
        return self._entries.get(command)

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

    def reader(
        self, command: str | None
    ) -> tuple[Callable[[bytes], Any], Callable[[Any, Any], Any]] | None:
        """How to read and handle many messages of a command in ``packed``; ``None`` if
        that is no longer in it, or its handler does not take the message."""
        entry = self.get(command)
        if entry is None or entry.call_value is None or command not in self.packed:
            return None
        try:
            return entry.read, entry.call_value
        except Exception:  # near the end of the stack, for one; it works without
            entry.call_value = None
            return None

    def tap(self) -> None:
        """Somebody wants to see every message: none is called directly any more."""
        self._tapped = True
        self._compile()

    def commands(self) -> list[HandlerEntry]:
        """Every handler of a command, in order of registration."""
        return [
            entry
            for name, entry in self._entries.items()
            if name not in self._events and name != EVERYTHING
        ]

    def entries(self) -> list[HandlerEntry]:
        """Every handler, events and ``"*"`` included."""
        return list(self._entries.values())

    def describe(self) -> Mapping[str, dict[str, Any]]:
        """``funcs`` of hisock 1.1."""
        return MappingProxyType(
            {
                command: entry.describe(on_server=self._on_server)
                for command, entry in self._entries.items()
                if command[:1] != "$"
            }
        )

    def _compile(self) -> None:
        """Make the look-ups anew; registering is rare, looking up is not."""
        self._look_up()
        # Last, so that who holds the new one has seen what is new, in any thread.
        before, self.outdated = self.outdated, []
        before.append(True)

    def _look_up(self) -> None:
        by_word: dict[bytes, list[tuple[bytes, HandlerEntry]]] = {}
        for entry in self.commands():
            command = entry.command.encode()
            by_word.setdefault(command.partition(b" ")[0], []).append((command, entry))
        for entries in by_word.values():
            entries.sort(key=lambda pair: -len(pair[0]))
        self._by_word = by_word
        self._longest = max(map(len, by_word), default=0)
        self.everything = self._entries.get(EVERYTHING)
        self.takes_any = bool(by_word) or self.everything is not None
        self.direct.clear()
        self.packed.clear()
        self.is_watched = self._tapped or self.event("message") is not None
        if self.is_watched:
            return
        for word, entries in by_word.items():
            if entries[0][0] == word and entries[0][1].is_simple:
                self.direct[word] = entries[0][1].call
        for entry in self.commands():
            if entry.is_simple:
                self.packed[entry.command] = entry.call_packed


def _is_same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Whether a function was only defined again, as in a notebook's cell."""
    names = ("__module__", "__qualname__")
    return all(getattr(one, n, one) == getattr(other, n, other) for n in names)


def _bind(
    function: Callable[..., Any],
    signature: Signature,
    offered: tuple[str, ...],
    cast: Callable[[Any], Any] | None,
) -> Callable[..., Any]:
    """A callable that takes everything offered and passes on what fits.

    The last is the message, and converted; on a client the first is nobody.
    """
    takes = signature.takes
    if offered == ("nobody", "message"):
        if takes == 0:
            return lambda client, message: function()
        if cast is None:
            return lambda client, message: function(message)
        return lambda client, message: function(cast(message))
    if offered == ("client", "message") and takes == 2:
        if cast is None:
            return function
        return lambda client, message: function(client, cast(message))
    start = 1 if offered[0] == "nobody" else 0
    return _take_some(function, takes, start, len(offered) - start, cast)


def _bind_packed(
    function: Callable[..., Any],
    signature: Signature,
    offered: tuple[str, ...],
    cast: Cast | None,
) -> Callable[..., Any]:
    """As ``_bind``, for MessagePack bytes."""
    if cast is None:
        return _bind(function, signature, offered, unpack)
    if offered != ("client", "message") or signature.takes != 2:
        return _bind(function, signature, offered, cast.from_packed)
    strict, from_packed = cast.strict, cast.from_packed

    # ``cast.from_packed`` in place: one call less a message (bench/typed.py).
    def call(client: Any, packed: Any) -> Any:
        try:
            message = strict(packed)
        except Exception:
            message = from_packed(packed)
        return function(client, message)

    return call


def _take_some(
    function: Callable[..., Any],
    takes: int,
    start: int,
    offered: int,
    cast: Callable[[Any], Any] | None,
) -> Callable[..., Any]:
    if takes < offered or cast is None:
        return lambda *arguments: function(*arguments[start : start + takes])
    return lambda *arguments: function(*arguments[start:-1], cast(arguments[-1]))


def _take_first(
    function: Callable[..., Any], takes: int, offered: int
) -> Callable[..., Any]:
    if takes == offered:
        return function
    return lambda *arguments: function(*arguments[:takes])
