"""The types that appear in the signatures of hisock: clients, addresses, limits."""

from __future__ import annotations

__all__ = ("Address", "ClientInfo", "ClientLike", "Handler", "Limits", "Sendable")

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from hisock.errors import InvalidOption

#: ``(host, port)``, as the sockets of the standard library write it.
Address: TypeAlias = tuple[str, int]

#: What a message may carry; everything but ``bytes`` travels as text.
Sendable: TypeAlias = (
    bytes
    | bytearray
    | memoryview
    | str
    | int
    | float
    | list[Any]
    | tuple[Any, ...]
    | dict[str, Any]
    | None
)

#: A handler keeps its own type when it is decorated.
Handler = TypeVar("Handler", bound=Callable[..., Any])


class ClientInfo(dict[str, Any]):
    """A client as a server's handlers see it: ``ip``, ``name`` and ``group``.

    A ``dict`` with exactly these three keys, so ``json.dumps(client)`` works. It is
    one object from join to leave, kept up to date, and compared and hashed by
    identity, so it may be a key.
    """

    __slots__ = ("__weakref__", "_member")

    #: The server's own record of the client; not for users.
    _member: Any

    def __init__(self, ip: Any, name: str | None, group: str | None) -> None:
        super().__init__(ip=ip, name=name, group=group)
        self._member = None

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __hash__(self) -> int:  # type: ignore[override]  # dict has None here
        return id(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, or what another process gets, is a plain dictionary."""
        return dict, (dict(self),)

    def __repr__(self) -> str:
        return f"<ClientInfo {dict.__repr__(self)}>"


#: What names a client: its name, ``"ip:port"``, ``(ip, port)``, what a handler got,
#: or a dictionary that ``get_client`` returned.
ClientLike: TypeAlias = "str | tuple[str, int] | ClientInfo | dict[str, Any]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one peer may ask for. 0 switches a limit off.

    Attributes:
        message: Bytes of the largest message, in both directions.
        hello: Bytes of the largest hello.
        handshake: Seconds from the first byte a server could read to the whole hello.
        outbox: Bytes that may wait for one slow peer; see ``docs/design.md``.
        queue: Bytes that may wait for ``update()`` while a call waits for something
            else; beyond it the call raises ``Overloaded``.
        unclaimed_messages: Messages without a handler kept for ``recv_raw()``.
        unclaimed: Bytes of such messages.
        connections: Clients a server serves at once.
        connections_per_address: The same for one remote address; loopback has none.
        unfinished: Connections that have not yet said hello.
        name: Bytes of UTF-8 in a name or a group.
    """

    message: int = 16 * 1024 * 1024
    hello: int = 16 * 1024
    handshake: float = 5.0
    outbox: int = 4 * 1024 * 1024
    queue: int = 4 * 1024 * 1024
    unclaimed_messages: int = 1024
    unclaimed: int = 1024 * 1024
    connections: int = 10_000
    connections_per_address: int = 1024
    unfinished: int = 256
    name: int = 255

    def __post_init__(self) -> None:
        """Refuse what is not a number from 0 up.

        Raises:
            InvalidOption: A limit is negative or no number.
        """
        for field in self.__slots__:
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidOption(f"Limits.{field} is a number, not {value!r}")
            if not value >= 0:  # and so no NaN
                raise InvalidOption(f"Limits.{field} is 0 (off) or more, not {value}")
