"""The head of an HTTP request, read strictly, and the rules of who may ask.

Pure. What is not exactly a ``GET`` of RFC 9112 is refused: nothing is repaired that a
proxy in front might read in another way.
"""

from __future__ import annotations

__all__ = (
    "END",
    "HEAD",
    "Head",
    "HttpError",
    "Response",
    "Rules",
    "host_of",
    "is_broken",
    "read_head",
    "text",
)

import re
from collections.abc import Callable, Collection, Iterable
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

from hisock.wire.frames import Value

#: Bytes of a request's head, and lines in it.
HEAD: Final = 16 * 1024
_HEADERS: Final = 64
#: Where a head ends.
END: Final = b"\r\n\r\n"

#: What every request begins with that is read at all.
_BEGINNING: Final = b"GET /"
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


def is_broken(begun: bytes) -> bool:
    """Whether nothing that may still come can make a head of this beginning."""
    lines = begun.count(b"\r\n")
    return (
        not begun.startswith(_BEGINNING[: len(begun)])
        or b"\0" in begun
        or begun.count(b"\n") != lines
        or begun.count(b"\r") - begun.endswith(b"\r") != lines
    )


def read_head(data: bytes) -> Head:
    """Read a head up to the empty line that ends it.

    Raises:
        HttpError: It is not exactly what it should be.
    """
    request, *lines = data.removesuffix(END).split(b"\r\n")
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
        if name is None:
            raise HttpError(HTTPStatus.BAD_REQUEST, "the Host is malformed")
        # Not 421: that asks for the same once more, over another connection.
        if not (name in self._hosts or _is_address(name)):
            text = (
                f"this server does not know itself as {name!r:.100}; the option "
                f"allowed_hosts=[{name!r:.100}] would let it"
            )
            raise HttpError(HTTPStatus.FORBIDDEN, text)
        origin = head.headers.get("origin")
        if origin is None:
            return
        own = _normal(f"{self._scheme}://{host}")
        if origin == "null" or _normal(origin) not in {own, *self._origins}:
            text = (
                f"pages of {origin!r:.100} may not ask this server; the option "
                f"allowed_origins=[{origin!r:.100}] would let them"
            )
            if origin == "null":
                text = "an Origin of null is nobody's; open the page from a server"
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
    has_port = host.rpartition(":")[2].isdecimal()
    return origin.lower() if has_port else f"{scheme}://{host}:{port}"


def _hold_nothing() -> None:
    """The body is in memory."""


class Response(Value, frozen=True):
    """What is answered; behind it the connection is closed.

    Attributes:
        headers: Beside those that every answer has.
        body: In pieces, which are taken one by one as there is room for them.
        size: Bytes of the body.
        close: Lets go of what the body is made of.
    """

    status: HTTPStatus
    headers: dict[str, str]
    body: Iterable[bytes] = ()
    size: int = 0
    close: Callable[[], None] = _hold_nothing

    @property
    def head(self) -> bytes:
        """The bytes before the body."""
        lines = [f"HTTP/1.1 {self.status.value} {self.status.phrase}"]
        every = {
            "Content-Length": str(self.size),
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
        }
        if self.status is HTTPStatus.UPGRADE_REQUIRED:  # RFC 9110 §15.5.22
            every |= {"Upgrade": "websocket", "Connection": "close, Upgrade"}
            every["Sec-WebSocket-Version"] = "13"  # RFC 6455 §4.4
        # A 304 has no body, and its length would be that of the one it saves.
        if self.status is HTTPStatus.NOT_MODIFIED:
            del every["Content-Length"]
        for name, value in {**self.headers, **every}.items():
            lines.append(f"{name}: {value}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def text(status: HTTPStatus, words: str, **headers: str) -> Response:
    """A short answer in plain text."""
    body = f"{words}\n".encode()
    kind = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
    return Response(status, kind | headers, (body,), len(body))
