"""What every server shows its users, whatever turns it; no I/O of its own."""

from __future__ import annotations

__all__ = ("Group", "ServerFace", "ServerOptions")

import socket
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, Unpack

from hisock.engine.delivery import WhenSlow, wish_of
from hisock.engine.dial import DEAD_AFTER, listen_at, parse_address, spell_address
from hisock.engine.face import Face, check_known, check_limits, check_times
from hisock.engine.inquiry import Inquiry
from hisock.engine.link import Link
from hisock.engine.post import Post
from hisock.engine.serve import ServerEngine
from hisock.engine.stats import stats_of
from hisock.engine.waiting import check_timeout
from hisock.engine.website import WebOptions, Website, check_web
from hisock.errors import InvalidName, InvalidOption, UnknownClient
from hisock.handlers.table import CLIENT_EVENTS
from hisock.hub.names import Policy
from hisock.types import ClientInfo, ClientLike, Handler, Limits, _Session
from hisock.wire.classic import check_header_len
from hisock.wire.frames import Hello
from hisock.wire.payload import check_name

if TYPE_CHECKING:
    import ssl

    from hisock.engine.tls import ServerTls

_WIRES = frozenset({"classic", "compact", "websocket"})
#: Seconds; who waits so long sleeps.
_LONGEST_SPIN = 0.1


class ServerOptions(WebOptions, total=False):
    """The keyword options of every way to make a server."""

    tls: ssl.SSLContext | dict[str, Any] | str | None
    limits: Limits | None
    errors: Literal["log", "raise"]
    roster: bool
    wires: tuple[str, ...] | None
    resume_window: float
    dead_after: float
    unique_names: Policy
    allow_rename: bool | None
    allow_regroup: bool | None
    spin: float


class ServerFace(Face):
    """The base of all servers; the arguments are ``HiSockServer``'s."""

    _side = "server"
    _listens_at_once = True
    _others_events = CLIENT_EVENTS
    _engine: ServerEngine

    def __init__(
        self,
        addr: Any,
        blocking: bool = True,
        max_connections: int = 0,
        header_len: int = 16,
        tls: ssl.SSLContext | dict[str, Any] | str | None = None,
        *,
        limits: Limits | None = None,
        errors: Literal["log", "raise"] = "log",
        roster: bool = True,
        wires: tuple[str, ...] | None = None,
        resume_window: float = 30.0,
        dead_after: float = DEAD_AFTER,
        unique_names: Policy = "allow",
        allow_rename: bool | None = None,
        allow_regroup: bool | None = None,
        spin: float = 0.0,
        **web: Unpack[WebOptions],
    ) -> None:
        check_times(resume_window, dead_after)
        _check_names(unique_names, allow_rename, allow_regroup)
        self._address = None if addr is None else parse_address(addr)
        self.header_len = check_header_len(header_len)
        _check_options(max_connections, errors, spin)
        self._tls = None if tls is None else _read_tls(tls)
        limits = check_limits(limits)
        chosen = _check_wires(wires)
        _check_http(web, chosen)
        self.addr = self._address
        self._blocking, self._known = blocking, set()
        self._groups: dict[str, Group] = {}
        listener = None
        if self._listens_at_once and self._address is not None:
            listener = listen_at(self._address)
            self.addr = _name_of(listener)
        self._engine = engine = ServerEngine(
            listener,
            name=f"{type(self).__name__} {spell_address(self.addr)}",
            limits=limits,
            max_connections=max_connections,
            errors=errors,
            roster=roster,
            wires=chosen,
            resume_window=resume_window,
            dead_after=dead_after,
            tls=self._tls,
            post=_post_for(web),
        )
        self._website = Website(web, self._address, tls is not None, engine)
        if "websocket" in chosen:
            self._open_website(is_there=listener is not None)
        engine.pump.spin(spin)
        gate = engine.gate
        gate.describe = _describer(self)
        gate.takes_classic = wires is not None and "classic" in chosen
        gate.naming.policy = unique_names
        gate.naming.may_rename, gate.naming.may_regroup = allow_rename, allow_regroup
        self._table, self._members = engine.table, engine.members
        self._inquiry = Inquiry(engine)

    def authenticate(self, check: Handler) -> Handler:
        """Have the decorated function say who newcomers are, and whether they may in.

        It gets ``hisock.Credentials`` and returns ``True``; or an ``Identity``, whose
        name, roles and data the client then has; or ``False`` or ``None``, which
        refuses it, as does whatever it raises. It may be ``async def``; a plain one
        runs in a worker thread. It has ``Limits.authentication`` seconds.

        A client that comes back to its session is checked again, and has to be the
        same ``Identity.id``. Whoever is here already stays. Nothing that a client sent
        is looked at before the check says yes. Clients of hisock 1.1 are refused,
        unless ``wires=`` names ``"classic"``; they have no token.

        Raises:
            HandlerSignatureError: It takes something else.

        .. versionadded:: 4.0
        """
        self._engine.gate.require(check)
        return check

    def _open_website(self, *, is_there: bool) -> None:
        self._engine.pump.website = self._website
        self._website.open_dashboard()
        if is_there:
            self._website.tell_dashboard(self.addr)

    def _close_after(self, error: BaseException | None) -> None:
        """Clients of a program that fails shall come back to the next one."""
        self._engine.close(reconnect=error is not None)

    def _listen(self, listener: socket.socket) -> None:
        """Serve a listening socket."""
        self.addr = _name_of(listener)
        self._website.tell_dashboard(self.addr)
        self._engine.pump.listen(listener)

    def __str__(self) -> str:
        return f"<{type(self).__name__} serving at {spell_address(self.addr)}>"

    __repr__ = __str__

    def __len__(self) -> int:
        """How many clients there are."""
        return len(self._engine.registry)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[ClientInfo]:
        """Every client, the oldest first.

        .. versionadded:: 4.0
        """
        return iter([link.info for link in self._members.everybody()])

    @property
    def clients(self) -> Mapping[Any, ClientInfo]:
        """Socket → client, live and read-only; ``get_all_clients`` is friendlier."""
        return _Clients(self._engine)

    @property
    def clients_rev(self) -> Mapping[tuple[Any, str | None, str | None], Any]:
        """``(ip, name, group)`` → socket, live and read-only."""
        return _ClientsReversed(self._engine)

    def get_client(self, client: ClientLike) -> dict[str, Any]:
        """A dictionary with a client's ``ip``, ``name``, ``group`` and ``socket``.

        Raises:
            InvalidClient, UnknownClient: As ``send_client``.
        """
        return _describe(self._members.look_up(client))

    def get_group(self, group: str) -> list[dict[str, Any]]:
        """Such a dictionary for everybody in a group.

        Raises:
            UnknownGroup: Nobody is in it (a ``TypeError``).
        """
        return [_describe(link) for link in self._members.group(group)]

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
        clients = [_describe(link) for link in self._members.everybody()]
        if isinstance(key, str):
            if key not in ("ip", "name", "group", "socket"):
                raise InvalidOption(f"key is ip, name, group or socket, not {key!r}")
            return [client[key] for client in clients]
        if key is not None:
            return [client for client in clients if key(client)]
        return clients

    def client(self, who: ClientLike) -> ClientInfo:
        """The object that handlers get of a client.

        Raises:
            InvalidClient, UnknownClient: As ``send_client``.

        .. versionadded:: 4.0
        """
        return self._members.look_up(who).info

    def group(self, name: str) -> Group:
        """A live handle on a group, which may be empty.

        Raises:
            InvalidName: That is no group.

        .. versionadded:: 4.0
        """
        if check_name(name, self._engine.limits.name) is None:
            raise InvalidOption("group() needs the name of a group, not None")
        return self._groups.setdefault(name, Group(self, name))

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the certificate that ``tls=`` names, or that was made:
        what clients pin; ``None`` without.

        .. versionadded:: 4.0
        """
        return None if self._tls is None else self._tls.fingerprint

    @property
    def dashboard_url(self) -> str | None:
        """Where a browser on this machine finds the dashboard, with the token that
        lets one see it: keep it to yourself. ``None`` without ``dashboard=``.

        .. versionadded:: 4.0
        """
        return self._website.dashboard_url(self.addr)

    def get_addr(self) -> Any:
        """The address the server really listens at."""
        return self.addr

    def stats(self) -> dict[str, int]:
        """Counters, as a plain dictionary; ``docs/metrics.md`` explains them.

        .. versionadded:: 4.0
        """
        return stats_of(self._engine)

    def _groups_of(self, link: Link) -> frozenset[str]:
        with self._engine.lock.reading:
            return self._engine.registry.groups_of(link)

    def _change_groups(self, client: ClientLike, group: str, verb: str) -> None:
        if check_name(group, self._engine.limits.name) is None:
            raise InvalidName("a client joins and leaves groups with names, not None")
        link = self._members.look_up(client)
        change = self._members.join_group
        if verb == "leave":
            change = self._members.leave_group
        self._engine.lock.run(change, link, group)

    @property
    def _in_plain(self) -> Any:
        """The verbs for plain functions: blocking, wherever one may wait."""
        return self

    @property
    def _in_async(self) -> Any:
        """The awaitable verbs for ``async def`` handlers, on any server."""
        from hisock.engine.awaiting import ServerVerbs  # asyncio, which is there by now

        return ServerVerbs(self._engine, self._inquiry, self)


class Group:
    """A group of a server's clients, as a live handle that may be empty.

    Iterate over it, ask for its ``len``, or whether a client is ``in`` it. What is sent
    to nobody does nothing.

    Attributes:
        name: Of the group.
        data: Whatever the program wants to remember of it.

    .. versionadded:: 4.0
    """

    def __init__(self, server: ServerFace, name: str) -> None:
        self._engine = server._engine
        self._inquiry = server._inquiry
        self._owner = weakref.ref(server)
        self.name = name
        self.data: dict[Any, Any] = {}

    def __repr__(self) -> str:
        return f"<Group {self.name!r} of {len(self)}>"

    def __len__(self) -> int:
        return len(self._engine.members.in_group(self.name))

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[ClientInfo]:
        return iter([link.info for link in self._engine.members.in_group(self.name)])

    def __contains__(self, client: object) -> bool:
        try:
            link = self._engine.members.look_up(client)
        except (UnknownClient, ValueError):
            return False
        return link in self._engine.members.in_group(self.name)

    def send(
        self,
        command: str,
        content: object = b"",
        *,
        ttl: float | None = None,
        when_slow: WhenSlow | None = None,
        key: Hashable = None,
        exclude: Any = None,
    ) -> None:
        """Send a command with content to everybody in it.

        Raises:
            ReservedCommand, NotSendable, MessageTooLarge, ServerClosed: As
                ``HiSockServer.send_client``.
        """
        members = self._engine.members
        members.check_open()
        server = self._owner()
        is_known = command.__class__ is str and server and command in server._known
        if server is not None and not is_known:
            server._learn(command)
        wish = wish_of(ttl, when_slow, key)
        members.send_group(
            self.name, command, content, wish, exclude, may_be_empty=True
        )

    def call(
        self,
        command: str,
        content: object = None,
        *,
        timeout: float | None = 5.0,
        type: Any = None,
        exclude: Any = None,
    ) -> Any:
        """Call everybody in it; see ``HiSockServer.call_group``."""
        server = self._owner()
        if server is None:
            self._engine.members.check_open()
        return server.call_group(  # type: ignore[union-attr]  # just looked
            self.name, command, content, timeout=timeout, type=type, exclude=exclude
        )


def _name_of(listener: Any) -> Any:
    """Where a socket really listens."""
    name = listener.getsockname()
    return name[:2] if isinstance(name, tuple) else f"unix:{name}"


def _check_http(web: WebOptions, wires: frozenset[str]) -> None:
    """
    Raises:
        InvalidOption: As ``check_web``.
        TypeError: There is no such option.
    """
    known = WebOptions.__annotations__
    check_known("server", web, known, ServerOptions.__annotations__)
    check_web(web, wires)


def _post_for(web: WebOptions) -> type[Post]:
    """What sends for a server: one that counts, where there is a dashboard."""
    if not web.get("dashboard"):
        return Post
    from hisock.engine.watching import WatchedPost

    return WatchedPost


def _describer(face: ServerFace) -> Callable[[Link, Hello], ClientInfo]:
    """What makes a ``ClientInfo``, and does not keep the face alive."""
    numbers = count(1)
    me = weakref.ref(face)

    def describe(link: Link, hello: Hello) -> ClientInfo:
        info = ClientInfo(link.address[:2], hello.name, hello.group)
        info._member = link
        info._session = _Session(next(numbers), me)
        return info

    return describe


def _read_tls(tls: object) -> ServerTls:
    from hisock.engine.tls import server_context  # ssl: 15 ms

    return server_context(tls)


def _check_options(max_connections: object, errors: object, spin: float) -> None:
    if isinstance(max_connections, bool) or not isinstance(max_connections, int):
        raise InvalidOption(f"max_connections is a number, not {max_connections!r}")
    if max_connections < 0:
        raise InvalidOption(f"max_connections is 0 or more, not {max_connections}")
    if errors not in ("log", "raise"):
        raise InvalidOption(f'errors is "log" or "raise", not {errors!r}')
    check_timeout(spin)
    if not 0 <= spin <= _LONGEST_SPIN:
        text = f"spin is 0 (off) to {_LONGEST_SPIN:g} seconds, such as 50e-6"
        raise InvalidOption(f"{text}, not {spin!r}")


def _check_names(policy: object, *may: object) -> None:
    if policy not in ("allow", "reject", "replace"):
        raise InvalidOption(
            f'unique_names is "allow", "reject" or "replace", not {policy!r:.40}'
        )
    for one in may:
        if one is not None and not isinstance(one, bool):
            raise InvalidOption(
                "allow_rename and allow_regroup are True, False or None (yes, unless "
                f"clients are checked), not {one!r:.40}"
            )


def _check_wires(wires: object) -> frozenset[str]:
    """The wires that are to be spoken.

    Raises:
        InvalidOption: There is no such wire, or none is left.
    """
    if wires is None:
        return _WIRES
    if isinstance(wires, str) or not isinstance(wires, tuple | list | set | frozenset):
        raise InvalidOption(f'wires is like ("classic", "compact"), not {wires!r:.80}')
    chosen = frozenset(wire for wire in wires if isinstance(wire, str))
    if len(chosen) < len(wires) or not chosen or not chosen <= _WIRES:
        raise InvalidOption(
            f'wires are "classic", "compact" and "websocket", not {wires!r:.80}'
        )
    return chosen


def _describe(link: Link) -> dict[str, Any]:
    return {**link.info, "socket": link.sock}


class _Clients(Mapping[Any, ClientInfo]):
    def __init__(self, engine: ServerEngine) -> None:
        self._engine = engine

    def _table(self) -> dict[Any, ClientInfo]:
        return {link.sock: link.info for link in self._engine.members.everybody()}

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
        links = self._engine.members.everybody()
        return {tuple(link.info.values()): link.sock for link in links}

    def __getitem__(self, key: tuple[Any, str | None, str | None]) -> Any:
        return self._table()[key]

    def __iter__(self) -> Iterator[tuple[Any, str | None, str | None]]:
        return iter(self._table())

    def __len__(self) -> int:
        return len(self._engine.registry)

    def __repr__(self) -> str:
        return repr(self._table())
