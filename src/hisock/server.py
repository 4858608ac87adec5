"""Servers: ``start_server`` and, in a thread of its own, ``start_threaded_server``."""

from __future__ import annotations

__all__ = (
    "HiSockServer",
    "ThreadedHiSockServer",
    "start_server",
    "start_threaded_server",
)

from collections.abc import Hashable
from typing import Any, TypeVar, Unpack, overload

from hisock.engine.asking import Stream
from hisock.engine.delivery import WhenSlow, wish_of
from hisock.engine.face import ThreadedFace
from hisock.engine.inquiry import GroupCall
from hisock.engine.server_face import ServerFace, ServerOptions
from hisock.engine.waiting import check_timeout
from hisock.types import Address, ClientLike, Sendable

T = TypeVar("T")


class HiSockServer(ServerFace):
    """A server: clients join, their messages run handlers, it sends to them.

    Binds and listens at once. Handlers run on the thread that calls ``run``; every
    other method may be called from any thread.

    Args:
        addr: ``(ip, port)``, ``"host:port"``, ``"[::1]:port"``, ``"unix:/path"``. Port
            0 takes a free one, ``""`` is every interface. ``None`` listens nowhere.
        blocking: Whether ``run`` waits until a handler ran.
        max_connections: Clients served at once; 0 leaves it to ``limits``.
        header_len: Bytes of a header of the 1.1 wire, 2 to 64. A client's own is told
            by its hello, so clients with another are served too.
        tls: Encrypts the whole port: ``"auto"`` makes a certificate,
            ``{"cert", "key"}`` names one (with ``"ca"`` clients have to show theirs),
            an ``SSLContext`` is taken as it is; ``None`` does not. 1.1's ``"default"``
            is refused.
        limits: How much a peer may ask for.
        errors: ``"log"`` keeps what a handler raises from ending the server;
            ``"raise"`` lets it out of ``run``, as 1.1 did.
        roster: Whether clients are told who joins and leaves, and may ask for each
            other's address.
        wires: The wires it speaks: ``"classic"`` (hisock 1.1), ``"compact"`` (ours) and
            ``"websocket"`` (browsers; with it, all that HTTP is for); ``None`` for all.
        unique_names: What holds where a client wants a name that another one has:
            ``"allow"`` gives it to both; with ``"reject"`` the newcomer is refused,
            but has the name of one whose link is cut; with ``"replace"`` the other
            goes.
        allow_rename, allow_regroup: Whether clients may change their name and their
            group; ``None``: if there is no ``authenticate`` check.
        spin: Seconds, such as ``50e-6``, for which each wait of ``run`` looks again and
            again before it sleeps, up to 0.1. Round trips between two cores take half
            the time; the price is a core that is busy while they go on. Of no use with
            a single core, nor while coroutines run.
        allowed_hosts: Names by which a browser may ask for this server, beside
            ``localhost``, addresses and this machine's own name: another site's name
            may lead here without anybody's leave (DNS rebinding).
        allowed_origins: Sites whose pages may connect, as ``"https://example.org"``,
            beside those that this server itself serves.
        dashboard: Whether its port shows a dashboard, at ``dashboard_url``: ``True``
            to browsers on this machine, ``"public"`` to those on others, too.
        pages: A folder whose files it serves; ``index.html`` is the page of a folder.
        metrics: Whether ``/metrics`` shows ``stats()`` to Prometheus; ``True`` to one
            on this machine, ``"public"`` to everybody. Needs ``hisock[metrics]``.

    Raises:
        InvalidAddress: ``addr`` is no address.
        CannotListen: The system does not let it listen there; ``AddressInUse`` and
            ``PrivilegedPort`` are the usual reasons.
        InvalidOption: Another argument cannot work.
    """

    # --- turning ---------------------------------------------------------------

    def run(self, timeout: float | None = None) -> None:
        """One turn: take in what came, run handlers for it, send what they sent.

        A blocking server waits until at least one handler ran or finished, another
        returns at once. On a closed server this does nothing. Call it in a loop.

        Args:
            timeout: Seconds to wait at most; ``None`` for as long as it takes.

        Raises:
            AlreadyRunning: Called inside a handler, or in two threads at once.

        .. versionchanged:: 4.0
            ``timeout``.
        """
        self._engine.run(wait=self._blocking, timeout=timeout)

    def run_forever(self) -> None:
        """Turn until ``close()`` is called, or Ctrl-C, which closes it; then return.

        On Ctrl-C what was accepted may still arrive and be handled, for up to 10 s, and
        clients are told to come back later. A second Ctrl-C ends it at once.

        Raises:
            AlreadyRunning: As ``run``.

        .. versionadded:: 4.0
        """
        try:
            while self._engine.run(wait=True):
                pass
        except KeyboardInterrupt:
            self._engine.leave_well()

    # --- sending ---------------------------------------------------------------

    def send_client(
        self,
        client: ClientLike,
        command: str,
        content: Sendable = b"",
        *,
        ttl: float | None = None,
        when_slow: WhenSlow | None = None,
        key: Hashable = None,
    ) -> None:
        """Send a command with content to one client.

        Args:
            client: Its name, ``"ip:port"``, ``(ip, port)`` or what a handler got.
            command: What the client's handler is registered for.
            content: What the handler gets.
            ttl: Seconds after which it is no longer wanted; a client of 1.1 gets it
                all the same.

        Raises:
            InvalidClient: ``client`` is none of these (a ``ValueError``).
            UnknownClient: Nobody of that kind is here (a ``TypeError``).
            ReservedCommand: The command has the form ``$command$``.
            NotSendable: The content is of a kind that cannot be sent.
            MessageTooLarge: The message is over a limit.
            SendTimeout: Outside a turn: the client took nothing for 10 s.
            ServerClosed: The server is closed.

        Warns:
            UserWarning: Several clients have that name; the oldest gets it.
        """
        try:
            if command not in self._known:
                self._learn(command)
        except TypeError:  # nothing that could be a key
            self._learn(command)
        self._members.send_to(client, command, content, wish_of(ttl, when_slow, key))

    def send_client_raw(self, client: ClientLike, content: Sendable) -> None:
        """Send content without a command to one client; see ``send_client``."""
        self._members.send_to(client, None, content)

    def send_group(
        self,
        group: str,
        command: str,
        content: Sendable = b"",
        *,
        ttl: float | None = None,
        when_slow: WhenSlow | None = None,
        key: Hashable = None,
        exclude: Any = None,
    ) -> None:
        """Send a command with content to everybody in a group.

        Args:
            group: Its name.
            command, content, ttl: As ``send_client``.
            exclude: A client, or several in a list, that it is not sent to.

        Raises:
            UnknownGroup: Nobody is in it (a ``TypeError``).
            ReservedCommand, NotSendable, MessageTooLarge, ServerClosed: As
                ``send_client``.
        """
        try:
            if command not in self._known:
                self._learn(command)
        except TypeError:  # nothing that could be a key
            self._learn(command)
        wish = wish_of(ttl, when_slow, key)
        self._members.send_group(group, command, content, wish, exclude)

    def send_group_raw(
        self, group: str, content: Sendable, *, exclude: Any = None
    ) -> None:
        """Send content without a command to a group; see ``send_group``."""
        self._members.send_group(group, None, content, None, exclude)

    def send_all_clients(
        self,
        command: str,
        content: Sendable = b"",
        *,
        ttl: float | None = None,
        when_slow: WhenSlow | None = None,
        key: Hashable = None,
        exclude: Any = None,
    ) -> None:
        """Send a command with content to every client; to nobody is no error.

        Args:
            command, content, ttl: As ``send_client``.
            exclude: A client, or several in a list, that it is not sent to.

        Raises:
            ReservedCommand, NotSendable, MessageTooLarge, ServerClosed: As
                ``send_client``.
        """
        try:
            if command not in self._known:
                self._learn(command)
        except TypeError:  # nothing that could be a key
            self._learn(command)
        wish = wish_of(ttl, when_slow, key)
        self._members.send_all(command, content, wish, exclude)

    # --- asking ----------------------------------------------------------------

    @overload
    def call_client(
        self,
        client: ClientLike,
        command: str,
        content: Sendable = None,
        *,
        timeout: float | None = 30.0,
        type: type[T],
    ) -> T: ...
    @overload
    def call_client(
        self,
        client: ClientLike,
        command: str,
        content: Sendable = None,
        *,
        timeout: float | None = 30.0,
        type: Any = None,
    ) -> Any: ...
    def call_client(
        self,
        client: ClientLike,
        command: str,
        content: Sendable = None,
        *,
        timeout: float | None = 30.0,
        type: Any = None,
    ) -> Any:
        """What one client's handler for a command returns; waits for it.

        Args:
            client, command, content: As ``send_client``.
            timeout: Seconds to wait; after them the handler no longer begins, either.
            type: What the reply is converted to; ``None`` for as sent.

        Raises:
            WouldDeadlock: Called in a plain handler, on the thread that would have to
                read the answer.
            RequestTimeout: No answer came in time.
            RemoteError: The handler refused, failed, or there is none.
            SessionLost: The client's connection ended first.
            ConversionError: The reply is not of that type.
            Refused: It is a client of hisock 1.1, which knows no calls.
            Overloaded: Too many calls to it are open.
            InvalidClient, UnknownClient, NotSendable, MessageTooLarge: As
                ``send_client``.

        .. versionadded:: 4.0
        """
        return self._inquiry.call(client, command, content, timeout, type)

    def call_group(
        self,
        group: str,
        command: str,
        content: Sendable = None,
        *,
        timeout: float | None = 5.0,
        type: Any = None,
        exclude: Any = None,
    ) -> GroupCall:
        """Call everybody in a group; iterate over ``(client, reply)`` as they come.

        After the iteration ``.missing`` has the clients that did not answer in time,
        ``.failed`` those that answered with an error, each with it. To nobody is no
        error.

        Raises:
            WouldDeadlock, NotSendable, MessageTooLarge: As ``call_client``.

        .. versionadded:: 4.0
        """
        return self._inquiry.call_group(group, command, content, timeout, type, exclude)

    def call_any(
        self,
        group: str,
        command: str,
        content: Sendable = None,
        *,
        timeout: float | None = 30.0,
        type: Any = None,
    ) -> Any:
        """Call the member of a group that has the fewest open calls: a work queue.

        Raises:
            UnknownGroup: Nobody is in it.
            As ``call_client`` for the rest.

        .. versionadded:: 4.0
        """
        link = self._inquiry.idlest(group)
        return self._inquiry.call_link(link, command, content, timeout, type)

    def stream_client(
        self,
        client: ClientLike,
        command: str,
        content: Sendable = None,
        *,
        type: Any = None,
        timeout: float | None = None,
    ) -> Stream[Any]:
        """Iterate over what a client's generator handler yields; closing cancels it.

        Args:
            client, command, content: As ``send_client``.
            type: What each item is converted to; ``None`` for as sent.
            timeout: Seconds to wait for each item; ``None`` for as long as it takes.

        Raises:
            As ``call_client``.

        .. versionadded:: 4.0
        """
        return self._inquiry.stream(client, command, content, timeout, type)

    # --- groups, endings -------------------------------------------------------

    def join_group(self, client: ClientLike, group: str) -> None:
        """Put a client into a group beside its own; it may be in many.

        Raises:
            InvalidClient, UnknownClient, InvalidName: As said.
            InvalidOption: It is in ``Limits.groups`` groups already.

        .. versionadded:: 4.0
        """
        self._change_groups(client, group, "join")

    def leave_group(self, client: ClientLike, group: str) -> None:
        """Take a client out of a group.

        Raises:
            InvalidClient, UnknownClient, InvalidName: As said.

        .. versionadded:: 4.0
        """
        self._change_groups(client, group, "leave")

    def disconnect_client(
        self, client: ClientLike, *, reason: str = "", reconnect: bool = False
    ) -> None:
        """End one client's connection; its ``leave`` runs in the next turn.

        Args:
            client: As ``send_client``.
            reason: What the client is told; one of 1.1 is told nothing.
            reconnect: Only cut its link: it comes back to its session by itself.

        Raises:
            InvalidClient, UnknownClient: As ``send_client``.
        """
        link = self._members.look_up(client)
        self._engine.ending.disconnect([link], reason, reconnect=reconnect)

    def disconnect_all_clients(self) -> None:
        """End every client's connection."""
        self._engine.ending.disconnect(self._members.everybody(), "")

    def close(
        self, *, drain: float = 0.0, reason: str = "", reconnect: bool = False
    ) -> None:
        """End every connection and stop listening; again is no error.

        Each client is told, ``leave`` runs for it, and its socket is closed once it
        has heard, or after 1 s. In a handler this is done when the handler returns.

        Args:
            drain: Seconds to go on before that, for what was accepted on both sides to
                arrive and be handled; it ends as soon as all is quiet.
            reason: What clients are told.
            reconnect: They shall come back later, each after a time of its own.

        .. versionchanged:: 4.0
            The keywords.
        """
        check_timeout(drain)
        self._engine.close(drain=drain, reason=reason, reconnect=reconnect)


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
    addr: Address | str | None,
    blocking: bool = True,
    max_connections: int = 0,
    header_len: int = 16,
    **options: Unpack[ServerOptions],
) -> HiSockServer:
    """Make a ``HiSockServer``; its arguments, options and errors are these."""
    return HiSockServer(addr, blocking, max_connections, header_len, **options)


def start_threaded_server(
    addr: Address | str | None,
    blocking: bool = True,
    max_connections: int = 0,
    header_len: int = 16,
    **options: Unpack[ServerOptions],
) -> ThreadedHiSockServer:
    """Make a ``ThreadedHiSockServer``; call its ``start_server()`` next."""
    return ThreadedHiSockServer(addr, blocking, max_connections, header_len, **options)
