"""The types that appear in the signatures of hisock: clients, addresses, limits."""

from __future__ import annotations

__all__ = (
    "Address",
    "AsyncClientInfo",
    "ClientInfo",
    "ClientLike",
    "Credentials",
    "Gap",
    "Handler",
    "Handlers",
    "Identity",
    "Limits",
    "Message",
    "Sendable",
)

from collections.abc import Callable, Hashable
from typing import Any, TypeAlias, TypeVar

from msgspec import Struct  # a dataclass costs 20 times as much to define
from msgspec.structs import force_setattr

from hisock.errors import InvalidOption, UnknownClient

#: ``(host, port)``, as the sockets of the standard library write it.
Address: TypeAlias = tuple[str, int]

#: What a message may carry: ``bytes``, text, numbers, ``None``, lists, tuples and
#: dictionaries, dataclasses, ``msgspec.Struct``, and whatever else msgspec converts. On
#: the wire of hisock 1.1 all of it travels as text.
Sendable: TypeAlias = object

#: A handler keeps its own type when it is decorated.
Handler = TypeVar("Handler", bound=Callable[..., Any])


class _Session:
    """What a client's two colours share."""

    __slots__ = ("data", "groups", "id", "identity", "server")

    def __init__(self, number: int, server: Callable[[], Any]) -> None:
        self.id = number
        self.server = server
        self.data: dict[Any, Any] | None = None
        self.groups: frozenset[str] = frozenset()
        self.identity: Identity | None = None


def _no_server() -> Any:
    return None


class ClientInfo(dict[str, Any]):
    """A client as a server's handlers see it: ``ip``, ``name`` and ``group``.

    A ``dict`` with exactly these three keys, so ``json.dumps(client)`` works. It is
    one object from join to leave, kept up to date, and compared and hashed by
    identity, so it may be a key. Everything below is still filled in ``leave``.
    """

    __slots__ = ("__weakref__", "_member", "_session", "_twin")

    #: The server's own record of the client; not for users.
    _member: Any

    def __init__(self, ip: Any, name: str | None, group: str | None) -> None:
        super().__init__(ip=ip, name=name, group=group)
        self._member = None
        self._session = _Session(0, _no_server)
        self._twin: ClientInfo | None = None

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, ClientInfo) and other._session is self._session
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]  # dict has None here
        return id(self._session)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, or what another process gets, is a plain dictionary."""
        return dict, (dict(self),)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {dict.__repr__(self)}>"

    def _change(self, key: str, value: str | None) -> None:
        self[key] = value
        if self._twin is not None:
            self._twin[key] = value

    def _other(self, kind: type[ClientInfo]) -> ClientInfo:
        """The same client in the other colour, made once."""
        if self._twin is None:
            self._twin = twin = kind(self["ip"], self["name"], self["group"])
            twin._member = self._member
            twin._session = self._session
            twin._twin = self
        return self._twin

    @property
    def id(self) -> int:
        """A number that no other client of this server has.

        .. versionadded:: 4.0
        """
        return self._session.id

    @property
    def server(self) -> Any:
        """The server it is on; ``None`` on a client, and once the server is gone.

        .. versionadded:: 4.0
        """
        return self._session.server()

    @property
    def peer(self) -> Any:
        """The address it has now; ``ip`` stays that of its first connection.

        .. versionadded:: 4.0
        """
        member = self._member
        return self["ip"] if member is None else member.address[:2]

    @property
    def groups(self) -> frozenset[str]:
        """Every group it is in, its own included.

        .. versionadded:: 4.0
        """
        server = self.server
        if server is not None and self._member.is_member:
            found: frozenset[str] = server._groups_of(self._member)
            return found
        own = self["group"]
        return self._session.groups | (frozenset() if own is None else {own})

    @property
    def data(self) -> dict[Any, Any]:
        """Whatever the program wants to remember of it.

        .. versionadded:: 4.0
        """
        if self._session.data is None:
            self._session.data = {}
        return self._session.data

    @property
    def identity(self) -> Identity | None:
        """What the server's ``authenticate`` check said of it.

        ``None`` without a check, and where the check just returned ``True``. A resume
        has it checked again, and may change it.

        .. versionadded:: 4.0
        """
        return self._session.identity

    @property
    def roles(self) -> frozenset[str]:
        """The roles of that identity; ``on(..., requires="admin")`` looks at them.

        .. versionadded:: 4.0
        """
        identity = self._session.identity
        return frozenset() if identity is None else identity.roles

    @property
    def is_connected(self) -> bool:
        """Whether messages reach it.

        .. versionadded:: 4.0
        """
        member = self._member
        if member is None or not member.is_member or member.is_dropped:
            return False
        return bool(member.is_open)

    @property
    def wire(self) -> str:
        """``"compact"``, ``"websocket"``, or ``"classic"`` for a client of hisock 1.1.

        .. versionadded:: 4.0
        """
        member = self._member
        if member is None or not member.writer.is_compact:
            return "classic"
        return "websocket" if member.connection.is_packed else "compact"

    def _its_server(self) -> Any:
        server = self.server
        if server is None:
            raise UnknownClient(f"{dict(self)} is on no server of this program")
        return server

    def _verbs(self) -> Any:
        return self._its_server()._in_plain

    def send(
        self,
        command: str,
        content: Any = b"",
        *,
        ttl: float | None = None,
        when_slow: Any = None,
        key: Hashable = None,
    ) -> Any:
        """Send it a command; see ``HiSockServer.send_client``.

        .. versionadded:: 4.0
        """
        return self._verbs().send_client(
            self, command, content, ttl=ttl, when_slow=when_slow, key=key
        )

    def call(
        self,
        command: str,
        content: Any = None,
        *,
        timeout: float | None = 30.0,
        type: Any = None,
    ) -> Any:
        """Call its handler; see ``HiSockServer.call_client``.

        .. versionadded:: 4.0
        """
        return self._verbs().call_client(
            self, command, content, timeout=timeout, type=type
        )

    def stream(
        self,
        command: str,
        content: Any = None,
        *,
        type: Any = None,
        timeout: float | None = None,
    ) -> Any:
        """Read a stream of its; see ``HiSockServer.stream_client``.

        .. versionadded:: 4.0
        """
        return self._verbs().stream_client(
            self, command, content, timeout=timeout, type=type
        )

    def disconnect(self, *, reason: str = "", reconnect: bool = False) -> Any:
        """End its connection; see ``HiSockServer.disconnect_client``.

        .. versionadded:: 4.0
        """
        return self._verbs().disconnect_client(self, reason=reason, reconnect=reconnect)


class AsyncClientInfo(ClientInfo):
    """The same client as ``async def`` handlers see it: its verbs are awaited.

    It compares and hashes like the ``ClientInfo`` of that client and shares its
    ``data``. ``send`` and ``disconnect`` act when called; ``call`` is a coroutine,
    ``stream`` an async iterator.

    .. versionadded:: 4.0
    """

    __slots__ = ()

    def _verbs(self) -> Any:
        return self._its_server()._in_async


#: What names a client: its name, ``"ip:port"``, ``(ip, port)``, what a handler got,
#: or a dictionary that ``get_client`` returned.
ClientLike: TypeAlias = "str | tuple[str, int] | ClientInfo | dict[str, Any]"


class Limits(Struct, frozen=True, kw_only=True):
    """How much one peer may ask for. 0 switches a limit off.

    Attributes:
        message: Bytes of the largest message, in both directions.
        hello: Bytes of the largest hello.
        handshake: Seconds from the first byte a server could read to the whole hello.
        authentication: Seconds that an ``authenticate`` check may take.
        outbox: Bytes that may wait for one slow peer; see ``docs/design.md``.
        queue: Bytes that may wait for ``update()``, or on a server for the handlers of
            one client, while a call waits for something else; beyond it the call
            raises ``Overloaded``.
        unclaimed_messages: Messages without a handler kept for ``recv_raw()``.
        unclaimed: Bytes of such messages.
        connections: Clients a server serves at once.
        connections_per_address: The same for one remote address; loopback has none.
        unfinished: Connections that have not yet said hello.
        name: Bytes of UTF-8 in a name or a group.
        groups: Groups that one client may be in beside its own.
        handler_queue: Bytes that may wait for a client's handler to finish; beyond it
            that client is not read.
        handler_messages: The same in messages.
        memory: Bytes that all servers of the program keep for their clients together.
        message_rate: Messages a second that are read of one client, on average; more
            wait at the client. Off unless set, as the next two.
        byte_rate: The same in bytes.
        join_rate: Clients a second that are let in from one remote address.
        refusal_rate: Clients of one remote address a second that may be refused as
            unauthorized; after more, that address is not heard for a while.
        dropped: Sessions that a server keeps whose link is cut; then the oldest ends.
        requests: Calls and streams that one side may have open on one connection.
    """

    message: int = 16 * 1024 * 1024
    hello: int = 16 * 1024
    handshake: float = 5.0
    authentication: float = 5.0
    outbox: int = 4 * 1024 * 1024
    queue: int = 4 * 1024 * 1024
    unclaimed_messages: int = 1024
    unclaimed: int = 1024 * 1024
    connections: int = 10_000
    connections_per_address: int = 1024
    unfinished: int = 256
    name: int = 255
    groups: int = 128
    handler_queue: int = 1024 * 1024
    handler_messages: int = 64
    memory: int = 256 * 1024 * 1024
    message_rate: float = 0.0
    byte_rate: float = 0.0
    join_rate: float = 0.0
    refusal_rate: float = 100.0
    dropped: int = 10_000
    requests: int = 1024

    def __post_init__(self) -> None:
        """Refuse what is not a number from 0 up.

        Raises:
            InvalidOption: A limit is negative or no number.
        """
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidOption(f"Limits.{field} is a number, not {value!r}")
            if not value >= 0:  # and so no NaN
                raise InvalidOption(f"Limits.{field} is 0 (off) or more, not {value}")


class Message(Struct, frozen=True):
    """What ``recv_any`` returns.

    Attributes:
        command: Its command; ``None`` for raw content.
        content: What came with it.

    .. versionadded:: 4.0
    """

    command: str | None
    content: Any


class Gap(Struct, frozen=True):
    """What ``on_gap`` gets: messages that this client was too slow for.

    Attributes:
        count: How many were dropped, as their sender allowed by ``when_slow=``.
        group: To which group they went; ``None`` if to this client alone, or to all.

    .. versionadded:: 4.0
    """

    count: int
    group: str | None


class Credentials(Struct, frozen=True, kw_only=True):
    """What a client shows a server's ``authenticate`` check.

    Attributes:
        token: What the client gave as ``token=``; ``None`` for nothing.
        name: What it wants to be called.
        group: The group it wants to be in.
        address: Where it calls from.
        certificate_names: Whose certificate it showed, over TLS; empty without one.
        wire: ``"compact"``, ``"websocket"``, or ``"classic"`` for one of hisock 1.1.
        resuming: Whether it comes back to a session and has the secret of that.

    .. versionadded:: 4.0
    """

    token: str | None
    name: str | None
    group: str | None
    address: Any
    certificate_names: tuple[str, ...] = ()
    wire: str = "compact"
    resuming: bool = False

    def __repr__(self) -> str:
        return f"<Credentials of {self.name!r} from {self.address}>"  # never the token


class Identity(Struct, frozen=True):
    """Who a client is, as a server's ``authenticate`` check returns it.

    Args:
        id: What tells this user from all others; a session belongs to it.
        name: What the client is called from now on; ``None`` leaves it its own choice.
        roles: What ``on(..., requires="admin")`` looks for.
        data: Anything; a dictionary goes into ``client.data``.

    Raises:
        InvalidOption: ``id`` is neither text nor a number, ``name`` is no text, or
            ``roles`` is not several texts.

    .. versionadded:: 4.0
    """

    id: str | int
    name: str | None = None
    roles: frozenset[str] = frozenset()
    data: Any = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant; any collection of roles will do."""
        if isinstance(self.id, bool) or not isinstance(self.id, str | int):
            raise InvalidOption(f"an id is text or a number, not {self.id!r:.40}")
        if self.name is not None and not isinstance(self.name, str):
            raise InvalidOption(f"an identity's name is text, not {self.name!r:.40}")
        roles: Any = self.roles
        if isinstance(roles, set | list | tuple):
            roles = frozenset(roles)
        if not isinstance(roles, frozenset) or not all(
            isinstance(role, str) for role in roles
        ):
            raise InvalidOption(f'roles are like {{"admin"}}, not {self.roles!r:.80}')
        force_setattr(self, "roles", roles)


class Handlers:
    """Handlers without a server or client yet: for several files, and for tests.

    Register with the same decorators, then give them to ``server.use(handlers)`` or
    ``client.use(handlers)``, which checks them; as often as you like.

    .. versionadded:: 4.0
    """

    def __init__(self) -> None:
        #: What was registered: the decorator, its arguments, the function.
        self._registered: list[tuple[str, tuple[Any, ...], dict[str, Any], Any]] = []

    def _note(
        self, verb: str, *arguments: Any, **options: Any
    ) -> Callable[[Handler], Handler]:
        def register(function: Handler) -> Handler:
            self._registered.append((verb, arguments, options, function))
            return function

        return register

    def on(self, command: str, **options: Any) -> Callable[[Handler], Handler]:
        """As ``HiSockServer.on``."""
        return self._note("on", command, **options)

    def every(self, seconds: float) -> Callable[[Handler], Handler]:
        """As ``HiSockServer.every``."""
        return self._note("every", seconds)

    def on_error(self, function: Handler) -> Handler:
        """As ``HiSockServer.on_error``."""
        return self._note("on_error")(function)

    def on_drop(self, function: Handler) -> Handler:
        """As ``HiSockServer.on_drop``."""
        return self._note("on_drop")(function)

    def on_resume(self, function: Handler) -> Handler:
        """As ``HiSockServer.on_resume``."""
        return self._note("on_resume")(function)

    def on_session_lost(self, function: Handler) -> Handler:
        """As ``HiSockClient.on_session_lost``."""
        return self._note("on_session_lost")(function)

    def on_gap(self, function: Handler) -> Handler:
        """As ``HiSockClient.on_gap``."""
        return self._note("on_gap")(function)

    def authenticate(self, check: Handler) -> Handler:
        """As ``HiSockServer.authenticate``."""
        return self._note("authenticate")(check)
