"""Clients: ``connect`` and, in a thread of its own, ``threaded_connect``."""

from __future__ import annotations

__all__ = ("HiSockClient", "ThreadedHiSockClient", "connect", "threaded_connect")

from collections.abc import Hashable
from typing import Any, TypeVar, Unpack, overload

from hisock.engine.asking import Stream, cast_of
from hisock.engine.client_face import (
    ClientFace,
    ClientOptions,
    read_answer,
    spell_client,
)
from hisock.engine.delivery import WhenSlow, wish_of
from hisock.engine.face import ThreadedFace
from hisock.errors import ClientDisconnected
from hisock.types import Address, ClientLike, Message, Sendable

T = TypeVar("T")


class HiSockClient(ClientFace):
    """A client: connects, says who it is, sends, and runs handlers for what comes.

    Handlers run on the thread that calls ``update``; every other method may be called
    from any thread.

    Args:
        addr: ``(ip, port)`` of the server, or ``"host:port"``, ``"[::1]:port"``,
            ``"unix:/path"``.
        name: What others may call this client; ``None`` for no name.
        group: The group it is in; ``None`` for none.
        blocking: Whether ``update`` waits until a handler ran, and a send for room.
        header_len: Bytes of a header, 2 to 64. A hisock 1.1 server needs its own; under
            4 only the wire of 1.1 is spoken.
        cache_size: Messages that ``get_cache`` remembers; 0 or less for none.
        limits: How much the server may ask for.
        wait: Seconds to keep trying while no server answers.
        token: Shown to a server that asks who this is, and to no other; or a function
            that returns it, asked before each connect (in a worker thread where the
            client comes back). With one nothing else leaves before the server has
            answered: sends wait for that, at most 10 s.

    Raises:
        ServerNotRunning: Nobody answers at that address.
        InvalidAddress: ``addr`` is no address.
        InvalidName: ``name`` or ``group`` is no name.
        InvalidOption: Another argument cannot work.
        Exception: What a ``token`` function raised.
        MessageTooLarge: ``header_len`` cannot hold the length of the hello.
    """

    # --- turning ---------------------------------------------------------------

    def update(self, timeout: float | None = None) -> None:
        """One turn: take in what came and run handlers for it.

        A blocking client waits until at least one handler ran; another returns at
        once. After ``close`` this does nothing. What a handler raises comes out of
        here; the connection lives, and the next call goes on behind it.

        Args:
            timeout: Seconds to wait at most; ``None`` for as long as it takes.

        Raises:
            ClientDisconnected: The server ended the connection. Where there is a
                ``force_disconnect`` handler it runs first, and the next call raises.
            AlreadyRunning: Called inside a handler, or in two threads at once.

        .. versionchanged:: 4.0
            ``timeout``.
        """
        self._engine.run(wait=self._blocking, timeout=timeout)

    def run_forever(self) -> None:
        """Turn until ``close()`` is called, or Ctrl-C, which closes it; then return.

        Raises:
            ClientDisconnected, AlreadyRunning: As ``update``.

        .. versionadded:: 4.0
        """
        try:
            while self._engine.run(wait=True):
                pass
        except KeyboardInterrupt:
            self._engine.close()

    # --- sending ---------------------------------------------------------------

    def send(
        self,
        command: str,
        content: Sendable = b"",
        *,
        ttl: float | None = None,
        when_slow: WhenSlow | None = None,
        key: Hashable = None,
    ) -> None:
        """Send a command with content to the server.

        Until the server has answered the hello only ``bytes`` leave at once; other
        content waits for that answer, since a server of hisock 1.1 needs it as text.

        Args:
            command: What the server's handler is registered for.
            content: What the handler gets.
            ttl: Seconds after which it is no longer wanted.

        Raises:
            ReservedCommand: The command has the form ``$command$`` (a ``TypeError``).
            NotSendable: The content is of a kind that cannot be sent.
            MessageTooLarge: The message is over a limit.
            ClientDisconnected: The connection has ended.
            SendTimeout: The server took nothing, or did not answer, for 10 s.
            WouldBlock: The client is non-blocking and its buffer is full.
        """
        try:
            if command not in self._known:
                self._learn(command)
        except TypeError:  # nothing that could be a key
            self._learn(command)
        if ttl is None and when_slow is None and key is None:
            self._engine.uplink.send(command, content)
        else:
            wish = wish_of(ttl, when_slow, key)
            self._engine.uplink.send(command, content, wish)

    def raw_send(self, content: Sendable) -> None:
        """Send content without a command; see ``send``."""
        self._engine.uplink.send(None, content)

    # --- receiving -------------------------------------------------------------

    def recv_raw(self) -> bytes:
        """Wait for the next message without a handler, and return it whole.

        Works inside a handler too. What else arrives stays in order for ``update``.

        Raises:
            ClientDisconnected: The connection ended first.
            Overloaded: More than ``Limits.queue`` bytes came that have a handler.
        """
        return self._engine.receiving.next_raw()

    @overload
    def recv(
        self, command: str, *, type: type[T], timeout: float | None = None
    ) -> T: ...
    @overload
    def recv(
        self, command: str, *, type: Any = None, timeout: float | None = None
    ) -> Any: ...
    def recv(
        self, command: str, *, type: Any = None, timeout: float | None = None
    ) -> Any:
        """Wait for the next message with this command, and return its content.

        For commands without a handler. Works inside a handler too.

        Args:
            command: Which messages.
            type: What the content is converted to; ``None`` for as sent.
            timeout: Seconds to wait; ``None`` for as long as it takes.

        Raises:
            RequestTimeout: None came in time.
            ConversionError: The content does not fit ``type``.
            ClientDisconnected, Overloaded: As ``recv_raw``.

        .. versionadded:: 4.0
        """
        self._learn(command)
        cast = cast_of(type)
        mail = self._engine.receiving.next(lambda mail: mail.is_for(command), timeout)
        return mail.content(command, cast)

    def recv_any(self, *, timeout: float | None = None) -> Message:
        """Wait for the next message without a handler.

        On the wire of hisock 1.1 its command is its first word.

        Args:
            timeout: Seconds to wait; ``None`` for as long as it takes.

        Raises:
            RequestTimeout, ClientDisconnected, Overloaded: As ``recv``.

        .. versionadded:: 4.0
        """
        mail = self._engine.receiving.next(None, timeout)
        return Message(mail.command, mail.content(mail.command))

    # --- asking ----------------------------------------------------------------

    @overload
    def call(
        self,
        command: str,
        content: Sendable = None,
        *,
        timeout: float | None = 30.0,
        type: type[T],
    ) -> T: ...
    @overload
    def call(
        self,
        command: str,
        content: Sendable = None,
        *,
        timeout: float | None = 30.0,
        type: Any = None,
    ) -> Any: ...
    def call(
        self,
        command: str,
        content: Sendable = None,
        *,
        timeout: float | None = 30.0,
        type: Any = None,
    ) -> Any:
        """What the server's handler for a command returns; waits for it.

        Works anywhere, inside a handler too: what arrives meanwhile stays in order for
        ``update``.

        Args:
            command: What the server's handler is registered for.
            content: What it gets.
            timeout: Seconds to wait; after them the handler no longer begins, either.
            type: What the reply is converted to; ``None`` for as sent.

        Raises:
            RequestTimeout: No answer came in time.
            RemoteError: The handler refused, failed, or there is none.
            SessionLost: The connection ended first.
            ConversionError: The reply is not of that type.
            Refused: It is a server of hisock 1.1, which knows no calls.
            Overloaded: Too many calls are open, or too much came meanwhile.
            ClientDisconnected, NotSendable, MessageTooLarge: As ``send``.

        .. versionadded:: 4.0
        """
        return self._engine.questions.call(command, content, timeout, type)

    def stream(
        self,
        command: str,
        content: Sendable = None,
        *,
        type: Any = None,
        timeout: float | None = None,
    ) -> Stream[Any]:
        """Iterate over what the server's generator handler yields.

        A slow reader slows the producer; closing the iterator cancels it.

        Args:
            command, content: As ``call``.
            type: What each item is converted to; ``None`` for as sent.
            timeout: Seconds to wait for each item; ``None`` for as long as it takes.

        Raises:
            As ``call``.

        .. versionadded:: 4.0
        """
        return self._engine.questions.stream(command, content, timeout, type)

    def get_client(self, client: ClientLike) -> dict[str, Any]:
        """Ask the server who somebody is: ``ip``, ``name`` and ``group``.

        Raises:
            InvalidClient: ``client`` names nobody.
            UnknownClient: Nobody of that kind is connected (a ``TypeError``).
            Refused: The server does not tell.
            RequestTimeout: It did not answer within 5 s.
            ClientDisconnected: The connection has ended.
        """
        who = spell_client(client)
        return read_answer(client, self._engine.questions.who_is(who))

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
    _beats = True

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
    addr: Address | str,
    name: str | None = None,
    group: str | None = None,
    blocking: bool = True,
    header_len: int = 16,
    cache_size: int = -1,
    **options: Unpack[ClientOptions],
) -> HiSockClient:
    """Make a ``HiSockClient``; its arguments, options and errors are these."""
    return HiSockClient(addr, name, group, blocking, header_len, cache_size, **options)


def threaded_connect(
    addr: Address | str,
    name: str | None = None,
    group: str | None = None,
    blocking: bool = True,
    header_len: int = 16,
    cache_size: int = -1,
    **options: Unpack[ClientOptions],
) -> ThreadedHiSockClient:
    """Make a ``ThreadedHiSockClient``; call its ``start_client()`` next."""
    return ThreadedHiSockClient(
        addr, name, group, blocking, header_len, cache_size, **options
    )
