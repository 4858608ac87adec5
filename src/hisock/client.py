"""Clients: ``connect`` and, in a thread of its own, ``threaded_connect``."""

from __future__ import annotations

__all__ = ("HiSockClient", "ThreadedHiSockClient", "connect", "threaded_connect")

from contextlib import AbstractContextManager
from typing import Any, TypedDict, Unpack

from hisock.engine.blocking import ClientEngine
from hisock.engine.dial import dial, parse_address
from hisock.engine.face import Face, ThreadedFace
from hisock.engine.link import DONT_WAIT
from hisock.errors import ClientDisconnected, InvalidClient, Refused, UnknownClient
from hisock.handlers.table import SERVER_EVENTS
from hisock.types import Address, ClientLike, Limits, Sendable
from hisock.wire.classic import check_header_len
from hisock.wire.frames import GetClient, Hello, Regroup, Rename
from hisock.wire.payload import as_text, check_content, check_name

#: Seconds that a server has to answer ``get_client``.
_ANSWER = 5.0


class _Options(TypedDict, total=False):
    limits: Limits | None


class HiSockClient(Face):
    """A client: connects, says who it is, sends, and runs handlers for what comes.

    Handlers run on the thread that calls ``update``; every other method may be called
    from any thread.

    Args:
        addr: ``(ip, port)`` of the server.
        name: What others may call this client; ``None`` for no name.
        group: The group it is in; ``None`` for none.
        blocking: Whether ``update`` waits until a handler ran, and a send for room.
        header_len: Bytes of a header, 2 to 64. A hisock 1.1 server needs its own.
        cache_size: Messages that ``get_cache`` remembers; 0 or less for none.
        limits: How much the server may ask for.

    Raises:
        ServerNotRunning: Nobody answers at that address.
        InvalidAddress: ``addr`` is no address.
        InvalidName: ``name`` or ``group`` is no name.
        InvalidOption: Another argument cannot work.
        MessageTooLarge: ``header_len`` cannot hold the length of the hello.
    """

    _side = "client"
    _others_events = SERVER_EVENTS
    _engine: ClientEngine
    _logs_errors = False

    def __init__(
        self,
        addr: Address,
        name: str | None = None,
        group: str | None = None,
        blocking: bool = True,
        header_len: int = 16,
        cache_size: int = -1,
        *,
        limits: Limits | None = None,
    ) -> None:
        limits = limits or Limits()
        self.addr = parse_address(addr)
        self.header_len = check_header_len(header_len)
        self.name = check_name(name, limits.name)
        self.group = check_name(group, limits.name)
        self._limits = limits
        self._blocking = blocking
        self._prefixes = {}
        sock = dial(self.addr, waits=bool(DONT_WAIT))
        try:
            self._engine = ClientEngine(
                sock,
                Hello(name, group),
                name=f"{type(self).__name__} {name!r}",
                limits=limits,
                header_len=self.header_len,
                cache_size=cache_size,
                waits=blocking,
                logs_errors=self._logs_errors,
            )
        except BaseException:
            sock.close()
            raise
        self._table = self._engine.table

    def __str__(self) -> str:
        return f"<{type(self).__name__} connected to {self.addr[0]}:{self.addr[1]}>"

    __repr__ = __str__

    @property
    def is_connected(self) -> bool:
        """Whether neither side has ended the connection, as far as is known.

        .. versionadded:: 4.0
        """
        return self._engine.is_usable and self._engine.is_open

    def update(self) -> None:
        """One turn: take in what came and run handlers for it.

        A blocking client waits until at least one handler ran; another returns at
        once. After ``close`` this does nothing. What a handler raises comes out of
        here; the connection lives, and the next call goes on behind it.

        Raises:
            ClientDisconnected: The server ended the connection. Where there is a
                ``force_disconnect`` handler it runs first, and the next call raises.
            AlreadyRunning: Called inside a handler, or in two threads at once.
        """
        self._engine.run(wait=self._blocking)

    def send(self, command: str, content: Sendable = b"") -> None:
        """Send a command with content to the server.

        Args:
            command: What the server's handler is registered for.
            content: What the handler gets.

        Raises:
            ReservedCommand: The command has the form ``$command$`` (a ``TypeError``).
            NotSendable: The content has no text form.
            MessageTooLarge: The message is over a limit.
            ClientDisconnected: The connection has ended.
            SendTimeout: The server took nothing for 10 s.
            WouldBlock: The client is non-blocking and its buffer is full.
        """
        try:
            prefix = self._prefixes[command]
        except (KeyError, TypeError):
            prefix = self._prefix(command)
        if type(content) is not bytes:
            content = as_text(content)
        self._engine.send(prefix, content)

    def raw_send(self, content: Sendable) -> None:
        """Send content without a command; see ``send``."""
        self._engine.send(b"", check_content(as_text(content)))

    def batch(self) -> AbstractContextManager[None]:
        """Collect what is sent inside ``with client.batch():`` into few writes.

        .. versionadded:: 4.0
        """
        return self._engine.batches.collecting()

    def recv_raw(self) -> bytes:
        """Wait for the next message without a handler, and return it whole.

        Works inside a handler too. What else arrives stays in order for ``update``.

        Raises:
            ClientDisconnected: The connection ended first.
            Overloaded: More than ``Limits.queue`` bytes came that have a handler.
        """
        return self._engine.receive(None, None)

    def change_name(self, new_name: str | None) -> None:
        """Be called something else, or nothing.

        Raises:
            InvalidName: That is no name.
            ClientDisconnected: The connection has ended.
        """
        check_name(new_name, self._limits.name)
        self._engine.send_frame(Rename(new_name))
        self.name = new_name

    def change_group(self, new_group: str | None) -> None:
        """Be in another group, or in none.

        Raises:
            InvalidName: That is no group.
            ClientDisconnected: The connection has ended.
        """
        check_name(new_group, self._limits.name)
        self._engine.send_frame(Regroup(new_group))
        self.group = new_group

    def get_cache(self, idx: int | slice | None = None) -> Any:
        """What came last: ``{"header", "content"}``, as bytes of the wire.

        Args:
            idx: One of them, or a part; ``None`` for all.

        Raises:
            IndexError: There are not that many.
        """
        cache = list(self._engine.cache)
        return cache if idx is None else cache[idx]

    def get_client(self, client: ClientLike) -> dict[str, Any]:
        """Ask the server who somebody is: ``ip``, ``name`` and ``group``.

        Raises:
            InvalidClient: ``client`` names nobody.
            UnknownClient: Nobody of that kind is connected (a ``TypeError``).
            Refused: The server does not tell.
            RequestTimeout: It did not answer within 5 s.
            ClientDisconnected: The connection has ended.
        """
        answer = self._engine.ask(GetClient(_spell(client)), _ANSWER)
        if answer.info is not None:
            return answer.info
        if answer.refusal == "$NOEXIST$":
            raise UnknownClient(f"no client {client!r:.80} is connected")
        raise Refused(
            f"the server does not tell who {client!r:.80} is: {answer.refusal}"
        )

    def get_server_addr(self) -> Address:
        """The address of the server."""
        return self.addr

    def get_client_addr(self) -> Address:
        """This client's own address; without NAT also what the server sees."""
        return self._engine.own_address

    def close(self) -> None:
        """End the connection, within 1 s; again is no error.

        The server is told, and what was sent before reaches it.
        """
        self._engine.close()


class ThreadedHiSockClient(ThreadedFace, HiSockClient):
    """A client that turns itself in a thread, beside a program that does other work.

    Handlers run on that thread; what they raise is logged. Like 1.1's it is no daemon:
    the program goes on until ``stop_client`` is called, the server ends the
    connection, or the main thread ends with an exception.
    """

    _logs_errors = True

    def start_client(self) -> None:
        """Start the thread.

        Raises:
            AlreadyRunning: It was started before.
        """
        self._driver.start()

    def stop_client(self) -> None:
        """Close the client and let its thread end; ``join`` waits for that."""
        self._driver.stop()

    def _step(self, timeout: float) -> bool:
        try:
            return self._engine.run(wait=True, timeout=timeout)
        except ClientDisconnected:
            return False  # logged, and told to force_disconnect


def connect(
    addr: Address,
    name: str | None = None,
    group: str | None = None,
    blocking: bool = True,
    header_len: int = 16,
    cache_size: int = -1,
    **options: Unpack[_Options],
) -> HiSockClient:
    """Make a ``HiSockClient``; its arguments, options and errors are these."""
    return HiSockClient(addr, name, group, blocking, header_len, cache_size, **options)


def threaded_connect(
    addr: Address,
    name: str | None = None,
    group: str | None = None,
    blocking: bool = True,
    header_len: int = 16,
    cache_size: int = -1,
    **options: Unpack[_Options],
) -> ThreadedHiSockClient:
    """Make a ``ThreadedHiSockClient``; call its ``start_client()`` next."""
    return ThreadedHiSockClient(
        addr, name, group, blocking, header_len, cache_size, **options
    )


def _spell(client: ClientLike) -> str:
    """What the wire calls a client: its name, or ``ip:port``."""
    if isinstance(client, dict) and "ip" in client:
        client = client["ip"]
    match client:
        case str() as name:
            return name
        case (str() as host, int() as port):
            return f"{host}:{port}"
        case _:
            raise InvalidClient(
                f'a client is a name, "ip:port" or (ip, port), not {client!r:.80}'
            )
