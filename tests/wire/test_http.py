"""Heads of HTTP requests: read strictly, refused with a status; who may ask."""

from __future__ import annotations

import contextlib
from http import HTTPStatus
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hisock.wire.http import Head, HttpError, Response, Rules, host_of, read_head, text

GET: Final = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


def refused(data: bytes) -> HTTPStatus:
    """The status with which a head is refused."""
    with pytest.raises(HttpError) as caught:
        read_head(data)
    return caught.value.status


def test_a_head() -> None:
    """Target and headers, whatever case and space they were written in."""
    head = read_head(
        b"GET /a/b?c=d HTTP/1.1\r\nHOST:localhost:80\r\nX-One: \t a b \t\r\n"
        b"x-one: c\r\nEmpty:\r\nLatin: \xe9\r\n\r\n"
    )

    assert head == Head(
        "/a/b?c=d",
        {"host": "localhost:80", "x-one": "a b, c", "empty": "", "latin": "é"},
    )


LINES: Final = {
    "POST": b"POST / HTTP/1.1",
    "lower case": b"get / HTTP/1.1",
    "HTTP/1.0": b"GET / HTTP/1.0",
    "HTTP/2": b"GET / HTTP/2",
    "no version": b"GET /",
    "two spaces": b"GET  / HTTP/1.1",
    "a space behind": b"GET / HTTP/1.1 ",
    "a space before": b" GET / HTTP/1.1",
    "a tab": b"GET\t/ HTTP/1.1",
    "an absolute target": b"GET http://localhost/ HTTP/1.1",
    "a star": b"GET * HTTP/1.1",
    "an authority": b"GET localhost:80 HTTP/1.1",
    "a space in the target": b"GET /a b HTTP/1.1",
    "a NUL in the target": b"GET /\x00 HTTP/1.1",
    "no ASCII in the target": b"GET /\xe9 HTTP/1.1",
    "a bare return": b"GET / HTTP/1.1\r",
    "nothing": b"",
}


@pytest.mark.parametrize("line", LINES)
def test_bad_request_lines(line: str) -> None:
    """Only a ``GET`` of a path with HTTP/1.1 is one."""
    data = LINES[line] + b"\r\nHost: localhost\r\n\r\n"

    assert refused(data) is HTTPStatus.BAD_REQUEST


HEADERS: Final = {
    "a space before the colon": b"A : 1",
    "a space before": b" A: 1",
    "a folded one": b"A: 1\r\n 2",
    "a folded one with a tab": b"A: 1\r\n\t2",
    "no colon": b"A",
    "no name": b": 1",
    "a name in Latin": b"\xe9: 1",
    "a name with a bracket": b"A(: 1",
    "a NUL": b"A: \x00",
    "a bare return": b"A: 1\rB: 2",
    "a bare line feed": b"A: 1\nB: 2",
    "an empty line": b"\r\nA: 1",
    "chunks": b"Transfer-Encoding: chunked",
    "no chunks": b"Transfer-Encoding: identity",
    "a body": b"Content-Length: 1",
    "a body of +0": b"Content-Length: +0",
    "a body of 00": b"Content-Length: 00",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 0",
    "two hosts": b"Host: localhost",
    "two hosts in other case": b"hOST: evil",
    "two origins": b"Origin: http://a\r\nOrigin: http://b",
    "two keys": b"Sec-WebSocket-Key: a\r\nSec-WebSocket-Key: b",
    "two versions": b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8",
    "two upgrades": b"Upgrade: websocket\r\nUpgrade: h2c",
    "two connections": b"Connection: upgrade\r\nConnection: close",
    "two proofs": b"Authorization: a\r\nAuthorization: b",
}


@pytest.mark.parametrize("header", HEADERS)
def test_bad_headers(header: str) -> None:
    """What two readers may read in two ways is not read at all (T6)."""
    assert refused(GET + HEADERS[header] + b"\r\n\r\n") is HTTPStatus.BAD_REQUEST


def test_a_length_of_nothing_is_none() -> None:
    """``Content-Length: 0`` is no body."""
    head = read_head(GET + b"Content-Length: 0\r\n\r\n")

    assert head.headers["content-length"] == "0"


def test_a_head_without_host() -> None:
    """HTTP/1.1 wants one."""
    assert refused(b"GET / HTTP/1.1\r\nA: 1\r\n\r\n") is HTTPStatus.BAD_REQUEST


def test_headers_are_counted() -> None:
    """64 may be, one more may not."""
    lines = b"".join(b"X%d: 1\r\n" % n for n in range(63))
    read_head(GET + lines + b"\r\n")

    status = refused(GET + lines + b"One-More: 1\r\n\r\n")
    assert status is HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    """Whatever comes is a head or is refused."""
    for each in (data, GET + data, GET + data + b"\r\n\r\n"):
        with contextlib.suppress(HttpError):
            assert read_head(each).target.startswith("/")


# --- who may ask ----------------------------------------------------------------------

NAMES: Final = [
    ("localhost", "localhost"),
    ("localhost:80", "localhost"),
    ("[::1]:80", "::1"),
    ("[::1]", "::1"),
    ("127.0.0.1:6969", "127.0.0.1"),
    ("a-b_c.example", "a-b_c.example"),
    ("", None),
    (":80", None),
    ("localhost:", None),
    ("localhost:x", None),
    ("localhost:123456", None),
    ("user@localhost", None),
    ("localhost/", None),
    ("a b", None),
    ("::1", None),
    ("[::1", None),
    ("[evil]", None),
    ("localhost\n", None),
]


@pytest.mark.parametrize(("host", "name"), NAMES)
def test_the_name_in_a_host(host: str, name: str | None) -> None:
    """Without port and brackets; ``None`` for what is no host."""
    assert host_of(host) == name


def may(
    host: str,
    origin: str | None = None,
    *,
    hosts: tuple[str, ...] = (),
    origins: tuple[str, ...] = (),
    scheme: str = "http",
) -> bool:
    """Whether somebody may ask."""
    headers = {"host": host} if origin is None else {"host": host, "origin": origin}
    try:
        Rules(hosts, origins, scheme).check(Head("/", headers))
    except HttpError as error:
        refused = (HTTPStatus.FORBIDDEN, HTTPStatus.BAD_REQUEST)
        return error.status not in refused
    return True


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:5", "192.168.0.7:6969"]
)
def test_hosts_that_nobody_can_point_elsewhere(host: str) -> None:
    """Addresses, and this machine's own name."""
    assert may(host)


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example"),
        *("localhost.", "", "a b", "[evil]", "0x7f.1"),
    ],
)
def test_hosts_that_may_be_pointed_here(host: str) -> None:
    """Any other name may be an attacker's (T4), and what is none is no host."""
    assert not may(host)
    assert may("evil.example", hosts=("EVIL.example",))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:6969", "localhost:6969"),
        ("HTTP://LOCALHOST:6969", "localhost:6969"),
        ("http://localhost", "localhost"),
        ("http://localhost:80", "localhost"),
        ("http://localhost", "localhost:80"),
        ("http://[::1]:6969", "[::1]:6969"),
    ],
)
def test_pages_of_our_own(origin: str, host: str) -> None:
    """A page of the same scheme, host and port may connect."""
    assert may(host, origin)


@pytest.mark.parametrize(
    "origin",
    [
        *("null", "", "http://evil.example", "https://localhost:6969"),
        *("http://localhost", "http://localhost:6970", "http://127.0.0.1:6969"),
        *("http://localhost:6969.evil.example", "http://evil.localhost:6969"),
        *("http://localhost.:6969", "http://localhost:6969/", "file://"),
        *("http://good.example.evil", "http://good.example@evil", "localhost:6969"),
        *("http://xgood.example", "https://good.example:444", "http://good.example"),
    ],
)
def test_pages_of_others(origin: str) -> None:
    """No other page may, near as it is to one that may (T3)."""
    assert not may("localhost:6969", origin, origins=("https://good.example",))


def test_pages_that_may() -> None:
    """A page that was named may, in any spelling of the same."""
    for origin in ("https://good.example", "HTTPS://good.example:443"):
        assert may("localhost", origin, origins=("https://GOOD.example",))
    assert may("localhost", "https://localhost", scheme="https")


# --- answers ------------------------------------------------------------------------


def whole(response: Response) -> bytes:
    """All the bytes of an answer."""
    return response.head + b"".join(response.body)


def test_an_answer() -> None:
    """Its length is right, and it says that it is the last."""
    head, _, body = whole(text(HTTPStatus.FORBIDDEN, "nö")).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"\r\nContent-Length: %d\r\n" % len(body) in head
    assert head.endswith(b"\r\nConnection: close")
    assert body == "nö\n".encode()


def test_an_answer_that_asks_for_an_upgrade() -> None:
    """It says to what, as the RFCs want it."""
    head = whole(text(HTTPStatus.UPGRADE_REQUIRED, "upgrade"))

    assert b"\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" in head
    assert b"\r\nConnection: close, Upgrade\r\n" in head
