"""Addresses, and the sockets made from them; foreign errors are mapped here, once."""

from __future__ import annotations

__all__ = (
    "CONNECT_TIMEOUT",
    "DEAD_AFTER",
    "dial",
    "secured",
    "forget_path",
    "listen_at",
    "parse_address",
    "resolve",
    "spell_address",
    "split_uri",
    "targets_of",
    "tune",
)

import contextlib
import errno
import os
import socket
import time
from typing import TYPE_CHECKING, Any, Final

from hisock.errors import (
    AddressInUse,
    CannotListen,
    InvalidAddress,
    NotSecure,
    PrivilegedPort,
    ServerNotRunning,
)
from hisock.types import Address

if TYPE_CHECKING:
    from hisock.engine.tls import ClientTls
    from hisock.engine.upgrade import ClientWeb

#: Seconds a first connection may take before nobody is said to be there.
CONNECT_TIMEOUT: Final = 10.0
#: Seconds between two tries of a first connection.
_RETRY: Final = 0.05
#: Seconds of silence after which a peer counts as gone, unless somebody says so.
DEAD_AFTER: Final = 20.0


#: How the address of a unix socket begins.
UNIX: Final = "unix:"


def parse_address(addr: object) -> Address | str:
    """The host and port of an address; ``"unix:/path"`` stays as it is.

    Raises:
        InvalidAddress: It is none.
    """
    match addr:
        case str() as text if text.startswith(UNIX):
            return _parse_unix(text)
        case str() as text:
            return _parse_text(text)
        case (str() as host, int() as port) if not isinstance(port, bool):
            if "\0" in host:  # some systems would end the name there
                raise InvalidAddress(f"{host!r:.80} is no known host name")
            if 0 <= port < 65536:
                return host, port
            raise InvalidAddress(f"port {port} is not from 0 to 65535")
        case (str(), port):
            raise InvalidAddress(f"the port is a whole number, not {port!r:.80}")
        case _:
            raise InvalidAddress(
                'an address is ("host", port), for example ("127.0.0.1", 6969), or '
                f'"host:port" or "unix:/path", not {addr!r:.80}'
            )


def split_uri(addr: object) -> tuple[str | None, object]:
    """A ``ws://`` or ``wss://`` address, and the host and port in it; of any other
    address ``None``, and itself.

    Raises:
        InvalidAddress: It is no such address.
    """
    if not (isinstance(addr, str) and addr.startswith(("ws://", "wss://"))):
        return None, addr
    from urllib.parse import urlsplit  # 2 ms

    try:
        parts = urlsplit(addr)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidAddress(f"{addr!r:.80} is no address: {error}") from error
    is_plain = " " not in addr and addr.isprintable()  # else parts are dropped
    if not (host and is_plain) or "@" in parts.netloc or parts.fragment:
        raise InvalidAddress(f'{addr!r:.80} is not like "ws://host:port/path"')
    if port is None:
        port = 443 if parts.scheme == "wss" else 80
    return addr, (host, port)


def _parse_text(text: str) -> Address:
    """``"host:port"`` or ``"[::1]:port"`` in two."""
    if "://" in text:
        rest = text.partition("://")[2].strip("/")
        raise InvalidAddress(
            f'{text!r:.80} is a page\'s address; leave out what is before "//": '
            f'"{rest:.80}". A client may also say "ws://{rest:.80}"'
        )
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        raise InvalidAddress(
            f'{text!r:.80} has no port; an address is like "127.0.0.1:6969", '
            '"[::1]:6969" or "unix:/path"'
        )
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise InvalidAddress(
            f'{text!r:.80} is ambiguous; write an IPv6 address as "[::1]:6969"'
        )
    address = parse_address((host, int(port[:8])))
    assert not isinstance(address, str)
    return address


def _parse_unix(text: str) -> str:
    if not hasattr(socket, "AF_UNIX"):
        raise InvalidAddress("this system has no unix sockets; use (host, port)")
    path = text.removeprefix(UNIX)
    if not path or "\0" in path:
        raise InvalidAddress(f"{text!r:.80} names no file; write unix:/path/to/socket")
    return text


def resolve(address: Address, *, passive: bool) -> list[tuple[int, Any]]:
    """The socket families and addresses that a host name stands for."""
    flags = socket.AI_PASSIVE if passive else 0
    try:
        found = socket.getaddrinfo(
            address[0] or None, address[1], type=socket.SOCK_STREAM, flags=flags
        )
    except (OSError, UnicodeError) as error:
        raise InvalidAddress(
            f"{address[0]!r:.80} is no address and no known host name ({error})"
        ) from error
    # An empty host means every IPv4 interface, as in 1.1.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return [(entry[0], entry[4]) for entry in found]


def listen_at(address: Address | str) -> socket.socket:
    """A socket that listens at an address.

    Raises:
        InvalidAddress: The host is unknown.
        AddressInUse: Somebody listens there.
        PrivilegedPort: The system does not allow it.
        CannotListen: Anything else the system has against it.
    """
    if isinstance(address, str):
        return _listen_unix(address)
    family, where = resolve(address, passive=True)[0]
    sock: socket.socket | None = None
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        if os.name == "posix":
            # On Windows the same option would let two servers share a port.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        sock.bind(where)
        sock.listen(socket.SOMAXCONN)
        sock.setblocking(False)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise _cannot_listen(address, error) from error
    return sock


def _listen_unix(address: str) -> socket.socket:
    path = address.removeprefix(UNIX)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_left_over(path):
                raise
            os.unlink(path)
            sock.bind(path)
        sock.listen(socket.SOMAXCONN)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        mapped: CannotListen = CannotListen(
            f"cannot listen at {address}: {error.strerror or error}"
        )
        if error.errno == errno.EADDRINUSE:
            mapped = AddressInUse(f"another program listens at {address}")
        elif error.errno in (errno.EACCES, errno.EPERM):
            mapped = PrivilegedPort(f"this program may not make {address}")
        mapped.errno = error.errno
        raise mapped from error
    return sock


def _is_left_over(path: str) -> bool:
    """Whether a socket's file is there, but nobody who listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def forget_path(sock: socket.socket) -> None:
    """Remove the file of a unix socket that is about to be closed."""
    if hasattr(socket, "AF_UNIX") and sock.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):
            os.unlink(sock.getsockname())


def _cannot_listen(address: Address, error: OSError) -> CannotListen:
    where = f"{address[0]}:{address[1]}"
    # Windows has numbers of its own for these, 10048 and 10013.
    if error.errno in (errno.EADDRINUSE, 10048):
        mapped: CannotListen = AddressInUse(
            f"port {address[1]} is in use at {where}; close the other program, or take "
            "another port (0 takes a free one)"
        )
    elif error.errno in (errno.EACCES, errno.EPERM, 10013):
        mapped = PrivilegedPort(
            f"the system does not let this program listen at {where}; take a port from "
            "1024 up"
        )
    elif error.errno == errno.EADDRNOTAVAIL:
        mapped = CannotListen(
            f"{address[0]} is no address of this machine; "
            'use hisock.get_local_ip(), "127.0.0.1" or "" for all'
        )
    else:
        mapped = CannotListen(f"cannot listen at {where}: {error.strerror}")
    mapped.errno = error.errno
    return mapped


def targets_of(address: Address | str) -> list[tuple[int, Any]]:
    """The socket families and addresses to find a server at.

    Raises:
        InvalidAddress: The host is unknown.
    """
    if isinstance(address, str):
        return [(socket.AF_UNIX, address.removeprefix(UNIX))]
    return resolve(address, passive=False)


def dial(
    address: Address | str,
    *,
    waits: bool = False,
    patience: float = 0.0,
    dead_after: float = DEAD_AFTER,
) -> socket.socket:
    """A socket connected to a server.

    Args:
        address: Where it listens.
        waits, dead_after: As ``tune``.
        patience: Seconds to keep trying while nobody answers.

    Raises:
        InvalidAddress: The host is unknown.
        ServerNotRunning: Nobody answers there.
    """
    end = time.monotonic() + patience
    while True:
        try:
            sock = _dial_once(address, waits)
            with contextlib.suppress(OSError):  # gone again: the first read tells
                tune(sock, waits=waits, dead_after=dead_after)
            return sock
        except ServerNotRunning:
            left = end - time.monotonic()
            if left <= 0:
                raise
            time.sleep(min(_RETRY, left))


def _dial_once(address: Address | str, waits: bool) -> socket.socket:
    if isinstance(address, str):
        try:
            return _connect(socket.AF_UNIX, address.removeprefix(UNIX), waits)
        except OSError as error:
            raise _not_running(address, error) from error
    where = f"{address[0]}:{address[1]}"
    if address[1] == 0:
        raise InvalidAddress(f"port 0 at {where} is no server's; give its real port")
    problem: OSError | None = None
    for family, target in resolve(address, passive=False):
        try:
            return _connect(family, target, waits)
        except OSError as error:
            problem = error
    assert problem is not None
    raise _not_running(where, problem) from problem


def _connect(family: int, target: Any, waits: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(CONNECT_TIMEOUT)
        sock.connect(target)
        tune(sock, waits=waits)
        sock.getsockname()  # a server may have reset it already
    except BaseException:
        sock.close()
        raise
    return sock


def _not_running(where: str, error: OSError) -> ServerNotRunning:
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        text = f"no server is running at {where}; start it first, or check the port"
    elif isinstance(error, TimeoutError):
        text = (
            f"nobody answered at {where} within {CONNECT_TIMEOUT:g} s; "
            "check the address, and that no firewall is between"
        )
    else:
        text = f"cannot reach {where}: {error.strerror or error}"
    mapped = ServerNotRunning(text)
    mapped.errno = error.errno
    return mapped


def secured(sock: socket.socket, tls: ClientTls | ClientWeb, address: Any) -> Any:
    """A connection that encrypts, its handshake done; or one that speaks WebSocket.

    Raises:
        NotSecure: The server cannot be trusted, or speaks no TLS.
        CertificateChanged: It is not the one that was pinned.
    """
    secure = tls.wrap(sock, address)
    try:
        secure.handshake(CONNECT_TIMEOUT)
    except OSError as error:
        where = spell_address(address)
        raise NotSecure(f"no secure connection to {where}: {error}") from error
    return secure


def tune(
    sock: socket.socket, *, waits: bool = False, dead_after: float = DEAD_AFTER
) -> None:
    """Make a connected socket prompt, and aware of a dead peer.

    Args:
        sock: A connected socket.
        waits: Whether a read without ``DONT_WAIT`` may wait.
        dead_after: Seconds without an answer after which the kernel gives a peer up;
            half of it is silence, half of it probes. 0 for never.
    """
    sock.setblocking(waits)
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    # Without it a write-write-read stalls 40 ms.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if not dead_after:
        return
    half = max(1, int(dead_after / 2))
    for option, value in (
        ("TCP_KEEPIDLE", half),
        ("TCP_KEEPALIVE", half),  # macOS's name for it
        ("TCP_KEEPINTVL", max(1, half // 5)),
        ("TCP_KEEPCNT", 5),
        ("TCP_USER_TIMEOUT", int(dead_after * 1000)),
    ):
        number = getattr(socket, option, None)
        if number is not None:
            sock.setsockopt(socket.IPPROTO_TCP, number, value)


def spell_address(address: Any) -> str:
    """An address for texts."""
    if address is None:
        return "no address"
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        return f"{host}:{address[1]}"
    return str(address)
