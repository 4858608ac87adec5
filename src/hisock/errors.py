"""Every error hisock raises, with a stable ``code``; ``HiSockError`` catches all.

.. code-block:: text

    HiSockError
    ├── ClientException                    1.1
    │   ├── ServerNotRunning               1.1, also ConnectionError
    │   ├── ClientDisconnected             1.1, also ConnectionError
    │   └── NotSecure                      also ConnectionError
    ├── ServerException                    1.1
    │   ├── ServerClosed
    │   └── CannotListen                   also OSError
    │       ├── AddressInUse
    │       └── PrivilegedPort             also PermissionError
    ├── NoMessageException                 1.1, never raised by this version
    ├── LocalProtocolError                 your call
    │   ├── InvalidAddress                 also ValueError, TypeError, OSError
    │   ├── InvalidClient                  also ValueError
    │   ├── InvalidName                    also ValueError, TypeError
    │   ├── InvalidOption                  also ValueError, TypeError
    │   ├── UnknownClient                  also TypeError
    │   ├── UnknownGroup                   also TypeError
    │   ├── ReservedCommand                also ValueError, TypeError
    │   ├── HandlerSignatureError          also ValueError, TypeError
    │   ├── NotSendable                    also TypeError
    │   ├── MessageTooLarge                also ValueError
    │   ├── AlreadyRunning                 also RuntimeError
    │   └── WouldDeadlock                  also RuntimeError
    ├── RemoteProtocolError                their bytes
    ├── CommandError                       raised by handlers, on purpose
    │   └── RemoteError                    what the other side answered instead
    ├── HandlerError                       for ``on_error``: a handler raised
    │   ├── UnknownCommand                 for ``on_error``: no handler
    │   ├── Forbidden                      for ``on_error``: no permission
    │   ├── RateLimited                    for ``on_error``: more often than may be
    │   └── Undelivered                    for ``on_error``: a client is gone for good
    ├── SessionLost                        also ConnectionError
    ├── ConversionError                    also TypeError, ValueError
    ├── RequestTimeout                     also TimeoutError
    ├── SendTimeout                        also TimeoutError
    ├── WouldBlock                         also BlockingIOError
    ├── Overloaded
    ├── Refused
    │   └── Unauthorized
    └── CertificateChanged

The built-in classes beside a name are what programs written for 1.1 catch.
"""

from __future__ import annotations

__all__ = (
    "HiSockError",
    "ClientException",
    "ServerNotRunning",
    "ClientDisconnected",
    "NotSecure",
    "ServerException",
    "ServerClosed",
    "CannotListen",
    "AddressInUse",
    "PrivilegedPort",
    "NoMessageException",
    "LocalProtocolError",
    "InvalidAddress",
    "InvalidClient",
    "InvalidName",
    "InvalidOption",
    "UnknownClient",
    "UnknownGroup",
    "ReservedCommand",
    "HandlerSignatureError",
    "NotSendable",
    "MessageTooLarge",
    "AlreadyRunning",
    "WouldDeadlock",
    "RemoteProtocolError",
    "CommandError",
    "RemoteError",
    "HandlerError",
    "UnknownCommand",
    "Forbidden",
    "RateLimited",
    "Undelivered",
    "SessionLost",
    "ConversionError",
    "RequestTimeout",
    "SendTimeout",
    "WouldBlock",
    "Overloaded",
    "Refused",
    "Unauthorized",
    "CertificateChanged",
    "NoHeaderWarning",
)

from collections.abc import Sequence
from typing import Any


class HiSockError(Exception):
    """The root of every error that hisock raises on purpose.

    Attributes:
        code: A short word that stays the same from version to version.
    """

    code = "error"


class ClientException(HiSockError):
    """Something is wrong with this client (name of hisock 1.1)."""

    code = "client"


class ServerNotRunning(ClientException, ConnectionError):
    """Nobody answers at the address (name of hisock 1.1)."""

    code = "server_not_running"


class ClientDisconnected(ClientException, ConnectionError):
    """This client is no longer connected; the text says why (name of hisock 1.1)."""

    code = "disconnected"


class NotSecure(ClientException, ConnectionError):
    """The server cannot be trusted, or speaks no TLS; the text says what is wrong."""

    code = "not_secure"


class ServerException(HiSockError):
    """Something is wrong with this server (name of hisock 1.1)."""

    code = "server"


class ServerClosed(ServerException):
    """The server was used after ``close()``."""

    code = "server_closed"


class CannotListen(ServerException, OSError):
    """The server cannot listen at its address; ``errno`` is the system's."""

    code = "cannot_listen"


class AddressInUse(CannotListen):
    """Another program, or another server in this one, has that port."""

    code = "address_in_use"


class PrivilegedPort(CannotListen, PermissionError):
    """The system lets only the administrator listen on that port."""

    code = "privileged_port"


class NoMessageException(HiSockError):
    """A name of hisock 1.1, kept so that programs which catch it still import."""

    code = "no_message"


class LocalProtocolError(HiSockError):
    """The call was wrong: nothing was sent and nothing changed."""

    code = "local"


class InvalidAddress(LocalProtocolError, ValueError, TypeError, OSError):
    """The address of a server is not one, or its host name is unknown."""

    code = "invalid_address"


class InvalidClient(LocalProtocolError, ValueError):
    """What should name a client is neither a name, an address nor a client."""

    code = "invalid_client"


class InvalidName(LocalProtocolError, ValueError, TypeError):
    """A name or group is not text, too long, or has control characters."""

    code = "invalid_name"


class InvalidOption(LocalProtocolError, ValueError, TypeError):
    """An option has a value that cannot work."""

    code = "invalid_option"


class UnknownClient(LocalProtocolError, TypeError):
    """No such client is connected."""

    code = "unknown_client"


class UnknownGroup(LocalProtocolError, TypeError):
    """Nobody is in that group."""

    code = "unknown_group"


class ReservedCommand(LocalProtocolError, ValueError, TypeError):
    """The command, or raw content, has the ``$form$`` that hisock keeps for itself."""

    code = "reserved_command"


class HandlerSignatureError(LocalProtocolError, ValueError, TypeError):
    """A handler's parameters or hints do not fit what it would be called with."""

    code = "handler_signature"


class NotSendable(LocalProtocolError, TypeError):
    """The content is of a kind that cannot be sent."""

    code = "not_sendable"


class MessageTooLarge(LocalProtocolError, ValueError):
    """The message is over ``Limits.message``, or its length over the header's room."""

    code = "message_too_large"


class AlreadyRunning(LocalProtocolError, RuntimeError):
    """``run()`` or ``update()`` was called inside a handler, or in two threads."""

    code = "already_running"


class WouldDeadlock(LocalProtocolError, RuntimeError):
    """A plain handler on the turning thread waited for what only a turn can bring."""

    code = "would_deadlock"


class RemoteProtocolError(HiSockError):
    """The other side sent bytes that are not hisock's, or more than may be."""

    code = "remote"

    def __init__(self, text: str = "", code: str = "remote") -> None:
        super().__init__(text)
        self.code = code


class CommandError(HiSockError):
    """Raised in a handler to refuse a call: the caller's ``RemoteError`` has the same.

    Args:
        code: A short word that the caller's program can rely on.
        message: Why, for people.
        data: Anything that can be sent.
    """

    code = "command"

    def __init__(self, code: str, message: str = "", data: Any = None) -> None:
        super().__init__(message or code)
        self.code = code
        self.message = message
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, self.message, self.data)


class RemoteError(CommandError):
    """A call or stream came to nothing on the other side.

    Attributes:
        code: What its handler raised as ``CommandError``, or ``handler_failed``,
            ``conversion``, ``unknown_command``, ``overloaded``, ``not_sendable``.
        message: Why, for people.
        data: What its handler gave along.
    """

    #: Before it is known what the other side said.
    code = "remote_command"

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


class HandlerError(HiSockError):
    """For ``on_error``: a handler raised; ``__cause__`` is what.

    Attributes:
        client: Whose message it was; ``None`` on a client.
        command: Of that message.
        where: The handler: file, line and name.
    """

    code = "handler"

    def __init__(
        self, text: str, client: Any = None, command: str = "", where: str = ""
    ) -> None:
        super().__init__(text)
        self.client = client
        self.command = command
        self.where = where


class UnknownCommand(HandlerError):
    """For ``on_error``: nobody handles that command; the text has the near name."""

    code = "unknown_command"


class Forbidden(HandlerError):
    """For ``on_error``: a client sent what ``on(..., requires=)`` does not let it.

    The message is dropped; who calls instead gets a ``RemoteError`` with that code.

    .. versionadded:: 4.0
    """

    code = "forbidden"


class RateLimited(HandlerError):
    """For ``on_error``: a client sent a command more often than ``rate=`` allows.

    The message is dropped; who calls instead gets a ``RemoteError`` with that code.

    .. versionadded:: 4.0
    """

    code = "rate_limited"


class Undelivered(HandlerError):
    """For ``on_error``: a client is gone for good before all sent to it had arrived.

    Attributes:
        sent: The messages of which nobody knows whether they arrived, as
            ``hisock.types.Message``; the oldest first.
    """

    code = "undelivered"

    def __init__(self, text: str, client: Any = None, sent: Sequence[Any] = ()) -> None:
        super().__init__(text, client)
        self.sent = tuple(sent)


class SessionLost(HiSockError, ConnectionError):
    """The session ended before the answer came: it may have been handled, or not.

    ``on_session_lost`` is called with one, too.

    Attributes:
        reason: One of ``expired overflow server_restarted other_node evicted
            unauthorized unknown classic closed``.
        unacked: The messages that were accepted and of which nobody knows whether they
            arrived, as ``hisock.types.Message``; the oldest first.
        missed: How many frames of the server are lost: messages, calls, answers, and
            what it says of names and groups; ``None`` if nobody knows, as after a
            restart of the server.
    """

    code = "session_lost"

    def __init__(
        self,
        text: str,
        reason: str = "unknown",
        unacked: Sequence[Any] = (),
        missed: int | None = None,
    ) -> None:
        super().__init__(text)
        self.reason = reason
        self.unacked = tuple(unacked)
        self.missed = missed


class ConversionError(HiSockError, TypeError, ValueError):
    """Content could not be converted to what the handler's hint asks for."""

    code = "conversion"


class RequestTimeout(HiSockError, TimeoutError):
    """The answer did not come in time."""

    code = "request_timeout"


class SendTimeout(HiSockError, TimeoutError):
    """The other side took nothing for so long that the message was not accepted."""

    code = "send_timeout"


class WouldBlock(HiSockError, BlockingIOError):
    """The outgoing buffer is full, and this client may not wait."""

    code = "would_block"


class Overloaded(HiSockError):
    """Too much arrived while waiting for something else."""

    code = "overloaded"


class Refused(HiSockError):
    """The server does not do that for this client, or does not serve it at all.

    A client's ``on_error`` gets one with the code ``rename_refused`` or
    ``regroup_refused`` where the server leaves it the name or group it had.

    Attributes:
        client, command, where: For ``on_error``, as ``HandlerError``; empty.
    """

    code = "refused"
    client: Any = None
    command: str = ""
    where: str = ""

    def __init__(self, text: str = "", code: str = "refused") -> None:
        super().__init__(text)
        self.code = code


class Unauthorized(Refused):
    """The server does not let this client in: its credentials are not good enough."""

    code = "unauthorized"

    def __init__(self, text: str = "", code: str = "unauthorized") -> None:
        super().__init__(text, code)


class CertificateChanged(HiSockError):
    """A server shows another certificate than the one that was pinned for its address.

    Attributes:
        old: The fingerprint that was expected.
        new: The one that came.
        file: Where the expected one is kept.
    """

    code = "certificate_changed"

    def __init__(self, text: str, old: str = "", new: str = "", file: str = "") -> None:
        super().__init__(text)
        self.old = old
        self.new = new
        self.file = file


class NoHeaderWarning(UserWarning):
    """A name of hisock 1.1, kept so that programs which filter it still import."""
