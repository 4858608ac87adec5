"""Servers: ``start_server`` and, in a thread of its own, ``start_threaded_server``."""

from __future__ import annotations

__all__ = (
    "HiSockServer",
    "ThreadedHiSockServer",
    "start_server",
    "start_threaded_server",
)

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypedDict, Unpack

from hisock.engine.dial import listen_at, parse_address
from hisock.engine.face import Face, ThreadedFace
from hisock.engine.link import Link
from hisock.engine.serve import ServerEngine
from hisock.errors import InvalidOption
from hisock.handlers.table import CLIENT_EVENTS
from hisock.types import Address, ClientInfo, ClientLike, Limits, Sendable
from hisock.wire.classic import check_header_len
from hisock.wire.payload import as_text, check_content


class _Options(TypedDict, total=False):
    tls: dict[str, Any] | str | None
    limits: Limits | None
    errors: Literal["log", "raise"]
    roster: bool


class HiSockServer(Face):
    """A server: clients join, their messages run handlers, it sends to them.

    Binds and listens at once. Handlers run on the thread that calls ``run``; every
    other method may be called from any thread.

    Args:
        addr: ``(ip, port)``; port 0 takes a free one, ``""`` is every interface.
        blocking: Whether ``run`` waits until a handler ran.
        max_connections: Clients served at once; 0 leaves it to ``limits``.
        header_len: Bytes of a header, 2 to 64. A client's own is told by its hello,
            so clients with another are served too.
        tls: ``None``; encryption is not there yet, and 1.1's ``"default"`` never was.
        limits: How much a peer may ask for.
        errors: ``"log"`` keeps what a handler raises from ending the server;
            ``"raise"`` lets it out of ``run``, as 1.1 did.
        roster: Whether clients are told who joins and leaves, and may ask for each
            other's address.

    Raises:
        InvalidAddress: ``addr`` is no address.
        CannotListen: The system does not let it listen there; ``AddressInUse`` and
            ``PrivilegedPort`` are the usual reasons.
        InvalidOption: Another argument cannot work.
    """

    _side = "server"
    _others_events = CLIENT_EVENTS
    _engine: ServerEngine

    def __init__(
        self,
        addr: Address,
        blocking: bool = True,
        max_connections: int = 0,
        header_len: int = 16,
        tls: dict[str, Any] | str | None = None,
        *,
        limits: Limits | None = None,
        errors: Literal["log", "raise"] = "log",
        roster: bool = True,
    ) -> None:
        address = parse_address(addr)
        self.header_len = check_header_len(header_len)
        _check_options(max_connections, tls, errors)
        listener = listen_at(address)
        self.addr = listener.getsockname()[:2]
        self._blocking = blocking
        self._prefixes = {}
        self._engine = ServerEngine(
            listener,
            name=f"{type(self).__name__} {self.addr[0]}:{self.addr[1]}",
            limits=limits or Limits(),
            max_connections=max_connections,
            errors=errors,
            roster=roster,
        )
        self._table = self._engine.table

    def __str__(self) -> str:
        return f"<{type(self).__name__} serving at {self.addr[0]}:{self.addr[1]}>"

    __repr__ = __str__

    def __len__(self) -> int:
        """How many clients there are."""
        return len(self._engine.registry)

    def __bool__(self) -> bool:
        return True

    @property
    def clients(self) -> Mapping[Any, ClientInfo]:
        """Socket → client, live and read-only; ``get_all_clients`` is friendlier."""
        return _Clients(self._engine)

    @property
    def clients_rev(self) -> Mapping[tuple[Any, str | None, str | None], Any]:
        """``(ip, name, group)`` → socket, live and read-only."""
        return _ClientsReversed(self._engine)

    def run(self) -> None:
        """One turn: take in what came, run handlers for it, send what they sent.

        A blocking server waits until at least one handler ran; another returns at
        once. On a closed server this does nothing. Call it in a loop.

        Raises:
            AlreadyRunning: Called inside a handler, or in two threads at once.
        """
        self._engine.run(wait=self._blocking)

    def send_client(
        self, client: ClientLike, command: str, content: Sendable = b""
    ) -> None:
        """Send a command with content to one client.

        Args:
            client: Its name, ``"ip:port"``, ``(ip, port)`` or what a handler got.
            command: What the client's handler is registered for.
            content: What the handler gets.

        Raises:
            InvalidClient: ``client`` is none of these (a ``ValueError``).
            UnknownClient: Nobody of that kind is here (a ``TypeError``).
            ReservedCommand: The command has the form ``$command$``.
            NotSendable: The content has no text form.
            MessageTooLarge: The message is over a limit.
            SendTimeout: Outside a turn: the client took nothing for 10 s.
            ServerClosed: The server is closed.

        Warns:
            UserWarning: Several clients have that name; the oldest gets it.
        """
        self._engine.send_to(client, self._message(command, content))

    def send_client_raw(self, client: ClientLike, content: Sendable) -> None:
        """Send content without a command to one client; see ``send_client``."""
        body = content if type(content) is bytes else as_text(content)
        if body[:1] == b"$":
            check_content(body)
        self._engine.send_to(client, body)

    def send_group(self, group: str, command: str, content: Sendable = b"") -> None:
        """Send a command with content to everybody in a group.

        Raises:
            UnknownGroup: Nobody is in it (a ``TypeError``).
            ReservedCommand, NotSendable, MessageTooLarge, ServerClosed: As
                ``send_client``.
        """
        self._engine.send_group(group, self._message(command, content))

    def send_group_raw(self, group: str, content: Sendable) -> None:
        """Send content without a command to a group; see ``send_group``."""
        self._engine.send_group(group, check_content(as_text(content)))

    def send_all_clients(self, command: str, content: Sendable = b"") -> None:
        """Send a command with content to every client; to nobody is no error.

        Raises:
            ReservedCommand, NotSendable, MessageTooLarge, ServerClosed: As
                ``send_client``.
        """
        self._engine.send_all(self._message(command, content))

    def _message(self, command: str, content: Sendable) -> bytes:
        try:
            prefix = self._prefixes[command]
        except (KeyError, TypeError):
            prefix = self._prefix(command, stacklevel=4)
        return prefix + as_text(content)

    def get_client(self, client: ClientLike) -> dict[str, Any]:
        """A dictionary with a client's ``ip``, ``name``, ``group`` and ``socket``.

        Raises:
            InvalidClient, UnknownClient: As ``send_client``.
        """
        return _describe(self._engine.look_up(client))

    def get_group(self, group: str) -> list[dict[str, Any]]:
        """Such a dictionary for everybody in a group.

        Raises:
            UnknownGroup: Nobody is in it (a ``TypeError``).
        """
        return [_describe(link) for link in self._engine.group(group)]

    def get_all_clients(
        self, key: str | Callable[[dict[str, Any]], object] | None = None
    ) -> list[Any]:
        """Such a dictionary for every client.

        Args:
            key: ``"ip"``, ``"name"``, ``"group"`` or ``"socket"`` gives these alone;
                a callable keeps the clients for which it is true.

        Raises:
            InvalidOption: ``key`` is another string.
        """
        clients = [_describe(link) for link in self._engine.everybody()]
        if isinstance(key, str):
            if key not in ("ip", "name", "group", "socket"):
                raise InvalidOption(f"key is ip, name, group or socket, not {key!r}")
            return [client[key] for client in clients]
        if key is not None:
            return [client for client in clients if key(client)]
        return clients

    def get_addr(self) -> Address:
        """The address the server really listens at."""
        return self.addr

    def disconnect_client(self, client: ClientLike) -> None:
        """End one client's connection; its ``leave`` runs in the next turn.

        Raises:
            InvalidClient, UnknownClient: As ``send_client``.
        """
        self._engine.disconnect([self._engine.look_up(client)], "disconnected")

    def disconnect_all_clients(self) -> None:
        """End every client's connection."""
        self._engine.disconnect(self._engine.everybody(), "disconnected")

    def close(self) -> None:
        """End every connection and stop listening; within 1 s, and again is no error.

        Each client is told, ``leave`` runs for it, and its socket is closed once it
        has heard, or after 1 s. In a handler this is done when the handler returns.
        """
        self._engine.close()


class ThreadedHiSockServer(ThreadedFace, HiSockServer):
    """A server that turns itself in a thread, beside a program that does other work.

    Handlers run on that thread. Like 1.1's it is no daemon: the program goes on until
    ``stop_server`` is called or its main thread ends with an exception.
    """

    def start_server(self) -> None:
        """Start the thread.

        Raises:
            AlreadyRunning: It was started before.
        """
        self._driver.start()

    def stop_server(self) -> None:
        """Close the server and let its thread end; ``join`` waits for that."""
        self._driver.stop()


def start_server(
    addr: Address,
    blocking: bool = True,
    max_connections: int = 0,
    header_len: int = 16,
    **options: Unpack[_Options],
) -> HiSockServer:
    """Make a ``HiSockServer``; its arguments, options and errors are these."""
    return HiSockServer(addr, blocking, max_connections, header_len, **options)


def start_threaded_server(
    addr: Address,
    blocking: bool = True,
    max_connections: int = 0,
    header_len: int = 16,
    **options: Unpack[_Options],
) -> ThreadedHiSockServer:
    """Make a ``ThreadedHiSockServer``; call its ``start_server()`` next."""
    return ThreadedHiSockServer(addr, blocking, max_connections, header_len, **options)


def _check_options(max_connections: object, tls: object, errors: object) -> None:
    if isinstance(max_connections, bool) or not isinstance(max_connections, int):
        raise InvalidOption(f"max_connections is a number, not {max_connections!r}")
    if max_connections < 0:
        raise InvalidOption(f"max_connections is 0 or more, not {max_connections}")
    if errors not in ("log", "raise"):
        raise InvalidOption(f'errors is "log" or "raise", not {errors!r}')
    if tls is not None:
        raise InvalidOption(
            f"tls={tls!r} would not encrypt anything: hisock 1.1 never did, and this "
            "version does not yet. Leave it out, and let a VPN or an SSH tunnel carry "
            "what must stay secret"
        )


def _describe(link: Link) -> dict[str, Any]:
    return {**link.info, "socket": link.sock}


class _Clients(Mapping[Any, ClientInfo]):
    def __init__(self, engine: ServerEngine) -> None:
        self._engine = engine

    def _table(self) -> dict[Any, ClientInfo]:
        return {link.sock: link.info for link in self._engine.everybody()}

    def __getitem__(self, key: Any) -> ClientInfo:
        return self._table()[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._table())

    def __len__(self) -> int:
        return len(self._engine.registry)

    def __repr__(self) -> str:
        return repr(self._table())


class _ClientsReversed(Mapping[tuple[Any, str | None, str | None], Any]):
    def __init__(self, engine: ServerEngine) -> None:
        self._engine = engine

    def _table(self) -> dict[tuple[Any, str | None, str | None], Any]:
        links = self._engine.everybody()
        return {tuple(link.info.values()): link.sock for link in links}

    def __getitem__(self, key: tuple[Any, str | None, str | None]) -> Any:
        return self._table()[key]

    def __iter__(self) -> Iterator[tuple[Any, str | None, str | None]]:
        return iter(self._table())

    def __len__(self) -> int:
        return len(self._engine.registry)

    def __repr__(self) -> str:
        return repr(self._table())
