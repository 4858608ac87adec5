"""Addresses, and the sockets made from them; foreign errors are mapped here, once."""

from __future__ import annotations

__all__ = ("dial", "listen_at", "parse_address", "tune")

import errno
import os
import socket
from typing import Any, Final

from hisock.errors import (
    AddressInUse,
    CannotListen,
    InvalidAddress,
    PrivilegedPort,
    ServerNotRunning,
)
from hisock.types import Address

#: Seconds a first connection may take before nobody is said to be there.
CONNECT_TIMEOUT: Final = 10.0
#: Seconds without an answer after which the kernel gives a peer up; half of it is
#: silence, half of it probes.
DEAD_AFTER: Final = 20


def parse_address(addr: object) -> Address:
    """The host and port of an address tuple.

    Raises:
        InvalidAddress: It is none.
    """
    match addr:
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
                f'an address is ("host", port), for example ("127.0.0.1", 6969), '
                f"not {addr!r:.80}"
            )


def _resolve(address: Address, *, passive: bool) -> list[tuple[int, Any]]:
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


def listen_at(address: Address) -> socket.socket:
    """A socket that listens at an address.

    Raises:
        InvalidAddress: The host is unknown.
        AddressInUse: Somebody listens there.
        PrivilegedPort: The system does not allow it.
        CannotListen: Anything else the system has against it.
    """
    family, where = _resolve(address, passive=True)[0]
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


def dial(address: Address, *, waits: bool = False) -> socket.socket:
    """A socket connected to a server.

    Args:
        address: Where it listens.
        waits: As ``tune``.

    Raises:
        InvalidAddress: The host is unknown.
        ServerNotRunning: Nobody answers there.
    """
    where = f"{address[0]}:{address[1]}"
    if address[1] == 0:
        raise InvalidAddress(f"port 0 at {where} is no server's; give its real port")
    problem: OSError | None = None
    for family, target in _resolve(address, passive=False):
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
    if isinstance(error, ConnectionRefusedError):
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


def tune(sock: socket.socket, *, waits: bool = False) -> None:
    """Make a connected socket prompt, and aware of a dead peer.

    Args:
        sock: A connected socket.
        waits: Whether a read without ``DONT_WAIT`` may wait.
    """
    sock.setblocking(waits)
    # Without it a write-write-read stalls 40 ms.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    half = DEAD_AFTER // 2
    for option, value in (
        ("TCP_KEEPIDLE", half),
        ("TCP_KEEPALIVE", half),  # macOS's name for it
        ("TCP_KEEPINTVL", max(1, half // 5)),
        ("TCP_KEEPCNT", 5),
        ("TCP_USER_TIMEOUT", DEAD_AFTER * 1000),
    ):
        number = getattr(socket, option, None)
        if number is not None:
            sock.setsockopt(socket.IPPROTO_TCP, number, value)
