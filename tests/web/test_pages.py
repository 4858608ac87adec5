"""Pages over real sockets, whatever turns the server."""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract import KINDS, Kind, Net, Thread, eventually
from tests.contract.authorities import Authorities

from hisock import ClientInfo, Limits, connect, start_threaded_server
from hisock.engine import website
from hisock.errors import InvalidOption

from .asking import ask, dial, hear, hear_all, request

pytestmark = pytest.mark.timeout(15)

HOST = "127.0.0.1"
MIB = 1024 * 1024
_STATM = Path("/proc/self/statm")


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A small site with one large file."""
    folder = tmp_path / "pages"
    (folder / "sub").mkdir(parents=True)
    (folder / "index.html").write_text("<h1>home</h1>")
    (folder / "sub" / "index.html").write_text("sub")
    with (folder / "large.bin").open("wb") as file:
        file.truncate(30 * MIB)
    (tmp_path / "secret").write_text("secret")
    return folder


@pytest.fixture(params=KINDS, ids=str)
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    """A server of each kind."""
    kind: Kind = request.param
    made = Net("websocket", kind, KINDS[0])
    yield made
    made.close()


def test_every_server_has_pages(net: Net, pages: Path) -> None:
    """Pages, redirects, refusals and ``/healthz`` come from each, beside clients."""
    server = net.server(pages=pages)
    server.on("add")(lambda client, numbers: sum(numbers))
    net.turn()
    home = ask(server.addr)
    assert (home.status, home.body) == (200, b"<h1>home</h1>")
    assert home.headers["content-type"] == "text/html; charset=utf-8"
    assert home.headers["connection"] == "close"
    assert home.headers["x-content-type-options"] == "nosniff"
    assert ask(server.addr, If_None_Match=home.headers["etag"]).status == 304
    assert ask(server.addr, "/index.html?v=2").body == home.body
    moved = ask(server.addr, "//sub")
    assert (moved.status, moved.headers["location"]) == (308, "/sub/")
    assert ask(server.addr, "/sub/").body == b"sub"
    for target in ("/nothing", "/../secret", "/%2e%2e/secret", "/..%5csecret"):
        assert ask(server.addr, target).status == 404
    assert ask(server.addr, "/..%2fsecret").status == 400
    assert ask(server.addr, host="evil.example").status == 403
    health = ask(server.addr, "/healthz")
    assert (health.status, health.body) == (200, b"ok\n")
    assert len(ask(server.addr, "/large.bin").body) == 30 * MIB
    client = net.client(server, "ann")
    net.turn(client)
    assert client.call("add", [1, 2], timeout=5.0) == 3


def test_a_slow_reader_holds_nobody_up(pages: Path) -> None:
    """Twenty take one piece of a large file and then no more: pages and clients are
    served meanwhile, and the file is not in memory."""
    with start_threaded_server((HOST, 0), pages=pages) as server:
        server.on("add")(lambda client, numbers: sum(numbers))
        slow = [dial(server.addr) for _ in range(20)]
        try:
            ask(server.addr)
            before = resident()
            for sock in slow:
                sock.sendall(request("/large.bin"))
                assert sock.recv(1000)
            with connect(server.addr, "ann") as client:
                began = time.monotonic()
                for number in range(20):
                    assert client.call("add", [1, number]) == number + 1
                    assert ask(server.addr, "/sub/").body == b"sub"
                assert time.monotonic() - began < 2.0
            assert resident() - before < 12 * MIB
        finally:
            for sock in slow:
                sock.close()
        eventually(lambda: server.stats()["connections"] == 0)


def resident() -> int:
    """Bytes of memory that this process really has; 0 where that is not known."""
    if not _STATM.exists():
        return 0
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_who_takes_nothing_is_cut(pages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for an answer begins anew with each piece: who takes none is cut, who
    is slow but steady gets all."""
    monkeypatch.setattr(website, "_ANSWER", 0.4)
    with (
        start_threaded_server((HOST, 0), pages=pages) as server,
        dial(server.addr) as stuck,
        dial(server.addr) as steady,
    ):
        stuck.sendall(request("/large.bin"))
        steady.sendall(request("/large.bin"))
        began = time.monotonic()
        pause = threading.Event()
        heard = 0
        while piece := steady.recv(MIB, socket.MSG_WAITALL):
            heard += len(piece)
            pause.wait(0.02)  # the network's pace
        assert heard > 30 * MIB
        assert time.monotonic() - began > 0.5
        eventually(lambda: server.stats()["connections"] == 0)
        assert len(hear_all(stuck)) < 30 * MIB


def test_who_has_its_answer_and_stays_is_cut(pages: Path) -> None:
    """A connection is for one answer; a second request is never read."""
    with (
        start_threaded_server((HOST, 0), pages=pages) as server,
        dial(server.addr) as sock,
    ):
        sock.sendall(request() + request("/sub/"))
        sock.sendall(request("/sub/"))
        assert hear(sock).body == b"<h1>home</h1>"
        eventually(lambda: server.stats()["connections"] == 0)


def test_a_file_that_shrinks_while_it_is_sent(pages: Path) -> None:
    """The connection ends early, so that nobody takes it for whole."""
    with start_threaded_server((HOST, 0), pages=pages) as server:
        asked = http.client.HTTPConnection(HOST, server.addr[1], timeout=5.0)
        try:
            asked.request("GET", "/large.bin")
            response = asked.getresponse()
            assert response.read(1000) == bytes(1000)
            os.truncate(pages / "large.bin", 2000)
            with pytest.raises(http.client.IncompleteRead):
                response.read()
        finally:
            asked.close()


def test_health_while_it_closes() -> None:
    """Who had connected before hears that the server is about to end."""
    release = threading.Event()
    runs = threading.Event()
    with start_threaded_server((HOST, 0)) as server:

        @server.on("hold", threaded=True)
        def hold(client: ClientInfo) -> None:
            runs.set()
            release.wait(5.0)

        with connect(server.addr, "ann") as client, dial(server.addr) as sock:
            client.send("hold")
            assert runs.wait(5.0)
            eventually(lambda: server.stats()["connections"] == 2)
            closing = Thread(lambda: server.close(drain=5.0))
            eventually(lambda: not accepts(server.addr))
            sock.sendall(request("/healthz"))
            answered = hear(sock)
            release.set()
            assert (answered.status, answered.body) == (503, b"closing\n")
            closing.result()


def accepts(address: tuple[str, int]) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(address, 1.0).close()
    except OSError:
        return False
    return True


def test_pages_over_tls(pages: Path, tmp_path: Path) -> None:
    """The same over https, large files too."""
    authorities = Authorities(tmp_path)
    tls = authorities.client_context()
    with start_threaded_server((HOST, 0), pages=pages, tls=authorities.server) as s:
        assert ask(s.addr, tls=tls).body == b"<h1>home</h1>"
        assert len(ask(s.addr, "/large.bin", tls=tls).body) == 30 * MIB
        own = f"https://localhost:{s.addr[1]}"
        host = own.removeprefix("https://")
        assert ask(s.addr, tls=tls, host=host, Origin=own).status == 200
        plain = own.replace("https", "http")
        assert ask(s.addr, tls=tls, host=host, Origin=plain).status == 403


def test_a_folder_that_is_gone(pages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is nothing that ends a server; nor is it that the program goes elsewhere."""
    monkeypatch.chdir(pages.parent)
    with start_threaded_server((HOST, 0), pages="pages") as server:
        monkeypatch.chdir("/")
        assert ask(server.addr, "/sub/").body == b"sub"
        pages.rename(pages.with_name("other"))
        assert ask(server.addr, "/sub/").status == 404


def test_without_websocket_there_is_no_http(pages: Path) -> None:
    """A server that speaks no HTTP refuses to have pages, and answers none."""
    with pytest.raises(InvalidOption, match='has to name "websocket"'):
        start_threaded_server((HOST, 0), wires=("compact",), pages=pages)
    with (
        start_threaded_server((HOST, 0), wires=("compact",)) as server,
        dial(server.addr) as sock,
    ):
        sock.sendall(request("/healthz"))
        assert hear_all(sock) == b""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pages": "nowhere"}, "there is no folder"),
        ({"pages": 7}, "pages is a folder, not 7"),
        ({"pages": b"x"}, "pages is a folder, not b'x'"),
        ({"metrics": "yes"}, "True, False"),
        ({"allowed_hosts": "example.org"}, "a list of text"),
        ({"allowed_hosts": [7]}, "a list of text"),
        ({"allowed_hosts": ["https://example.org"]}, "without .https://. and port"),
        ({"allowed_hosts": ["example.org:80"]}, "without .https://. and port"),
        ({"allowed_hosts": ["*"]}, "without .https://. and port"),
        ({"allowed_origins": ["example.org"]}, "like .https://example.org"),
        ({"allowed_origins": ["https://example.org/"]}, "without a path"),
        ({"allowed_origins": ["*"]}, r"without \*"),
        ({"allowed_origins": ["https://*.org"]}, r"without \*"),
        ({"allowed_origins": ["null"]}, "like .https://example.org"),
    ],
)
def test_what_a_server_cannot_have(options: dict[str, Any], says: str) -> None:
    """It is refused before anything listens, and says what would be right."""
    with (
        # Were it to listen first, that would be the error.
        socket.create_server((HOST, 0)) as taken,
        pytest.raises(InvalidOption, match=says),
    ):
        start_threaded_server(taken.getsockname(), **options)


def test_there_is_no_such_option() -> None:
    """A name that is spelled in another way is told."""
    with pytest.raises(TypeError, match="no option 'page'"):
        start_threaded_server((HOST, 0), page="x")  # type: ignore[call-arg]


def test_limits_hold_before_the_head_is_read() -> None:
    """Who never ends its request is cut when the time for a hello is over."""
    with (
        start_threaded_server((HOST, 0), limits=Limits(handshake=0.3)) as server,
        dial(server.addr) as sock,
    ):
        began = time.monotonic()
        sock.sendall(request("/healthz")[:-2])
        assert hear_all(sock).startswith(b"HTTP/1.1 408 ")
        assert 0.2 < time.monotonic() - began < 2.0
