"""What a server counts, for programs and for Prometheus; and what it never tells."""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from tests.contract import KINDS, Kind, Net, Record, Thread, eventually, own_address

from hisock import ClientInfo, Identity, Limits, connect, start_threaded_server
from hisock.engine.stats import REFUSALS
from hisock.errors import HiSockError, InvalidOption, RequestTimeout
from hisock.server import ThreadedHiSockServer
from hisock.web.metrics import METRICS

from .asking import PATIENCE, ask, hear, request

pytestmark = pytest.mark.timeout(15)

HOST = "127.0.0.1"
DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def page_of(server: Any) -> str:
    """What ``/metrics`` shows."""
    answered = ask(server.addr, "/metrics")
    assert answered.status == 200
    assert answered.headers["content-type"].startswith("text/plain; version=")
    assert answered.headers["cache-control"] == "no-store"
    return answered.body.decode()


def values(page: str) -> dict[str, float]:
    """Every sample by its name, with its label's value behind it."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        assert family.documentation
        for sample in family.samples:
            assert len(sample.labels) <= 1
            key = "".join([sample.name, *(f" {v}" for v in sample.labels.values())])
            assert key not in found
            found[key] = sample.value
    return found


@pytest.fixture
def server() -> Iterator[ThreadedHiSockServer]:
    """A server with ``/metrics``, and an echo."""
    with start_threaded_server((HOST, 0), metrics=True) as made:
        made.on("echo")(lambda client, content: content)
        yield made


@pytest.fixture(params=KINDS, ids=str)
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    """A server of each kind."""
    kind: Kind = request.param
    made = Net("websocket", kind, KINDS[0])
    yield made
    made.close()


def test_every_server_counts(net: Net) -> None:
    """Clients of each wire, by ``stats()`` and as a page, on each server."""
    server = net.server(metrics=True)
    joined = Record()
    server.on("join")(lambda client: joined(client["name"]))
    net.turn()
    host, port = server.addr
    with (
        connect(server.addr, "ann", "red"),
        connect(f"ws://{host}:{port}", "ben", "red"),
        connect(server.addr, "old", header_len=2),
    ):
        assert sorted(joined.take(3)) == ["ann", "ben", "old"]
        told = values(page_of(server))
        stats = server.stats()
        for wire in ("classic", "compact", "websocket"):
            assert stats[f"clients_{wire}"] == told[f"hisock_clients {wire}"] == 1
        assert stats["clients"] == told["hisock_joins_total"] == 3
        assert stats["groups"] == told["hisock_groups"] == 1
        assert told["hisock_connections"] == 4  # who asks is one, too


def test_what_goes_both_ways(server: ThreadedHiSockServer) -> None:
    """Messages and bytes are counted, also of those who left, and never go back."""
    with connect(server.addr, "ann") as client:
        assert client.call("echo", 0) == 0
        before = server.stats()
        for number in range(100):
            assert client.call("echo", number) == number
        during = server.stats()
        assert during["messages_received"] - before["messages_received"] == 100
        assert during["messages_sent"] - before["messages_sent"] == 100
        for way in ("bytes_received", "bytes_sent"):
            assert 100 * 8 <= during[way] - before[way] < 100 * 40
        assert during["joined"] - during["left"] == 1
    eventually(lambda: server.stats()["left"] == 1)
    after = server.stats()
    assert after["clients"] == after["buffered_bytes"] == 0
    for key in (*("messages_received", "messages_sent"), "bytes_received"):
        assert after[key] >= during[key]
    assert after["bytes_sent"] >= during["bytes_sent"]


def test_a_large_message_is_counted_whole(server: ThreadedHiSockServer) -> None:
    """However it is read: the largest come into a buffer of their own."""
    size = 3 * 1024 * 1024
    with connect(server.addr, "ann") as client:
        assert len(client.call("echo", bytes(size))) == size
        stats = server.stats()
    assert size < stats["bytes_received"] < size + 2000
    assert size < stats["bytes_sent"] < size + 2000


def test_what_goes_wrong(server: ThreadedHiSockServer) -> None:
    """Handlers that raise, commands without one, and what may not be, each apart."""
    server.on_error(lambda error: None)

    @server.on("boom")
    def boom(client: ClientInfo) -> None:
        raise ValueError("a secret")

    server.on("locked", requires="admin")(lambda client: None)
    server.on("rare", rate="1/h")(lambda client: None)
    with connect(server.addr, "ann") as client:
        for command in ("boom", "nobody", "locked", "rare", "rare", "boom"):
            client.send(command)
        assert client.call("echo", 1) == 1
        told = values(page_of(server))
    assert told["hisock_handler_errors_total"] == 2
    assert told["hisock_unknown_commands_total"] == 1
    assert told["hisock_forbidden_messages_total"] == 2


def test_open_calls(server: ThreadedHiSockServer) -> None:
    """Those of both sides, while they are open."""
    release = threading.Event()
    server.on("wait", threaded=True)(lambda client: release.wait(5.0) and 7)
    with connect(server.addr, "ann") as client:
        with pytest.raises(RequestTimeout):
            client.call("wait", timeout=0.05)
        eventually(lambda: server.stats()["open_requests"] == 1)
        release.set()
        eventually(lambda: server.stats()["open_requests"] == 0)
        client.on("slow")(lambda: 7)
        asked = Thread(server.call_client, "ann", "slow")
        eventually(lambda: server.stats()["open_calls"] == 1)
        client.update(PATIENCE)
        assert asked.result() == 7
        assert server.stats()["open_calls"] == 0


def test_sessions_are_counted(server: ThreadedHiSockServer) -> None:
    """Cut, gone on, and lost."""
    with connect(server.addr, "ann", resume_window=30.0) as client:
        assert client.call("echo", 1) == 1
        server.disconnect_client("ann", reason="cut", reconnect=True)
        assert client.call("echo", 2, timeout=10.0) == 2
        stats = server.stats()
        assert (stats["resumed"], stats["lost_sessions"], stats["joined"]) == (1, 0, 1)
        assert stats["messages_sent"] == 2
    with pytest.warns(UserWarning, match="25 s and more are of use"):
        lost = connect(server.addr, "ben", resume_window=0.2)
    assert lost.call("echo", 1) == 1
    lost._engine.link.sock.close()  # as if the program were gone
    eventually(lambda: server.stats()["lost_sessions"] == 1)
    assert server.stats()["left"] == 2
    lost.close()


def test_refusals_by_reason() -> None:
    """Each reason apart; a request over HTTP too."""
    limits = Limits(connections=2)
    with start_threaded_server(
        (HOST, 0), limits=limits, unique_names="reject", metrics="public"
    ) as server:
        server.authenticate(lambda credentials: credentials.token == "good")
        server.on("echo")(lambda client, content: content)
        with connect(server.addr, "ann", token="good") as ann:
            assert ann.call("echo", 1) == 1
            refuse(server, "ann", token="good")
            refuse(server, "eve", token="bad")
            with connect(server.addr, "ben", token="good") as ben:
                assert ben.call("echo", 1) == 1
                refuse(server, "one too many", token="good")
                assert ask(server.addr, host="evil.example").status == 403
                told = values(page_of(server))
    refused = {
        key.removeprefix("hisock_refused_total "): value
        for key, value in told.items()
        if key.startswith("hisock_refused_total ")
    }
    assert {key: n for key, n in refused.items() if n} == {
        "busy": 1,
        "name_taken": 1,
        "unauthorized": 1,
        "http": 1,
    }
    assert refused.keys() == {*REFUSALS, "http"}


def refuse(server: Any, name: str, **options: Any) -> None:
    """A client that is not let in."""
    with (
        pytest.raises(HiSockError),
        connect(server.addr, name, reconnect=False, **options) as client,
    ):
        client.call("echo", 1)


def test_slow_consumers() -> None:
    """Who takes nothing is cut, and counted."""
    limits = Limits(outbox=64 * 1024)
    with (
        start_threaded_server((HOST, 0), limits=limits, metrics=True) as server,
        connect(server.addr, "ann", reconnect=False, resume_window=0) as client,
    ):
        eventually(lambda: len(server) == 1)
        assert client.is_connected

        @server.every(0.001)
        def flood() -> None:
            for _ in range(20):
                server.send_all_clients("flood", bytes(60_000))

        eventually(lambda: server.stats()["slow_consumers"] == 1)
        assert values(page_of(server))["hisock_slow_consumers_total"] == 1


SECRETS = {
    "token": "s3cr3t-t0ken",
    "name": "s3cr3t-name",
    "group": "s3cr3t-group",
    "command": "s3cr3t-command",
    "content": "s3cr3t-content",
    "identity": "s3cr3t-identity",
}


def test_nothing_of_anybody_is_told() -> None:
    """No token, no name, no group, no command, no content, no address; and as many
    lines with fifty clients as with none."""
    with start_threaded_server((HOST, 0), metrics=True) as server:
        server.authenticate(lambda credentials: Identity(SECRETS["identity"]))
        server.on_error(lambda error: None)
        empty = page_of(server)
        assert empty.count("\n") == len(empty.splitlines())
        clients = [
            connect(
                server.addr,
                f"{SECRETS['name']}{number}",
                f"{SECRETS['group']}{number}",
                token=SECRETS["token"],
            )
            for number in range(50)
        ]
        try:
            for client in clients:
                client.send(SECRETS["command"], SECRETS["content"])
            eventually(lambda: server.stats()["unknown_commands"] == 50)
            full = page_of(server)
        finally:
            for client in clients:
                client.close()
    assert values(full)["hisock_clients compact"] == 50
    assert full.count("\n") == empty.count("\n")
    assert "s3cr3t" not in full
    assert HOST not in full
    for label in re.findall(r"\{(.*?)\}", full):
        assert re.fullmatch(r'(wire|reason)="[a-z_]+"', label)


def test_each_server_counts_for_itself(server: ThreadedHiSockServer) -> None:
    """Two servers of one program do not mix, and the program's own registry of
    Prometheus has nothing of ours."""
    with (
        start_threaded_server((HOST, 0), metrics=True) as other,
        connect(other.addr, "ann"),
    ):
        eventually(lambda: len(other) == 1)
        assert values(page_of(other))["hisock_joins_total"] == 1
        assert values(page_of(server))["hisock_joins_total"] == 0
    assert not [m for m in REGISTRY.collect() if m.name.startswith("hisock")]


def test_metrics_are_for_this_machine() -> None:
    """Unless they are public, nobody else sees them, not through a proxy here either;
    without the option there are none."""
    own = own_address()
    with (
        start_threaded_server(("", 0), metrics=True) as private,
        start_threaded_server(("", 0), metrics="public") as public,
        start_threaded_server(("", 0)) as without,
    ):
        for server, expected in ((private, 403), (public, 200), (without, 404)):
            here = (HOST, server.addr[1])
            status = 404 if server is without else 200
            assert ask(here, "/metrics").status == status
            proxied = ask(here, "/metrics", X_Forwarded_For=HOST)
            assert proxied.status == expected
            if own is not None:
                assert ask((own, here[1]), "/metrics", host=own).status == expected
            assert ask(here, "/healthz", X_Forwarded_For=HOST).status == 200
            assert ask(here, "/metrics", host="evil.example").status == 403


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is not made, and the error says what to install."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(InvalidOption) as caught:
        start_threaded_server((HOST, 0), metrics=True)
    assert 'pip install "hisock[metrics]"' in str(caught.value)
    start_threaded_server((HOST, 0)).close()


def test_the_document_names_them_all(server: ThreadedHiSockServer) -> None:
    """``docs/metrics.md`` has a row for each metric, with the key of ``stats()`` that
    it shows; and each key of ``stats()`` is in some row."""
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| (.*?) \|", DOCUMENT.read_text("utf-8"), re.M
    )
    told = {
        (name, kind, frozenset(re.findall(r"`(\w+)`", k))) for name, kind, k in rows
    }
    expected = {
        (
            metric.name + "_total" * metric.is_counter,
            "counter" if metric.is_counter else "gauge",
            frozenset(metric.keys.values()),
        )
        for metric in METRICS
    }
    assert told == expected
    shown = {key for metric in METRICS for key in metric.keys.values()}
    assert shown == server.stats().keys() - {"clients"}
    samples = {key.split()[0] for key in values(page_of(server))}
    assert samples == {name for name, _, _ in expected}


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs unix sockets")
def test_who_comes_by_a_unix_socket_is_here(tmp_path: Path) -> None:
    """Whoever may open its file is on this machine."""
    path = tmp_path / "s"
    with (
        start_threaded_server(f"unix:{path}", metrics=True),
        socket.socket(socket.AF_UNIX) as sock,
    ):
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        sock.sendall(request("/metrics"))
        assert hear(sock).status == 200
