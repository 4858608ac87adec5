"""The dashboard as HTTP answers it: who may ask, and what becomes of it."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.faults.raw import Raw, sockets_at

from hisock import (
    ClientInfo,
    HiSockClient,
    HiSockServer,
    Limits,
    ThreadedHiSockServer,
    connect,
    start_threaded_server,
)
from hisock.aio import start_server as start_async_server
from hisock.errors import InvalidOption
from hisock.session.connection import LINGER
from hisock.web.dashboard import Dashboard, is_dashboard
from hisock.web.routes import is_loopback
from hisock.wire.http import Head, HttpError, Response

from .asking import hear

HOST = "127.0.0.1"
OURS = {"X-Hisock-Dashboard": "1"}


class Browser:
    """Asks a server's dashboard, as its page does.

    Args:
        server: The server.
    """

    def __init__(self, server: HiSockServer) -> None:
        assert server.dashboard_url is not None
        self.url, _, self.token = server.dashboard_url.partition("#token=")
        self.port: int = server.addr[1]

    def ask(
        self, path: str, *, headers: dict[str, str] | None = None, **fields: Any
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Ask for a path below /dashboard."""
        if headers is None:
            headers = OURS | {"Authorization": f"Bearer {self.token}"}
        target = f"/dashboard{path}" + (f"?{urlencode(fields)}" if fields else "")
        link = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            link.request("GET", target, headers=headers)
            answer = link.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            link.close()

    def data(self, **fields: Any) -> dict[str, Any]:
        """What the page shows."""
        status, headers, body = self.ask("/data", **fields)
        assert status == HTTPStatus.OK, body
        assert headers["Content-Type"] == "application/json"
        assert headers["Cache-Control"] == "no-store"
        found: dict[str, Any] = json.loads(body)
        return found

    def eventually(
        self, is_so: Callable[[dict[str, Any]], object], **fields: Any
    ) -> dict[str, Any]:
        """Ask until it is so: the test's time-out is the end of it."""
        while not is_so(data := self.data(**fields)):
            pass
        return data


@pytest.fixture
def server() -> Iterator[ThreadedHiSockServer]:
    """A server with a dashboard and a few handlers."""
    with start_threaded_server((HOST, 0), dashboard=True) as server:
        server.on("double")(lambda client, number: number * 2)

        @server.on("say")
        def say(client: Any, text: str) -> None:
            """Take anything."""

        @server.on("fail")
        def fail(client: Any) -> None:
            raise ValueError("on purpose")

        @server.on("number")
        def number(client: Any, number: int) -> None:
            """Take a number only."""

        yield server


@pytest.fixture
def ann(server: ThreadedHiSockServer) -> Iterator[HiSockClient]:
    """A client."""
    with connect(server.addr, name="ann", group="red", reconnect=False) as ann:
        assert ann.call("double", 1) == 2
        yield ann


def test_a_file_that_nobody_fetches_is_let_go() -> None:
    """Whoever goes away amid it costs no descriptor."""
    nothing: Any = None
    dashboard = Dashboard(nothing, "token", is_public=True)
    response = dashboard.answer(Head("/dashboard/dashboard.js", {}), HOST)
    assert response.status is HTTPStatus.OK

    response.close()
    assert list(response.body) == []


def test_a_slow_network_gets_all_of_the_data(server: ThreadedHiSockServer) -> None:
    """Even if it takes longer than a peer has to end a connection that is done."""
    (listening,) = sockets_at(server.addr)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with connect(server.addr, "ann", reconnect=False) as ann:
        assert ann.call("double", 1) == 2
        for number in range(120):
            server.join_group("ann", f"{number:0250}")
        browser = Browser(server)
        headers = "".join(f"{name}: {text}\r\n" for name, text in OURS.items())
        with Raw.call(server.addr, buffer=4096) as slow:
            slow.send(
                f"GET /dashboard/data HTTP/1.1\r\nHost: {HOST}\r\n{headers}"
                f"Authorization: Bearer {browser.token}\r\n\r\n".encode()
            )
            time.sleep(LINGER * 2.5)
            assert len(hear(slow.sock).body) > 120 * 250


# --- who may ask ---------------------------------------------------------------------


def test_it_is_off_unless_asked() -> None:
    """There is nothing there, and no link to it."""
    with start_threaded_server((HOST, 0)) as server:
        assert server.dashboard_url is None
        link = http.client.HTTPConnection(HOST, server.addr[1], timeout=5)
        for path in ("", "/", "/data", "/dashboard.js"):
            link.request("GET", f"/dashboard{path}")
            answer = link.getresponse()
            answer.read()
            assert answer.status == HTTPStatus.NOT_FOUND
            link.close()


def test_the_page_is_there_without_a_token(server: ThreadedHiSockServer) -> None:
    """The shell, its style and its script, which have no data in them."""
    with connect(server.addr, name="a name that is secret", reconnect=False) as client:
        assert client.call("double", 1) == 2
        browser = Browser(server)
        for path, kind in (
            ("", "text/html; charset=utf-8"),
            ("/dashboard.css", "text/css; charset=utf-8"),
            ("/dashboard.js", "text/javascript; charset=utf-8"),
        ):
            status, headers, body = browser.ask(path, headers={})
            assert (status, headers["Content-Type"]) == (HTTPStatus.OK, kind)
            assert b"secret" not in body
            assert browser.token.encode() not in body


def test_the_folder_leads_to_the_page(server: ThreadedHiSockServer) -> None:
    """So that the page's own links fit."""
    status, headers, _ = Browser(server).ask("/", headers={})

    assert status == HTTPStatus.PERMANENT_REDIRECT
    assert headers["Location"] == "../dashboard"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, HTTPStatus.FORBIDDEN),
        (OURS, HTTPStatus.UNAUTHORIZED),
        (OURS | {"Authorization": "Bearer"}, HTTPStatus.UNAUTHORIZED),
        (OURS | {"Authorization": "Bearer wrong"}, HTTPStatus.UNAUTHORIZED),
        (OURS | {"Authorization": "Bearer {token}x"}, HTTPStatus.UNAUTHORIZED),
        (OURS | {"Authorization": "Bearer \xe9"}, HTTPStatus.UNAUTHORIZED),
        (OURS | {"Authorization": "Basic {token}"}, HTTPStatus.UNAUTHORIZED),
        (OURS | {"Authorization": "{token}"}, HTTPStatus.UNAUTHORIZED),
        ({"Authorization": "Bearer {token}"}, HTTPStatus.FORBIDDEN),
        (OURS | {"Authorization": "Bearer {token}"}, HTTPStatus.OK),
        (OURS | {"Authorization": "bearer  {token}"}, HTTPStatus.OK),
    ],
)
@pytest.mark.parametrize("sent_by", ["", "same-origin", "same-site", "cross-site"])
def test_data_is_for_who_has_the_token(
    server: ThreadedHiSockServer, headers: dict[str, str], status: int, sent_by: str
) -> None:
    """And for the dashboard's own page alone: what another one sends is refused."""
    browser = Browser(server)
    own = {key: text.format(token=browser.token) for key, text in headers.items()}
    if sent_by:
        own["Sec-Fetch-Site"] = sent_by
    if sent_by not in ("", "same-origin"):
        status = HTTPStatus.FORBIDDEN

    found, answered, body = browser.ask("/data", headers=own)

    assert found == status
    assert ("clients" in json.loads(body)) is (status == HTTPStatus.OK)
    challenge = "Bearer" if status == HTTPStatus.UNAUTHORIZED else None
    assert answered["WWW-Authenticate"] == challenge


@pytest.mark.parametrize("path", ["/send", "/disconnect", "/nothing"])
def test_nothing_is_done_without_a_token(
    server: ThreadedHiSockServer, ann: HiSockClient, path: str
) -> None:
    """Not even looked at."""
    fields: dict[str, Any] = {"client": 1, "command": "hi", "text": "there"}

    status, _, _ = Browser(server).ask(path, headers=OURS, **fields)

    assert status == HTTPStatus.UNAUTHORIZED
    assert ann.call("double", 2) == 4


def test_the_token_in_the_address_opens_nothing(server: ThreadedHiSockServer) -> None:
    """It would be in logs."""
    browser = Browser(server)
    status, _, _ = browser.ask("/data", headers=OURS, token=browser.token)

    assert status == HTTPStatus.UNAUTHORIZED


def test_another_hosts_name_is_refused(server: ThreadedHiSockServer) -> None:
    """Even with the token: DNS may have been turned by the page that asks."""
    browser = Browser(server)
    headers = OURS | {"Authorization": f"Bearer {browser.token}"}
    status, _, _ = browser.ask("/data", headers=headers | {"Host": "evil.example"})

    assert status == HTTPStatus.FORBIDDEN


@pytest.mark.parametrize("path", ["", "/dashboard.js", "/data", "/nothing"])
def test_t5_every_answer_has_its_policy(
    server: ThreadedHiSockServer, path: str
) -> None:
    """Nothing from elsewhere, no script but ours, in nobody's frame; refusals too."""
    asked: list[dict[str, str] | None] = [None, {}]
    for headers in asked:
        _, answered, _ = Browser(server).ask(path, headers=headers)
        policy = answered["Content-Security-Policy"].split("; ")
        assert set(policy) == {
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self' data:",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        }
        assert answered["X-Content-Type-Options"] == "nosniff"
        assert answered["Referrer-Policy"] == "no-referrer"
        assert answered["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answered["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answered["Access-Control-Allow-Origin"] is None


def test_a_known_page_is_not_sent_again(server: ThreadedHiSockServer) -> None:
    """The policy stays, though."""
    browser = Browser(server)
    _, headers, _ = browser.ask("", headers={})
    status, again, body = browser.ask("", headers={"If-None-Match": headers["ETag"]})

    assert (status, body) == (HTTPStatus.NOT_MODIFIED, b"")
    assert again["Content-Security-Policy"] == headers["Content-Security-Policy"]


class Nothing:
    """A server of which there is nothing to tell."""

    def snapshot(self, search: str, most: int) -> dict[str, Any]:
        """Nothing."""
        return {}

    def client(self, number: int) -> dict[str, Any] | None:
        """Nobody."""
        return None

    def tail(self, client: int, after: int, *, payload: bool) -> dict[str, Any] | None:
        """Nothing."""
        return None

    def send(self, client: int, command: str, content: str) -> None:
        """To nobody."""

    def disconnect(self, client: int, *, reconnect: bool) -> None:
        """Nobody."""


def ask(peer: str, *, is_public: bool, path: str = "/data") -> Response:
    """What an address is answered that has the token."""
    board = Dashboard(Nothing(), "token", is_public=is_public)
    headers = {"authorization": "Bearer token", "x-hisock-dashboard": "1"}
    return board.answer(Head(f"/dashboard{path}", headers), peer)


@pytest.mark.parametrize("path", ["", "/dashboard.js", "/data"])
@pytest.mark.parametrize(
    ("peer", "is_ours"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("unix", True),
        ("192.168.1.7", False),
        ("::1234", False),
        ("::ffff:192.168.1.7", False),
        ("fe80::1%eth0", False),
        ("128.0.0.1", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_only_this_machine_sees_it(peer: str, is_ours: bool, path: str) -> None:
    """Unless it is public; the refusal names the option."""
    assert is_loopback(peer) is is_ours
    for is_public in (False, True):
        response = ask(peer, is_public=is_public, path=path)
        may = is_ours or is_public
        assert response.status is (HTTPStatus.OK if may else HTTPStatus.FORBIDDEN)
        if not may:
            assert b'dashboard=\\"public\\"' in b"".join(response.body)
        for piece in response.body:
            assert piece


@pytest.mark.parametrize(
    ("target", "is_it"),
    [
        ("/dashboard", True),
        ("/dashboard?x=1", True),
        ("/dashboard/", True),
        ("/dashboard/data", True),
        ("/%64ashboard/data", True),
        ("/dashboards", False),
        ("/", False),
        ("/x/dashboard", False),
    ],
)
def test_which_paths_are_its(target: str, is_it: bool) -> None:
    """Those below its own, however they are written."""
    assert is_dashboard(target) is is_it


@pytest.mark.parametrize(
    "fields",
    [
        "client=x&after=0",
        "client=-1&after=0",
        "client=1&after=",
        "client=%D9%A1&after=0",
        "client=" + "1" * 5000,
        "&".join(f"f{number}=1" for number in range(20)),
        "search=%ff",
    ],
)
def test_a_malformed_query_is_refused(fields: str) -> None:
    """With what is wrong, and nothing more."""
    response = ask(HOST, is_public=False, path=f"/data?{fields}")

    assert response.status is HTTPStatus.BAD_REQUEST
    assert set(json.loads(b"".join(response.body))) == {"error"}


# --- the option and the link ---------------------------------------------------------


@pytest.mark.parametrize("wrong", ["yes", 1, None, "Public", ["public"]])
def test_the_option_is_checked(wrong: Any) -> None:
    """``True``, ``False`` or ``"public"``."""
    with pytest.raises(InvalidOption, match="dashboard is True, False"):
        HiSockServer((HOST, 0), dashboard=wrong)


def test_without_http_there_is_none() -> None:
    """A server that speaks no HTTP cannot have one, and says so."""
    with pytest.raises(InvalidOption, match='has to name "websocket"'):
        HiSockServer((HOST, 0), wires=("compact",), dashboard=True)


def test_each_server_makes_its_own_token() -> None:
    """Long enough that nobody guesses it."""
    with (
        HiSockServer((HOST, 0), dashboard=True) as one,
        HiSockServer((HOST, 0), dashboard=True) as other,
    ):
        tokens = {Browser(one).token, Browser(other).token}

    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 43  # 32 bytes


@pytest.mark.parametrize(
    ("listens", "host"),
    [("", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1")],
)
def test_the_link_leads_there_from_this_machine(listens: str, host: str) -> None:
    """Also where the server listens everywhere."""
    with HiSockServer((listens, 0), dashboard="public") as server:
        assert Browser(server).url == f"http://{host}:{server.addr[1]}/dashboard"


def test_a_server_that_listens_nowhere_has_no_link() -> None:
    """Nobody could follow it."""
    with HiSockServer(None, dashboard=True) as server:
        assert server.dashboard_url is None


def test_an_async_server_has_its_link_when_it_listens() -> None:
    """Not before: the port is not known."""
    import asyncio

    async def main() -> None:
        server = start_async_server((HOST, 0), dashboard=True)
        async with server:
            assert f":{server.addr[1]}/dashboard#" in str(server.dashboard_url)

    asyncio.run(main())


def test_the_log_has_the_token_once(caplog: pytest.LogCaptureFixture) -> None:
    """In the line that tells the link, for who reads the log of a start; refusals are
    told without it, and thinned out."""
    with (
        caplog.at_level(logging.DEBUG, "hisock"),
        start_threaded_server((HOST, 0), dashboard=True) as server,
    ):
        browser = Browser(server)
        for _ in range(12):
            browser.ask("/data", headers=OURS | {"Authorization": "Bearer no"})
        data = browser.ask("/data")[2]

    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if browser.token in line] == [
        f"dashboard: {browser.url}#token={browser.token}"
    ]
    refused = [line for line in lines if line.startswith("refused the dashboard")]
    assert [line.rpartition(" ")[2] for line in refused] == ["(1)", "(10)"]
    assert browser.token.encode() not in data


# --- what is shown and done ----------------------------------------------------------


def test_a_client_is_shown(server: ThreadedHiSockServer, ann: HiSockClient) -> None:
    """With all that is to be known of it."""
    ann.send("say", "hello")
    assert ann.call("double", 2) == 4
    data = Browser(server).data()
    (row,) = data["clients"]

    assert row["address"] == "{}:{}".format(*ann.get_client_addr())
    assert set(row) == {
        *("id", "name", "group", "groups", "wire", "address", "connected", "came"),
        *("rate_in", "went", "rate_out", "buffer", "slow", "round_trip", "since"),
    }
    shown = {key: row[key] for key in ("id", "name", "group", "groups", "wire")}
    assert shown == {
        "id": server.client("ann").id,
        "name": "ann",
        "group": "red",
        "groups": ["red"],
        "wire": "compact",
    }
    assert (row["connected"], row["came"], row["slow"]) == (True, 3, False)
    assert data["groups"] == [{"name": "red", "members": 1}]
    assert data["totals"]["clients"] == 1
    assert data["server"]["name"].startswith("ThreadedHiSockServer 127.0.0.1:")
    assert (data["chosen"], data["tail"], data["errors"]) == (None, None, [])


def test_search_finds_names_groups_and_addresses(
    server: ThreadedHiSockServer, ann: HiSockClient
) -> None:
    """Whatever the case; the totals stay, and who was chosen is told of anyway."""
    browser = Browser(server)
    for search, count in (("AN", 1), ("re", 1), (HOST, 1), ("zoe", 0)):
        data = browser.data(search=search, client=server.client("ann").id)
        assert len(data["clients"]) == count
        assert data["totals"]["clients"] == 1
        assert data["chosen"]["name"] == "ann"


def test_errors_are_shown_with_file_and_line(
    server: ThreadedHiSockServer, ann: HiSockClient
) -> None:
    """What a handler raised, what could not be converted, what nobody handles; none
    with what was sent."""
    ann.send("fail", None)
    ann.send("number", "a secret")
    ann.send("nmber", "a secret")
    ann.call("double", 2)
    body = Browser(server).ask("/data")[2]
    rows = json.loads(body)["errors"]

    assert [row["code"] for row in rows] == ["unknown_command", "conversion", "handler"]
    handler, conversion = rows[2], rows[1]
    assert handler["text"] == "ValueError: on purpose"
    assert handler["where"].startswith("test_dashboard.py:")
    assert handler["line"].startswith("test_dashboard.py:")
    assert conversion["text"].endswith("expected int")
    assert "'number'" in rows[0]["text"]
    assert b"secret" not in body


def test_a_tail_shows_commands_and_no_contents(
    server: ThreadedHiSockServer, ann: HiSockClient
) -> None:
    """From when it is first asked for; contents only for who asks for these, too."""
    browser, number = Browser(server), server.client("ann").id
    ann.send("say", "before")
    ann.call("double", 1)
    assert browser.data(client=number, after=0)["tail"]["commands"] == []

    ann.send("say", "a secret")
    ann.call("double", 2)
    body = browser.ask("/data", client=number, after=0)[2]
    tail = json.loads(body)["tail"]
    assert [row["command"] for row in tail["commands"]] == ["say", "double"]
    assert (tail["client"], tail["number"]) == (number, 2)
    assert b"secret" not in body

    asked: dict[str, Any] = {"client": number, "after": 2, "payload": 1}
    assert browser.data(**asked)["tail"]["commands"] == []
    ann.send("say", "told")
    ann.send("say", "x" * 100_000)
    ann.send("say", "y" * 1000)
    ann.call("double", [1, "b"])
    rows = browser.data(**asked)["tail"]["commands"]
    assert [(row["command"], row["payload"]) for row in rows] == [
        ("say", "told"),
        ("say", "(100005 bytes)"),
        ("say", "y" * 200),
        ("double", '[1, "b"]'),
    ]


def test_the_tail_of_nobody_is_nothing(server: ThreadedHiSockServer) -> None:
    """The client has left, or never was."""
    data = Browser(server).data(client=99, after=0)

    assert (data["chosen"], data["tail"]) == (None, None)


def test_a_test_message_arrives(
    server: ThreadedHiSockServer, ann: HiSockClient
) -> None:
    """As text."""
    number = server.client("ann").id
    text = "ä & b=<c>\u202e"
    status, _, body = Browser(server).ask(
        "/send", client=number, command="news", text=text
    )

    assert (status, json.loads(body)) == (HTTPStatus.OK, {"done": True})
    assert ann.recv("news", timeout=5) == text


@pytest.mark.parametrize("command", ["", "$GETCLT$", "x" * 201, "\ud800"])
def test_what_cannot_be_sent_is_said(
    server: ThreadedHiSockServer, ann: HiSockClient, command: str
) -> None:
    """With the reason, as a program would get it."""
    fields: dict[str, Any] = {
        "client": server.client("ann").id,
        "command": command.encode("utf-8", "surrogatepass"),
    }
    status, _, body = Browser(server).ask("/send", **fields)

    assert status == HTTPStatus.BAD_REQUEST
    assert json.loads(body)["error"]


def test_disconnect_ends_a_client(
    server: ThreadedHiSockServer, ann: HiSockClient
) -> None:
    """It leaves, and its program is told."""
    left: list[str] = []
    server.on("leave")(lambda client: left.append(client["name"]))
    ended: list[bool] = []
    ann.on("force_disconnect")(lambda: ended.append(True))
    browser, number = Browser(server), server.client("ann").id
    assert browser.ask("/disconnect", client=number)[0] == HTTPStatus.OK

    browser.eventually(lambda data: left == ["ann"])
    while not ended:
        ann.update()
    assert browser.data(client=number)["chosen"] is None


def test_disconnect_may_only_cut_the_link(server: ThreadedHiSockServer) -> None:
    """Then the client comes back to its session."""
    with connect(server.addr, name="ben") as ben:
        assert ben.call("double", 1) == 2
        back: list[bool] = []
        server.on_resume(lambda client: back.append(True))
        number = server.client("ben").id
        fields: dict[str, Any] = {"client": number, "reconnect": 1}
        assert Browser(server).ask("/disconnect", **fields)[0] == HTTPStatus.OK

        assert ben.call("double", 2) == 4
        assert back == [True]
        assert server.client("ben").id == number


@pytest.mark.parametrize("path", ["/send", "/disconnect"])
def test_who_is_gone_cannot_be_reached(server: ThreadedHiSockServer, path: str) -> None:
    """It is said."""
    status, _, body = Browser(server).ask(path, client=7, command="x", text="")

    assert status == HTTPStatus.NOT_FOUND
    assert json.loads(body) == {"error": "this client is not here any more"}


def test_unknown_paths_are_not_there(server: ThreadedHiSockServer) -> None:
    """Also with the token."""
    assert Browser(server).ask("/nothing")[0] == HTTPStatus.NOT_FOUND


def test_a_slow_client_is_shown_and_so_is_its_end() -> None:
    """Over half of its bound it counts as slow; one that was cut off is remembered."""
    limits = Limits(outbox=100_000)
    with start_threaded_server((HOST, 0), limits=limits, dashboard=True) as server:
        server.on("double")(lambda client, number: number * 2)

        @server.on("flood")
        def flood(client: ClientInfo) -> None:
            """Send more than may ever wait: in a handler a send does not."""
            for _ in range(9):
                client.send("news", b"x" * 99_000)

        with connect(server.addr, name="ann") as ann:
            ann.call("double", 1)
            browser = Browser(server)
            server.send_client("ann", "news", b"x" * 60_000)
            data = browser.data()
            assert [row["name"] for row in data["slow"]] == ["ann"]
            assert data["clients"][0]["slow"]
            assert data["totals"]["bound"] == 100_000

            ann.send("flood", None)
            (cut,) = browser.eventually(lambda data: data["cuts"])["cuts"]
            assert cut["name"] == "ann"
            assert cut["reason"].startswith("slow consumer")


def test_rates_and_round_trips_are_measured(
    server: ThreadedHiSockServer, ann: HiSockClient
) -> None:
    """Once a second, while somebody looks."""
    browser = Browser(server)

    def is_measured(data: dict[str, Any]) -> bool:
        for number in range(5):
            ann.call("double", number)
        (row,) = data["clients"]
        return row["round_trip"] is not None and row["rate_in"] > 0

    data = browser.eventually(is_measured)

    (row,) = data["clients"]
    assert 0 < row["round_trip"] < 5000
    assert row["went"] > 0
    assert data["series"]["in"]
    assert max(data["series"]["out"]) > 0
    assert data["totals"]["in"] == row["rate_in"]


def test_a_client_of_1_1_is_shown(server: ThreadedHiSockServer) -> None:
    """Without what that wire does not tell."""
    import socket

    with socket.create_connection(server.addr, 5) as sock:
        hello = b'$CLTHELLO$ {"name": "old", "group": null}'
        sock.sendall(str(len(hello)).encode().ljust(16) + hello)
        body = b"say\xff hello"
        sock.sendall(str(len(body)).encode().ljust(16) + body)
        browser = Browser(server)
        data = browser.eventually(
            lambda data: data["clients"] and data["clients"][0]["came"]
        )
        (row,) = data["clients"]
        assert (row["wire"], row["came"]) == ("classic", 1)
        assert (row["went"], row["round_trip"]) == (0, None)

        asked: dict[str, Any] = {"client": row["id"], "after": 0, "payload": 1}
        browser.data(**asked)
        sock.sendall(b"10".ljust(16) + b"say \xff<b>!!")
        tail = browser.eventually(lambda data: data["tail"]["number"], **asked)["tail"]
        (came,) = tail["commands"]
        assert (came["command"], came["payload"]) == ("say", "\ufffd<b>!!")


def test_an_error_in_the_source_is_its_own() -> None:
    """What cannot be done is answered with its status."""

    class Busy(Nothing):
        """A server that has enough."""

        def send(self, client: int, command: str, content: str) -> None:
            """Refuse."""
            raise HttpError(HTTPStatus.CONFLICT, "not now")

    board = Dashboard(Busy(), "t", is_public=False)
    headers = {"authorization": "Bearer t", "x-hisock-dashboard": "1"}
    response = board.answer(Head("/dashboard/send?client=1&command=x", headers), HOST)

    assert response.status is HTTPStatus.CONFLICT
    assert json.loads(b"".join(response.body)) == {"error": "not now"}
