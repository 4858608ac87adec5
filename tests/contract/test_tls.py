"""TLS: whatever ``tls=`` may be, all is as without; and who is not to be trusted is
not spoken to."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from hisock import ClientInfo, Limits
from hisock.client import HiSockClient
from hisock.errors import (
    CertificateChanged,
    ClientDisconnected,
    HiSockError,
    InvalidOption,
    NotSecure,
)
from hisock.server import HiSockServer

from . import LOCALHOST, PATIENCE, Kind, Net, Record, Thread, eventually
from .authorities import Authorities, fingerprint_of
from .cutting import CutWay

MIB = 1024 * 1024
#: What is sent between two cuts.
SOME = 30
#: Seconds that a handshake may take where a test waits for that.
SHORT = 0.25

FACES = (
    Kind("plain", "blocking"),
    Kind("plain", "nonblocking"),
    Kind("threaded", "blocking"),
    Kind("async", "asyncio"),
    Kind("async", "uvloop"),
)

#: What both sides may say, and how each is made.
FORMS: dict[str, tuple[Callable[[Authorities], Any], Callable[[Authorities], Any]]] = {
    "files, ca": (lambda a: a.server, lambda a: {"ca": a.ca}),
    "context, context": (
        Authorities.server_context,
        Authorities.client_context,
    ),
    "files, system": (lambda a: a.server, lambda a: True),
    "files, fingerprint": (
        lambda a: a.server,
        lambda a: {"fingerprint": fingerprint_of(a.server["cert"])},
    ),
    "auto, auto": (lambda a: "auto", lambda a: "auto"),
    "both show one": (
        lambda a: {**a.server, "ca": a.ca},
        lambda a: {**a.client, "ca": a.ca},
    ),
}


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    """Who signs certificates, and whom."""
    return Authorities(tmp_path_factory.mktemp("authorities"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of this test."""
    monkeypatch.setenv("HISOCK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(params=FACES, ids=str)
def peers(request: pytest.FixtureRequest) -> Iterator[Net]:
    """Servers and clients of one face."""
    made = Net("compact", request.param, request.param)
    yield made
    made.close()


@pytest.fixture(params=[FACES[0], FACES[3]], ids=str)
def some(request: pytest.FixtureRequest) -> Iterator[Net]:
    """The same of two faces, for what a wait makes slow."""
    made = Net("compact", request.param, request.param)
    yield made
    made.close()


@pytest.fixture
def mixed() -> Iterator[Net]:
    """Blocking clients of a server that turns itself."""
    made = Net("compact", Kind("threaded", "blocking"), Kind("plain", "blocking"))
    yield made
    made.close()


class SecureWay(CutWay):
    """As ``CutWay``; its server is turned from the beginning, or no client could shake
    hands with it."""

    def listen_to(self, server: Any) -> None:
        """Note what becomes of the client on that server, and turn it."""
        super().listen_to(server)
        self.net.turn(server)


def serve(net: Net, tls: Any, **options: Any) -> tuple[HiSockServer, Record]:
    """A server that is turned, and who has joined it."""
    server, joined = net.server(tls=tls, **options), Record()

    @server.on("join")
    def join(client: ClientInfo) -> None:
        joined(client["name"])

    @server.on("add")
    def add(client: ClientInfo, numbers: list[int]) -> int:
        return sum(numbers)

    net.turn(server)
    return server, joined


def enter(net: Net, server: Any, tls: Any, name: str = "ann") -> HiSockClient:
    """A client that is turned."""
    client = net.client(server, name, tls=tls)
    net.turn(client)
    return client


def enter_and_add(net: Net, server: HiSockServer, tls: Any) -> Any:
    """A client that is turned and calls."""
    return enter(net, server, tls).call("add", [1], timeout=PATIENCE)


def send_numbered(client: HiSockClient, who: int) -> None:
    """Send some messages that fill most of a record."""
    for number in range(60):
        client.send("it", [who, number, b"x" * 700])


@contextmanager
def nobody_harmed(net: Net, server: HiSockServer, tls: Any) -> Iterator[None]:
    """An honest client goes on, whatever others do meanwhile."""
    honest = enter(net, server, tls, "honest")
    assert honest.call("add", [1, 2], timeout=PATIENCE) == 3
    yield
    assert honest.call("add", [3, 4], timeout=PATIENCE) == 7
    assert [client["name"] for client in server] == ["honest"]


# --- what works ------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_all_is_as_without(peers: Net, authorities: Authorities, form: str) -> None:
    """Calls, streams and large messages both ways, for whatever ``tls=`` may be."""
    of_server, of_client = (make(authorities) for make in FORMS[form])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", authorities.ca)
        server, joined = serve(peers, of_server)
        client = peers.client(server, "ann", tls=of_client)
    up, down = Record(), Record()

    @server.on("count")
    def count(client: ClientInfo, upto: int) -> Iterator[int]:
        yield from range(upto)

    server.on("large")(lambda client, content: up(content))
    client.on("large")(lambda content: down(content))
    client.on("double")(lambda number: 2 * number)
    peers.turn(client)
    assert joined.next() == "ann"
    assert client.call("add", [1, 2, 3], timeout=PATIENCE) == 6
    may_not_wait = peers.server_kind.is_async or peers.server_kind.threaded
    assert may_not_wait or server.call_client("ann", "double", 21, timeout=PATIENCE)
    assert list(client.stream("count", 300, timeout=PATIENCE)) == list(range(300))
    large = os.urandom(MIB)
    client.send("large", large)
    server.send_client("ann", "large", large)
    assert up.next() == large
    assert down.next() == large


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_cut_loses_nothing(
    peers: Net, authorities: Authorities, how: Any, up: bool
) -> None:
    """Nor does a second one, nor anything large that was in the middle."""
    way = SecureWay(
        peers,
        up=up,
        server={"tls": authorities.server},
        client={"tls": {"ca": authorities.ca}},
    )
    got = Record()
    way.on("it")(lambda message: got(message))
    way.turn()
    sent: list[Any] = []
    for round_ in range(2):
        way.hold(way.there)
        sent += [SOME * round_ + n for n in range(SOME)] + [bytes([round_]) * MIB]
        for content in sent[-SOME - 1 :]:
            way.send("it", content)
        way.cut(how)
        sent.append(f"after {round_}")
        way.send("it", sent[-1])
        assert got.take(SOME + 2) == sent[-SOME - 2 :]
    way.expect("drop")
    way.expect("resume")


def test_the_fingerprint_can_be_told_to_clients(
    peers: Net, authorities: Authorities
) -> None:
    """That of a file is its own, ``"auto"`` has one, a context of the user's none."""
    server, _ = serve(peers, authorities.server)
    assert server.fingerprint == fingerprint_of(authorities.server["cert"])
    own, joined = serve(peers, "auto")
    enter(peers, own, {"fingerprint": own.fingerprint})
    assert joined.next() == "ann"
    assert serve(peers, authorities.server_context())[0].fingerprint is None
    assert serve(peers, None)[0].fingerprint is None


def test_an_authenticated_client_is_called_by_its_certificate(
    mixed: Net, authorities: Authorities
) -> None:
    """The check sees the names that the client's authority vouches for."""
    server, _ = serve(mixed, {**authorities.server, "ca": authorities.ca})
    seen = Record()

    @server.authenticate
    def check(credentials: Any) -> bool:
        seen(credentials.certificate_names)
        return True

    enter(mixed, server, {**authorities.client, "ca": authorities.ca})
    assert "ann@example.org" in seen.next()


def test_a_new_certificate_is_for_new_connections(
    mixed: Net, authorities: Authorities, tmp_path: Path
) -> None:
    """It is found without a restart, and who is connected does not notice."""
    files = {kind: str(tmp_path / kind) for kind in ("cert", "key")}

    def show(certificate: dict[str, str]) -> None:
        for kind, path in certificate.items():
            draft = tmp_path / "draft"
            draft.write_bytes(Path(path).read_bytes())
            draft.replace(files[kind])

    show(authorities.server)
    server, _ = serve(mixed, files)
    first, second = (
        fingerprint_of(each["cert"]) for each in (authorities.server, authorities.other)
    )
    with nobody_harmed(mixed, server, {"fingerprint": first}):
        show(authorities.other)
        eventually(lambda: shown_by(server, authorities) == second)
        assert server.fingerprint == second


def shown_by(server: HiSockServer, authorities: Authorities) -> str:
    """The fingerprint that somebody sees who connects now."""
    context = authorities.client_context()
    with (
        socket.create_connection(server.addr, PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname=LOCALHOST) as secure,
    ):
        pem = ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"")
    path = authorities.folder / "shown.pem"
    path.write_text(pem)
    return fingerprint_of(str(path))


# --- what does not ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("certificate", "says"),
    [
        ("foreign", 'authority not trusted here; give its file as tls={"ca": ...}'),
        ("expired", "has expired; renew it"),
        ("elsewhere", "is for another address; connect by a name that it has"),
    ],
)
def test_a_server_that_cannot_be_trusted_hears_nothing(
    peers: Net, authorities: Authorities, certificate: str, says: str
) -> None:
    """The error says what is wrong with it, and what to do."""
    server, joined = serve(peers, getattr(authorities, certificate))
    with pytest.raises(NotSecure) as caught:
        peers.client(server, "ann", tls={"ca": authorities.ca})
    assert says in str(caught.value)
    assert f"{LOCALHOST}:{server.addr[1]}" in str(caught.value)
    with nobody_harmed(peers, server, {"fingerprint": server.fingerprint}):
        assert joined.next() == "honest"


def test_another_fingerprint_is_refused(peers: Net, authorities: Authorities) -> None:
    """With the one that was expected, and the one that came."""
    server, joined = serve(peers, authorities.server)
    other = fingerprint_of(authorities.other["cert"])
    with pytest.raises(CertificateChanged) as caught:
        peers.client(server, "ann", tls={"fingerprint": other})
    assert (caught.value.old, caught.value.new) == (other, server.fingerprint)
    assert other in str(caught.value)
    with nobody_harmed(peers, server, {"ca": authorities.ca}):
        assert joined.next() == "honest"


def test_a_changed_pin_is_refused(
    peers: Net, authorities: Authorities, home: Path
) -> None:
    """The text names the file and the line to delete, if it is meant."""
    server, _ = serve(peers, authorities.server)
    enter(peers, server, "auto")
    proxy = peers.proxy(server)
    enter(peers, proxy, "auto", "bob")
    proxy.target = serve(peers, authorities.other)[0].addr
    with pytest.raises(CertificateChanged) as caught:
        peers.client(proxy, "eve", tls="auto")
    assert caught.value.file == str(home / "known_servers")
    assert f"delete line 2 of {caught.value.file}" in str(caught.value)


@pytest.mark.parametrize("tls", ["auto", "fingerprint"])
def test_a_server_that_came_back_as_another_is_not_spoken_to(
    some: Net, authorities: Authorities, tls: str
) -> None:
    """The client ends, says why, and does not try again."""
    first = fingerprint_of(authorities.server["cert"])
    way = SecureWay(
        some,
        up=True,
        server={"tls": authorities.server},
        client={"tls": "auto" if tls == "auto" else {"fingerprint": first}},
    )
    way.turn()
    other, joined = serve(some, authorities.other)
    way.proxy.target = other.addr
    way.cut("rst")
    assert way.told_client.next() == "drop"
    assert way.told_client.next() == "end"
    assert not way.client.is_connected
    with pytest.raises(ClientDisconnected) as caught:
        way.client.send("it", b"x")
    assert isinstance(caught.value.__cause__, CertificateChanged)
    assert caught.value.__cause__.new == fingerprint_of(authorities.other["cert"])
    tries = way.proxy.connections
    assert not way.proxy.wait_for(lambda: way.proxy.connections > tries, 0.4)
    assert not len(joined)


def test_a_client_in_plaintext_is_told(peers: Net, authorities: Authorities) -> None:
    """A server with ``tls=`` never takes plaintext, and the client learns why."""
    server, joined = serve(peers, authorities.server)
    with nobody_harmed(peers, server, {"ca": authorities.ca}):
        assert joined.next() == "honest"
        client = enter(peers, server, None, "bare")
        with pytest.raises(HiSockError) as caught:
            client.call("add", [1], timeout=PATIENCE)
        assert "TLS" in str(caught.value)
        assert not client.is_connected
        assert not len(joined)


def test_a_server_in_plaintext_is_not_spoken_to(
    peers: Net, authorities: Authorities
) -> None:
    """A client with ``tls=`` never falls back."""
    server, joined = serve(peers, None)
    with nobody_harmed(peers, server, None):
        assert joined.next() == "honest"
        for tls in ({"ca": authorities.ca}, "auto"):
            with pytest.raises(NotSecure, match="drop tls= here or set it there"):
                peers.client(server, "ann", tls=tls)
        assert not len(joined)


def test_who_says_http_in_the_handshake_is_no_client(
    some: Net, authorities: Authorities
) -> None:
    """A page's bytes to a port of ours are no hello, whatever they are (ALPACA)."""
    server, joined = serve(some, authorities.server)
    with nobody_harmed(some, server, {"ca": authorities.ca}):
        assert joined.next() == "honest"
        context = ssl.create_default_context(cafile=authorities.ca)
        context.set_alpn_protocols(["http/1.1"])
        with (
            socket.create_connection(server.addr, PATIENCE) as sock,
            context.wrap_socket(sock, server_hostname=LOCALHOST) as secure,
        ):
            assert secure.selected_alpn_protocol() == "http/1.1"
            hello = b'$CLTHELLO$ {"name": "ann", "group": null}'
            secure.sendall(str(len(hello)).ljust(16).encode() + hello)
            read_to_the_end(secure)
        assert not len(joined)


@pytest.mark.parametrize("shows", ["none", "a stranger's"])
def test_who_has_to_show_a_certificate_and_has_none_stays_out(
    peers: Net, authorities: Authorities, shows: str
) -> None:
    """It is told so, however late in the handshake."""
    server, joined = serve(peers, {**authorities.server, "ca": authorities.ca})
    known = {**authorities.client, "ca": authorities.ca}
    with nobody_harmed(peers, server, known):
        assert joined.next() == "honest"
        own = {} if shows == "none" else authorities.foreign_client
        with pytest.raises((NotSecure, ClientDisconnected)) as caught:
            enter_and_add(peers, server, {**own, "ca": authorities.ca})
        expected = "wants a certificate" if not own else "does not trust"
        assert expected in str(caught.value)
        assert not len(joined)


@pytest.mark.parametrize(
    ("tls", "says"),
    [
        ("default", "encrypted nothing"),
        (True, "SSLContext"),
        ({"ca": "x"}, "SSLContext"),
        ({"cert": "nowhere.pem"}, "nowhere.pem"),
        ({"cert": "x", "sert": "y"}, "'sert'"),
    ],
)
def test_what_a_server_cannot_have(tls: Any, says: str) -> None:
    """It is refused before anything listens."""
    net = Net("compact", FACES[0], FACES[0])
    with pytest.raises(InvalidOption, match=says):
        net.server(tls=tls)


@pytest.mark.parametrize(
    ("tls", "says"),
    [
        ("default", "SSLContext"),
        ({}, "SSLContext"),
        ({"fingerprint": "SHA256:no"}, "43 characters"),
        ({"ca": "nowhere.pem"}, "nowhere.pem"),
        ({"cert": "x", "sert": "y"}, "'sert'"),
    ],
)
def test_what_a_client_cannot_have(mixed: Net, tls: Any, says: str) -> None:
    """It is refused before anything is dialled."""
    server, joined = serve(mixed, None)
    with pytest.raises(InvalidOption, match=says):
        mixed.client(server, "ann", tls=tls)
    assert not len(joined)


# --- handshakes that do not end ---------------------------------------------------


def hello_of_tls() -> bytes:
    """What a client of TLS says first."""
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(
        ssl.MemoryBIO(), outgoing, server_hostname=LOCALHOST
    )
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("said", [0, 3, 200, 10_000])
def test_a_handshake_that_stops_is_given_up(
    some: Net, authorities: Authorities, said: int
) -> None:
    """Wherever it stops: the limit for the hello counts from the connection on."""
    limits = Limits(handshake=SHORT)
    server, joined = serve(some, authorities.server, limits=limits)
    with nobody_harmed(some, server, {"ca": authorities.ca}):
        assert joined.next() == "honest"
        began = time.monotonic()
        with socket.create_connection(server.addr, PATIENCE) as sock:
            sock.sendall(hello_of_tls()[:said])
            read_to_the_end(sock)
        assert SHORT * 0.9 < time.monotonic() - began < SHORT + 2
        assert not len(joined)


def test_who_shakes_hands_and_says_no_more_is_given_up(
    some: Net, authorities: Authorities
) -> None:
    """The hello is behind it, and has to come in the same time."""
    limits = Limits(handshake=SHORT)
    server, joined = serve(some, authorities.server, limits=limits)
    with nobody_harmed(some, server, {"ca": authorities.ca}):
        assert joined.next() == "honest"
        began = time.monotonic()
        with (
            socket.create_connection(server.addr, PATIENCE) as plain,
            authorities.client_context().wrap_socket(
                plain, server_hostname=LOCALHOST
            ) as secure,
        ):
            read_to_the_end(secure)
        assert time.monotonic() - began < SHORT + 2


def test_a_handshake_in_drops_is_given_up(mixed: Net, authorities: Authorities) -> None:
    """A byte now and then does not prolong it."""
    limits = Limits(handshake=SHORT)
    server, joined = serve(mixed, authorities.server, limits=limits)
    with nobody_harmed(mixed, server, {"ca": authorities.ca}):
        assert joined.next() == "honest"
        proxy = mixed.proxy(server)
        proxy.dribble(1, pause=0.02)
        began = time.monotonic()
        with socket.create_connection(proxy.address, PATIENCE) as sock:
            sock.sendall(hello_of_tls())
            read_to_the_end(sock)
        assert time.monotonic() - began < SHORT + 2


def test_a_silent_server_is_not_waited_for_by_others(
    mixed: Net, authorities: Authorities
) -> None:
    """Fifty who stop in the middle cost an honest newcomer nothing."""
    server, joined = serve(mixed, authorities.server, limits=Limits(unfinished=20))
    greeting = hello_of_tls()
    idle = [socket.create_connection(server.addr, PATIENCE) for _ in range(50)]
    try:
        for number, sock in enumerate(idle):
            with suppress(OSError):  # a victim of the limit already
                sock.sendall(greeting[: 10 * number])
        began = time.monotonic()
        client = enter(mixed, server, {"ca": authorities.ca})
        assert client.call("add", [1, 2], timeout=PATIENCE) == 3
        assert time.monotonic() - began < 1
        assert joined.next() == "ann"
    finally:
        for sock in idle:
            sock.close()


def read_to_the_end(sock: socket.socket) -> None:
    """Read what comes, until the other side ends it in whatever way."""
    with suppress(ConnectionResetError, ssl.SSLEOFError):
        while sock.recv(65536):
            pass


def test_threads_that_send_do_not_tear_a_record(
    peers: Net, authorities: Authorities
) -> None:
    """All that several threads send at once arrives whole, each in its order."""
    server, _ = serve(peers, authorities.server)
    got = Record()
    server.on("it")(lambda client, content: got(content))
    client = enter(peers, server, {"ca": authorities.ca})
    threads = [Thread(send_numbered, client, who) for who in range(3)]
    for thread in threads:
        thread.result()
    came = got.take(180)
    for number in range(3):
        assert [i for n, i, _ in came if n == number] == list(range(60))
