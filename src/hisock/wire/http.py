"""The head of an HTTP request, read strictly, and the rules of who may ask.

Pure. What is not exactly a ``GET`` of RFC 9112 is refused: nothing is repaired that a
proxy in front might read in another way.
"""

from __future__ import annotations

__all__ = ("HEAD", "Head", "HttpError", "Rules", "answer", "host_of", "read_head")

import re
from collections.abc import Collection
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

from hisock.wire.frames import Value

#: Bytes of a request's head, and lines in it.
HEAD: Final = 16 * 1024
_HEADERS: Final = 64

_REQUEST: Final = re.compile(rb"GET (/[!-~]*) HTTP/1\.1")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)")
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[0-9A-Za-z._-]+)(?::[0-9]{1,5})?")
#: What may not come twice: two of them may be read in two ways.
_ONCE: Final = frozenset(
    {
        *("host", "origin", "upgrade", "connection", "content-length"),
        *("sec-websocket-key", "sec-websocket-version", "authorization"),
    }
)
_PORTS: Final = {"http": "80", "https": "443"}


class HttpError(Exception):
    """A request that is not served.

    Attributes:
        status: Of the answer.
    """

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class Head(Value, frozen=True):
    """What a client asks for.

    Attributes:
        target: The path, and the query if there is one.
        headers: By their names in lower case.
    """

    target: str
    headers: dict[str, str]


def read_head(data: bytes) -> Head:
    """Read a head up to the empty line that ends it.

    Raises:
        HttpError: It is not exactly what it should be.
    """
    request, *lines = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
    matched = _REQUEST.fullmatch(request)
    if matched is None:
        raise HttpError(HTTPStatus.BAD_REQUEST, "this is no GET of HTTP/1.1")
    if len(lines) > _HEADERS:
        text = f"more than {_HEADERS} headers"
        raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text)
    headers: dict[str, str] = {}
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise HttpError(HTTPStatus.BAD_REQUEST, "a header is malformed")
        name = found[1].decode().lower()
        value = found[2].decode("latin-1").strip(" \t")
        if name in headers and name in _ONCE:
            raise HttpError(HTTPStatus.BAD_REQUEST, f"the header {name} comes twice")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise HttpError(HTTPStatus.BAD_REQUEST, "a GET has no body here")
    if "host" not in headers:
        raise HttpError(HTTPStatus.BAD_REQUEST, "there is no Host")
    return Head(matched[1].decode(), headers)


class Rules:
    """Who may ask: by the name that the client used, and by the page that made it ask.

    Args:
        hosts: Names beside ``localhost`` and addresses, which nobody can point
            elsewhere (DNS rebinding).
        origins: Pages of other hosts that may connect, as ``https://example.org``.
        scheme: ``"https"`` on a port with TLS, else ``"http"``.
    """

    __slots__ = ("_hosts", "_origins", "_scheme")

    def __init__(
        self, hosts: Collection[str], origins: Collection[str], scheme: str
    ) -> None:
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._origins = {_normal(origin) for origin in origins}
        self._scheme = scheme

    def check(self, head: Head) -> None:
        """Refuse who may not.

        Raises:
            HttpError: With the option that would allow it.
        """
        host = head.headers["host"].lower()
        name = host_of(host)
        if name is None or not (name in self._hosts or _is_address(name)):
            text = f"allowed_hosts=[{host!r:.100}] would allow this Host"
            raise HttpError(HTTPStatus.FORBIDDEN, text)
        origin = head.headers.get("origin")
        if origin is None:
            return
        own = _normal(f"{self._scheme}://{host}")
        if origin == "null" or _normal(origin) not in {own, *self._origins}:
            text = f"allowed_origins=[{origin!r:.100}] would allow this Origin"
            if origin == "null":
                text = "an Origin of null is nobody's"
            raise HttpError(HTTPStatus.FORBIDDEN, text)


def host_of(host: str) -> str | None:
    """The name in a ``Host`` header, without port and brackets; ``None`` for none."""
    matched = _HOST.fullmatch(host)
    return None if matched is None else matched[1].strip("[]")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _normal(origin: str) -> str:
    """An origin with its port, however it was written."""
    scheme, _, host = origin.lower().partition("://")
    port = _PORTS.get(scheme, "")
    return origin.lower() if re.search(r":\d+$", host) else f"{scheme}://{host}:{port}"


def answer(status: HTTPStatus, text: str) -> bytes:
    """A short answer, behind which the connection is closed."""
    body = f"{text}\n".encode()
    wanted, connection = "", "close"
    if status is HTTPStatus.UPGRADE_REQUIRED:  # RFC 6455 §4.4, RFC 9110 §15.5.22
        wanted = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        connection = "close, Upgrade"
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"{wanted}Connection: {connection}\r\n\r\n"
    ).encode() + body
