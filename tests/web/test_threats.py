"""What somebody hostile may try with HTTP on the port that all else comes to, too.

The numbers are those of the table of threats in ``docs/faults.md``.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.contract import Thread
from tests.contract.authorities import Authorities
from tests.faults.raw import HOST, Stage, eventually, frame, hello

from hisock import Credentials, Limits, connect, start_threaded_server
from hisock.errors import ClientDisconnected, HiSockError, NotSecure, Refused
from hisock.server import ThreadedHiSockServer

from .asking import ask, dial, hear, hear_all, request

pytestmark = pytest.mark.timeout(20)

#: What nobody is to run who did not come in by the front door.
HIDDEN = frame(hello("form")) + frame(b"ping x")
KEY = base64.b64encode(bytes(16)).decode()
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec_WebSocket_Key": KEY,
    "Sec_WebSocket_Version": "13",
}


def upgrade(host: str = "localhost", **headers: str) -> bytes:
    """What a browser asks that opens a WebSocket."""
    return request("/", host, **UPGRADE, **headers)


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A server with an honest client, which nothing here may harm."""
    with Stage() as made:
        made.record("ping", "message", "*")
        yield made
        assert made.joined == ["honest"]
        assert made.ran == []


def heard_from(address: Any, data: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """Everything that is said to somebody who says this, until the end."""
    with dial(address, tls) as sock:
        with contextlib.suppress(OSError):  # cut off already
            sock.sendall(data)
        return hear_all(sock)


def status(heard: bytes) -> int:
    """The status of one answer, which says that it is the last."""
    assert heard.count(b"HTTP/1.1 ") == 1, heard
    head = heard.partition(b"\r\n\r\n")[0]
    if not heard.startswith(b"HTTP/1.1 101 "):
        assert b"\r\nConnection: close" in head
    return int(heard[9:12])


# --- T1: slow and huge heads -------------------------------------------------------


def test_t01_a_head_in_drops_is_ended() -> None:
    """A byte now and then does not prolong the time for it, and none is answered."""
    with Stage(limits=Limits(handshake=0.4)) as stage, stage.stranger() as peer:
        began = time.monotonic()
        peer.sock.settimeout(0.02)
        for byte in itertools.cycle(b"GET / HTTP/1.1\r\n" + b"X-A: bbbbbbb\r\n" * 500):
            peer.throw(bytes([byte]))
            try:
                if not peer.sock.recv(1):
                    break
            except TimeoutError:
                pass
            except ConnectionError:
                break
            assert time.monotonic() - began < 2.0
        assert time.monotonic() - began > 0.3


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 10_000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 100 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * 1_000_000,
        b"GET /" + b"a" * 1_000_000,
        upgrade(A="b" * 9000),
        upgrade().replace(b"GET /", b"GET /" + b"a" * 9000),
    ],
    ids=["10,000 headers", "100 headers", "a line", "a path", "upgrade", "its path"],
)
def test_t01_a_huge_head_is_refused(stage: Stage, head: bytes) -> None:
    """At once, however much of it is still to come."""
    began = time.monotonic()
    with stage.stranger() as peer:
        peer.throw(head)
        heard = peer.take_all()
    # What is cut off in the middle of its writing may not hear why.
    if heard or len(head) < 64 * 1024:
        assert status(heard) == 431
    assert time.monotonic() - began < 2.5


def test_t01_heads_keep_nobody_out() -> None:
    """Begun heads are strangers like all others: only so many stay."""
    with Stage(limits=Limits(unfinished=20)) as stage:
        peers = [stage.stranger() for _ in range(60)]
        for peer in peers:
            peer.throw(b"GET / HTTP/1.1\r\n")
        assert stage.check() < 1.0
        eventually(lambda: stage.server.stats()["connections"] <= 21, "few stay")
        assert ask(stage.address, "/healthz").status == 200
        for peer in peers:
            peer.sock.close()


# --- T2: requests that carry bytes of ours -----------------------------------------

VERBS = (
    *("POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PRI"),
    *("get", "Get", "GETX", "G ET", "HELO", "QUIT"),
)


@pytest.mark.parametrize("verb", VERBS)
def test_t02_only_get_is_answered(stage: Stage, verb: str) -> None:
    """Every other verb is closed at once and unanswered, whatever stands behind it."""
    began = time.monotonic()
    for before in (b"", b"\r\n", b"\n", b" ", b"\t", b"\x16\x03\x01\x00\xf1"):
        body = HIDDEN.decode()
        for data in (
            b"%s / HTTP/1.1\r\nHost: localhost\r\n\r\n" % verb.encode() + HIDDEN,
            request("/", Content_Length=str(len(body))).replace(b"GET", verb.encode())
            + HIDDEN,
            request(f"/{body}").replace(b"GET", verb.encode()),
            request("/", X=body).replace(b"GET", verb.encode()),
        ):
            assert heard_from(stage.address, before + data) == b""
    assert time.monotonic() - began < 4.0


@pytest.mark.parametrize(
    "data",
    [
        request(f"/{HIDDEN.decode()}"),
        request("/healthz", X=HIDDEN.decode()),
        request("/healthz") + HIDDEN,
        request("/healthz", Content_Length=str(len(HIDDEN))) + HIDDEN,
        request("/nothing") + HIDDEN + request("/healthz"),
        request("/", "evil.example") + HIDDEN,
        b"GET " + HIDDEN,
        b"GET\r\n" + HIDDEN,
        b"GET / HTTP/1.1\n" + HIDDEN,
        b"GET / HTTP/1.1\r\n\x00" + HIDDEN,
    ],
)
def test_t02_nothing_is_found_inside_a_get(stage: Stage, data: bytes) -> None:
    """It is answered once, or refused, at once; what is behind it is never read."""
    began = time.monotonic()
    heard = heard_from(stage.address, data)
    assert heard == b"" or status(heard) in (200, 400, 403, 404)
    with dial(stage.address) as sock:  # and in two pieces
        sock.sendall(data[:2])
        stage.check()
        with contextlib.suppress(OSError):
            sock.sendall(data[2:])
        assert status(hear_all(sock)) in (200, 400, 403, 404)
    assert time.monotonic() - began < 2.0


def test_t02_nothing_is_found_behind_an_upgrade(stage: Stage) -> None:
    """There are WebSocket frames from there on, and this is none."""
    heard = heard_from(stage.address, upgrade() + HIDDEN)
    assert status(heard) == 101


# --- T3: whose pages may connect ---------------------------------------------------

SITE = "good.example"
ORIGINS = {
    "https://good.example": 101,
    "https://good.example:443": 101,
    "HTTPS://GOOD.EXAMPLE": 101,
    "http://localhost": 101,
    "http://localhost:80": 101,
    "http://good.example": 403,
    "https://good.example:8443": 403,
    "https://good.example.": 403,
    "https://good.example/": 403,
    "https://good.example.evil.example": 403,
    "https://evilgood.example": 403,
    "https://sub.good.example": 403,
    "https://good.example@evil.example": 403,
    "https://evil.example?https://good.example": 403,
    "https://good.example https://evil.example": 403,
    "https://good.example, https://evil.example": 403,
    "https://evil.example": 403,
    "http://localhost:81": 403,
    "https://localhost": 403,
    "http://localhost.": 403,
    "http://127.0.0.1": 403,
    "http://[::1]": 403,
    "file://": 403,
    "null": 403,
    "": 403,
    "good.example": 403,
    "chrome-extension://abc": 403,
}


@pytest.mark.parametrize("origin", list(ORIGINS))
def test_t03_whose_pages_may_connect(origin: str) -> None:
    """Those of the host that was asked, and those that are allowed, exactly; others
    are refused before the program's check sees anything of them."""
    asked: list[object] = []
    with Stage(allowed_origins=["https://good.example"]) as stage:

        @stage.server.authenticate
        def check(credentials: Credentials) -> bool:
            asked.append(credentials)
            return True

        expected = ORIGINS[origin]
        with dial(stage.address) as sock:
            sock.sendall(upgrade(Origin=origin) + HIDDEN * (expected != 101))
            if expected == 101:
                sock.sendall(b"\x88\x80\x00\x00\x00\x00")
            assert status(hear_all(sock)) == expected
        got = ask(stage.address, "/healthz", Origin=origin).status
        assert got == (200 if expected == 101 else 403)
        assert stage.joined == ["honest"]
        assert asked == []


def test_t03_two_origins_are_none(stage: Stage) -> None:
    """Which of them is meant nobody knows."""
    one = upgrade(Origin="http://localhost")
    two = one.replace(b"Origin", b"Origin: http://evil.example\r\norigin")
    assert status(heard_from(stage.address, two)) == 400


def test_t03_a_refusal_names_the_option(stage: Stage) -> None:
    """Whoever develops a page reads what to do; the browser's own message is bare."""
    refusal = ask(stage.address, Origin="https://my.page")
    assert refusal.status == 403
    assert b"allowed_origins=['https://my.page']" in refusal.body


def test_t03_ipv6() -> None:
    """The same with brackets."""
    with Stage(allowed_origins=["http://[2001:db8::1]"]) as stage:
        for origin, expected in (
            ("http://[::1]", 200),
            ("http://[::1]:80", 200),
            ("http://[::1]:81", 403),
            ("http://[2001:db8::1]:80", 200),
            ("http://[2001:db8::2]", 403),
        ):
            answered = ask(stage.address, "/healthz", host="[::1]", Origin=origin)
            assert answered.status == expected, origin


# --- T4: by which name the server is asked for -------------------------------------

HOSTS = {
    "localhost": 200,
    "LOCALHOST:6969": 200,
    "127.0.0.1": 200,
    "127.0.0.1:6969": 200,
    "[::1]": 200,
    "[::1]:6969": 200,
    "192.168.1.2": 200,
    "good.example": 200,
    "Good.Example:8080": 200,
    "attacker.example": 403,
    "attacker.example:6969": 403,
    "localhost.attacker.example": 403,
    "sub.good.example": 403,
    "127.0.0.1.nip.example": 403,
    "localhost.": 403,
    "127.1": 403,
    "2130706433": 403,
    "0x7f.0.0.1": 403,
    "": 400,
    ":6969": 400,
    "user@localhost": 400,
    "localhost:x": 400,
    "localhost:123456": 400,
    "localhost, localhost": 400,
    "localhost/": 400,
    "local host": 400,
    "::1": 400,
    "[::1": 400,
    "[::1%lo]": 400,
    "localhost\\@evil": 400,
    "http://localhost": 400,
}


@pytest.mark.parametrize("host", list(HOSTS))
def test_t04_by_which_name_it_is_asked_for(host: str) -> None:
    """A name that anybody may point here is refused, though it is this machine that
    asks: pages, upgrades and what is not there alike."""
    with Stage(allowed_hosts=["good.example"]) as stage:
        expected = HOSTS[host]
        assert status(heard_from(stage.address, request("/healthz", host))) == expected
        not_there = heard_from(stage.address, request("/nothing", host))
        assert status(not_there) == (404 if expected == 200 else expected)
        with dial(stage.address) as sock:
            sock.sendall(upgrade(host))
            if expected == 200:
                sock.sendall(b"\x88\x80\x00\x00\x00\x00")
            heard = hear_all(sock)
        assert status(heard) == (101 if expected == 200 else expected)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nhost: evil.example\r\n\r\n",
        b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET //evil.example/healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_t04_no_host_two_or_another_way_of_naming_it(stage: Stage, data: bytes) -> None:
    """There is exactly one place where the name stands."""
    assert status(heard_from(stage.address, data)) in (400, 403)


def test_t04_a_refusal_names_the_option(stage: Stage) -> None:
    """As it has to be written: without a port."""
    refusal = ask(stage.address, host="my.host:6969")
    assert refusal.status == 403
    assert b"allowed_hosts=['my.host']" in refusal.body


# --- T6: requests in requests ------------------------------------------------------

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
#: Each of these some server or proxy has read in another way than another.
SMUGGLED = {
    "length": GET + b"Content-Length: 5\r\n\r\nhello",
    "length +0": GET + b"Content-Length: +0\r\n\r\n",
    "length 0x0": GET + b"Content-Length: 0x0\r\n\r\n",
    "length of nothing": GET + b"Content-Length:\r\n\r\n",
    "length 0, 0": GET + b"Content-Length: 0, 0\r\n\r\n",
    "length -1": GET + b"Content-Length: -1\r\n\r\n",
    "two lengths": GET + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "two lengths that differ": GET + b"Content-Length: 0\r\ncontent-length: 5\r\n\r\n",
    "chunked": GET + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "CHUNKED": GET + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n0\r\n\r\n",
    "identity": GET + b"Transfer-Encoding: identity\r\n\r\n",
    "chunked and length": (
        GET + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "chunked, with a tab": GET + b"Transfer-Encoding:\tchunked\r\n\r\n",
    "chunked, vertical tab": GET + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    "chunked, space before": GET + b"Transfer-Encoding : chunked\r\n\r\n",
    "chunked, space first": GET + b" Transfer-Encoding: chunked\r\n\r\n",
    "chunked, folded": GET + b"Transfer-Encoding:\r\n chunked\r\n\r\n",
    "chunked, folded by a tab": GET + b"X: y\r\n\tTransfer-Encoding: chunked\r\n\r\n",
    "chunked after a bare LF": GET + b"X: y\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked after a bare CR": GET + b"X: y\rTransfer-Encoding: chunked\r\n\r\n",
    "chunked, xchunked": GET + b"Transfer-Encoding: xchunked\r\n\r\n",
    "bare LF all over": b"GET /healthz HTTP/1.1\nHost: localhost\n\n",
    "bare LF at the end": GET + b"\n",
    "bare LF in the first line": GET.replace(b"\r\n", b"\n", 1) + b"\r\n",
    "bare CR at the end": GET + b"X: y\r\r\n\r\n",
    "CR CR LF": GET.replace(b"\r\n", b"\r\r\n") + b"\r\r\n",
    "NUL in a value": GET + b"X: a\x00b\r\n\r\n",
    "NUL in a name": GET + b"X\x00: a\r\n\r\n",
    "NUL in the path": GET.replace(b"healthz", b"health\x00z") + b"\r\n",
    "DEL in a value": GET + b"X: \x7f\r\n\r\n",
    "space before a colon": GET + b"X : y\r\n\r\n",
    "tab before a colon": GET + b"X\t: y\r\n\r\n",
    "no name": GET + b": y\r\n\r\n",
    "no colon": GET + b"X\r\n\r\n",
    "letters in a name": GET + "Ünicode: y\r\n\r\n".encode(),
    "parentheses in a name": GET + b"X(y): z\r\n\r\n",
    "fold": GET + b"X: y\r\n z\r\n\r\n",
    "fold at the start": b"GET /healthz HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "a host that is folded": b"GET /healthz HTTP/1.1\r\nHost:\r\n localhost\r\n\r\n",
    "two hosts": GET + b"Host: localhost\r\n\r\n",
    "two connections": GET + b"Connection: a\r\nConnection: b\r\n\r\n",
    "two upgrades": GET + b"Upgrade: websocket\r\nUpgrade: h2c\r\n\r\n",
    "two authorizations": GET + b"Authorization: a\r\nAuthorization: b\r\n\r\n",
    "HTTP/1.0": GET.replace(b"1.1", b"1.0") + b"\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/2.0": GET.replace(b"1.1", b"2.0") + b"\r\n",
    "HTTP/1.1x": GET.replace(b"1.1", b"1.1x") + b"\r\n",
    "HTTP/1.10": GET.replace(b"1.1", b"1.10") + b"\r\n",
    "http/1.1": GET.replace(b"HTTP", b"http") + b"\r\n",
    "two spaces": GET.replace(b"GET ", b"GET  ") + b"\r\n",
    "a tab for a space": GET.replace(b"z HTTP", b"z\tHTTP") + b"\r\n",
    "a space behind": GET.replace(b"1.1", b"1.1 ") + b"\r\n",
    "a space in the path": GET.replace(b"/healthz", b"/health z") + b"\r\n",
    "letters in the path": GET.replace(b"/healthz", "/ü".encode()) + b"\r\n",
    "h2c": GET + b"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
}


@pytest.mark.parametrize("name", list(SMUGGLED))
def test_t06_what_may_be_read_in_two_ways_is_refused(stage: Stage, name: str) -> None:
    """At once, and the request behind it is never answered."""
    began = time.monotonic()
    behind = request("/healthz", X_Second="1")
    heard = heard_from(stage.address, SMUGGLED[name] + behind)
    assert status(heard) in (400, 426)
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    "name", ["chunked", "two hosts", "length", "fold", "NUL in a value"]
)
def test_t06_nor_in_an_upgrade(stage: Stage, name: str) -> None:
    """The same holds for what would open a WebSocket."""
    odd = SMUGGLED[name].removeprefix(GET).partition(b"\r\n\r\n")[0]
    data = upgrade().removesuffix(b"\r\n") + odd + b"\r\n\r\n"
    assert status(heard_from(stage.address, data)) == 400


def test_t06_one_answer_for_a_connection(stage: Stage) -> None:
    """Requests behind the first are never read, in one write or later."""
    many = b"".join(request(f"/healthz?{n}") for n in range(50))
    assert status(heard_from(stage.address, many)) == 200
    with dial(stage.address) as sock:
        sock.sendall(request("/healthz"))
        assert hear(sock).body == b"ok\n"
        with contextlib.suppress(OSError):
            sock.sendall(request("/healthz"))
        assert hear_all(sock) == b""


def test_t06_a_length_of_zero_is_no_body(stage: Stage) -> None:
    """Nobody reads that in two ways."""
    assert ask(stage.address, "/healthz", Content_Length="0").status == 200


# --- T7: what was named in the handshake is what is spoken -------------------------


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    """Certificates for this machine."""
    return Authorities(tmp_path_factory.mktemp("authorities"))


class Secure:
    """A server that encrypts, and what became of it.

    Args:
        server: The server.
        authorities: Whose certificate it has.
    """

    def __init__(self, server: ThreadedHiSockServer, authorities: Authorities) -> None:
        self.authorities = authorities
        self.address = server.get_addr()
        self.joined: list[str | None] = []
        self.ran: list[bytes] = []
        server.on("join")(lambda client: self.joined.append(client["name"]))
        for command in ("ping", "message", "*"):
            server.on(command)(lambda client: self.ran.append(b"?"))


@pytest.fixture
def secure(authorities: Authorities) -> Iterator[Secure]:
    """A server with ``tls=``, which an honest client can still join in the end."""
    tls = {"ca": authorities.ca}
    with start_threaded_server((HOST, 0), tls=authorities.server) as server:
        made = Secure(server, authorities)
        yield made
        assert made.joined == []
        with connect(server.get_addr(), "honest", tls=tls):
            eventually(lambda: made.joined == ["honest"], "an honest client joins")
        assert made.ran == []


@pytest.mark.parametrize(
    ("offered", "said", "expected"),
    [
        (["http/1.1"], request("/healthz"), 200),
        (["h2", "http/1.1"], request("/healthz"), 200),
        ([], request("/healthz"), 200),
        (["http/1.1"], HIDDEN, None),
        (["http/1.1"], b"GE" + HIDDEN, None),
        (["hisock/2"], request("/healthz"), None),
        (["hisock/2"], upgrade(), None),
        (["hisock/2", "http/1.1"], request("/healthz"), None),
    ],
)
def test_t07_what_was_named_is_what_is_spoken(
    secure: Secure, offered: list[str], said: bytes, expected: int | None
) -> None:
    """A page's request in a hisock handshake is no request, and the other way round:
    both are closed without a word."""
    tls = secure.authorities.client_context()
    if offered:
        tls.set_alpn_protocols(offered)
    heard = heard_from(secure.address, said, tls)
    if expected is None:
        assert heard == b""
    else:
        assert status(heard) == expected


@pytest.mark.parametrize("offered", [["h2"], ["imap", "smtp"], ["http/1.0"]])
def test_t07_no_common_protocol_is_an_alert(secure: Secure, offered: list[str]) -> None:
    """Who means h2 or anything else is told so in the handshake."""
    tls = secure.authorities.client_context()
    tls.set_alpn_protocols(offered)
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        dial(secure.address, tls)


# --- T8: nothing goes on without encryption ----------------------------------------


@pytest.mark.parametrize(
    "said", [HIDDEN, request("/healthz"), upgrade(), b"G", b"\r\n" + HIDDEN]
)
def test_t08_plaintext_is_no_way_in(secure: Secure, said: bytes) -> None:
    """A port with ``tls=`` answers it with no more than an alert, at once."""
    began = time.monotonic()
    heard = heard_from(secure.address, said)
    assert heard in (b"", ALERT)
    assert time.monotonic() - began < 1.0


#: "This is no version of TLS" (RFC 8446 §6).
ALERT = b"\x15\x03\x01\x00\x02\x02\x46"


def test_t08_a_client_is_told_what_it_mixed_up(secure: Secure) -> None:
    """``ws://`` where there is TLS, and ``wss://`` where there is none: an error of its
    own with the cure, at once, and no message leaves in the clear."""
    host, port = "localhost", secure.address[1]
    began = time.monotonic()
    with pytest.raises(Refused, match="speaks TLS; use wss://"):
        connect(f"ws://{host}:{port}", "ann")
    with Stage() as stage:
        uri = f"wss://{host}:{stage.address[1]}"
        with pytest.raises(NotSecure, match="does not speak TLS"):
            connect(uri, "ann", tls={"ca": secure.authorities.ca})
        assert stage.joined == ["honest"]
    with pytest.raises(ClientDisconnected, match="speaks TLS, so connect with tls="):
        connect(secure.address, "ann").call("ping", timeout=5.0)
    with pytest.raises(NotSecure, match="authority not trusted"):
        connect(f"wss://{host}:{port}", "ann")
    assert time.monotonic() - began < 5.0


@pytest.mark.parametrize("said", [b"SSH-2.0-x\r\n", b"220 mail\r\n", b"\x00", b"HTTQ"])
def test_t08_what_answers_is_no_web_server(said: bytes) -> None:
    """A client that wants a WebSocket hears it at once, and believes nothing."""
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(5.0)

        def answer() -> None:
            with listener.accept()[0] as sock:
                sock.recv(1000)
                sock.sendall(said)

        answering = Thread(answer)
        with pytest.raises(HiSockError, match="speaks no HTTP"):
            connect(f"ws://{HOST}:{listener.getsockname()[1]}", "ann", reconnect=False)
        answering.result()
