"""What every client shows its users, whatever turns it; no I/O of its own."""

from __future__ import annotations

__all__ = (
    "ClientFace",
    "ClientOptions",
    "check_options",
    "read_answer",
    "spell_client",
)

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from hisock.engine.blocking import ClientEngine
from hisock.engine.dial import (
    CONNECT_TIMEOUT,
    DEAD_AFTER,
    dial,
    parse_address,
    secured,
    spell_address,
    split_uri,
    targets_of,
)
from hisock.engine.face import Face, check_known, check_limits, check_times
from hisock.engine.link import DONT_WAIT
from hisock.engine.proof import Proof
from hisock.engine.reconnect import Terms
from hisock.errors import (
    ClientDisconnected,
    HiSockError,
    InvalidClient,
    InvalidOption,
    Refused,
    ServerNotRunning,
    UnknownClient,
)
from hisock.handlers.table import (
    GAP,
    SERVER_EVENTS,
    SESSION_LOST,
    HandlerEntry,
    HandlerTable,
    Options,
)
from hisock.types import ClientLike, Handler, Limits
from hisock.wire.classic import check_header_len
from hisock.wire.frames import ClientAnswer, Regroup, Rename
from hisock.wire.payload import check_name

if TYPE_CHECKING:
    import ssl

    from hisock.engine.tls import ClientTls

_ROSTER_EVENTS = ("client_connect", "client_disconnect")


class ClientOptions(TypedDict, total=False):
    """The keyword options of every way to make a client."""

    limits: Limits | None
    wait: float
    reconnect: bool
    resume_window: float
    dead_after: float
    token: str | Callable[[], Any] | None
    tls: ssl.SSLContext | dict[str, Any] | str | bool | None


def check_options(options: ClientOptions) -> None:
    """As ``check_known``, of a client."""
    known = ClientOptions.__annotations__
    check_known("client", options, known, ("name", "group", "blocking"))


class ClientFace(Face):
    """The base of all clients; the arguments are ``HiSockClient``'s."""

    _side = "client"
    _others_events = SERVER_EVENTS
    _engine: ClientEngine
    _logs_errors = False
    _is_async = False
    #: Whether somebody reads all the time, so that silence means the end.
    _beats = False

    def __init__(
        self,
        addr: Any,
        name: str | None = None,
        group: str | None = None,
        blocking: bool = True,
        header_len: int = 16,
        cache_size: int = -1,
        **options: Unpack[ClientOptions],
    ) -> None:
        check_options(options)
        self._prepare(addr, name, group, blocking, header_len, cache_size, **options)
        self._connect()

    def _prepare(
        self,
        addr: Any,
        name: str | None,
        group: str | None,
        blocking: bool,
        header_len: int,
        cache_size: int,
        *,
        limits: Limits | None = None,
        wait: float = 0.0,
        reconnect: bool = True,
        resume_window: float = 30.0,
        dead_after: float = DEAD_AFTER,
        token: str | Callable[[], Any] | None = None,
        tls: ssl.SSLContext | dict[str, Any] | str | bool | None = None,
    ) -> None:
        """Look at the arguments; nothing of it does I/O."""
        limits = check_limits(limits)
        self._uri, addr = split_uri(addr)
        self.addr = parse_address(addr)
        self.header_len = check_header_len(header_len)
        check_name(name, limits.name)
        check_name(group, limits.name)
        self._calls_itself = name, group
        if isinstance(wait, bool) or not isinstance(wait, int | float) or not wait >= 0:
            raise InvalidOption(f"wait is 0 or more seconds, not {wait!r:.40}")
        check_times(resume_window, dead_after)
        if self._uri is not None and self._uri.startswith("wss:") and tls is None:
            tls = True
        self._tls = None if tls is None else self._read_tls(tls)
        has_certificate = isinstance(tls, dict) and "cert" in tls
        self._proof = Proof(
            token, is_async=self._is_async, is_secretive=has_certificate
        )
        self._reconnect = bool(reconnect)
        self._resume_window = resume_window
        self._dead_after = dead_after
        self._limits = limits
        self._blocking = blocking
        self._cache_size = cache_size
        self._wait = wait
        self._known = set()
        self._table = HandlerTable(on_server=False, is_async=self._is_async)

    def _read_tls(self, tls: object) -> ClientTls | None:
        from hisock.engine.tls import client_context  # ssl: 15 ms

        host = "" if isinstance(self.addr, str) else self.addr[0]
        if self._uri is None:
            return client_context(tls, host)
        return client_context(tls, host, protocols=("http/1.1",))

    def _connect(self) -> None:
        self._proof.ask()
        waits = bool(DONT_WAIT) and not self._is_async
        after = self._dead_after
        sock: Any = dial(self.addr, waits=waits, patience=self._wait, dead_after=after)
        wrapper: Any = self._tls
        try:
            if self._uri is not None:
                from hisock.engine.upgrade import ClientWeb  # 20 ms

                wrapper = ClientWeb(self._uri, self._tls, self._limits.message)
            if wrapper is not None:
                sock = secured(sock, wrapper, self.addr)
            self._engine = ClientEngine(
                sock,
                *self._calls_itself,
                title=f"{type(self).__name__} {self.name!r}",
                limits=self._limits,
                header_len=self.header_len,
                cache_size=self._cache_size,
                waits=self._blocking and not self._is_async,
                logs_errors=self._logs_errors,
                table=self._table,
                terms=Terms(
                    address=self.addr,
                    targets=targets_of(self.addr),
                    is_willing=self._reconnect,
                    window=self._resume_window,
                    dead_after=self._dead_after,
                    beats=self._beats,
                    tls=wrapper,
                    is_packed=self._uri is not None,
                    proof=self._proof,
                ),
            )
        except BaseException:
            sock.close()
            raise
        # An asyncio loop turns the client anyway; until somebody turns another, its
        # server would not even know that it is there.
        if self._uri is not None and not self._is_async:
            self._go_over(self._uri)

    def _go_over(self, uri: str) -> None:
        """Wait for the server's half of the WebSocket handshake."""
        try:
            reason = self._engine.uplink.go_over(self._wait, CONNECT_TIMEOUT)
            if reason:
                raise ServerNotRunning(f"nobody at {uri} speaks WebSocket: {reason}")
        except BaseException as error:
            self._engine.keeper.stop()
            self._engine.abandon()
            cause = error.__cause__
            if isinstance(error, ClientDisconnected) and isinstance(cause, HiSockError):
                raise cause from None
            raise

    def __str__(self) -> str:
        return f"<{type(self).__name__} connected to {spell_address(self.addr)}>"

    __repr__ = __str__

    @property
    def name(self) -> str | None:
        """What this client is called, as far as it knows.

        The server's ``authenticate`` check may have given it another name, and may
        leave it the one it had: ``on_error`` gets a ``Refused`` then.
        """
        engine = getattr(self, "_engine", None)
        return self._calls_itself[0] if engine is None else engine.keeper.persona.name

    @property
    def group(self) -> str | None:
        """The group it is in, as far as it knows; as ``name``."""
        engine = getattr(self, "_engine", None)
        return self._calls_itself[1] if engine is None else engine.keeper.persona.group

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known.

        .. versionadded:: 4.0
        """
        return self._engine.is_usable and self._engine.is_connected

    @property
    def wire(self) -> str | None:
        """``"compact"``, or ``"classic"`` where the server is one of hisock 1.1;
        ``None`` as long as it has not answered.

        .. versionadded:: 4.0
        """
        return self._engine.uplink.wire

    def _register(
        self, command: str, function: Callable[..., Any], options: Options
    ) -> HandlerEntry | None:
        told = any(self._table.event(event) for event in _ROSTER_EVENTS)
        before = super()._register(command, function, options)
        engine = getattr(self, "_engine", None)
        if engine is not None and command in _ROSTER_EVENTS and not told:
            engine.uplink.tell_roster()
        return before

    def on_session_lost(self, function: Handler) -> Handler:
        """Have the decorated function told that a session is lost and another begins.

        It gets a ``SessionLost`` with ``.reason``, ``.unacked`` (the messages of which
        nobody knows whether they arrived) and ``.missed``, before any message of the
        new session. Without such a function one warning is logged.

        Raises:
            HandlerSignatureError: It takes something else.

        .. versionadded:: 4.0
        """
        self._register(SESSION_LOST, function, Options())
        return function

    def on_gap(self, function: Handler) -> Handler:
        """Have the decorated function told that messages for this client were dropped.

        It gets a ``hisock.types.Gap``, in the place of what is missing. Only messages
        that were sent with ``when_slow="drop_oldest"`` or ``"drop_newest"`` ever are.

        Raises:
            HandlerSignatureError: It takes something else.

        .. versionadded:: 4.0
        """
        self._register(GAP, function, Options())
        return function

    def batch(self) -> AbstractContextManager[None]:
        """Collect what is sent inside ``with client.batch():`` into few writes.

        .. versionadded:: 4.0
        """
        return self._engine.uplink.batches.collecting()

    def change_name(self, new_name: str | None) -> None:
        """Be called something else, or nothing.

        A server may refuse that: ``name`` is then what it was before, and ``on_error``
        gets a ``Refused``.

        Raises:
            InvalidName: That is no name.
            ClientDisconnected: The connection has ended.
        """
        check_name(new_name, self._limits.name)
        self._rename(Rename(new_name))

    def change_group(self, new_group: str | None) -> None:
        """Be in another group, or in none; a server may refuse that as a new name.

        Raises:
            InvalidName: That is no group.
            ClientDisconnected: The connection has ended.
        """
        check_name(new_group, self._limits.name)
        self._rename(Regroup(new_group))

    def _rename(self, frame: Rename | Regroup) -> None:
        self._engine.uplink.rename(frame)

    def get_cache(self, idx: int | slice | None = None) -> Any:
        """What came last: ``{"header", "content"}``, as bytes of the 1.1 wire.

        Args:
            idx: One of them, or a part; ``None`` for all.

        Raises:
            IndexError: There are not that many.
        """
        cache = list(self._engine.cache)
        return cache if idx is None else cache[idx]

    def get_server_addr(self) -> Any:
        """The address of the server."""
        return self.addr

    def get_client_addr(self) -> Any:
        """This client's own address; without NAT also what the server sees."""
        return self._engine.own_address


def read_answer(client: ClientLike, answer: ClientAnswer) -> dict[str, Any]:
    """What the server said of another client.

    Raises:
        UnknownClient: Nobody of that kind is connected (a ``TypeError``).
        Refused: The server does not tell.
    """
    if answer.info is not None:
        return answer.info
    if answer.refusal == "$NOEXIST$":
        raise UnknownClient(f"no client {client!r:.80} is connected")
    raise Refused(f"the server does not tell who {client!r:.80} is: {answer.refusal}")


def spell_client(client: ClientLike) -> str:
    """What the wire calls a client: its name, or ``ip:port``.

    Raises:
        InvalidClient: It is nothing that could name one.
    """
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
