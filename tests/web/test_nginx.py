"""Behind Debian's nginx, with the very file that ``docs/nginx.conf`` shows."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract import Record, eventually
from tests.contract.authorities import Authorities

from hisock import ClientInfo, connect, start_threaded_server
from hisock.server import ThreadedHiSockServer

from .asking import PATIENCE, ask, dial, hear, request

CONFIG = Path(__file__).parents[2] / "docs" / "nginx.conf"
HOST = "127.0.0.1"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

pytestmark = [
    pytest.mark.timeout(30),
    pytest.mark.skipif(
        NGINX is None and "CI" not in os.environ,
        reason="needs nginx: apt-get install nginx-light",
    ),
]

#: What Debian has around the file, as far as it matters, in a folder of the test's.
AROUND = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log notice;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    include {folder}/hisock.conf;
}}
"""


def free_port() -> int:
    """A port that was free just now: nginx cannot say which one it took."""
    with socket.create_server((HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Nginx:
    """nginx in front of a server.

    Args:
        folder: Where its files are.
        behind: The port of the server.
        tls: Certificate and key; ``None`` for none.
    """

    def __init__(
        self, folder: Path, behind: int, tls: dict[str, str] | None = None
    ) -> None:
        self._folder = folder
        self._behind = behind
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self._ran = False
        self.port = free_port()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return HOST, self.port

    @property
    def uri(self) -> str:
        """What clients connect to."""
        return f"{'ws' if self._tls is None else 'wss'}://localhost:{self.port}/"

    def start(self) -> None:
        """Begin to listen; on the port of before, if it ran already."""
        while not self._begin():
            assert not self._ran, f"port {self.port} was taken meanwhile"
            self.port = free_port()
        self._ran = True

    def _begin(self) -> bool:
        """Start it; whether it could have its port."""
        assert NGINX is not None, "apt-get install nginx-light"
        text = _once(CONFIG.read_text(), "127.0.0.1:6969", f"{HOST}:{self._behind}")
        listen = f"listen {HOST}:{self.port}"
        if self._tls is None:
            text = _once(text, "    listen 80", f"    {listen}")
        else:
            text = _once(text, "    listen 80;\n", "")
            text = _once(text, "#tls listen 443", listen).replace("#tls ", "")
            text = _once(text, "/etc/ssl/example.org.pem", self._tls["cert"])
            text = _once(text, "/etc/ssl/example.org.key", self._tls["key"])
        (self._folder / "hisock.conf").write_text(text)
        around = self._folder / "nginx.conf"
        around.write_text(AROUND.format(folder=self._folder))
        self._process = subprocess.Popen(
            [NGINX, "-p", str(self._folder), "-c", str(around)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(self._is_up_or_gone)
        if self._process.poll() is None:
            return True
        said = (self._folder / "error.log").read_text()
        assert "Address already in use" in said, said
        return False

    def _is_up_or_gone(self) -> bool:
        assert self._process is not None
        with contextlib.suppress(OSError):
            dial(self.address).close()
            return True
        return self._process.poll() is not None

    def stop(self) -> None:
        """End it, with all its connections."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE)
            self._process = None


def _once(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ThreadedHiSockServer]:
    """A server as the file says, with pages."""
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.html").write_text("home")
    (tmp_path / "pages" / "large.bin").write_bytes(bytes(5_000_000))
    with start_threaded_server(
        (HOST, 0),
        allowed_hosts=["example.org"],
        pages=tmp_path / "pages",
        metrics=True,
    ) as made:
        made.on("add")(lambda client, numbers: sum(numbers))
        made.on("shout")(lambda client, text: client.send("echo", text.upper()))
        yield made


@pytest.fixture
def nginx(tmp_path: Path, server: ThreadedHiSockServer) -> Iterator[Nginx]:
    """nginx in front of it."""
    (tmp_path / "nginx").mkdir()
    made = Nginx(tmp_path / "nginx", server.addr[1])
    made.start()
    yield made
    made.stop()


def test_pages_behind_nginx(nginx: Nginx, server: ThreadedHiSockServer) -> None:
    """Pages and ``/healthz`` pass; the server decides by the name that was asked for;
    ``/metrics`` stays on this machine."""
    assert ask(nginx.address).body == b"home"
    assert ask(nginx.address, "/large.bin").body == bytes(5_000_000)
    assert ask(nginx.address, "/healthz", host="example.org").body == b"ok\n"
    assert ask(nginx.address, "/healthz", host="evil.example").status == 403
    host = f"example.org:{nginx.port}"
    for origin, expected in ((f"http://{host}", 200), ("http://evil.example", 403)):
        answered = ask(nginx.address, "/healthz", host=host, Origin=origin)
        assert answered.status == expected
    assert ask(nginx.address, "/metrics").status == 403
    assert ask(server.addr, "/metrics").status == 200


def test_a_client_behind_nginx(nginx: Nginx, server: ThreadedHiSockServer) -> None:
    """Messages and calls both ways, a large one, a group, and a goodbye at once."""
    left = Record()
    server.on("leave")(lambda client: left(client["name"]))
    with connect(nginx.uri, "ann", "red") as client:
        assert client.wire == "websocket"
        assert client.call("add", [1, 2]) == 3
        client.send("shout", "hello")
        assert client.recv("echo", timeout=PATIENCE) == "HELLO"
        client.send("shout", "a" * 2_000_000)
        assert client.recv("echo", timeout=PATIENCE) == "A" * 2_000_000
        server.group("red").send("news", 7)
        assert client.recv("news", timeout=PATIENCE) == 7
        client.on("double")(lambda number: number * 2)
        asked = []
        server.on("ask", threaded=True)(
            lambda client: asked.append(client.call("double", 21))
        )
        client.send("ask")
        client.update(PATIENCE)
        eventually(lambda: asked == [42])
    assert left.next() == "ann"


def test_nginx_is_started_anew(nginx: Nginx, server: ThreadedHiSockServer) -> None:
    """A client comes back to its session, and nothing is lost or comes twice."""
    events, got = Record(), Record()
    server.on_drop(lambda client: events("drop"))
    server.on_resume(lambda client: events("resume"))
    server.on("leave")(lambda client: events("leave"))
    server.on("number")(lambda client, number: got(number))
    with connect(nginx.uri, "ann") as client:
        assert client.call("add", [1]) == 1
        for round_ in range(2):
            nginx.stop()
            assert events.next() == "drop"
            for number in range(10):
                client.send("number", 10 * round_ + number)
                server.send_client("ann", "number", 10 * round_ + number)
            nginx.start()
            for number in range(10):
                assert client.recv("number", timeout=10.0) == 10 * round_ + number
            assert events.next() == "resume"
    assert got.take(20) == list(range(20))
    assert events.next() == "leave"


def test_no_forwarded_address_is_believed(
    nginx: Nginx, server: ThreadedHiSockServer
) -> None:
    """Anybody can write such a header: a client's address is that of its connection."""
    seen: list[ClientInfo] = []
    server.on("join")(seen.append)
    with connect(nginx.uri, "ann") as client:
        assert client.call("add", [1]) == 1
    assert seen[0]["ip"][0] == HOST
    told = ask(nginx.address, "/metrics", X_Forwarded_For=HOST, Forwarded="for=_x")
    assert told.status == 403


def test_the_server_is_away(nginx: Nginx, server: ThreadedHiSockServer) -> None:
    """nginx says so, and a client that is in comes back once it is there again."""
    address = server.addr
    lost = Record()
    with connect(nginx.uri, "ann") as client:
        client.on_session_lost(lost)
        assert client.call("add", [1]) == 1
        server.close(reconnect=True)
        assert ask(nginx.address).status == 502
        with start_threaded_server(address) as other:
            other.on("add")(lambda client, numbers: sum(numbers))
            client.update(PATIENCE)
            assert len(lost) == 1
            assert client.call("add", [2, 2]) == 4


def test_nginx_encrypts(tmp_path: Path, server: ThreadedHiSockServer) -> None:
    """``wss://`` and ``https://`` end in nginx; its pages are of another origin then,
    which the server has to know."""
    authorities = Authorities(tmp_path)
    tls = authorities.client_context()
    own = "https://localhost"
    with start_threaded_server((HOST, 0), allowed_origins=[own]) as knowing:
        for behind, expected in ((knowing, 200), (server, 403)):
            folder = tmp_path / f"nginx-{expected}"
            folder.mkdir()
            nginx = Nginx(folder, behind.addr[1], authorities.server)
            nginx.start()
            try:
                behind.on("ping")(lambda client: "pong")
                with connect(nginx.uri, "ann", tls={"ca": authorities.ca}) as client:
                    assert client.call("ping") == "pong"
                with dial(nginx.address, tls) as sock:
                    sock.sendall(request("/healthz", Origin=own))
                    assert hear(sock).status == expected
            finally:
                nginx.stop()
