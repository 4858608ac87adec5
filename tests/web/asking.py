"""What asks over HTTP, and hears everything that is answered."""

from __future__ import annotations

__all__ = ("PATIENCE", "Answered", "ask", "dial", "hear", "hear_all", "request")

import contextlib
import socket
import ssl
from typing import Any, NamedTuple

PATIENCE = 5.0


class Answered(NamedTuple):
    """All that came until the other side ended the connection."""

    status: int
    headers: dict[str, str]
    body: bytes


def dial(address: Any, tls: ssl.SSLContext | None = None) -> socket.socket:
    """A connection that never waits for ever."""
    sock = socket.create_connection(address, PATIENCE)
    if tls is None:
        return sock
    return tls.wrap_socket(sock, server_hostname="localhost")


def request(target: str = "/", host: str = "localhost", **headers: str) -> bytes:
    """A request as a browser writes it, but for one answer alone."""
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}"]
    headers = {"Connection": "close", **headers}
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def hear(sock: socket.socket) -> Answered:
    """The answer that comes, and that nothing comes behind it."""
    heard = hear_all(sock)
    head, end, body = heard.partition(b"\r\n\r\n")
    assert end, f"this is no answer: {heard[:200]!r}"
    first, *lines = head.decode().split("\r\n")
    version, status, _ = first.split(" ", 2)
    assert version == "HTTP/1.1"
    pairs = [line.split(": ", 1) for line in lines]
    headers = {name.lower(): value for name, value in pairs}
    assert len(headers) == len(pairs), f"a header comes twice: {lines}"
    if "content-length" in headers:
        assert len(body) == int(headers["content-length"])
    return Answered(int(status), headers, body)


def hear_all(sock: socket.socket) -> bytes:
    """Everything until the other side ends the connection, however it does."""
    heard = bytearray()
    with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
        while piece := sock.recv(65536):
            heard += piece
    return bytes(heard)


def ask(
    address: Any,
    target: str = "/",
    *,
    tls: ssl.SSLContext | None = None,
    **headers: str,
) -> Answered:
    """Ask once."""
    with dial(address, tls) as sock:
        sock.sendall(request(target, **headers))
        return hear(sock)
